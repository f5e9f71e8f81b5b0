//! The run: how it stands, and that it pauses, goes on, or goes on for longer.

use super::{
    Admin, ApiError, Fault, Sent,
    auth::{Caller, Operator, Viewer},
};
use crate::engine::orders::{NotDone, Obeyed, Order};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The run at a glance.
#[derive(Serialize, ToSchema)]
pub(super) struct RunAnswer {
    /// Since when it is paused, in milliseconds since 1970; null while it goes on.
    paused_unix_ms: Option<u64>,
    /// Leases that have not ended. A paused run without any is drained.
    leases_open: usize,
    /// The newest version; null until the first stands.
    version: Option<u64>,
    /// Tokens merged.
    tokens: u64,
    /// Tokens at which it is over.
    token_budget: u64,
    /// Deltas merged.
    merged: u64,
    /// Measured speeds of all that train, together.
    tokens_per_s: f64,
    /// Whether it is over.
    finished: bool,
    /// One sentence on what was done; null where nothing was.
    told: Option<String>,
}

/// A longer run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Extension {
    /// More tokens than until now.
    token_budget: u64,
}

impl Admin {
    /// Gives an order, and waits until it is written down.
    pub(super) async fn order(&self, order: Order, caller: &Caller) -> Result<Obeyed, ApiError> {
        self.context.handle.order(order, caller.giver()).await?.map_err(|why| match why {
            NotDone::NoSuchDevice(_) => ApiError::Missing(why.to_string()),
            NotDone::NoSuchSeries(_) => ApiError::Missing(why.to_string()),
            NotDone::NotLonger { .. } | NotDone::NoSeries | NotDone::Over | NotDone::OtherSeries => {
                ApiError::Conflict(why.to_string())
            }
            NotDone::TooEarly => ApiError::NotNow,
            NotDone::TooLong => ApiError::Wrong(why.to_string()),
        })
    }

    async fn run(&self, told: Option<String>) -> Result<Json<RunAnswer>, ApiError> {
        let status = self.context.handle.status().await?;
        Ok(Json(RunAnswer {
            paused_unix_ms: status.paused_at.map(|at| at.unix_ms),
            leases_open: status.leases_open,
            version: status.version.map(|v| v.0),
            tokens: status.tokens,
            token_budget: status.token_budget,
            merged: status.merged,
            tokens_per_s: status.tokens_per_s,
            finished: status.finished,
            told,
        }))
    }

    async fn ordered(&self, order: Order, caller: &Caller) -> Result<Json<RunAnswer>, ApiError> {
        let told = self.order(order, caller).await?.told;
        self.run(Some(told)).await
    }
}

/// Show the run
#[utoipa::path(get, path = "/api/v1/run", responses((status = 200, description = "The run.", body = RunAnswer)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Viewer(_): Viewer) -> Result<Json<RunAnswer>, ApiError> {
    admin.run(None).await
}

/// Give out no more leases
///
/// Leases that are out go on and are merged; when `leases_open` is 0 the run is drained. Devices are told to come back.
/// It stays paused when the coordinator is started again.
#[utoipa::path(post, path = "/api/v1/run/pause", responses((status = 200, description = "The run.", body = RunAnswer)))]
pub(super) async fn pause(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
) -> Result<Json<RunAnswer>, ApiError> {
    admin.ordered(Order::Pause, &caller).await
}

/// Give out leases again
#[utoipa::path(post, path = "/api/v1/run/resume", responses((status = 200, description = "The run.", body = RunAnswer)))]
pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
) -> Result<Json<RunAnswer>, ApiError> {
    admin.ordered(Order::Resume, &caller).await
}

/// Go on until more tokens are merged
#[utoipa::path(
    post,
    path = "/api/v1/run/extend",
    request_body = Extension,
    responses((status = 200, description = "The run.", body = RunAnswer), (status = 409, body = Fault, description = "It is no longer than it was."))
)]
pub(super) async fn extend(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Sent(Extension { token_budget }): Sent<Extension>,
) -> Result<Json<RunAnswer>, ApiError> {
    admin.ordered(Order::Extend { token_budget }, &caller).await
}
