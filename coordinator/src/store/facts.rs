//! Everything in the ledger, for those who check or count.

use super::BadRow;
use crate::engine::record::{DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, VersionRecord};
use nightjar_shared::{ids::Version, time::Wall};

/// Everything in the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// All devices, by id.
    pub devices: Vec<DeviceRecord>,
    /// All leases, by number.
    pub leases: Vec<LeaseFacts>,
    /// All merged deltas, in their order.
    pub deltas: Vec<DeltaRecord>,
    /// All versions, in their order.
    pub versions: Vec<VersionRecord>,
    /// All measurements, in their order.
    pub evaluations: Vec<EvaluationRecord>,
    /// Versions from which merging began anew, in their order: with the published weights, and nothing else.
    pub restarts: Vec<Version>,
    /// Deltas that were lost before a version was made of them, in their order.
    pub lost_deltas: Vec<u64>,
    /// What of it cannot be read: a delta, a lease or a measurement is left out above; a column that the weights do not
    /// depend on is zero or empty there.
    pub set_aside: Vec<BadRow>,
}

/// A lease and its end.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseFacts {
    /// As it was issued.
    pub lease: LeaseRecord,
    /// Its end; `None` while it is open.
    pub closed: Option<Closed>,
}

/// How and when a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// How.
    pub outcome: LeaseOutcome,
    /// Samples trained on and merged, from the range's start.
    pub samples_used: u32,
    /// When.
    pub at: Wall,
}
