//! What the weights follow from, for those who replay; and everything, for those who check or count.

use super::{BadRow, Kept, Link};
use crate::engine::record::{DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, VersionRecord};
use nightjar_shared::{ids::Version, time::Wall};

/// What the weights follow from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lineage {
    /// All versions, in their order; without the oldest, if it is cut.
    pub versions: Vec<VersionRecord>,
    /// Whether the oldest versions were left out.
    pub is_cut: bool,
    /// Merged deltas, in their order: all that come after [`Lineage::after_seq`].
    pub deltas: Vec<DeltaRecord>,
    /// Deltas up to this one were left out; 0 where none was.
    pub after_seq: u64,
    /// Versions from which merging began anew, in their order: with the published weights, and nothing else.
    pub restarts: Vec<Version>,
    /// Deltas that were lost before a version was made of them, in their order.
    pub lost_deltas: Vec<u64>,
    /// How far back blobs are kept.
    pub kept: Kept,
}

impl Lineage {
    /// The deltas after one; `None` if some of them were left out.
    pub fn after(&self, seq: u64) -> Option<&[DeltaRecord]> {
        (seq >= self.after_seq).then(|| &self.deltas[self.deltas.partition_point(|d| d.seq <= seq)..])
    }

    /// A version's place among all.
    pub fn place(&self, version: Version) -> Option<usize> {
        self.versions.binary_search_by_key(&version, |v| v.version).ok()
    }

    /// Whether a delta was lost before a version was made of it.
    pub fn is_lost(&self, seq: u64) -> bool {
        self.lost_deltas.binary_search(&seq).is_ok()
    }
}

/// Everything in the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// All devices, by id.
    pub devices: Vec<DeviceRecord>,
    /// All leases, by number.
    pub leases: Vec<LeaseFacts>,
    /// All deltas and versions.
    pub lineage: Lineage,
    /// All measurements, in their order.
    pub evaluations: Vec<EvaluationRecord>,
    /// The chain of checkpoints.
    pub links: Vec<Link>,
    /// What of it cannot be read: a delta, a lease or a measurement is left out above; a column that the weights do not
    /// depend on is zero or empty there.
    pub set_aside: Vec<BadRow>,
}

impl Facts {
    /// Adds what comes behind.
    pub fn add(&mut self, more: Facts) {
        let Facts { devices, leases, lineage, evaluations, links, set_aside } = more;
        self.devices.extend(devices);
        self.leases.extend(leases);
        self.lineage.versions.extend(lineage.versions);
        self.lineage.deltas.extend(lineage.deltas);
        self.lineage.restarts.extend(lineage.restarts);
        self.lineage.lost_deltas.extend(lineage.lost_deltas);
        if lineage.kept != Kept::default() {
            self.lineage.kept = lineage.kept;
        }
        self.evaluations.extend(evaluations);
        self.links.extend(links);
        self.set_aside.extend(set_aside);
    }
}

/// A lease and its end.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseFacts {
    /// As it was issued.
    pub lease: LeaseRecord,
    /// Its end; `None` while it is open.
    pub closed: Option<Closed>,
}

/// A lease of a device that has ended, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseOfDevice {
    /// As it was issued.
    pub lease: LeaseRecord,
    /// Its end.
    pub closed: Option<Closed>,
    /// Its delta, where one was merged.
    pub delta: Option<DeltaRecord>,
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
