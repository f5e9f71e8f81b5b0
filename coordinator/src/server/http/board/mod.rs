//! The lab's dashboard: HTML made here, with one stylesheet and two scripts that come from this program too. Nothing is
//! asked of any other server, and nothing is inline, so that the policy can forbid both. What devices call themselves is
//! escaped by the templates, like every other text.

pub mod devices;
mod figures;
mod page;
mod qr;

use super::{Page, status::page_of};
use crate::server::{clock::wall_now, feed::Feed, rates::Bite};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use devices::Asked;
use futures_util::stream::{self, Stream};
use maud::Markup;
use nightjar_shared::ids::{DeviceId, LeaseId};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// How often a page hears of new figures.
const NEWS_EVERY: Duration = Duration::from_secs(1);
/// Pages that hear of them at once.
const LISTENERS_MAX: usize = 64;
/// How long a limit that turned somebody away is shown.
const BITES_SHOWN: Duration = Duration::from_secs(3600);
/// Longest text that is drawn as a QR code.
const QR_BYTES_MAX: usize = 4 << 10;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The dashboard's routes.
pub(super) fn routes() -> Router<Arc<Page>> {
    let listeners = Arc::new(Semaphore::new(LISTENERS_MAX));
    let script = "text/javascript; charset=utf-8";
    Router::new()
        .route("/", get(run))
        .route("/devices", get(table))
        .route("/devices/{id}", get(device))
        .route("/devices/{id}/about", get(about))
        .route("/events", get(move |state| events(state, listeners.clone())))
        .route("/qr", post(code).layer(DefaultBodyLimit::max(QR_BYTES_MAX)))
        .route("/assets/board.css", get(|| asset("text/css; charset=utf-8", include_str!("board.css"))))
        .route("/assets/board.js", get(move || asset(script, include_str!("board.js"))))
        .route("/assets/chart.js", get(move || asset(script, include_str!("chart.js"))))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", include_str!("mark.svg"))))
        .layer(middleware::map_response(guarded))
}

/// The headers of whatever comes from here.
async fn guarded(mut response: Response) -> Response {
    let fixed: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text)
}

fn html(markup: Markup) -> Response {
    Html(markup.into_string()).into_response()
}

async fn run(State(page): State<Arc<Page>>, Query(asked): Query<Asked>) -> Result<Response, StatusCode> {
    let (feed, wanted) = (&page.feed, asked.wanted());
    let found = page_of(feed, wanted.clone()).await?;
    Ok(html(page::run(feed, &wanted, &found, &bites(&page))))
}

async fn table(State(page): State<Arc<Page>>, Query(asked): Query<Asked>) -> Result<Response, StatusCode> {
    let (feed, wanted) = (&page.feed, asked.wanted());
    let found = page_of(feed, wanted.clone()).await?;
    Ok(html(devices::table(&wanted, &found, feed.figures().version)))
}

/// The limits that turned devices away of late.
fn bites(page: &Page) -> Vec<Bite> {
    page.context.rates.bites(BITES_SHOWN, Instant::now())
}

#[derive(Deserialize)]
struct Before {
    before: Option<u64>,
}

fn no_such_device(feed: &Feed) -> Response {
    (StatusCode::NOT_FOUND, html(page::nothing(feed, "This run has no device of that id."))).into_response()
}

async fn device(
    State(page): State<Arc<Page>>,
    Path(id): Path<String>,
    Query(Before { before }): Query<Before>,
) -> Response {
    let feed = &page.feed;
    let Some(row) = DeviceId::from_str(&id).ok().and_then(|id| feed.devices.get(id)) else {
        return no_such_device(feed);
    };
    let before = LeaseId(before.unwrap_or(u64::MAX));
    match feed.ledger.leases_of(row.record.id, before, devices::LEASES as u32).await {
        Ok(mut leases) => {
            // The one at hand is shown by itself.
            leases.retain(|lease| lease.closed.is_some());
            html(page::device(feed, &row, &leases, wall_now().unix_ms))
        }
        Err(error) => {
            tracing::warn!(%error, "a device's leases could not be read");
            let words = "The ledger cannot be read at the moment. Try again in a while.";
            (StatusCode::SERVICE_UNAVAILABLE, html(page::nothing(feed, words))).into_response()
        }
    }
}

async fn about(State(page): State<Arc<Page>>, Path(id): Path<String>) -> Response {
    let feed = &page.feed;
    match DeviceId::from_str(&id).ok().and_then(|id| feed.devices.get(id)) {
        Some(row) => html(devices::about(&row, wall_now().unix_ms)),
        None => no_such_device(feed),
    }
}

async fn code(text: Bytes) -> Response {
    match std::str::from_utf8(&text).ok().and_then(qr::svg) {
        Some(svg) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        None => (StatusCode::BAD_REQUEST, "this text is too long for a QR code, or is no text\n").into_response(),
    }
}

/// What a page that is open is told.
#[derive(PartialEq, Serialize)]
struct News {
    state: &'static str,
    /// Whether an operator has paused the run.
    paused: bool,
    /// Differs once curves have other points.
    curves: String,
    /// New contents, by the element's id.
    html: BTreeMap<&'static str, String>,
}

impl News {
    fn of(page: &Page) -> Self {
        let feed = &page.feed;
        let now = feed.figures();
        let (versions, loss) = (feed.newest_versions(), feed.newest_loss());
        let parts = [
            ("sky", figures::sky(&now)),
            ("limits", figures::limits(&bites(page))),
            ("figures", figures::figures(&now)),
            ("states", figures::states(&now)),
            ("ends", figures::ends(&now)),
            ("versions", figures::versions(&versions)),
        ];
        News {
            state: figures::state(&now),
            paused: now.paused_unix_ms.is_some(),
            curves: format!("{:?} {:?}", now.version, loss.map(|loss| loss.wall)),
            html: parts.map(|(id, markup)| (id, markup.into_string())).into(),
        }
    }
}

/// A listener: what it was told last, and its place among the listeners.
struct Listener {
    page: Arc<Page>,
    told: Option<News>,
    _place: OwnedSemaphorePermit,
}

async fn events(State(page): State<Arc<Page>>, listeners: Arc<Semaphore>) -> Response {
    let Ok(place) = listeners.try_acquire_owned() else {
        let words = "many pages are open already; close some, or ask for /api/status\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], words).into_response();
    };
    Sse::new(news(Listener { page, told: None, _place: place })).keep_alive(KeepAlive::default()).into_response()
}

/// Tells whenever something has changed, once a second at most.
fn news(listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(listener, |mut listener| async move {
        loop {
            if listener.told.is_some() {
                sleep(NEWS_EVERY).await;
            }
            let news = News::of(&listener.page);
            if listener.told.as_ref() == Some(&news) {
                continue;
            }
            let event = Event::default().event("figures").json_data(&news).unwrap_or_default();
            listener.told = Some(news);
            return Some((Ok(event), listener));
        }
    })
}
