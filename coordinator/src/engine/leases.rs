//! Open leases and their one timer, the deadline; and how many steps fit a device's speed.

use super::{pace::Pace, pool::SampleRange, record::LeaseRecord};
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    run_spec::RunSpec,
    time::Mono,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// However often it is renewed, a lease ends after this many times its first deadline: else a device that renews for
/// ever would keep its samples from the epoch for ever.
const LIFE_ALLOWANCES: u32 = 24;

/// Inner steps for a device of this pace, in a lease of so many seconds: as many as fill it (DyLU, arXiv 2401.09135),
/// or as the run spec says.
pub(super) fn steps_for(spec: &RunSpec, pace: &Pace, lease_s: f64) -> u32 {
    let lease = &spec.lease;
    let steps = if lease.steps > 0 {
        lease.steps
    } else if let Some(tokens) = pace.tokens_in(lease_s) {
        let steps = tokens / spec.tokens_per_step() as f64;
        // In a round all wait for whoever takes a step too many.
        let steps = if spec.has_rounds() { steps.floor() } else { steps.round() };
        steps.max(1.0) as u32
    } else {
        lease.calibration_steps
    };
    steps.min(lease.steps_max)
}

/// How long a device may be silent: `deadline_factor` times the wall time that the steps should take.
pub(super) fn allowance(spec: &RunSpec, steps: u32, pace: &Pace) -> Duration {
    let lease_s = pace.lease_s(f64::from(steps) * spec.tokens_per_step() as f64);
    let expected_s = if lease_s > 0.0 { lease_s } else { spec.lease.wall_s };
    Duration::from_secs_f64((spec.lease.deadline_factor * expected_s).clamp(spec.lease.deadline_s_min, 1e9))
}

/// What a device was told of the run's progress with its lease: it works its learning rates out of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Tokens that were merged.
    pub tokens: u64,
    /// By how much the run moves on in one of the device's steps.
    pub tokens_per_step: u64,
}

/// A lease that has not ended.
#[derive(Clone, Debug)]
pub(super) struct OpenLease {
    pub record: LeaseRecord,
    /// When this process first knew of it.
    pub born: Mono,
    /// When the device was last told; `None` if that was before this process started.
    pub granted: Option<Mono>,
    /// Whether it was issued before this process started.
    pub spans_restart: bool,
    /// As the device was first told; `None` if that was before this process started.
    pub told: Option<Told>,
    /// Its delta was measured, and came too soon: it need not be measured again before its time.
    pub waits: bool,
    /// When it expires, unless renewed.
    pub deadline: Mono,
    /// How far a renewal moves the deadline.
    pub allowance: Duration,
    /// The device's speed when it was issued, in thousandths of tokens a second; 0 for evaluations.
    pub speed_milli: u64,
    /// Whether an anchor node trains it.
    pub is_anchors: bool,
    /// Samples behind its range, kept for what the device trains ahead.
    pub behind: Option<SampleRange>,
    /// Inner steps that the device may take on them.
    pub ahead_steps: u32,
    /// It begins with what the device trained ahead behind this lease.
    pub ahead_of: Option<LeaseId>,
}

/// All open leases; every operation is logarithmic in their number.
#[derive(Default)]
pub(super) struct Leases {
    open: BTreeMap<LeaseId, OpenLease>,
    by_device: BTreeMap<DeviceId, LeaseId>,
    deadlines: BTreeSet<(Mono, LeaseId)>,
    /// Speeds of all devices that train, together.
    pub speed_milli: u64,
    /// Leases that anchor nodes train.
    pub of_anchors: usize,
}

impl Leases {
    pub fn insert(&mut self, lease: OpenLease) {
        let id = lease.record.id;
        self.speed_milli += lease.speed_milli;
        self.of_anchors += usize::from(lease.is_anchors);
        self.by_device.insert(lease.record.device, id);
        self.deadlines.insert((lease.deadline, id));
        self.open.insert(id, lease);
    }

