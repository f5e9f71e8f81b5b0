//! The run as JSON: [`status`] at a glance, [`curves`] over time, and [`devices`] page by page. No answer enters the
//! event loop, and each is bounded, however many devices and versions there are.

use super::{Page, board::devices::Asked};
use crate::server::feed::{DevicePage, DeviceRow, Feed, Figures, LossSpan, State as Doing, VersionSpan, Wanted, role};
use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use nightjar_shared::{ids::DeviceId, time::Wall};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// Devices in [`status`]: those with the most tokens.
const DEVICES_MAX: usize = 100;

/// The answer of `/api/status`.
#[derive(Serialize)]
struct StatusAnswer<'a> {
    run: &'a str,
    #[serde(flatten)]
    figures: Figures,
    /// Those with the most tokens, at most [`DEVICES_MAX`]; `/api/devices` has them all.
    devices: Vec<DeviceAnswer>,
    /// How often each limit turned somebody away since this process began.
    limits: BTreeMap<&'static str, u64>,
    losses: Vec<LossSpan>,
    versions: Vec<VersionSpan>,
}

#[derive(Serialize)]
struct DeviceAnswer {
    id: DeviceId,
    name: String,
    role: &'static str,
    /// Null of one that has left.
    state: Option<&'static str>,
    tokens: u64,
    leases: u64,
    online: bool,
    training: bool,
    tokens_per_s: f64,
    version: Option<u64>,
    staleness: Option<u64>,
    enrolled_at: Wall,
}

impl From<DeviceRow> for DeviceAnswer {
    fn from(row: DeviceRow) -> Self {
        let state = row.state();
        DeviceAnswer {
            id: row.record.id,
            role: role(row.record.role),
            state: state.map(Doing::name),
            tokens: row.tokens,
            leases: row.merged,
            online: row.online,
            training: state == Some(Doing::Training),
            tokens_per_s: row.record.tokens_per_s,
            version: row.version,
            staleness: row.staleness,
            enrolled_at: row.record.enrolled_at,
            name: row.record.name,
        }
    }
}

/// The answer of `/api/devices`.
#[derive(Serialize)]
struct DevicesAnswer {
    /// How many match in all.
    matching: usize,
    /// How many come before the first.
    offset: usize,
    devices: Vec<DeviceAnswer>,
}

/// JSON that is true at this moment only.
fn now(answer: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// A page of devices, looked for beside the runtime: it goes through all of them.
pub(super) async fn page_of(feed: &Arc<Feed>, wanted: Wanted) -> Result<DevicePage, StatusCode> {
    let feed = feed.clone();
    let found = tokio::task::spawn_blocking(move || feed.devices.page(&wanted)).await;
    found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) async fn status(State(page): State<Arc<Page>>) -> Result<Response, StatusCode> {
    let feed = &page.feed;
    let found = page_of(feed, Wanted { limit: DEVICES_MAX, ..Wanted::default() }).await?;
    let drawn = feed.drawn();
    Ok(now(StatusAnswer {
        run: &page.run,
        figures: feed.figures(),
        devices: found.rows.into_iter().map(DeviceAnswer::from).collect(),
        limits: page.context.rates.refused().into(),
        losses: drawn.losses,
        versions: drawn.versions,
    }))
}

pub(super) async fn curves(State(page): State<Arc<Page>>) -> Response {
    now(page.feed.drawn())
}

pub(super) async fn devices(State(page): State<Arc<Page>>, Query(asked): Query<Asked>) -> Result<Response, StatusCode> {
    let wanted = asked.wanted();
    let found = page_of(&page.feed, wanted.clone()).await?;
    let devices = found.rows.into_iter().map(DeviceAnswer::from).collect();
    Ok(now(DevicesAnswer { matching: found.matching, offset: wanted.offset, devices }))
}
