//! What a ledger's rows add up to, counted a piece at a time. What is remembered of a long run are its devices, versions
//! and measurements, and of its leases the newest.

use nightjar_coordinator::{
    engine::{
        record::{DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome},
        snapshot::MergedRange,
    },
    server::history::{LossPoint, VersionPoint},
    store::{Closed, Facts, LeaseFacts, samples::Ranges},
};
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    lease::LeaseKind,
    time::Wall,
};
use std::collections::{BTreeMap, VecDeque};

/// Newest leases on the time line.
pub const TIMELINE_MAX: usize = 100_000;
/// Newest leases of a device whose median is told.
const WALLS_MAX: usize = 256;

/// Counts so far. The pieces are those of `Ledger::go_through`, in their order.
#[derive(Default)]
pub struct Counted {
    pub tokens: u64,
    pub inner_steps: u64,
    /// Deltas.
    pub merged: u64,
    /// Deltas for a lease that had one before.
    pub duplicates: u64,
    /// Leases whose delta was acknowledged, and their samples.
    pub acknowledged: u64,
    pub acknowledged_samples: u64,
    /// Deltas by staleness.
    pub staleness: BTreeMap<u64, u64>,
    /// Leases by how they ended.
    pub leases: BTreeMap<&'static str, u64>,
    pub devices: BTreeMap<DeviceId, CountedDevice>,
    pub timeline: VecDeque<CountedLease>,
    /// Merged samples by epoch.
    pub epochs: BTreeMap<u32, Ranges>,
    versions: Vec<VersionPoint>,
    /// Of each version, its last delta.
    through: Vec<u64>,
    evaluations: Vec<EvaluationRecord>,
    last: Option<LeaseId>,
    /// Deltas behind this one do not count.
    through_seq: Option<u64>,
}

/// A device's part.
#[derive(Default)]
pub struct CountedDevice {
    pub record: Option<DeviceRecord>,
    pub tokens: u64,
    pub deltas: u64,
    pub train_ms: u64,
    /// Its first lease to train, and its last delta.
    pub began: Option<Wall>,
    pub ended: Option<Wall>,
    /// Of its newest leases with a delta, without the first, which measures the device's speed.
    pub walls_ms: VecDeque<u64>,
}

/// A lease on the time line.
pub struct CountedLease {
    pub device: DeviceId,
    pub kind: LeaseKind,
    pub start: Wall,
    pub end: Option<Wall>,
    pub outcome: &'static str,
}

impl Counted {
    /// Of the deltas up to one, and no further; leases and measurements count all the same.
    pub fn through(seq: u64) -> Self {
        Counted { through_seq: Some(seq), ..Counted::default() }
    }

    /// Takes in a piece.
    pub fn take(&mut self, piece: &Facts) {
        for device in &piece.devices {
            self.devices.entry(device.id).or_default().record = Some(device.clone());
        }
        for version in &piece.lineage.versions {
            // Its tokens come with its deltas.
            self.versions.push(VersionPoint::of(version, 0));
            self.through.push(version.through_seq);
        }
        piece.leases.iter().for_each(|lease| self.lease(lease));
        let counts = |delta: &&DeltaRecord| self.through_seq.is_none_or(|last| delta.seq <= last);
        let deltas: Vec<&DeltaRecord> = piece.lineage.deltas.iter().filter(counts).collect();
        deltas.into_iter().for_each(|delta| self.delta(delta));
        self.evaluations.extend(piece.evaluations.iter().cloned());
    }

    fn lease(&mut self, LeaseFacts { lease, closed }: &LeaseFacts) {
        let outcome = closed.map_or("open", |closed| closed.outcome.name());
        *self.leases.entry(outcome).or_default() += 1;
        if lease.kind.trains() {
            self.devices.entry(lease.device).or_default().began.get_or_insert(lease.issued_at);
        }
        if let Some(Closed { outcome: LeaseOutcome::Merged, samples_used: samples, .. }) = *closed {
            self.acknowledged += 1;
            self.acknowledged_samples += u64::from(samples);
            let range = MergedRange { shard: lease.shard, first: lease.first_sample, samples };
            self.epochs.entry(lease.epoch).or_default().add(range);
        }
        if self.timeline.len() == TIMELINE_MAX {
            self.timeline.pop_front();
        }
        let (device, kind, start, end) = (lease.device, lease.kind, lease.issued_at, closed.map(|c| c.at));
        self.timeline.push_back(CountedLease { device, kind, start, end, outcome });
    }

    fn delta(&mut self, delta: &DeltaRecord) {
        self.merged += 1;
        self.duplicates += u64::from(self.last.replace(delta.lease) == Some(delta.lease));
        self.tokens += delta.tokens;
        self.inner_steps += u64::from(delta.steps);
        *self.staleness.entry(delta.staleness).or_default() += 1;
        if let Some(version) = self.versions.get_mut(self.through.partition_point(|through| *through < delta.seq)) {
            version.tokens += delta.tokens;
        }
        let device = self.devices.entry(delta.device).or_default();
        if device.deltas > 0 {
            if device.walls_ms.len() == WALLS_MAX {
                device.walls_ms.pop_front();
            }
            device.walls_ms.push_back(delta.wall_ms);
        }
        device.deltas += 1;
        device.tokens += delta.tokens;
        device.train_ms += delta.train_ms;
        device.ended = Some(delta.merged_at);
    }

    /// The curves, once all pieces were taken in: versions by number, and losses by their version.
    pub fn curves(&mut self) -> (Vec<VersionPoint>, Vec<LossPoint>) {
        let mut versions = std::mem::take(&mut self.versions);
        let mut tokens = 0;
        for version in &mut versions {
            tokens += version.tokens;
            version.tokens = tokens;
        }
        let tokens_of =
            |number| versions.binary_search_by_key(&number, |v| v.version).map_or(0, |at| versions[at].tokens);
        let point = |e: &EvaluationRecord| LossPoint::of(e, tokens_of(e.version.0));
        let mut losses: Vec<LossPoint> = self.evaluations.iter().map(point).collect();
        losses.sort_by_key(|point| point.version);
        (versions, losses)
    }
}
