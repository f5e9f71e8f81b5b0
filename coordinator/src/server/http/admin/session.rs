//! Sessions of pages: a token is turned into a cookie that no script can read, and a word that no other page knows.

use super::{
    Admin, ApiError, Fault, Sent,
    auth::{COOKIE, Caller, From, Viewer},
};
use crate::{
    server::{clock::wall_now, token},
    store::Access,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{AppendHeaders, IntoResponse},
};
use nightjar_shared::time::Wall;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use utoipa::ToSchema;

/// A session ends after so long.
const LASTS_MS: u64 = 12 * 3600 * 1000;
/// Sessions at once; beyond, the one that ends first makes room.
const SESSIONS_MAX: usize = 256;

struct Session {
    token: [u8; 32],
    csrf: String,
    ends: Wall,
}

/// The sessions of this process, by the hash of their cookies.
#[derive(Default)]
pub(super) struct Sessions {
    sessions: Mutex<HashMap<[u8; 32], Session>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        // A map is whole after any panic.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of the token and the word that belong to a cookie.
    pub fn get(&self, cookie: &str, now: Wall) -> Option<([u8; 32], String)> {
        let sessions = self.lock();
        let session = sessions.get(&token::hash(cookie)).filter(|session| now < session.ends)?;
        Some((session.token, session.csrf.clone()))
    }

    fn ends(&self, cookie: &str) -> Option<Wall> {
        self.lock().get(&token::hash(cookie)).map(|session| session.ends)
    }

    fn begin(&self, cookie: &str, token: [u8; 32], csrf: &str, now: Wall) {
        let mut sessions = self.lock();
        sessions.retain(|_, session| now < session.ends);
        if sessions.len() >= SESSIONS_MAX {
            let first = sessions.iter().min_by_key(|(_, session)| session.ends).map(|(key, _)| *key);
            first.map(|key| sessions.remove(&key));
        }
        let ends = Wall { unix_ms: now.unix_ms + LASTS_MS };
        sessions.insert(token::hash(cookie), Session { token, csrf: csrf.to_owned(), ends });
    }

    fn end(&self, cookie: &str) {
        self.lock().remove(&token::hash(cookie));
    }
}

/// A token, to be turned into a session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// As `token create` printed it.
    token: String,
}

/// Who is logged in.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionAnswer {
    /// The token's name.
    name: String,
    /// What it may do.
    role: Access,
    /// What requests that change something carry as `X-CSRF-Token`; null where a token is shown with each request.
    csrf: Option<String>,
    /// When the session ends by itself, in milliseconds since 1970; null likewise.
    ends_unix_ms: Option<u64>,
}

fn told(admin: &Admin, caller: &Caller) -> SessionAnswer {
    let cookie = caller.session.as_deref();
    SessionAnswer {
        name: caller.token.name.clone(),
        role: caller.token.role,
        csrf: cookie.and_then(|cookie| Some(admin.sessions.get(cookie, wall_now())?.1)),
        ends_unix_ms: cookie.and_then(|cookie| Some(admin.sessions.ends(cookie)?.unix_ms)),
    }
}

/// The cookie's line: no script reads it, no other site's page sends it.
fn set_cookie(headers: &HeaderMap, value: &str, seconds: u64) -> AppendHeaders<[(header::HeaderName, String); 1]> {
    // Behind a proxy that speaks TLS it never travels without.
    let is_secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if is_secure { "; Secure" } else { "" };
    let line = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    AppendHeaders([(header::SET_COOKIE, line)])
}

/// Turn a token into a session of a page
#[utoipa::path(
    post,
    path = "/api/v1/login",
    request_body = Login,
    responses(
        (status = 200, description = "The session; its cookie is set.", body = SessionAnswer),
        (status = 401, description = "No good token.", body = Fault),
        (status = 429, description = "Too many wrong ones.", body = Fault)
    ),
    security(())
)]
pub(super) async fn login(
    State(admin): State<Arc<Admin>>,
    From(from): From,
    headers: HeaderMap,
    Sent(Login { token }): Sent<Login>,
) -> Result<impl IntoResponse, ApiError> {
    let token = admin.token(token.trim(), from).await?;
    let failed = |error: token::NoRandomness| ApiError::Internal(error.to_string());
    let (cookie, csrf) = (token::draw().map_err(failed)?, token::draw().map_err(failed)?);
    let caller = Caller { token, from, session: Some(cookie.clone()) };
    admin.context.ledger.note(&[caller.did("login", "", "logged in")]).await?;
    admin.sessions.begin(&cookie, caller.token.hash, &csrf, wall_now());
    Ok((set_cookie(&headers, &cookie, LASTS_MS / 1000), Json(told(&admin, &caller))))
}

/// End the session
#[utoipa::path(
    post,
    path = "/api/v1/logout",
    responses((status = 200, description = "It has ended.", body = SessionAnswer))
)]
pub(super) async fn logout(
    State(admin): State<Arc<Admin>>,
    Viewer(caller): Viewer,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    if let Some(cookie) = &caller.session {
        admin.context.ledger.note(&[caller.did("logout", "", "logged out")]).await?;
        admin.sessions.end(cookie);
    }
    Ok((set_cookie(&headers, "", 0), Json(told(&admin, &caller))))
}

/// Say who is logged in
#[utoipa::path(
    get,
    path = "/api/v1/session",
    responses(
        (status = 200, description = "Who shows this token or cookie.", body = SessionAnswer),
        (status = 401, description = "Nobody.", body = Fault)
    )
)]
pub(super) async fn session(State(admin): State<Arc<Admin>>, Viewer(caller): Viewer) -> Json<SessionAnswer> {
    Json(told(&admin, &caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_and_their_number_is_bounded() {
        let (sessions, at) = (Sessions::default(), |unix_ms| Wall { unix_ms });
        sessions.begin("a", [1; 32], "word", at(0));
        assert_eq!(sessions.get("a", at(LASTS_MS - 1)), Some(([1; 32], "word".to_owned())));
        assert_eq!((sessions.get("a", at(LASTS_MS)), sessions.get("b", at(1))), (None, None));
        for n in 1..=SESSIONS_MAX as u64 {
            sessions.begin(&n.to_string(), [2; 32], "word", at(n));
        }
        assert_eq!(sessions.get("a", at(300)), None, "the one that ends first made room");
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
        sessions.end("7");
        assert_eq!(sessions.get("7", at(300)), None);
        sessions.begin("late", [3; 32], "word", at(2 * LASTS_MS));
        assert_eq!(sessions.lock().len(), 1, "those that have ended are forgotten");
    }
}
