//! The screen: what is checked of an offer before its blob is taken, and of a delta before it is merged.

use super::{
    event::Measured,
    leases::OpenLease,
    record::{LeaseKind, LeaseRecord},
};
use crate::store::{RecentDelta, snapshot::DELTAS_KEPT};
use nightjar_shared::{ids::BlobHash, run_spec::RunSpec, time::Mono, wire::DeltaOffer};
use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

/// Deltas whose norms are remembered.
const WINDOW: usize = DELTAS_KEPT;
/// Before so many were merged there is no median to hold a delta against.
const WINDOW_MIN: usize = 8;
/// A step of Adam moves a weight by about its learning rate at most (Kingma and Ba, arXiv 1412.6980, section 2.1);
/// this many times that leaves room for decay and for what error feedback adds.
const ADAM_SLACK: f64 = 10.0;

/// Whether an offer fits its lease; if not, the reason, for the device's log. `allowed` is what a delta's length can be.
pub(super) fn plausible(
    spec: &RunSpec,
    allowed: &RangeInclusive<u64>,
    lease: &OpenLease,
    offer: &DeltaOffer,
    now: Mono,
) -> Result<(), String> {
    let LeaseRecord { kind, steps, samples, .. } = lease.record;
    if kind != LeaseKind::Train {
        return Err("The lease was not for training.".into());
    }
    match &offer.delta {
        Some(blob) if BlobHash::from_bytes(&blob.hash).is_some() && allowed.contains(&blob.bytes) => {}
        _ => {
            let (least, most) = (allowed.start(), allowed.end());
            return Err(format!("A delta of this run is named by 32 bytes and is {least} to {most} bytes long."));
        }
    }
    let used = u64::from(offer.steps) * u64::from(spec.inner.batch_samples);
    if offer.steps == 0 || offer.steps > steps || u64::from(offer.samples) != used || offer.samples > samples {
        return Err(format!("{} steps on {} samples do not fit a lease of {steps} steps.", offer.steps, offer.samples));
    }
    if !(offer.loss_first.is_finite() && offer.loss_last.is_finite()) {
        return Err("A loss is not a finite number.".into());
    }
    // Clocks drift a little; what a lease took before this process started is unknown.
    let most = now.since(lease.born).mul_f64(1.1) + Duration::from_secs(5);
    if lease.granted.is_some() && Duration::from_millis(offer.train_ms) > most {
        return Err("It says it trained for longer than the lease has existed.".into());
    }
    Ok(())
}

/// What recent deltas were like.
pub(super) struct Screen {
    /// Relative norms of the newest deltas.
    recent: VecDeque<f64>,
    /// The largest norm of a step, worked out once: counting the parameters lists all tensors by name.
    step_norm_max: f64,
}

impl Screen {
    pub fn restore(spec: &RunSpec, recent: &[RecentDelta]) -> Self {
        let step_norm_max = ADAM_SLACK * spec.inner.learning_rate * (spec.model.parameters() as f64).sqrt();
        let mut screen = Screen { recent: VecDeque::new(), step_norm_max };
        for d in recent {
            screen.remember(relative_norm(spec, d.norm, d.steps, d.tokens_so_far));
        }
        screen
    }

    /// Whether a delta is to be merged; if not, the reason. `tokens_so_far` includes its own.
    pub fn judge(
        &mut self,
        spec: &RunSpec,
        measured: Measured,
        steps: u32,
        staleness: u64,
        tokens_so_far: u64,
    ) -> Result<(), String> {
        if staleness > spec.merge.staleness_max {
            return Err(format!("It started {staleness} versions ago; at most {} count.", spec.merge.staleness_max));
        }
        if measured.norm.is_nan() || measured.norm > self.step_norm_max * f64::from(steps) {
            return Err(format!("Its norm, {:.3e}, is more than {steps} steps can move the weights.", measured.norm));
        }
        let norm = relative_norm(spec, measured.norm, steps, tokens_so_far);
        let limit = self.median().filter(|m| *m > 0.0).map_or(f64::INFINITY, |median| median * spec.merge.norm_factor_max);
        // What is refused is remembered too, as the most that would have passed: a few wild deltas don't move the
        // median, while a lasting change of the run does, and does not lock everyone out.
        self.remember(norm.min(limit));
        if norm > limit {
            return Err(format!("Its norm is {:.1} times what passes.", norm / limit));
        }
        Ok(())
    }

    fn remember(&mut self, norm: f64) {
        self.recent.push_back(norm);
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
    }

    fn median(&self) -> Option<f64> {
        if self.recent.len() < WINDOW_MIN {
            return None;
        }
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        Some(sorted[sorted.len() / 2])
    }
}

/// A norm made comparable between leases of few and many steps, early and late in the schedule: divided by the learning
/// rate and by the root of the number of steps, as if each step went its own way.
fn relative_norm(spec: &RunSpec, norm: f64, steps: u32, tokens_so_far: u64) -> f64 {
    let progress = tokens_so_far as f64 / spec.token_budget as f64;
    let learning_rate = spec.inner.learning_rate_at(progress).max(1e-12);
    norm / (learning_rate * f64::from(steps.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RunSpec {
        serde_json::from_str(r#"{"name": "x", "token_budget": 1000000}"#).unwrap()
    }

    fn screen() -> Screen {
        Screen::restore(&spec(), &[])
    }

    fn judge(screen: &mut Screen, norm: f64, steps: u32) -> Result<(), String> {
        screen.judge(&spec(), Measured { norm }, steps, 0, 500_000)
    }

    #[test]
    fn a_norm_far_above_the_others_does_not_pass() {
        let mut screen = screen();
        for _ in 0..WINDOW_MIN {
            judge(&mut screen, 1.0, 100).unwrap();
        }
        judge(&mut screen, 7.9, 100).unwrap();
        assert!(judge(&mut screen, 8.1, 100).is_err());
        judge(&mut screen, 0.79, 1).unwrap();
        assert!(judge(&mut screen, 0.81, 1).is_err(), "a single step may move less");
    }

    #[test]
    fn a_few_wild_ones_move_nothing_a_lasting_change_passes_in_the_end() {
        let mut screen = screen();
        for _ in 0..WINDOW {
            judge(&mut screen, 0.1, 100).unwrap();
        }
        for _ in 0..10 {
            assert!(judge(&mut screen, 2.0, 100).is_err());
        }
        assert!(judge(&mut screen, 0.9, 100).is_err());
        let refused = (0..100).take_while(|_| judge(&mut screen, 2.0, 100).is_err()).count();
        assert!((20..60).contains(&refused), "{refused}");
    }

    #[test]
    fn what_no_optimizer_does_never_passes() {
        let mut screen = screen();
        // 10 · 2e-3 · 1 step · √824448 = 18.2
        judge(&mut screen, 18.0, 1).unwrap();
        assert!(judge(&mut screen, 18.3, 1).is_err());
        assert!(judge(&mut screen, f64::NAN, 1).is_err());
        assert!(screen.judge(&spec(), Measured { norm: 1.0 }, 1, 33, 0).is_err(), "too stale");
    }
}
