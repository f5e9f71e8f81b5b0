//! Invites: those that were issued and those that devices came with; a new one; and the end of one.

use super::{
    Admin, ApiError, Asked, Fault, Paging, Sent,
    auth::{Operator, Viewer},
};
use crate::{
    engine::orders::Order,
    server::{
        clock::wall_now,
        issue::{self, ADDRESSES_MAX, DAYS_MAX, Reachable, Terms},
        role,
    },
    store::desk::{InviteFacts, Note},
};
use axum::{
    Json,
    extract::{Path, State},
};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use nightjar_shared::{invite, wire::Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest nonce of an invite, in bytes.
const NONCE_BYTES_MAX: usize = 64;

/// An invite.
#[derive(Serialize, ToSchema)]
pub(super) struct InviteAnswer {
    /// What tells it from others, in hexadecimal digits.
    nonce: String,
    /// `volunteer` or `anchor`; null where only its use is known, as of one that an older version issued.
    role: Option<&'static str>,
    /// Devices that came with it and have not left.
    devices: u64,
    /// How many there may be; null: any number, or unknown.
    devices_max: Option<u64>,
    /// Milliseconds since 1970; null: never, or unknown.
    expires_unix_ms: Option<u64>,
    /// Milliseconds since 1970; null: unknown.
    issued_unix_ms: Option<u64>,
    /// The token's name, or where the command was given; null: unknown.
    issued_by: Option<String>,
    /// Milliseconds since 1970; null while devices may enrol with it.
    revoked_unix_ms: Option<u64>,
}

/// A page of invites.
#[derive(Serialize, ToSchema)]
pub(super) struct InvitesAnswer {
    /// By nonce.
    invites: Vec<InviteAnswer>,
    /// Where the next page begins; null on the last.
    next: Option<String>,
}

/// A new invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewInvite {
    /// `volunteer`, the default, or `anchor`.
    role: Option<String>,
    /// Where devices reach the coordinator, each as HOST:PORT.
    addresses: Vec<String>,
    /// Days until nobody can join with it any more; left out: it never ends.
    expires_days: Option<u64>,
    /// Devices that may join with it; left out: any number.
    devices_max: Option<u64>,
}

/// An invite that was issued.
#[derive(Serialize, ToSchema)]
pub(super) struct IssuedAnswer {
    /// What tells it from others, in hexadecimal digits.
    nonce: String,
    /// Whoever has it can join. It is told here and nowhere else.
    link: String,
}

/// How an invite is revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    /// The devices that came with it are taken out of the run, too.
    with_devices: bool,
}

/// What was done to an invite.
#[derive(Serialize, ToSchema)]
pub(super) struct RevokedInviteAnswer {
    /// In hexadecimal digits.
    nonce: String,
    /// Devices that were taken out of the run with it.
    devices: usize,
    /// One sentence.
    told: String,
}

fn shown(facts: InviteFacts) -> InviteAnswer {
    let issued = facts.issued.as_ref();
    InviteAnswer {
        nonce: HEXLOWER.encode(&facts.nonce),
        role: issued.map(|i| role(i.role)),
        devices: facts.devices,
        devices_max: issued.map(|i| i.devices_max).filter(|most| *most > 0),
        expires_unix_ms: issued.and_then(|i| i.expires_at).map(|at| at.unix_ms),
        issued_unix_ms: issued.map(|i| i.issued_at.unix_ms),
        issued_by: issued.map(|i| i.issued_by.clone()),
        revoked_unix_ms: facts.revoked_at.map(|at| at.unix_ms),
    }
}

fn nonce(digits: &str) -> Result<Vec<u8>, ApiError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok().filter(|bytes| bytes.len() <= NONCE_BYTES_MAX);
    bytes.ok_or_else(|| ApiError::Wrong("name an invite by its nonce, all hexadecimal digits of it".into()))
}

