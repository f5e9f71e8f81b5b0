//! The public page of a run: what it trains and for whom, how far it is, and how to join. It is off unless `serve
//! --public` names an address for it. Whoever asks is a stranger: connections are few, short and bounded by address,
//! heads are small, there is no cookie and no script, and every answer is one that was drawn before.

mod join;
mod page;

pub use join::{Join, JoinError, PageFiles};

use super::{
    bucket::{Buckets, Rate},
    feed::Feed,
    subnet::Subnet,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 512;
/// Connections at once from one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 16;
/// Longest time for a request's head.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// Longest life of a connection, whatever it does.
const CONNECTION_MAX: Duration = Duration::from_secs(30);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Requests from one address.
const REQUESTS: Rate = Rate::new(60, 2.0);
/// Addresses whose requests are counted.
const ADDRESSES_MAX: usize = 16 << 10;
/// For how long a page is taken for new, here and in every cache on the way.
const FRESH: Duration = Duration::from_secs(15);
/// After a socket had no room for another connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// An address that the public page cannot listen on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (TCP) for the public page: {error}; choose another address with --public")]
pub struct PublicError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub error: io::Error,
}

/// Opens the socket.
pub fn listen(address: SocketAddr) -> Result<TcpListener, PublicError> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|error| PublicError { address, error })
}

/// What is answered, once drawn.
#[derive(Clone)]
struct Drawn {
    at: Instant,
    page: Bytes,
    json: Bytes,
}

/// What is counted of whoever asks.
struct Askers {
    requests: Buckets<Subnet>,
    connections: HashMap<Subnet, usize>,
}

struct Public {
    feed: Arc<Feed>,
    /// The page for browsers, where there is one.
    join: Option<Join>,
    drawn: Mutex<Option<Drawn>>,
    askers: Mutex<Askers>,
}

/// A connection's place among those from its address.
struct Place {
    public: Arc<Public>,
    subnet: Subnet,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut askers = self.public.askers();
        if let Some(count) = askers.connections.get_mut(&self.subnet) {
            *count -= 1;
            if *count == 0 {
                askers.connections.remove(&self.subnet);
            }
        }
    }
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, feed: Arc<Feed>, join: Option<Join>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (public, places) = (Arc::new(Public::new(feed, join)), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        // Those who wait here wait in the system's queue, which is bounded too.
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let Ok((stream, from)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let subnet = Subnet::of(from.ip());
        let Some(own) = public.enter(subnet) else { continue };
        tokio::spawn(async move {
            connection(stream, &own).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, place: &Place) {
    let answer = |request: Request<hyper::body::Incoming>| {
        let answer = place.public.answer(&request, place.subnet, Instant::now());
        async move { Ok::<_, Infallible>(answer) }
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service_fn(answer));
    // A stranger who is too slow, or speaks something else, is no news.
    let _ = timeout(CONNECTION_MAX, connection).await;
}

impl Public {
    fn new(feed: Arc<Feed>, join: Option<Join>) -> Self {
        let askers = Askers { requests: Buckets::new(REQUESTS, ADDRESSES_MAX), connections: HashMap::new() };
        Public { feed, join, drawn: Mutex::default(), askers: Mutex::new(askers) }
    }

    fn askers(&self) -> MutexGuard<'_, Askers> {
        // Counts are whole after any panic.
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from there; `None` where there are many already. A proxy on this machine counts its
    /// own.
    fn enter(self: &Arc<Self>, subnet: Subnet) -> Option<Place> {
        let mut askers = self.askers();
        let count = askers.connections.entry(subnet).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX && !subnet.is_this_machine() {
            return None;
        }
        *count += 1;
        Some(Place { public: self.clone(), subnet })
    }

    /// The page as it was drawn a moment ago, or as it is drawn now.
    fn drawn(&self, now: Instant) -> Drawn {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        match &*drawn {
            Some(drawn) if now.saturating_duration_since(drawn.at) < FRESH => drawn.clone(),
            _ => {
                let seen = page::Seen::of(&self.feed);
                let json = serde_json::to_vec(&seen).unwrap_or_default().into();
                drawn.insert(Drawn { at: now, page: page::page(&seen).into_string().into(), json }).clone()
            }
        }
    }

    fn answer<B>(&self, request: &Request<B>, subnet: Subnet, now: Instant) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "this page is read only\n");
        }
        let waits = if subnet.is_this_machine() { Ok(()) } else { self.askers().requests.take(subnet, 1.0, now) };
        if let Err(wait) = waits {
            let mut answer = plain(StatusCode::TOO_MANY_REQUESTS, "many requests came from this address; ask later\n");
            answer.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
            return answer;
        }
        let path = request.uri().path();
        if let Some((join, name)) = self.join.as_ref().zip(path.strip_prefix(join::PATH)) {
            return joining(request, join, name);
        }
        let (kind, body) = match path {
            "/join" if self.join.is_some() => {
                let mut answer = plain(StatusCode::PERMANENT_REDIRECT, "");
                answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static(join::PATH));
                return answer;
            }
            "/" => ("text/html; charset=utf-8", self.drawn(now).page),
            "/run.json" => ("application/json", self.drawn(now).json),
            "/public.css" => ("text/css; charset=utf-8", Bytes::from_static(include_bytes!("public.css"))),
            "/icon.svg" => ("image/svg+xml", Bytes::from_static(include_bytes!("../http/board/mark.svg"))),
            _ => return plain(StatusCode::NOT_FOUND, "nothing is here; the run's page is at /\n"),
        };
        tagged(request, kind, body, CACHE)
    }
}

/// What is below the page for browsers.
fn joining<B>(request: &Request<B>, join: &Join, name: &str) -> Response<Body> {
    let accepted = request.headers().get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let takes_brotli = accepted.is_some_and(|accepted| accepted.split(',').any(|one| one.trim() == "br"));
    let Some(join::Sent { kind, body, is_brotli }) = join.get(name, takes_brotli) else {
        return plain(StatusCode::NOT_FOUND, "nothing is here; the page is at /join/\n");
    };
    // Files of one version belong together: each is asked for again.
    let mut answer = tagged(request, kind, body, "no-cache");
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(join::POLICY));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_brotli {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    answer
}

/// A body, unless whoever asks has it by its tag.
fn tagged<B>(request: &Request<B>, kind: &'static str, body: Bytes, cache: &'static str) -> Response<Body> {
    let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..16]);
    let is_known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = match is_known {
        true => plain(StatusCode::NOT_MODIFIED, ""),
        false => plain(StatusCode::OK, body),
    };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
    answer
}

/// [`FRESH`], in words for caches.
const CACHE: &str = "public, max-age=15";

/// An answer that no browser takes for more than it is.
fn plain(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests;
