//! What the tests stand on: a home directory with definitions, an in-process daemon with a clock
//! that is moved by hand, the built binary as a black box, a webhook receiver, a server of models, and waiting on state.

pub mod binary;
pub mod chronos;
pub mod contract;
pub mod daemon;
pub mod home;
pub mod http;
pub mod model_server;
pub mod receiver;
pub mod site;
pub mod strace;
pub mod tool_server;
pub mod wait;
pub mod witness;

pub use binary::Binary;
pub use daemon::TestDaemon;
pub use home::Home;
pub use http::{Answer, Http};
pub use model_server::{ModelServer, Reply};
pub use receiver::TestReceiver;
pub use site::Site;
pub use wait::eventually_sync;
