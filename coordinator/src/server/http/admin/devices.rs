//! Devices: a list by state and role, one with its leases, and the end of one.

use super::{
    Admin, ApiError, Asked, Fault, Paging,
    auth::{Caller, Operator, Viewer},
};
use crate::{
    engine::{DeviceStatus, orders::Order},
    server::role,
    store::LeaseOfDevice,
};
use axum::{
    Json,
    extract::{Path, State},
};
use data_encoding::HEXLOWER;
use nightjar_shared::ids::{DeviceId, LeaseId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Devices that are asked for at once: each question is answered between two of the event loop's turns.
const AT_ONCE: usize = 500;
/// Questions for one page: a state that few are in makes a page short, never slow.
const QUESTIONS_MAX: usize = 40;
/// Digits of an id that name a device, at least.
const DIGITS_MIN: usize = 8;

/// What a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum DeviceState {
    /// It holds a lease to train.
    Training,
    /// It is connected, and holds none.
    Online,
    /// It is enrolled, and not connected.
    Offline,
    /// It has left the run by itself.
    Left,
    /// An operator has taken it out of the run.
    Revoked,
}

/// A device at a glance.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceAnswer {
    /// 64 hexadecimal digits.
    id: String,
    /// As its owner calls it.
    name: String,
    /// What trains.
    device: String,
    /// `volunteer` or `anchor`.
    role: &'static str,
    state: DeviceState,
    /// Tokens merged.
    tokens: u64,
    /// Leases merged.
    leases: u64,
    /// Measured speed; 0 if unknown.
    tokens_per_s: f64,
    /// The invite that it came with, in hexadecimal digits.
    invite: String,
    /// Milliseconds since 1970.
    enrolled_unix_ms: u64,
    /// Milliseconds since 1970; null for a device that is part of the run.
    revoked_unix_ms: Option<u64>,
    /// The name that its owner chose for the run's public page; null: none.
    public_name: Option<String>,
    /// Whether an operator keeps that name off the page.
    name_hidden: bool,
}

/// A page of devices.
#[derive(Serialize, ToSchema)]
pub(super) struct DevicesAnswer {
    /// By id. A page may be shorter than its limit, or empty, and not be the last.
    devices: Vec<DeviceAnswer>,
    /// Where the next page begins; null on the last.
    next: Option<String>,
}

/// Which devices.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Entries at most, 1 to 500; 50 where it is left out.
    limit: Option<u32>,
    /// The `next` of the page before.
    from: Option<String>,
    /// In this state alone.
    #[param(inline)]
    state: Option<DeviceState>,
    /// `volunteer` or `anchor`.
    role: Option<String>,
}

/// A lease and its end.
#[derive(Serialize, ToSchema)]
pub(super) struct LeaseAnswer {
    id: u64,
    generation: u64,
    /// `train` or `evaluate`.
    kind: &'static str,
    base_version: u64,
    epoch: u32,
    samples: u32,
    steps: u32,
    /// Milliseconds since 1970.
    issued_unix_ms: u64,
    /// How it ended; null while it is open.
    outcome: Option<&'static str>,
    /// Milliseconds since 1970.
    closed_unix_ms: Option<u64>,
}

/// A page of leases.
#[derive(Serialize, ToSchema)]
pub(super) struct LeasesAnswer {
    /// Newest first. A page may be shorter than its limit, or empty, and not be the last.
    leases: Vec<LeaseAnswer>,
    /// Where the next page begins; null on the last.
    next: Option<String>,
}

/// What was done to a device.
#[derive(Serialize, ToSchema)]
pub(super) struct DoneAnswer {
    /// 64 hexadecimal digits.
    id: String,
    /// One sentence.
    told: String,
}

impl Admin {
    fn device(&self, status: DeviceStatus) -> DeviceAnswer {
        let state = match &status {
            s if s.revoked_at.is_some() => DeviceState::Revoked,
            s if s.left => DeviceState::Left,
            s if s.training => DeviceState::Training,
            s if self.context.present.has(s.id) => DeviceState::Online,
            _ => DeviceState::Offline,
        };
        DeviceAnswer {
            id: status.id.to_string(),
            name: status.name,
            device: status.device,
            role: role(status.role),
            state,
            tokens: status.tokens,
            leases: status.leases,
            tokens_per_s: status.tokens_per_s,
            invite: HEXLOWER.encode(&status.invite_nonce),
            enrolled_unix_ms: status.enrolled_at.unix_ms,
            revoked_unix_ms: status.revoked_at.map(|at| at.unix_ms),
            public_name: status.public_name.map(|name| name.to_string()),
            name_hidden: status.name_hidden,
        }
    }

    /// Orders something of the device whose id begins with these digits.
    async fn order_of(
        &self,
        digits: &str,
        caller: &Caller,
        order: impl FnOnce(DeviceId) -> Order,
    ) -> Result<Json<DoneAnswer>, ApiError> {
        let id = self.named(digits).await?.id;
        let told = self.order(order(id), caller).await?.told;
        Ok(Json(DoneAnswer { id: id.to_string(), told }))
    }

    /// The one device whose id begins with these digits.
    async fn named(&self, digits: &str) -> Result<DeviceStatus, ApiError> {
        let is_hex = digits.len() <= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex || digits.len() < DIGITS_MIN {
            let why =
                format!("name a device by its id, or by the first {DIGITS_MIN} or more of its hexadecimal digits");
            return Err(ApiError::Wrong(why));
        }
        let mut found = self.context.handle.devices_named(digits).await?;
        match (found.pop(), found.pop()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(ApiError::Missing(format!("no device of this run has an id that begins with {digits}"))),
            _ => Err(ApiError::Conflict(format!("more than one device's id begins with {digits}; give more digits"))),
        }
    }
}

