//! What the engine goes on from after a start: the little that a ledger tells of everything that it holds.

use super::record::{DeviceRecord, EvaluationRecord, LeaseRecord, SeriesRecord, VersionRecord};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Generation, LeaseId},
    time::Wall,
    wire::limits::UPDATE_STEPS_MAX,
};
use std::collections::BTreeMap;

/// Newest versions in a snapshot: enough for the longest path of updates and the keyframe below it.
pub const VERSIONS_KEPT: usize = 2 * UPDATE_STEPS_MAX;
/// Newest deltas in a snapshot, of all devices together: what the screen's median is taken of.
pub const DELTAS_KEPT: usize = 1024;
/// Of each device so many of these at most, so that none crowds out the others.
pub const DELTAS_OF_DEVICE_KEPT: usize = 8;
/// Newest deltas that they are looked for among: a few devices that merge all the time lead no farther back.
pub const DELTAS_LOOKED: usize = 16 * DELTAS_KEPT;
/// Newest merged blobs in a snapshot: none of them is taken for another lease.
pub const BLOBS_KEPT: usize = 1 << 18;

/// The state that the engine is restored from. It grows with the devices and the dataset's shards, and not with the
/// run's length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// All devices, by id.
    pub devices: Vec<DeviceSummary>,
    /// Leases that have not ended, by number.
    pub open_leases: Vec<LeaseRecord>,
    /// The highest lease number.
    pub last_lease: LeaseId,
    /// Epochs that were opened.
    pub epochs_opened: u32,
    /// Epochs in which samples are still to be merged, in their order.
    pub epochs: Vec<EpochUse>,
    /// Merged deltas; the newest one's sequence number.
    pub last_seq: u64,
    /// Tokens merged.
    pub tokens: u64,
    /// What [`RecentDeltas`] keeps, oldest first.
    pub recent_deltas: Vec<RecentDelta>,
    /// The newest [`BLOBS_KEPT`] merged blobs, oldest first.
    pub merged_blobs: Vec<BlobHash>,
    /// The newest [`VERSIONS_KEPT`] versions, oldest first.
    pub versions: Vec<VersionRecord>,
    /// The newest measurement of held-out loss.
    pub evaluation: Option<EvaluationRecord>,
    /// What operators ordered.
    pub standing: Standing,
    /// The newest series.
    pub series: Option<SeriesRecord>,
}

/// What operators ordered, as far as it holds still.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Since when the run is paused.
    pub paused_at: Option<Wall>,
    /// The token budget, where it was raised above the run file's.
    pub token_budget: Option<u64>,
    /// Devices that are no part of the run any more, and since when.
    pub revoked_devices: BTreeMap<DeviceId, Wall>,
    /// Invites with which nobody enrols any more, and since when.
    pub revoked_invites: BTreeMap<Vec<u8>, Wall>,
}

/// A device and what it has done.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSummary {
    /// As last written.
    pub record: DeviceRecord,
    /// Tokens of its merged deltas.
    pub tokens: u64,
    /// Its merged deltas.
    pub merged: u64,
    /// The lease of the last one: an offer for it is answered as before.
    pub last_merged: Option<(LeaseId, Generation)>,
    /// Deltas of it that were refused since.
    pub refused: u32,
}

/// An epoch that is not finished: what is neither merged nor leased is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochUse {
    /// Pass over the data, from 0.
    pub epoch: u32,
    /// What merged deltas were trained on, by shard and first sample; neighbours are joined.
    pub merged: Vec<MergedRange>,
}

/// Samples that a merged delta was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergedRange {
    /// Position of the shard in the manifest's list.
    pub shard: u32,
    /// First sample.
    pub first: u32,
    /// Number of samples.
    pub samples: u32,
}

/// What the screen remembers of a delta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecentDelta {
    /// Position among all merged deltas.
    pub seq: u64,
    /// Whose it is.
    pub device: DeviceId,
    /// Norm of the pseudo-gradient.
    pub norm: f64,
    /// Inner steps.
    pub steps: u32,
    /// Tokens merged in the whole run up to and including it.
    pub tokens_so_far: u64,
    /// When it was merged.
    pub merged_at: Wall,
}

/// Of the newest [`DELTAS_LOOKED`] deltas the newest [`DELTAS_OF_DEVICE_KEPT`] of each device, and of these the newest
/// [`DELTAS_KEPT`].
#[derive(Default)]
pub struct RecentDeltas {
    looked: usize,
    of_device: BTreeMap<DeviceId, usize>,
    newest_first: Vec<RecentDelta>,
}

impl RecentDeltas {
    /// Whether older ones are to be looked at.
    pub fn wants_more(&self) -> bool {
        self.looked < DELTAS_LOOKED && self.newest_first.len() < DELTAS_KEPT
    }

    /// The next older one.
    pub fn older(&mut self, delta: RecentDelta) {
        if !self.wants_more() {
            return;
        }
        self.looked += 1;
        let of_device = self.of_device.entry(delta.device).or_default();
        *of_device += 1;
        if *of_device <= DELTAS_OF_DEVICE_KEPT {
            self.newest_first.push(delta);
        }
    }

    /// Those that are kept.
    pub fn oldest_first(mut self) -> Vec<RecentDelta> {
        self.newest_first.reverse();
        self.newest_first
    }
}
