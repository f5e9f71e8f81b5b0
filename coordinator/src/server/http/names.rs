//! Which names the HTTP server answers to.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, sync::Arc};

/// The names that the page answers to. A page elsewhere can have its own name lead here (DNS rebinding) and then read
/// what is meant for whoever runs the coordinator; an address and `localhost` lead nobody astray.
#[derive(Clone, Default)]
pub struct Names(Arc<[String]>);

impl Names {
    /// These besides.
    pub fn new(names: Vec<String>) -> Self {
        Names(names.into())
    }

    fn has(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let Some(host) = host.as_ref().map(|authority| authority.host().trim_end_matches('.')) else { return false };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        literal.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host))
    }
}

/// Refuses what was meant for another name.
pub(super) async fn check_name(State(names): State<Names>, request: Request, next: Next) -> Response {
    if names.has(request.headers()) {
        return next.run(request).await;
    }
    let words =
        "this page answers to this computer's addresses and to `localhost`; `serve --http-name NAME` adds a name\n";
    (StatusCode::MISDIRECTED_REQUEST, words).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_answers_to_addresses_and_to_the_names_that_it_was_given() {
        let names = Names::new(vec!["Lab.example".into()]);
        let has = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            names.has(&headers)
        };
        for own in [
            "127.0.0.1:8433",
            "127.0.0.1",
            "[::1]:8433",
            "[::1]",
            "192.0.2.7:80",
            "localhost:8433",
            "LOCALHOST",
            "localhost.:1",
            "lab.example:8433",
            "LAB.EXAMPLE.",
        ] {
            assert!(has(own), "{own}");
        }
        for other in [
            "evil.example:8433",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.lab.example",
            "lab.example.evil",
            "",
            "[evil.example]",
            "127.0.0.1@evil.example",
            "evil.example#127.0.0.1",
            "localhost evil",
        ] {
            assert!(!has(other), "{other}");
        }
        assert!(!names.has(&HeaderMap::new()), "a request without a name");
    }
}