/// List devices
#[utoipa::path(
    get,
    path = "/api/v1/devices",
    params(Wanted),
    responses((status = 200, description = "A page.", body = DevicesAnswer), (status = 400, body = Fault, description = "A wrong query."))
)]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Viewer(_): Viewer,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<DevicesAnswer>, ApiError> {
    let limit = Paging { limit: wanted.limit, from: None }.limit() as usize;
    if let Some(role) = wanted.role.as_deref().filter(|role| !["volunteer", "anchor"].contains(role)) {
        return Err(ApiError::Wrong(format!("{role} is no role of a device: volunteer or anchor")));
    }
    let wrong = |_| ApiError::Wrong("`from` is the `next` of the page before, unchanged".into());
    let mut after: Option<DeviceId> = wanted.from.as_deref().map(str::parse).transpose().map_err(wrong)?;
    let mut devices = vec![];
    for _ in 0..QUESTIONS_MAX {
        let some = admin.context.handle.devices(after, AT_ONCE).await?;
        let is_last = some.len() < AT_ONCE;
        for status in some {
            after = Some(status.id);
            let device = admin.device(status);
            let is_wanted = wanted.state.is_none_or(|state| state == device.state)
                && wanted.role.as_deref().is_none_or(|role| role == device.role);
            if is_wanted {
                devices.push(device);
            }
            if devices.len() == limit {
                return Ok(Json(DevicesAnswer { devices, next: after.map(|id| id.to_string()) }));
            }
        }
        if is_last {
            return Ok(Json(DevicesAnswer { devices, next: None }));
        }
    }
    Ok(Json(DevicesAnswer { devices, next: after.map(|id| id.to_string()) }))
}

/// Show one device
#[utoipa::path(
    get,
    path = "/api/v1/devices/{id}",
    params(("id" = String, Path, description = "Its id, or its first 8 or more digits.")),
    responses((status = 200, description = "The device.", body = DeviceAnswer), (status = 404, body = Fault, description = "There is none."))
)]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Viewer(_): Viewer,
    Path(id): Path<String>,
) -> Result<Json<DeviceAnswer>, ApiError> {
    Ok(Json(admin.device(admin.named(&id).await?)))
}

/// List the leases of one device, newest first
#[utoipa::path(
    get,
    path = "/api/v1/devices/{id}/leases",
    params(("id" = String, Path, description = "Its id, or its first 8 or more digits."), Paging),
    responses((status = 200, description = "A page.", body = LeasesAnswer), (status = 404, body = Fault, description = "There is no such device."))
)]
pub(super) async fn leases(
    State(admin): State<Arc<Admin>>,
    Viewer(_): Viewer,
    Path(id): Path<String>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<LeasesAnswer>, ApiError> {
    let (device, limit) = (admin.named(&id).await?.id, paging.limit());
    let before = paging.number()?.map_or(LeaseId(u64::MAX), LeaseId);
    let leases = admin.context.ledger.leases_of(device, before, limit).await?;
    let next = leases.last().filter(|_| leases.len() as u32 == limit).map(|last| last.lease.id.0.to_string());
    Ok(Json(LeasesAnswer { leases: leases.into_iter().map(lease).collect(), next }))
}

fn lease(LeaseOfDevice { lease, closed, .. }: LeaseOfDevice) -> LeaseAnswer {
    LeaseAnswer {
        id: lease.id.0,
        generation: lease.generation.0,
        kind: lease.kind.name(),
        base_version: lease.base_version.0,
        epoch: lease.epoch,
        samples: lease.samples,
        steps: lease.steps,
        issued_unix_ms: lease.issued_at.unix_ms,
        outcome: closed.map(|closed| closed.outcome.name()),
        closed_unix_ms: closed.map(|closed| closed.at.unix_ms),
    }
}

/// Take a device out of the run, for good
///
/// Its lease ends, its connection is closed, and it cannot enrol again with the same key. What was merged of it stays.
#[utoipa::path(
    post,
    path = "/api/v1/devices/{id}/revoke",
    params(("id" = String, Path, description = "Its id, or its first 8 or more digits.")),
    responses((status = 200, description = "It is out.", body = DoneAnswer), (status = 404, body = Fault, description = "There is none."))
)]
pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Path(id): Path<String>,
) -> Result<Json<DoneAnswer>, ApiError> {
    admin.order_of(&id, &caller, Order::RevokeDevice).await
}

/// Keep the name of a device's owner off the public page
///
/// Whatever the owner calls it from now on, too, until `show-name`.
#[utoipa::path(
    post,
    path = "/api/v1/devices/{id}/hide-name",
    params(("id" = String, Path, description = "Its id, or its first 8 or more digits.")),
    responses((status = 200, description = "It is hidden.", body = DoneAnswer), (status = 404, body = Fault, description = "There is none."))
)]
pub(super) async fn hide_name(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Path(id): Path<String>,
) -> Result<Json<DoneAnswer>, ApiError> {
    admin.order_of(&id, &caller, |device| Order::HideName { device, hidden: true }).await
}

/// Let the name of a device's owner stand on the public page again
#[utoipa::path(
    post,
    path = "/api/v1/devices/{id}/show-name",
    params(("id" = String, Path, description = "Its id, or its first 8 or more digits.")),
    responses((status = 200, description = "It is shown, where its owner wants it.", body = DoneAnswer), (status = 404, body = Fault, description = "There is none."))
)]
pub(super) async fn show_name(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Path(id): Path<String>,
) -> Result<Json<DoneAnswer>, ApiError> {
    admin.order_of(&id, &caller, |device| Order::HideName { device, hidden: false }).await
}
