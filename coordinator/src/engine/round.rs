//! Rounds by the clock: every lease is sized to end with the round, so that what devices trained from one version comes
//! back together and makes the next. No delta is stale, and none waits for a slow device: that one's lease is shorter.
//!
//! How long a round is, the run spec says, or, within its bounds, how far deltas agree. The longer devices train by
//! themselves, the more of what they send is signal (it grows with the steps, noise with their root); and the more
//! devices there are, the more noise their average removes. An average that is signal already is better followed by
//! another version soon; one that is noise still costs as many bytes for less. So a round is to be as long as makes
//! signal and remaining noise equal: the gradient noise scale's rule for batches (McCandlish et al., arXiv 1812.06162),
//! kept for deltas.
//!
//! It is the synchronous rounds of DiLoCo (arXiv 2311.08105) without their barrier, by the leases of DyLU (arXiv
//! 2401.09135). docs/study.md shows what staleness of even one version costs.

use super::{
    Engine, bounds::OVERHEAD_FACTOR_MAX, event::ReplyTo, hello_again, pace::Pace, record::VersionRecord, turn::Turn,
};
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    time::Mono,
    wire::{LeaseRequest, Refusal, RefusalCode, coordinator_message as answer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A lease shorter than this share of a round is not worth its download: who comes so late waits for the next round.
const LEAST_SHARE: f64 = 0.25;
/// Whoever asks within the first moments of a round is not late, however slow.
const MOST_SHARE: f64 = 0.9;
/// A device that would have to wait longer for its answer is told when to come again.
const HOLD_MAX: Duration = Duration::from_secs(45);

/// What signal is to be in an average, in units of the noise that is left in it, both in squared length.
const SIGNAL_TO_NOISE: f64 = 1.0;
/// By how much a round is longer or shorter than the one before it at most: what is measured is an average of about
/// ten.
const CHANGE_MAX: f64 = 1.1;
/// A round is so many times as long as what its leases cost besides training, or most devices would come back too late.
const OVERHEADS_MIN: f64 = 2.0;

/// Where leases cost much besides training, as of a large model over thin lines, a round may last so many times as long
/// as that, beyond what the run spec says: a twentieth of all time is then lost at most, and most of it is trained
/// through.
const OVERHEADS_ENOUGH: f64 = 20.0;
/// But not more than so many times as long as the run spec says.
const LONGER_MAX: f64 = 10.0;

/// The round at hand, in a run that has rounds.
#[derive(Default)]
pub(super) struct Round {
    /// As many seconds as the deltas' agreement asks for.
    wanted_s: f64,
    /// Seconds that a lease of the round before cost besides training, on the average.
    overhead_s: f64,
    /// The same of each lease of this round that is out or came back with a delta.
    overheads: Vec<(LeaseId, f64)>,
    /// When its leases are to be back.
    ends: Mono,
    /// Leases that are to be back by then and are not yet.
    out: BTreeSet<LeaseId>,
    /// Devices whose lease of this round has ended.
    done: BTreeSet<DeviceId>,
    /// Requests that are answered once the next round begins.
    held: BTreeMap<DeviceId, (ReplyTo, LeaseRequest)>,
}

impl Round {
    /// As long as the last before this process started.
    pub fn restore(versions: &[VersionRecord]) -> Self {
        let wanted_s = match versions {
            [.., a, b] => b.published_at.unix_ms.saturating_sub(a.published_at.unix_ms) as f64 / 1000.0,
            _ => 0.0,
        };
        Round { wanted_s, ..Round::default() }
    }

    /// Leases of a round that was on its way when the last process ended are waited for until then.
    pub fn go_on(&mut self, out: Vec<LeaseId>, ends: Mono) {
        (self.out, self.ends) = (out.into_iter().collect(), ends);
    }

    /// The requests that are held, which the next round answers no more.
    pub fn let_go(&mut self) -> Vec<(DeviceId, ReplyTo)> {
        std::mem::take(&mut self.held).into_iter().map(|(device, (to, _))| (device, to)).collect()
    }

    /// A version was made of so many deltas, of which this share is signal. As long as none had another to agree with,
    /// it is not known, and rounds grow: one device alone gains nothing by many versions.
    pub fn adapt(&mut self, share: Option<f64>, deltas: u64) {
        let share = share.filter(|share| share.is_finite()).unwrap_or_default().clamp(1e-3, 1.0 - 1e-3);
        let signal_to_noise = share * deltas as f64 / (1.0 - share);
        self.wanted_s *= (SIGNAL_TO_NOISE / signal_to_noise).clamp(1.0 / CHANGE_MAX, CHANGE_MAX);
    }

    /// A lease of this round, which will cost so many seconds besides training.
    pub fn issued(&mut self, lease: LeaseId, overhead_s: f64) {
        self.out.insert(lease);
        self.overheads.push((lease, overhead_s));
    }

    /// A lease has ended. One without a delta cost nothing, whoever takes and returns how many.
    pub fn closed(&mut self, lease: LeaseId, device: DeviceId, is_merged: bool) {
        if self.out.remove(&lease) {
            self.done.insert(device);
            if !is_merged {
                self.overheads.retain(|(id, _)| *id != lease);
            }
        }
    }
}

/// What leases cost on the average, each of them so many times the median at most: what a device says of its training
/// decides what its leases seem to cost, and none is to make everybody's rounds longer.
fn usual(overheads: &[f64]) -> Option<f64> {
    // A device's first lease tells nothing about what its next will cost.
    let mut sorted: Vec<f64> = overheads.iter().copied().filter(|s| *s > 0.0).collect();
    if sorted.is_empty() {
        return (!overheads.is_empty()).then_some(0.0);
    }
    sorted.sort_by(f64::total_cmp);
    let most = OVERHEAD_FACTOR_MAX * sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(overheads.iter().map(|s| s.min(most)).sum::<f64>() / overheads.len() as f64)
}

impl Engine {
    /// When a round's latecomers are not waited for any longer.
    fn round_is_over(&self) -> Mono {
        self.round.ends + Duration::from_secs_f64(self.spec.grace_s(self.round_s()))
    }

    pub(super) fn round_s(&self) -> f64 {
        let longest = self.spec.lease.wall_s_at(self.progress());
        // A fixed number of steps takes as long as it takes.
        let adapts = self.spec.has_rounds() && self.spec.lease.steps == 0;
        let Some(least) = self.spec.lease.wall_s_min.filter(|_| adapts) else { return longest };
        let overhead_s = self.round.overhead_s;
        let longest = longest.max((OVERHEADS_ENOUGH * overhead_s).min(LONGER_MAX * longest));
        let least = least.max(OVERHEADS_MIN * overhead_s);
        self.round.wanted_s.clamp(least.min(longest), longest)
    }

    fn begin_round(&mut self, now: Mono) {
        let overheads: Vec<f64> = std::mem::take(&mut self.round.overheads).into_iter().map(|(_, s)| s).collect();
        if let Some(overhead_s) = usual(&overheads) {
            self.round.overhead_s = overhead_s;
        }
        self.round.wanted_s = self.round_s();
        self.round.ends = now + Duration::from_secs_f64(self.round.wanted_s);
        self.round.out.clear();
        self.round.done.clear();
    }

    /// Seconds that a lease granted now to a device of this pace should take: to the round's end.
    pub(super) fn lease_s(&mut self, device: DeviceId, pace: &Pace, now: Mono) -> f64 {
        if !self.spec.has_rounds() {
            return self.round_s();
        }
        if self.is_late(device, pace, now) {
            self.begin_round(now);
        }
        self.round.ends.since(now).as_secs_f64()
    }

    /// Whether what is left of the round is too short for a lease: for one that is worth it, or for a single step. With
    /// a fixed number of steps a device has one lease a round.
    fn is_late(&self, device: DeviceId, pace: &Pace, now: Mono) -> bool {
        if self.spec.lease.steps > 0 {
            return self.round.done.contains(&device) || now >= self.round_is_over();
        }
        let round_s = self.round_s();
        let shortest_s = pace.lease_s(self.spec.tokens_per_step() as f64);
        // A device whose one step is longer than a round still has its turn at the beginning of each.
        self.round.ends.since(now).as_secs_f64() < shortest_s.clamp(LEAST_SHARE * round_s, MOST_SHARE * round_s)
    }

    /// Whether this round's version is due: all leases are back and a quorum with them, or its time is up.
    pub(super) fn round_is_complete(&self, buffered: u64, now: Mono) -> bool {
        let (all, enough) = (self.round.out.is_empty(), buffered >= self.spec.quorum());
        buffered > 0 && (all && enough || (all || enough) && now >= self.round_is_over())
    }

    /// When something is to be done for the round, if nothing happens before. With fewer deltas than a quorum there is
    /// nothing to do at its end, however late: a deadline then would be due again and again.
    pub(super) fn round_deadline(&self) -> Option<Mono> {
        let waits = self.buffered() >= self.spec.quorum() || !self.round.held.is_empty();
        (self.spec.has_rounds() && self.publishing.is_none() && waits).then(|| self.round_is_over())
    }

    /// Whether a request for a lease is better answered when the next round begins; if that is too long to wait, the
    /// refusal says when to come again.
    pub(super) fn hold(
        &mut self,
        device: DeviceId,
        to: ReplyTo,
        request: &LeaseRequest,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<bool, Refusal> {
        let comes = self.publishing.is_some() || self.buffered() > 0 || !self.round.out.is_empty();
        let over = self.round_is_over();
        let pace = self.roster.pace(device);
        let is_near = self.publishing.is_some() || (self.is_late(device, &pace, now) && now < over);
        if !self.spec.has_rounds() || self.finished() || !comes || !is_near || self.leases.of_device(device).is_some() {
            return Ok(false);
        }
        let wait = over.since(now);
        if wait > HOLD_MAX {
            return Err(self.retry(RefusalCode::Busy, "The next round is about to begin.", wait, device, now));
        }
        if let Some((earlier, _)) = self.round.held.insert(device, (to, request.clone())) {
            // Most likely nobody hears it; but who waits for an answer is forgotten only with one.
            let refusal = self.retry(RefusalCode::Busy, "This device has asked again since.", wait, device, now);
            turn.reply(earlier, answer::Body::Refusal(refusal));
        }
        Ok(true)
    }

    /// The next round begins, if it is time: all requests that were held are answered.
    pub(super) fn next_round(&mut self, is_published: bool, now: Mono, turn: &mut Turn) {
        let is_stuck = self.publishing.is_none() && !self.round.held.is_empty() && now >= self.round_is_over();
        if !self.spec.has_rounds() || !(is_published || is_stuck) {
            return;
        }
        self.begin_round(now);
        for (device, (to, request)) in std::mem::take(&mut self.round.held) {
            let session = self.roster.get(device).and_then(|d| d.session);
            let lease = session.ok_or_else(hello_again).and_then(|s| self.lease(device, s, &request, now, turn));
            turn.reply(to, lease.map_or_else(answer::Body::Refusal, answer::Body::Lease));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many leases one device takes and returns: what they would have cost makes nobody's rounds longer.
    #[test]
    fn a_lease_that_comes_back_without_a_delta_cost_nothing() {
        let (owl, thief) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let mut round = Round::default();
        round.issued(LeaseId(1), 0.2);
        for id in (2..200).map(LeaseId) {
            round.issued(id, 60.0);
            round.closed(id, thief, false);
        }
        round.closed(LeaseId(1), owl, true);
        let costs: Vec<f64> = round.overheads.iter().map(|(_, s)| *s).collect();
        assert_eq!(usual(&costs), Some(0.2));
    }
}
