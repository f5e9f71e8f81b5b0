//! The pages for whoever runs the coordinator, on this machine only: the dashboard ([`board`]), the same figures as JSON
//! ([`status`]), what operators order ([`admin`]), and what machines ask ([`probes`]).

mod admin;
mod board;
pub mod door;
mod names;
mod probes;
mod status;

pub use names::Names;

use super::{context::Context, feed::Feed};
use axum::{Router, extract::ConnectInfo, middleware, routing::get};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};
use tokio::io::{AsyncRead, AsyncWrite};

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

/// What every page is drawn from.
struct Page {
    run: String,
    context: Arc<Context>,
    feed: Arc<Feed>,
}

/// All of them, with what they are drawn from.
pub struct Pages(Router);

impl Pages {
    /// Of a run.
    pub(super) fn new(run: String, context: Arc<Context>, feed: Arc<Feed>, names: Names) -> Self {
        Pages(
            Router::new()
                .merge(board::routes())
                .route("/healthz", get(probes::alive))
                .route("/readyz", get(probes::ready))
                .route("/metrics", get(probes::metrics))
                .route("/api/status", get(status::status))
                .route("/api/curves", get(status::curves))
                .route("/api/devices", get(status::devices))
                .with_state(Arc::new(Page { run: run.clone(), context: context.clone(), feed }))
                .merge(admin::routes(run, context))
                .layer(middleware::from_fn_with_state(names, names::check_name)),
        )
    }

    /// Answers on one connection until it ends, whatever carries it; `from` is at its other end.
    pub async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Unpin, from: SocketAddr) {
        let routes = TowerToHyperService::new(self.0.clone());
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(from));
            routes.call(request)
        });
        // A peer that breaks off, or speaks something else, is no news.
        let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service).await;
    }
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, pages: Pages) -> io::Result<()> {
    let routes = pages.0.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(tokio::net::TcpListener::from_std(listener)?, routes).await
}
