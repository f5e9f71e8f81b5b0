//! The run at a glance, for people.

use super::{Engine, Refusals, record::EvaluationRecord, roster::Device, series::SeriesStatus};
use nightjar_shared::{
    ids::{DeviceId, Generation, Version},
    public_name::PublicName,
    time::Wall,
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
    /// Since when an operator has paused it.
    pub paused_at: Option<Wall>,
    /// The newest series, in a run of series.
    pub series: Option<SeriesStatus>,
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
    /// What trains.
    pub device: String,
    /// When it first came.
    pub enrolled_at: Wall,
    /// The invite that it came with.
    pub invite_nonce: Vec<u8>,
    /// Since when it is no part of the run any more.
    pub revoked_at: Option<Wall>,
    /// The name that its owner chose for the public page.
    pub public_name: Option<PublicName>,
    /// Whether an operator has taken it from there.
    pub name_hidden: bool,
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
            paused_at: self.standing.paused_at,
            series: self.series_status(),
        }
    }

    /// At most so many devices that ever enrolled, after one, by id.
    pub fn devices_after(&self, id: Option<DeviceId>, most: usize) -> Vec<DeviceStatus> {
        self.roster.after(id).take(most).map(|d| self.device_status(d)).collect()
    }

    /// The devices whose id begins with these hexadecimal digits; two at most.
    pub fn devices_named(&self, digits: &str) -> Vec<DeviceStatus> {
        let padded = format!("{digits:0<64}");
        let Ok(least) = padded.to_ascii_lowercase().parse::<DeviceId>() else { return vec![] };
        let digits = digits.to_ascii_lowercase();
        let named = self.roster.from(least).take_while(|d| d.record.id.to_string().starts_with(&digits));
        named.take(2).map(|d| self.device_status(d)).collect()
    }

    fn device_status(&self, d: &Device) -> DeviceStatus {
        DeviceStatus {
            id: d.record.id,
            name: d.record.name.clone(),
            role: d.record.role,
            tokens: d.tokens,
            leases: d.merged,
            tokens_per_s: d.pace.tokens_per_s(),
            training: self.leases.of_device(d.record.id).is_some_and(|l| l.record.kind.trains()),
            left: d.record.left,
            device: d.record.device.clone(),
            enrolled_at: d.record.enrolled_at,
            invite_nonce: d.record.invite_nonce.clone(),
            revoked_at: self.standing.revoked_devices.get(&d.record.id).copied(),
            public_name: d.record.public_name.clone(),
            name_hidden: d.record.name_hidden,
        }
    }
}
