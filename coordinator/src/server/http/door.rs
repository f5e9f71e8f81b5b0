//! What a door answers over HTTP: that it is one, and whether it has a leader. The run's own page is the leader's.

use super::names::{self, Names};
use axum::{Router, extract::State, http::StatusCode, middleware, routing::get};
use std::{
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

struct About {
    run: String,
    is_linked: Arc<AtomicBool>,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, run: String, is_linked: Arc<AtomicBool>, names: Names) -> io::Result<()> {
    let routes = Router::new()
        .route("/", get(about))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .layer(middleware::from_fn_with_state(names, names::check_name))
        .with_state(Arc::new(About { run, is_linked }));
    axum::serve(tokio::net::TcpListener::from_std(listener)?, routes).await
}

async fn about(State(about): State<Arc<About>>) -> String {
    format!("This process holds connections for the run {}. Its leader's page shows the run.\n", about.run)
}

async fn ready(State(about): State<Arc<About>>) -> (StatusCode, &'static str) {
    if about.is_linked.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no leader answers: devices are told to come again\n")
    }
}
