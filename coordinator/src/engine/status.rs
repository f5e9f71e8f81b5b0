//! The run and its devices at a glance, for people.

use super::{Engine, Refusals, record::EvaluationRecord};
use nightjar_shared::{
    ids::{DeviceId, Generation, Version},
    wire::Role,
};

/// The run at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Of this process.
    pub generation: Generation,
    /// The newest version; `None` until the first is stored.
    pub version: Option<Version>,
    /// The newest measurement of held-out loss.
    pub evaluation: Option<EvaluationRecord>,
    /// Tokens merged.
    pub tokens: u64,
    /// Tokens at which the run is over.
    pub token_budget: u64,
    /// Measured speeds of all devices that hold a training lease, together.
    pub tokens_per_s: f64,
    /// Deltas merged.
    pub merged: u64,
    /// Leases that have not ended.
    pub leases_open: usize,
    /// The share of signal in the deltas of late, 0 to 1; `None` until this process has published a version of several.
    pub agreement: Option<f64>,
    /// Deltas that were not merged since this process started.
    pub refused: Refusals,
    /// Whether the run is over.
    pub finished: bool,
}

/// A device at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceStatus {
    /// Who.
    pub id: DeviceId,
    /// As its owner calls it.
    pub name: String,
    /// What its invite made it.
    pub role: Role,
    /// Tokens merged.
    pub tokens: u64,
    /// Leases merged.
    pub leases: u64,
    /// Measured speed; 0 if unknown.
    pub tokens_per_s: f64,
    /// Whether it holds a training lease.
    pub training: bool,
    /// Whether it has left the run.
    pub left: bool,
}

impl Engine {
    /// The run at a glance.
    pub fn status(&self) -> Status {
        Status {
            generation: self.generation,
            version: self.versions.newest().map(|v| v.version),
            evaluation: self.evaluation.clone(),
            tokens: self.tokens,
            token_budget: self.spec.token_budget,
            tokens_per_s: self.leases.speed_milli as f64 / 1000.0,
            merged: self.last_seq,
            leases_open: self.leases.len(),
            agreement: self.agreement,
            refused: self.refusals,
            finished: self.finished(),
        }
    }

    /// All devices that ever enrolled, by id.
    pub fn devices(&self) -> impl Iterator<Item = DeviceStatus> {
        self.roster.iter().map(|d| DeviceStatus {
            id: d.record.id,
            name: d.record.name.clone(),
            role: d.record.role,
            tokens: d.tokens,
            leases: d.merged,
            tokens_per_s: d.pace.tokens_per_s(),
            training: self.leases.of_device(d.record.id).is_some_and(|l| l.record.kind.trains()),
            left: d.record.left,
        })
    }
}
