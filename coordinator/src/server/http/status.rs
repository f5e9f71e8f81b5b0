//! `/api/status`: the run as JSON.

use super::Page;
use crate::server::{
    disk_reserve::DiskStatus,
    history::{LossPoint, VersionPoint},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use nightjar_shared::{
    ids::{DeviceId, Generation},
    wire::Role,
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

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
    /// Since when an operator has paused the run; null where it goes on.
    paused_unix_ms: Option<u64>,
    /// How often each limit turned somebody away since this process began.
    limits: BTreeMap<&'static str, u64>,
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

pub(super) async fn status(State(page): State<Arc<Page>>) -> impl IntoResponse {
    let Ok(overview) = page.context.handle.overview().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the coordinator is stopping\n").into_response();
    };
    let (run, evaluation) = (&overview.status, &overview.status.evaluation);
    let devices = overview.devices.into_iter().filter(|device| !device.left).map(|device| DeviceAnswer {
        online: page.context.present.has(device.id) || page.context.doors.have(device.id),
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
        paused_unix_ms: run.paused_at.map(|at| at.unix_ms),
        limits: page.context.rates.refused().into(),
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
