//! The page for whoever runs the coordinator, on this machine only: the run as JSON, and one plain page that draws it.

use super::{
    context::Context,
    disk_reserve::DiskStatus,
    history::{LossPoint, VersionPoint},
};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use nightjar_shared::{
    ids::{DeviceId, Generation},
    wire::Role,
};
use serde::Serialize;
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};

/// A page that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address can be reached from outside, and the page has no password.
    #[error(
        "the status page has no password, so it listens on this machine only: {0} is not a loopback address; \
         choose 127.0.0.1:PORT with --http (and reach it from elsewhere with `ssh -L`)"
    )]
    NotLoopback(SocketAddr),
    /// The port is taken.
    #[error("TCP port {port} is in use by another program; stop it, or choose another address with --http", port = .0.port())]
    InUse(SocketAddr),
    /// The socket, for another reason.
    #[error("cannot listen on {address} (TCP): {error}; choose another address with --http")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

/// The answer of `/api/status`.
#[derive(Serialize)]
struct StatusAnswer<'a> {
    run: &'a str,
    generation: Generation,
    /// Null until the first version stands.
    version: Option<u64>,
    /// Nats a byte.
    heldout_loss: Option<f64>,
    heldout_version: Option<u64>,
    tokens: u64,
    token_budget: u64,
    tokens_per_s: f64,
    merged: u64,
    bytes_up: u64,
    bytes_down: u64,
    devices: Vec<DeviceAnswer>,
    leases_open: usize,
    finished: bool,
    losses: Vec<LossPoint>,
    versions: Vec<VersionPoint>,
    disk: DiskStatus,
    /// What the coordinator waits for; null where it does not.
    trouble: Option<String>,
}

#[derive(Serialize)]
struct DeviceAnswer {
    id: DeviceId,
    name: String,
    role: &'static str,
    tokens: u64,
    leases: u64,
    online: bool,
    training: bool,
    tokens_per_s: f64,
}

/// Opens the socket.
pub fn listen(address: SocketAddr) -> Result<TcpListener, HttpError> {
    if !address.ip().is_loopback() {
        return Err(HttpError::NotLoopback(address));
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => HttpError::InUse(address),
        _ => HttpError::Bind { address, error },
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The names that the page answers to. A page elsewhere can have its own name lead here (DNS rebinding) and then read
/// what is meant for whoever runs the coordinator; an address and `localhost` lead nobody astray.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<[String]>);

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

async fn check_name(State(names): State<Names>, request: Request, next: Next) -> Response {
    if names.has(request.headers()) {
        return next.run(request).await;
    }
    let words =
        "this page answers to this computer's addresses and to `localhost`; `serve --http-name NAME` adds a name\n";
    (StatusCode::MISDIRECTED_REQUEST, words).into_response()
}

struct Page {
    run: String,
    context: Arc<Context>,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, run: String, context: Arc<Context>, names: Names) -> io::Result<()> {
    let routes = Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/api/status", get(status))
        .layer(middleware::from_fn_with_state(names, check_name))
        .with_state(Arc::new(Page { run, context }));
    axum::serve(tokio::net::TcpListener::from_std(listener)?, routes).await
}

async fn page() -> impl IntoResponse {
    // The page runs its own few lines and asks this server only, whatever a device called itself.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("page.html"))
}

async fn status(State(page): State<Arc<Page>>) -> impl IntoResponse {
    let Ok(overview) = page.context.handle.overview().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the coordinator is stopping\n").into_response();
    };
    let (run, evaluation) = (&overview.status, &overview.status.evaluation);
    let devices = overview.devices.into_iter().filter(|device| !device.left).map(|device| DeviceAnswer {
        online: page.context.present.has(device.id),
        id: device.id,
        name: device.name,
        role: role(device.role),
        tokens: device.tokens,
        leases: device.leases,
        training: device.training,
        tokens_per_s: device.tokens_per_s,
    });
    let answer = StatusAnswer {
        run: &page.run,
        generation: run.generation,
        version: run.version.map(|v| v.0),
        heldout_loss: evaluation.as_ref().map(|e| e.nats_per_byte()),
        heldout_version: evaluation.as_ref().map(|e| e.version.0),
        tokens: run.tokens,
        token_budget: run.token_budget,
        tokens_per_s: run.tokens_per_s,
        merged: run.merged,
        bytes_up: overview.counters.bytes_up,
        bytes_down: overview.counters.bytes_down,
        devices: devices.collect(),
        leases_open: run.leases_open,
        finished: run.finished,
        losses: overview.losses,
        versions: overview.versions,
        disk: overview.disk,
        trouble: overview.trouble,
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// A role's word.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Anchor => "anchor",
        Role::Volunteer | Role::Unspecified => "volunteer",
    }
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