    pub fn remove(&mut self, id: LeaseId) -> Option<OpenLease> {
        let lease = self.open.remove(&id)?;
        self.speed_milli -= lease.speed_milli;
        self.of_anchors -= usize::from(lease.is_anchors);
        self.by_device.remove(&lease.record.device);
        self.deadlines.remove(&(lease.deadline, id));
        Some(lease)
    }

    pub fn get(&self, id: LeaseId) -> Option<&OpenLease> {
        self.open.get(&id)
    }

    pub fn of_device(&self, device: DeviceId) -> Option<&OpenLease> {
        self.by_device.get(&device).and_then(|id| self.open.get(id))
    }

    /// All that train.
    pub fn training(&self) -> Vec<LeaseId> {
        self.open.values().filter(|l| l.record.kind.trains()).map(|l| l.record.id).collect()
    }

    /// What is kept behind a lease's range, to be kept on without it.
    pub fn take_behind(&mut self, id: LeaseId) -> Option<SampleRange> {
        self.open.get_mut(&id)?.behind.take()
    }

    /// All that is kept behind the ranges of open leases.
    pub fn behind(&self) -> impl Iterator<Item = SampleRange> + '_ {
        self.open.values().filter_map(|l| l.behind)
    }

    /// Moves the deadline: the device was heard of. `granted_again` says that it starts from the beginning.
    pub fn renew(&mut self, id: LeaseId, now: Mono, granted_again: bool) {
        let Some(lease) = self.open.get_mut(&id) else { return };
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = (now + lease.allowance).min(lease.born + lease.allowance * LIFE_ALLOWANCES);
        self.deadlines.insert((lease.deadline, id));
        if granted_again {
            lease.granted = Some(now);
        }
    }

    /// The device is told of a lease that it has begun with by now, if it was told before.
    pub fn tell(&mut self, id: LeaseId, told: Told) {
        if let Some(lease) = self.open.get_mut(&id).filter(|l| !l.spans_restart) {
            lease.told.get_or_insert(told);
        }
    }

    /// A lease's delta came too soon.
    pub fn let_wait(&mut self, id: LeaseId) {
        if let Some(lease) = self.open.get_mut(&id) {
            lease.waits = true;
        }
    }

    /// A lease whose deadline has passed.
    pub fn expired(&self, now: Mono) -> Option<LeaseId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RunSpec {
        // 4 samples of 128 tokens a step; 60 s a lease.
        serde_json::from_str(r#"{"name": "x", "token_budget": 1000000}"#).unwrap()
    }

    fn at(tokens_per_s: f64) -> Pace {
        Pace::remembered(tokens_per_s, 60.0)
    }

    #[test]
    fn steps_follow_the_speed() {
        let spec = spec();
        let steps = [0.0, 512.0, 2048.0, 1.0, 1e9].map(|speed| steps_for(&spec, &at(speed), 60.0));
        // The first lease measures; four times as fast means four times as many; at least one, and at most `steps_max`.
        assert_eq!(steps, [4, 60, 240, 1, 500]);
    }

    #[test]
    fn steps_fill_the_lease_or_are_the_same_for_all() {
        let mut spec = spec();
        assert_eq!([60.0, 120.0, 240.0].map(|lease_s| steps_for(&spec, &at(512.0), lease_s)), [60, 120, 240]);
        spec.lease.steps = 16;
        assert_eq!([0.0, 100.0, 1e9].map(|speed| steps_for(&spec, &at(speed), 60.0)), [16; 3]);
    }

    #[test]
    fn a_deadline_is_a_multiple_of_the_time_that_the_steps_should_take() {
        let spec = spec();
        assert_eq!(allowance(&spec, 60, &at(512.0)), Duration::from_secs(240));
        assert_eq!(allowance(&spec, 1, &at(512.0)), Duration::from_secs(60), "the least");
        assert_eq!(allowance(&spec, 4, &at(0.0)), Duration::from_secs(240));
    }
}
