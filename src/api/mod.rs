//! stub
/// x
pub fn router(_: std::sync::Arc<crate::engine::Core>) -> axum::Router {
    axum::Router::new()
}
