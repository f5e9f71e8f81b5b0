//! The owner's page, as the agent serves it: plain HTML, CSS and JavaScript that are part of the binary. The files hold
//! nothing of the owner's, so they need no token; what they show comes from the control API, which does.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// The page may load and ask what comes from this agent, and nothing else from anywhere; no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const INDEX: Asset = Asset { name: "index.html", kind: "text/html; charset=utf-8", text: include_str!("index.html") };
const ASSETS: [Asset; 11] = [
    Asset { name: "app.js", kind: SCRIPT, text: include_str!("app.js") },
    Asset { name: "api.js", kind: SCRIPT, text: include_str!("api.js") },
    Asset { name: "cards.js", kind: SCRIPT, text: include_str!("cards.js") },
    Asset { name: "day.js", kind: SCRIPT, text: include_str!("day.js") },
    Asset { name: "hours.js", kind: SCRIPT, text: include_str!("hours.js") },
    Asset { name: "join.js", kind: SCRIPT, text: include_str!("join.js") },
    Asset { name: "preferences.js", kind: SCRIPT, text: include_str!("preferences.js") },
    Asset { name: "words.js", kind: SCRIPT, text: include_str!("words.js") },
    Asset { name: "style.css", kind: STYLE, text: include_str!("style.css") },
    Asset { name: "preferences.css", kind: STYLE, text: include_str!("preferences.css") },
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("icon.svg") },
];

/// `GET /` and `GET /assets/*`. Who serves them still checks the request's host.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(|headers: HeaderMap| async move { INDEX.answer(&headers) })).route(
        "/assets/{name}",
        get(|Path(name): Path<String>, headers: HeaderMap| async move { asset(&name, &headers) }),
    )
}

fn asset(name: &str, headers: &HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => asset.answer(headers),
        None => (StatusCode::NOT_FOUND, "the page has no such file").into_response(),
    }
}

impl Asset {
    /// The file, or word that the browser's copy is still good: it asks each time, so that no page outlives its agent's
    /// version.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = format!("\"{}\"", &blake3::hash(self.text.as_bytes()).to_hex()[..16]);
        let fixed: [(HeaderName, &str); 6] = [
            (header::CONTENT_TYPE, self.kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, &tag),
        ];
        if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, fixed).into_response();
        }
        (fixed, self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn answered(name: &str, known: Option<&str>) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(known) = known {
            headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
        }
        if name.is_empty() { INDEX.answer(&headers) } else { asset(name, &headers) }
    }

    #[test]
    fn every_file_goes_out_under_the_policy_and_is_sent_once() {
        for name in ASSETS.iter().map(|asset| asset.name).chain([""]) {
            let response = answered(name, None);
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
            assert_eq!(answered(name, Some(&tag)).status(), StatusCode::NOT_MODIFIED, "{name}");
        }
        assert_eq!(answered("../mod.rs", None).status(), StatusCode::NOT_FOUND);
    }

    /// What the files name is there, and what is there is named; nothing is fetched from elsewhere, and nothing is
    /// inline that the policy would refuse.
    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let mut named = BTreeSet::new();
        for asset in ASSETS.iter().chain([&INDEX]) {
            for quote in ["\"/assets/", "'./"] {
                let after = asset.text.split(quote).skip(1).filter_map(|rest| rest.split(['"', '\'']).next());
                named.extend(after.map(str::to_owned));
            }
            for outside in ["://", "src=\"//", "@import", "url(h"] {
                // The one address that is a name and never fetched.
                let text = asset.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(outside), "{} holds {outside}", asset.name);
            }
        }
        assert_eq!(named, ASSETS.iter().map(|asset| asset.name.to_owned()).collect());
        for inline in ["<style", "style=\"", "onclick=\"", "<script>", "javascript:"] {
            assert!(!INDEX.text.contains(inline), "the page holds {inline}");
        }
    }
}
