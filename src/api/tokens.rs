//! Tokens: made, listed and revoked, by administrators of the whole daemon. The text of a token is in the
//! answer that makes it and nowhere else.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cursor::{Kind, limit, page};
use super::extract::{Fields, Params, duration_ms, text, word};
use super::wire::Data;
use super::{Answer, ApiError, App, Caller, FieldError, Listed, Page, ROWS_DEFAULT, ROWS_MAX, data, events};
use crate::engine::tokens::{NAME_MAX, TOKENS_MAX};
use crate::engine::{NewToken, TokenError};
use crate::ids::AgentGlob;
use crate::model::TokenScope;
use crate::store::TokenRow;
use crate::time::rfc3339_ms;

/// Longest life of a token that ends, ms.
const EXPIRES_MAX_MS: i64 = 100 * 366 * 86_400_000;

/// A token; its text only in the answer that makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Token)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// The part of its text that is no secret.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its text, shown this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The `userId` of what it triggers.
    pub user: String,
    /// `read`, `trigger` or `admin`.
    pub scope: String,
    /// The pattern of the agents that exist for its holder; null: all.
    pub agents: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Who made it.
    pub created_by: String,
    /// Until when it is good; null: until it is revoked.
    pub expires_at: Option<String>,
    /// When it was used last; null: never.
    pub last_used_at: Option<String>,
}

impl From<TokenRow> for TokenView {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            token: None,
            user: row.user,
            scope: row.scope.to_string(),
            agents: row.agents.map(|glob| glob.to_string()),
            created_at: rfc3339_ms(row.created_at_ms),
            created_by: row.created_by,
            expires_at: row.expires_at_ms.map(rfc3339_ms),
            last_used_at: row.last_used_ms.map(rfc3339_ms),
        }
    }
}

/// Filters of the list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Rows of a page; 50 where none are asked for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

/// What a token is to be.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read field by field")]
#[schema(as = NewToken)]
pub struct CreateToken {
    /// What people call it.
    #[schema(min_length = 1, max_length = 100, example = "ci")]
    name: String,
    /// The `userId` of what it triggers; by default the name.
    #[schema(min_length = 1, max_length = 100, example = "ann")]
    user: Option<String>,
    /// What its holder may do.
    scope: Option<TokenScope>,
    /// The agents that exist for its holder: an id, with `*` for any text and `?` for any character; by default
    /// all.
    #[schema(pattern = "^[a-z0-9*?-]{1,63}$", example = "shop-*")]
    agents: Option<String>,
    /// Until when it is good: a duration such as `30d`, or a time; by default until it is revoked.
    #[schema(example = "30d")]
    expires: Option<String>,
}

/// Every token, by name.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    operation_id = "list_tokens",
    tag = "tokens",
    params(Query),
    responses(
        (status = 200, description = "The tokens, by name, without their texts", body = Page<TokenView>)
    )
)]
pub async fn list(State(app): State<App>, Params(query): Params<Query>) -> Listed<TokenView> {
    let limit = limit(query.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let after = query.next_token.map(|t| Kind::Tokens.decode(&t)).transpose()?;
    let mut rows = app.core.tokens.all();
    rows.retain(|row| after.as_ref().is_none_or(|after| row.name > *after));
    rows.truncate(limit + 1);
    Ok(Json(page(rows, limit, |row| Kind::Tokens.encode(&row.name), Into::into)))
}

/// Makes a token.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    operation_id = "create_token",
    tag = "tokens",
    request_body = CreateToken,
    responses(
        (status = 201, description = "The token, with its text", body = Data<TokenView>),
        (status = 409, description = "There is one of this name, or as many as there may be")
    )
)]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    mut body: Fields,
) -> Result<(StatusCode, Json<Data<TokenView>>), ApiError> {
    let now_ms = app.core.clock.now_ms();
    let (name, user) = (body.take("name", label), body.take("user", label));
    let scope = body.take("scope", |v| word(v, TokenScope::ALL)).unwrap_or(TokenScope::Trigger);
    let agents = body.take("agents", glob);
    let expires_at_ms = body.take("expires", |v| until(v, now_ms));
    body.finish()?;
    let missing = || FieldError {
        pointer: "/name".to_owned(),
        message: "it is missing; say what people call the token".to_owned(),
    };
    let name = name.ok_or_else(|| ApiError::fields(vec![missing()]))?;
    let user = user.unwrap_or_else(|| name.clone());
    let new = NewToken { name, user, scope, agents, expires_at_ms, by: caller.who() };
    let (row, token) = app.core.create_token(new).await?;
    Ok((StatusCode::CREATED, data(TokenView { token: Some(token), ..row.into() })))
}

/// Takes a token back, by its name or its id.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    operation_id = "revoke_token",
    tag = "tokens",
    responses(
        (status = 200, description = "What it was; it is refused from now on", body = Data<TokenView>)
    )
)]
pub async fn revoke(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Answer<TokenView> {
    let row = app.core.revoke_token(&name, &caller.name).await?;
    Ok(data(row.ok_or_else(|| ApiError::unknown_token(&name))?.into()))
}

fn label(value: Value) -> Result<String, String> {
    let label = text(value)?;
    if label.trim().is_empty() || label.len() > NAME_MAX || label.chars().any(char::is_control) {
        return Err(format!("it is empty, longer than {NAME_MAX} bytes, or more than one line"));
    }
    Ok(label)
}

fn glob(value: Value) -> Result<AgentGlob, String> {
    text(value)?.parse().map_err(|e: crate::ids::InvalidGlob| e.to_string())
}

/// A duration from now on, or a time.
fn until(value: Value, now_ms: i64) -> Result<i64, String> {
    let at_ms = match duration_ms(value.clone()) {
        Ok(ms) => now_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)),
        Err(why) => {
            let written = text(value)?;
            let wrong = format!(
                "{written:?} is neither a duration such as 30d ({why}) nor a time such as 2027-01-01T00:00:00Z"
            );
            events::time("expires", &written).map_err(|_| wrong)?
        }
    };
    let coming = now_ms + 1..=now_ms.saturating_add(EXPIRES_MAX_MS);
    if coming.contains(&at_ms) {
        Ok(at_ms)
    } else {
        Err("it is over already, or later than in 100 years".to_owned())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Exists(name) => Self::token_exists(&name),
            TokenError::Full => Self::tokens_full(TOKENS_MAX),
            TokenError::Store(e) => e.into(),
        }
    }
}
