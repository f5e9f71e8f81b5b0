//! What strangers get, and how much of it.

use super::*;
use crate::{
    engine::Status,
    server::feed::tests::{feed, status},
};
use axum::http::HeaderMap;

fn ask(public: &Public, method: Method, path: &str, headers: HeaderMap, from: &str, now: Instant) -> Response<Body> {
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, path.parse().unwrap(), headers);
    public.answer(&request, Subnet::of(from.parse().unwrap()), now)
}

fn get(public: &Public, path: &str, from: &str, now: Instant) -> Response<Body> {
    ask(public, Method::GET, path, HeaderMap::new(), from, now)
}

#[test]
fn a_page_is_drawn_once_for_many_and_known_by_its_tag() {
    let folder = tempfile::tempdir().unwrap();
    let feed = Arc::new(feed(folder.path()));
    let (public, now) = (Public::new(feed.clone(), None), Instant::now());
    let first = get(&public, "/", "192.0.2.1", now);
    let header = |answer: &Response<Body>, name| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((first.status(), header(&first, header::CACHE_CONTROL)), (StatusCode::OK, CACHE.into()));
    assert!(CACHE.ends_with(&format!("={}", FRESH.as_secs())));
    assert!(header(&first, header::CONTENT_SECURITY_POLICY).starts_with("default-src 'none'"));
    assert!(!first.headers().contains_key(header::SET_COOKIE));
    let tag = header(&first, header::ETAG);
    let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())]);
    let again = |now| ask(&public, Method::GET, "/", known.clone(), "192.0.2.1", now).status();
    assert_eq!(again(now), StatusCode::NOT_MODIFIED);
    // The run goes on; the page is another once the old one is no longer fresh.
    feed.committed(&[], Status { tokens: 77, ..status(None) });
    assert_eq!(again(now + FRESH / 2), StatusCode::NOT_MODIFIED);
    assert_eq!(again(now + FRESH), StatusCode::OK);
}

#[test]
fn strangers_read_little_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (public, now) = (Public::new(Arc::new(feed(folder.path())), None), Instant::now());
    let status = |method, path| ask(&public, method, path, HeaderMap::new(), "192.0.2.9", now).status();
    for path in ["/", "/run.json", "/public.css", "/icon.svg"] {
        assert_eq!(status(Method::GET, path), StatusCode::OK, "{path}");
    }
    for path in ["/api/status", "/devices", "/events", "/metrics", "/../", "//"] {
        assert_eq!(status(Method::GET, path), StatusCode::NOT_FOUND, "{path}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(status(method, "/"), StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[test]
fn an_address_asks_so_often_and_holds_so_many_connections() {
    let folder = tempfile::tempdir().unwrap();
    let (public, now) = (Arc::new(Public::new(Arc::new(feed(folder.path())), None)), Instant::now());
    let asked = |from: &str, now| get(&public, "/", from, now).status() == StatusCode::OK;
    let taken = (0..1000).filter(|n| asked(&format!("2001:db8:0:1::{n:x}"), now)).count();
    assert_eq!(taken as f64, REQUESTS.burst, "a household is one");
    let refused = get(&public, "/", "2001:db8:0:1::1", now);
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert!(asked("2001:db8:0:2::1", now) && asked("2001:db8:0:1::1", now + Duration::from_secs(1)));
    assert!((0..1000).all(|_| asked("127.0.0.1", now)), "a proxy on this machine counts its own");

    let subnet = Subnet::of("192.0.2.1".parse().unwrap());
    let mut places: Vec<Place> = (0..100).filter_map(|_| public.enter(subnet)).collect();
    assert_eq!(places.len(), CONNECTIONS_PER_ADDRESS_MAX);
    assert!(public.enter(Subnet::of("192.0.2.2".parse().unwrap())).is_some());
    drop(places.pop());
    assert!(public.enter(subnet).is_some());
    drop(places);
    assert!(public.askers().connections.is_empty(), "nothing is kept of those who left");
}

#[test]
fn whoever_wants_to_be_named_is_and_a_name_is_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = page::Seen::of(&feed(folder.path()));
    let page = |seen: &page::Seen| page::page(seen).into_string();
    assert!(!page(&seen).contains("names that they chose"), "nobody is named who does not want it");
    seen.helpers = vec!["Ada".into(), "<b>Zoë".into()];
    assert!(page(&seen).contains("<li><bdi>Ada</bdi></li><li><bdi>&lt;b&gt;Zoë</bdi></li>"), "{}", page(&seen));
    assert!(!page(&seen).contains(" more<"));
    seen.more_helpers = 7;
    assert!(page(&seen).contains("and 7 more"));
}

#[test]
fn what_the_lab_wrote_is_text_and_a_contact_is_a_link_where_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let feed = feed(folder.path());
    let mut seen = page::Seen::of(&feed);
    seen.description = "for <b>all</b>".into();
    let with = |contact: &str| {
        let operator = nightjar_shared::run_spec::OperatorSpec { name: "A & B".into(), contact: contact.into() };
        page::page(&page::Seen { operator: Some(operator), ..seen.clone() }).into_string()
    };
    let page = with("https://lab.example/\"x");
    assert!(page.contains("for &lt;b&gt;all") && page.contains("A &amp; B") && !page.contains("<script"), "{page}");
    assert!(page.contains("href=\"https://lab.example/&quot;x\""), "{page}");
    assert!(with("lab@school.example").contains("href=\"mailto:lab@school.example\""));
    assert!(!with("javascript:alert(1)").contains("href=\"javascript"));
    assert!(!with("ask at the desk").contains("mailto"));
}
