//! What machines ask: whether the process lives, whether leases can be granted, and figures for Prometheus. Nothing here
//! waits for the event loop: when it stands still, these have to say so.

use super::Page;
use crate::server::metrics;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use std::{sync::Arc, time::Instant};

/// The process lives, or nothing would answer.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// 200 where leases can be granted; else 503, and why not, as one sentence.
pub(super) async fn ready(State(page): State<Arc<Page>>) -> impl IntoResponse {
    let paused = || {
        page.feed.is_paused().then(|| "an operator has paused the run: `run resume` gives out leases again".to_owned())
    };
    let (code, words) = match page.context.health.not_ready(Instant::now()).or_else(paused) {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    (code, [(header::CACHE_CONTROL, "no-store")], words + "\n")
}

/// All figures, as Prometheus reads them.
pub(super) async fn metrics(State(page): State<Arc<Page>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&page.run, &page.context))
}
