//! The HTTP API for whoever looks after a run, under `/api/v1`. `openapi.json` there describes every route.
//!
//! Who asks shows a token (`Authorization: Bearer nightjar_…`), or the cookie that a token was turned into. A *viewer's*
//! token reads, an *operator's* changes the run too. Tokens are made on the coordinator's computer, by
//! `nightjar-coordinator token create`: whoever has the state folder is trusted.
//!
//! For pages in a browser:
//! - `POST /api/v1/login` with `{"token": "…"}` sets the cookie `nightjar_session` (HttpOnly, SameSite=Strict) and
//!   answers `{"name", "role", "csrf", "ends_unix_ms"}`. Too many wrong tokens from one address: 429 with `Retry-After`.
//! - Every request of that page that is no GET carries the header `X-CSRF-Token: csrf`. Another page cannot read that word.
//! - `GET /api/v1/session` answers the same again, for a page that was loaded anew; 401 where nobody is logged in.
//! - `POST /api/v1/logout` ends the session. All sessions end with the process, and each with its token.
//!
//! Every answer is JSON; one that is not 2xx is `{"error": "a sentence that says what to do"}`. Every call that changes
//! something is written to the audit log in the same transaction.

mod auth;
// `utoipa::path` writes out the full names of the queries that it describes.
#[allow(unused_qualifications)]
mod devices;
mod invites;
mod log;
mod run;
mod series;
mod session;

use crate::{
    server::{context::Context, stream::StreamError},
    store::LedgerError,
};
use auth::{Gate, Scheme};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use session::Sessions;
use std::{sync::Arc, time::Duration};
use utoipa::{OpenApi, ToSchema};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Entries of a page where nobody says how many.
const PAGE: u32 = 50;
/// Entries of a page at most.
const PAGE_MAX: u32 = 500;

/// What all routes work with.
pub(super) struct Admin {
    /// The run's name.
    run: String,
    context: Arc<Context>,
    sessions: Sessions,
    gate: Gate,
    /// Held while weights of a whole model travel.
    weights: tokio::sync::Mutex<()>,
}

/// Each route once: its method, its path, its handler. Router and document come from the same lines.
macro_rules! api {
    ($($method:ident $path:literal => $module:ident :: $handler:ident;)*) => {
        fn routed() -> Router<Arc<Admin>> {
            Router::new()$(.route($path, axum::routing::$method($module::$handler)))*
        }

        /// The API in its own words.
        #[derive(OpenApi)]
        #[openapi(
            info(title = "Nightjar coordinator", description = "Look after a run.", license(name = "MIT OR Apache-2.0")),
            paths($($module::$handler),*),
            modifiers(&Scheme),
            security(("token" = []))
        )]
        struct Document;

        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];
    };
}

api! {
    post "/api/v1/login" => session::login;
    post "/api/v1/logout" => session::logout;
    get "/api/v1/session" => session::session;
    get "/api/v1/devices" => devices::list;
    get "/api/v1/devices/{id}" => devices::show;
    get "/api/v1/devices/{id}/leases" => devices::leases;
    post "/api/v1/devices/{id}/revoke" => devices::revoke;
    post "/api/v1/devices/{id}/hide-name" => devices::hide_name;
    post "/api/v1/devices/{id}/show-name" => devices::show_name;
    get "/api/v1/invites" => invites::list;
    post "/api/v1/invites/create" => invites::create;
    post "/api/v1/invites/{nonce}/revoke" => invites::revoke;
    get "/api/v1/run" => run::show;
    post "/api/v1/run/pause" => run::pause;
    post "/api/v1/run/resume" => run::resume;
    post "/api/v1/run/extend" => run::extend;
    get "/api/v1/model" => series::model;
    put "/api/v1/weights/{hash}" => series::store;
    get "/api/v1/series" => series::show;
    post "/api/v1/series/begin" => series::begin;
    post "/api/v1/series/cut" => series::cut;
    get "/api/v1/series/weights" => series::weights;
    get "/api/v1/audit" => log::list;
}

/// All routes.
pub(super) fn routes(run: String, context: Arc<Context>) -> Router {
    let (sessions, gate, weights) = (Sessions::default(), Gate::default(), tokio::sync::Mutex::default());
    let admin = Admin { run, context, sessions, gate, weights };
    routed()
        .route("/api/v1/openapi.json", get(|| async { Json(Document::openapi()) }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(never_kept))
        .with_state(Arc::new(admin))
}

/// What is told here is for whoever asked, now.
async fn never_kept(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why a call is not carried out.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    Wrong(String),
    #[error(
        "show a token: `Authorization: Bearer …`; `nightjar-coordinator token create` on the coordinator's computer makes one"
    )]
    NoToken,
    #[error("this token is not known here, has ended, or was revoked; ask the run's operator for another")]
    BadToken,
    #[error("too many wrong tokens came from this address; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
    #[error("this needs an operator's token, and this one is a viewer's")]
    ViewerOnly,
    #[error("the header X-CSRF-Token is missing or wrong; load the page again")]
    NoCsrf,
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Conflict(String),
    #[error(
        "the coordinator cannot do this at the moment: it is stopping, or waits for its ledger; nothing was changed, try again"
    )]
    NotNow,
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::Wrong(_) => StatusCode::BAD_REQUEST,
            ApiError::NoToken | ApiError::BadToken => StatusCode::UNAUTHORIZED,
            ApiError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            ApiError::ViewerOnly | ApiError::NoCsrf => StatusCode::FORBIDDEN,
            ApiError::Missing(_) => StatusCode::NOT_FOUND,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::NotNow => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<StreamError> for ApiError {
    fn from(_: StreamError) -> Self {
        ApiError::NotNow
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        tracing::warn!(%error, "an operator's call met the ledger");
        if error.may_pass() { ApiError::NotNow } else { ApiError::Internal(error.to_string()) }
    }
}

/// An answer that is not 2xx.
#[derive(Serialize, ToSchema)]
struct Fault {
    /// What is wrong, and what to do.
    error: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(Fault { error: self.to_string() })).into_response();
        if let ApiError::TooMany(wait) = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response
    }
}

/// Which page of a list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct Paging {
    /// Entries at most, 1 to 500; 50 where it is left out.
    limit: Option<u32>,
    /// The `next` of the page before.
    from: Option<String>,
}

impl Paging {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }

    fn number(&self) -> Result<Option<u64>, ApiError> {
        let wrong = |_| ApiError::Wrong("`from` is the `next` of the page before, unchanged".into());
        self.from.as_deref().map(str::parse).transpose().map_err(wrong)
    }
}

/// The query, read; a wrong one is told as everything else is.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(query)| Asked(query)).map_err(|error| ApiError::Wrong(error.body_text()))
    }
}

/// The body, read.
struct Sent<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Json::from_request(request, state).await;
        body.map(|Json(body)| Sent(body)).map_err(|error| ApiError::Wrong(error.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        for (method, path) in ROUTES {
            let told = &document["paths"][path][method];
            assert!(told["responses"].is_object(), "{method} {path} is not in the document");
            assert!(told["summary"].is_string(), "{method} {path} says nothing of itself");
        }
        let told = document["paths"].as_object().unwrap().len();
        let paths: std::collections::BTreeSet<&str> = ROUTES.iter().map(|(_, path)| *path).collect();
        assert_eq!(told, paths.len());
        assert!(document["components"]["securitySchemes"]["token"].is_object());
    }
}
