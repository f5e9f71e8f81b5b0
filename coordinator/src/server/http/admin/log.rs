//! The audit log: who did what, and what came of it.

use super::{Admin, ApiError, Asked, Fault, Paging, auth::Viewer};
use axum::{Json, extract::State};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// An entry.
#[derive(Serialize, ToSchema)]
pub(super) struct EntryAnswer {
    id: u64,
    /// Milliseconds since 1970.
    unix_ms: u64,
    /// The name of the token.
    name: String,
    /// The address that it came from.
    from: String,
    /// As the command has it: `device revoke`.
    action: String,
    /// A device, an invite or a token; empty for the run.
    subject: String,
    /// What came of it.
    outcome: String,
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditAnswer {
    /// Newest first.
    entries: Vec<EntryAnswer>,
    /// Where the next page begins; null on the last.
    next: Option<String>,
}

/// Read the audit log, newest first
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    params(Paging),
    responses((status = 200, description = "A page.", body = AuditAnswer), (status = 400, body = Fault, description = "A wrong query."))
)]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Viewer(_): Viewer,
    Asked(paging): Asked<Paging>,
) -> Result<Json<AuditAnswer>, ApiError> {
    let entries = admin.context.ledger.audit(paging.number()?, paging.limit()).await?;
    let is_full = entries.len() as u32 == paging.limit();
    let next = entries.last().filter(|entry| is_full && entry.id > 1).map(|entry| entry.id.to_string());
    let entries = entries.into_iter().map(|entry| EntryAnswer {
        id: entry.id,
        unix_ms: entry.record.at.unix_ms,
        name: entry.record.name,
        from: entry.record.from,
        action: entry.record.action,
        subject: entry.record.subject,
        outcome: entry.record.outcome,
    });
    Ok(Json(AuditAnswer { entries: entries.collect(), next }))
}
