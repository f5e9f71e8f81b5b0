//! Who is let in to the control API: who bears the token, names this host, and is no web page from elsewhere. The token
//! keeps other users out; host and origin keep out pages in the owner's own browser.

use super::ControlFile;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// What a request must show.
#[derive(Clone)]
pub(super) struct Gate {
    bearer: blake3::Hash,
    host: String,
    origin: String,
}

impl Gate {
    pub(super) fn new(file: &ControlFile) -> Self {
        let host = file.address.to_string();
        Gate { bearer: bearer_hash(&format!("Bearer {}", file.token)), origin: format!("http://{host}"), host }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).map(|v| v.to_str().unwrap_or(""));
        text(header::HOST) == Some(&self.host)
            && text(header::ORIGIN).is_none_or(|origin| origin == self.origin)
            && text(header::AUTHORIZATION).is_some_and(|shown| bearer_hash(shown) == self.bearer)
    }
}

/// Hashes are compared rather than tokens: in constant time, and without the token's length showing.
fn bearer_hash(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

pub(super) async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if gate.admits(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this request is not the owner's").into_response()
    }
}
