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
        let origin = text(headers, header::ORIGIN);
        self.is_host_of(headers)
            && origin.is_none_or(|origin| origin == self.origin)
            && text(headers, header::AUTHORIZATION).is_some_and(|shown| bearer_hash(shown) == self.bearer)
    }

    /// The page itself asks: other pages, and whatever else a browser runs, name another origin.
    fn admits_page(&self, headers: &HeaderMap) -> bool {
        self.is_host_of(headers) && text(headers, header::ORIGIN) == Some(&self.origin)
    }

    fn is_host_of(&self, headers: &HeaderMap) -> bool {
        text(headers, header::HOST) == Some(&self.host)
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or(""))
}

/// Hashes are compared rather than tokens: in constant time, and without the token's length showing.
fn bearer_hash(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

/// Lets the owner in.
pub(super) async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if gate.admits(request.headers()) { next.run(request).await } else { refused() }
}

/// Lets whoever names this host see the page: it holds nothing, but a name that was rebound to loopback must not have
/// it.
pub(super) async fn check_host(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if gate.is_host_of(request.headers()) { next.run(request).await } else { refused() }
}

/// Lets the page in that has no token yet.
pub(super) async fn check_page(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if gate.admits_page(request.headers()) { next.run(request).await } else { refused() }
}

fn refused() -> Response {
    (StatusCode::FORBIDDEN, "this request is not the owner's").into_response()
}
