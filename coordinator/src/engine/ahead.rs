//! Training ahead: while a device's delta travels and its next lease is still to come, it trains on with the samples
//! behind its range, which are kept for it meanwhile. The next lease begins with them, on newer weights plus what those
//! steps changed, so that communication takes no time from training: the overlap of Streaming DiLoCo (arXiv 2501.18512)
//! and of eager updates (arXiv 2502.12996), for devices that each take as many steps as they can.
//!
//! What is kept is in memory only. By the ledger these samples are free: a coordinator that starts anew gives them to
//! anybody, and a device that was ahead begins its next lease afresh.

use super::pool::SampleRange;
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    time::Mono,
};
use std::collections::{BTreeMap, BTreeSet};

/// A device trains ahead for at most so many seconds: what it does is saved nowhere until its next lease, and an owner
/// who wants the computer back may end it at any time.
pub(super) const AHEAD_S_MAX: f64 = 60.0;

/// A device that may be training ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// The lease that it trained to the end.
    pub lease: LeaseId,
    /// The samples behind that lease's range.
    pub range: SampleRange,
    /// Inner steps that it may have taken on them.
    pub steps: u32,
    /// When that lease's delta came: it goes on since about then.
    pub since: Mono,
    /// When that lease had begun: before that it certainly did not go on.
    pub begun: Mono,
    /// Whoever has not asked for its next lease by then has given up.
    pub until: Mono,
}

/// All devices that may be training ahead; every operation is logarithmic in their number.
#[derive(Default)]
pub(super) struct Kept {
    by_device: BTreeMap<DeviceId, Ahead>,
    ends: BTreeSet<(Mono, DeviceId)>,
}

impl Kept {
    pub fn keep(&mut self, device: DeviceId, ahead: Ahead) {
        self.ends.insert((ahead.until, device));
        self.by_device.insert(device, ahead);
    }

    pub fn take(&mut self, device: DeviceId) -> Option<Ahead> {
        let ahead = self.by_device.remove(&device)?;
        self.ends.remove(&(ahead.until, device));
        Some(ahead)
    }

    /// A device that has given up.
    pub fn expired(&self, now: Mono) -> Option<DeviceId> {
        self.ends.first().filter(|(until, _)| *until <= now).map(|(_, device)| *device)
    }

    pub fn next_deadline(&self) -> Option<Mono> {
        self.ends.first().map(|(until, _)| *until)
    }

    pub fn ranges(&self) -> impl Iterator<Item = SampleRange> + '_ {
        self.by_device.values().map(|ahead| ahead.range)
    }
}
