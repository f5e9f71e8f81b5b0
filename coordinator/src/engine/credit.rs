//! Credit needs time: no lease counts before its device can have trained it. How fast a device can be is bounded by
//! what any computer can do; for a stranger's by much less, doubled after each minute of merged work; and by what it
//! was measured at. Whoever is ahead of that waits, and loses nothing.

use super::{
    Engine,
    bounds::{
        CREDIT_DOUBLES_S, CREDIT_FACTOR, FLOPS_MOST, FLOPS_PER_WEIGHT, SPEED_FACTOR, STEP_S_LEAST, STRANGER_FLOPS,
        STRANGER_STEP_S,
    },
    leases::OpenLease,
    work::Work,
};
use nightjar_shared::{time::Mono, wire::Role};
use std::time::Duration;

/// What a device has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// Seconds of leases whose deltas were merged.
    pub at_work_s: f64,
    /// By then it can have done all that it was credited with.
    pub worked_until: Mono,
}

impl Credit {
    /// As an earlier process left it: its tokens at its speed.
    pub fn remembered(tokens: u64, tokens_per_s: f64) -> Self {
        let at_work_s = if tokens_per_s > 0.0 { tokens as f64 / tokens_per_s } else { 0.0 };
        Credit { at_work_s, worked_until: Mono::default() }
    }
}

/// Seconds that so many steps on so many tokens take a device at least. `parameters` are the model's.
pub(super) fn least_s(
    parameters: f64,
    steps: u32,
    tokens: u64,
    trusted: bool,
    at_work_s: f64,
    tokens_per_s: f64,
) -> f64 {
    let (steps, tokens) = (f64::from(steps), tokens as f64);
    let flops = FLOPS_PER_WEIGHT * parameters * tokens;
    let anybodys = steps * STEP_S_LEAST + flops / FLOPS_MOST;
    if trusted {
        return anybodys;
    }
    let strangers = steps * STRANGER_STEP_S + flops / STRANGER_FLOPS;
    let by_credit = strangers / (at_work_s / CREDIT_DOUBLES_S).min(64.0).exp2();
    let by_speed = if tokens_per_s > 0.0 { tokens / (SPEED_FACTOR * tokens_per_s) } else { 0.0 };
    // However slow it was: it may always be as fast as a stranger.
    anybodys.max(by_credit).max(by_speed.min(strangers))
}

impl Engine {
    /// How much longer the device needs for what it offers; `None` if it can have been done by now.
    pub(super) fn too_soon(&self, lease: &OpenLease, work: &Work, now: Mono) -> Option<Duration> {
        let least = self.least(lease, work);
        let so_far = match lease.spans_restart {
            false => now.since(self.begun(lease)),
            // What passed before this process started, only the calendar knows.
            true => self.wall.since(lease.record.issued_at).max(now.since(lease.born)),
        };
        least.checked_sub(so_far).filter(|left| !left.is_zero())
    }

    /// The device is credited with a lease's work. Gives the time that this takes it at least.
    pub(super) fn credit(&mut self, lease: &OpenLease, work: &Work, wall_ms: u64) -> Duration {
        let least = self.least(lease, work);
        let done = self.begun(lease) + least;
        if let Some(device) = self.roster.get_mut(lease.record.device) {
            device.credit.worked_until = done;
            if !lease.spans_restart {
                device.credit.at_work_s += (wall_ms as f64 / 1000.0).min(CREDIT_FACTOR * least.as_secs_f64());
            }
        }
        least
    }

    /// When the device can have begun with a lease at the earliest: when it was told of it, or began to train ahead,
    /// and not before it was done with the one before.
    fn begun(&self, lease: &OpenLease) -> Mono {
        let busy = self.roster.get(lease.record.device).map_or(Mono::default(), |d| d.credit.worked_until);
        lease.born.max(busy)
    }

    fn least(&self, lease: &OpenLease, work: &Work) -> Duration {
        let Some(device) = self.roster.get(lease.record.device) else { return Duration::ZERO };
        let trusted = device.record.role == Role::Anchor;
        let (at_work_s, tokens_per_s) = (device.credit.at_work_s, device.pace.tokens_per_s());
        let s = least_s(self.parameters, work.trained.steps, work.tokens, trusted, at_work_s, tokens_per_s);
        Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: f64 = 824_448.0;

    #[test]
    fn a_strangers_device_is_believed_little_and_more_with_every_minute_of_work() {
        // A whole lease of the smallest model: 500 steps of 512 tokens.
        let tiny = |at_work_s| least_s(TINY, 500, 256_000, false, at_work_s, 0.0);
        assert!((tiny(0.0) - 10.13).abs() < 0.01, "{}", tiny(0.0));
        assert!((tiny(120.0) - tiny(0.0) / 4.0).abs() < 1e-9);
        assert!((tiny(1e9) - 0.5).abs() < 0.01, "what any device takes: {}", tiny(1e9));
    }

    #[test]
    fn honest_devices_are_never_too_fast() {
        // Parameters, tokens a step, tokens a second, an anchor's: from docs/performance.md, and the simulator's.
        let fastest = [
            (TINY, 512, 2000.0, false),
            (TINY, 2048, 51_800.0, false),
            (TINY, 512, 8000.0, false),
            (124e6, 8192, 8_000.0, false),
            (124e6, 8192, 660_000.0, true),
            (1.03e9, 16_384, 13_000.0, true),
            (1.03e9, 16_384, 100_000.0, true),
        ];
        for (parameters, per_step, tokens_per_s, is_anchors) in fastest {
            for steps in [1, 4, 500] {
                let tokens = u64::from(steps) * per_step;
                let least = least_s(parameters, steps, tokens, is_anchors, 0.0, 0.0);
                assert!(least <= tokens as f64 / tokens_per_s, "{parameters} {per_step} {tokens_per_s}: {least} s");
            }
        }
    }

    #[test]
    fn a_device_that_was_slow_may_be_as_fast_as_a_stranger_and_no_faster_than_its_measure_allows() {
        let of = |tokens_per_s| least_s(TINY, 500, 256_000, false, 1e9, tokens_per_s);
        assert!((of(1.0) - 10.13).abs() < 0.01);
        assert!((of(2000.0) - 2.0).abs() < 0.01, "64 times 2000 tokens a second: {}", of(2000.0));
        assert!((of(1e9) - 0.5).abs() < 0.01);
    }
}