/// List invites
#[utoipa::path(
    get,
    path = "/api/v1/invites",
    params(Paging),
    responses((status = 200, description = "A page.", body = InvitesAnswer), (status = 400, body = Fault, description = "A wrong query."))
)]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Viewer(_): Viewer,
    Asked(paging): Asked<Paging>,
) -> Result<Json<InvitesAnswer>, ApiError> {
    let after = paging.from.as_deref().map_or(Ok(vec![]), nonce)?;
    let page = admin.context.ledger.invites(&after, paging.limit()).await?;
    let is_full = page.len() as u32 == paging.limit();
    let next = page.last().filter(|_| is_full).map(|last| HEXLOWER.encode(&last.nonce));
    Ok(Json(InvitesAnswer { invites: page.into_iter().map(shown).collect(), next }))
}

/// Issue an invite
#[utoipa::path(
    post,
    path = "/api/v1/invites/create",
    request_body = NewInvite,
    responses((status = 200, description = "The invite.", body = IssuedAnswer), (status = 400, body = Fault, description = "It would lead nobody here."))
)]
pub(super) async fn create(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Sent(wanted): Sent<NewInvite>,
) -> Result<Json<IssuedAnswer>, ApiError> {
    let terms = terms(wanted)?;
    let giver = caller.giver();
    let issued = issue::issue(&admin.context.identity, &admin.run, &terms, &giver.name, wall_now());
    let (token, record) = issued.map_err(|error| ApiError::Internal(error.to_string()))?;
    let nonce = HEXLOWER.encode(&record.nonce);
    let entry = caller.did("invite create", &nonce, "issued");
    admin.context.ledger.note(&[Note::Invite(record), entry]).await?;
    Ok(Json(IssuedAnswer { nonce, link: invite::to_link(&token) }))
}

/// What is wanted, where it makes sense.
fn terms(wanted: NewInvite) -> Result<Terms, ApiError> {
    let role = match wanted.role.as_deref() {
        None | Some("volunteer") => Role::Volunteer,
        Some("anchor") => Role::Anchor,
        Some(_) => return Err(ApiError::Wrong("`role` is volunteer or anchor".into())),
    };
    if wanted.addresses.is_empty() || wanted.addresses.len() > ADDRESSES_MAX {
        return Err(ApiError::Wrong(format!("`addresses` has 1 to {ADDRESSES_MAX} of them")));
    }
    if wanted.expires_days.is_some_and(|days| days == 0 || days > DAYS_MAX) {
        return Err(ApiError::Wrong(format!("`expires_days` is 1 to {DAYS_MAX}, or left out")));
    }
    if wanted.devices_max.is_some_and(|most| most == 0 || i64::try_from(most).is_err()) {
        return Err(ApiError::Wrong("`devices_max` is 1 or more, or left out".into()));
    }
    let addresses = wanted.addresses.iter().map(|text| {
        Reachable::parse(text).map_err(|why| ApiError::Wrong(format!("an address leads no device here: {why}")))
    });
    let addresses = addresses.collect::<Result<_, _>>()?;
    let (days, devices) = (wanted.expires_days, wanted.devices_max);
    Ok(Terms { role, addresses, days, devices, for_pages: false })
}

/// Let nobody enrol with an invite any more
#[utoipa::path(
    post,
    path = "/api/v1/invites/{nonce}/revoke",
    params(("nonce" = String, Path, description = "All its hexadecimal digits.")),
    request_body = Revocation,
    responses((status = 200, description = "It is revoked.", body = RevokedInviteAnswer), (status = 400, body = Fault, description = "No nonce."))
)]
pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Path(digits): Path<String>,
    Sent(Revocation { with_devices }): Sent<Revocation>,
) -> Result<Json<RevokedInviteAnswer>, ApiError> {
    let nonce = nonce(&digits)?;
    let digits = HEXLOWER.encode(&nonce);
    let done = admin.order(Order::RevokeInvite { nonce, with_devices }, &caller).await?;
    Ok(Json(RevokedInviteAnswer { nonce: digits, devices: done.devices.len(), told: done.told }))
}
