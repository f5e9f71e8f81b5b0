//! The screen: whether a delta that was measured is to be merged.
//!
//! A delta is measured by its *way*: its norm as a share of how far its steps could have led at most, which is the sum
//! of their learning rates, as the lease told them, times the root of the number of weights. Before others have shown
//! how far steps lead, the bound is what Adam can do (Kingma and Ba, arXiv 1412.6980, section 2.1); then it is a small
//! multiple of what they did. Every device has one say in that, the median of its own newest deltas, and it takes
//! several; where anchor nodes train, theirs counts alone.

use super::{
    bounds::{
        FRESH_STEPS, SAY_DELTAS_MIN, SAY_DEVICES_MIN, SAY_LASTS_LEASES, SAY_LASTS_S, SHORTER_MAX, VALUE_MAX,
        WAY_ALWAYS, WAY_LEAST, WAY_SLACK,
    },
    event::Measured,
    leases::Told,
    refused::Reason,
    snapshot::{DELTAS_KEPT, DELTAS_OF_DEVICE_KEPT, RecentDelta},
};
use nightjar_shared::{delta::CodecId, ids::DeviceId, run_spec::RunSpec, time::Wall};
use std::collections::{BTreeMap, VecDeque};

/// Points of the schedule that stand for a lease's learning rates.
const RATES: u32 = 16;

/// Why a delta is not merged; the sentence is for the device's log.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(super) enum Unfit {
    #[error("It started {0} versions ago; at most {1} count.")]
    Stale(u64, u64),
    #[error("Its norm, {norm:.3e}, is more than {steps} steps can move the weights.")]
    Impossible { norm: f64, steps: u32 },
    #[error("Its largest value, {largest:.3e}, is more than {steps} steps can move a weight.")]
    Spike { largest: f64, steps: u32 },
    #[error("Its norm, {norm:.3e}, is next to nothing for {steps} steps.")]
    Nothing { norm: f64, steps: u32 },
    #[error("Its norm is {0:.1} times what passes.")]
    Far(f64),
}

impl Unfit {
    /// The same, for figures.
    pub fn reason(&self) -> Reason {
        match self {
            Unfit::Stale(..) => Reason::Stale,
            Unfit::Impossible { .. } | Unfit::Spike { .. } => Reason::Impossible,
            Unfit::Nothing { .. } => Reason::Nothing,
            Unfit::Far(_) => Reason::Far,
        }
    }
}

/// A delta as the screen sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub device: DeviceId,
    pub is_anchors: bool,
    pub measured: Measured,
    pub steps: u32,
    pub staleness: u64,
    /// Of the schedule, as its lease was told; `None` if that was before this process started.
    pub told: Option<Told>,
    /// Merged in the whole run, with its own.
    pub tokens_so_far: u64,
    pub wall: Wall,
}

/// How far steps led.
#[derive(Clone, Copy, Debug)]
struct Way {
    share: f64,
    steps: u32,
}

/// What a device's newest deltas were like, newest last.
struct Own {
    ways: VecDeque<Way>,
    /// The norm of the last that was merged, as far as its own steps can have led: a share of it may come with the
    /// next.
    last_norm: f64,
    /// Their median, worked out once.
    middle: Option<Way>,
    /// Whether any of them was merged.
    has_merged: bool,
    is_anchors: bool,
    last: Wall,
}

impl Own {
    fn add(&mut self, way: Way, wall: Wall) {
        self.ways.push_back(way);
        if self.ways.len() > DELTAS_OF_DEVICE_KEPT {
            self.ways.pop_front();
        }
        self.middle = middle(&mut self.ways.iter().copied().collect::<Vec<_>>());
        self.last = self.last.max(wall);
    }
}

/// What recent deltas were like.
pub(super) struct Screen {
    by_device: BTreeMap<DeviceId, Own>,
    /// The root of the number of weights, worked out once: counting them lists all tensors by name.
    root_weights: f64,
}

impl Screen {
    /// `is_anchors` says of a device whether it is an anchor node.
    pub fn restore(
        spec: &RunSpec,
        parameters: f64,
        recent: &[RecentDelta],
        is_anchors: impl Fn(DeviceId) -> bool,
    ) -> Self {
        let mut screen = Screen { by_device: BTreeMap::new(), root_weights: parameters.sqrt() };
        for d in recent {
            let progress = progress(spec, d.tokens_so_far as f64);
            let mut rate = spec.inner.learning_rate_at(progress);
            // While rates rise, those of its steps were smaller than the one at its end.
            if progress < 2.0 * spec.inner.warmup {
                rate /= 2.0;
            }
            let rates = f64::from(d.steps) * rate;
            let way = Way { share: screen.share(d.norm, rates), steps: d.steps };
            if way.share.is_finite() && way.share >= least(spec, None, d.steps) {
                screen.remember(
                    d.device,
                    is_anchors(d.device),
                    way,
                    d.merged_at,
                    Some(d.norm.min(screen.norm(most(spec), rates))),
                );
            }
        }
        screen
    }

    /// Whether a delta is to be merged; if not, the reason.
    pub fn judge(&mut self, spec: &RunSpec, delta: &Candidate) -> Result<(), Unfit> {
        let Candidate {
            device,
            is_anchors,
            measured: Measured { norm, largest },
            steps,
            staleness,
            told,
            tokens_so_far,
            wall,
        } = *delta;
        if staleness > spec.merge.staleness_max {
            return Err(Unfit::Stale(staleness, spec.merge.staleness_max));
        }
        let rates =
            told.map_or_else(|| largest_rate(spec, tokens_so_far) * f64::from(steps), |t| sum_of_rates(spec, t, steps));
        let way = Way { share: self.share(norm, rates), steps };
        // What the last delta's rounding lost may be as old as that, when rates were larger.
        let owed = self.by_device.get(&device).map_or(0.0, |own| self.share(owed(spec) * own.last_norm, rates));
        let ever = most(spec) + owed;
        if way.share.is_nan() || way.share > ever {
            return Err(Unfit::Impossible { norm, steps });
        }
        let each = (most(spec) * VALUE_MAX + owed) * values_room(spec) * rates;
        if largest.is_nan() || largest > each {
            return Err(Unfit::Spike { largest, steps });
        }
        let median = self.median(spec, wall);
        if told.is_some() && way.share < least(spec, median, steps) {
            return Err(Unfit::Nothing { norm, steps });
        }
        let limit = median.map_or(ever, |median| (beside(spec, median, steps).max(WAY_ALWAYS) + owed).min(ever));
        // What is refused is remembered too, as the most that would have passed: a lasting change of the run moves
        // every device's median, and does not lock everyone out. Of a schedule that is not known nothing is learnt.
        if told.is_some() {
            self.remember(
                device,
                is_anchors,
                Way { share: way.share.min(limit), steps },
                wall,
                (way.share <= limit).then_some(norm.min(self.norm(most(spec), rates))),
            );
        }
        if way.share > limit { Err(Unfit::Far(way.share / limit)) } else { Ok(()) }
    }

    fn share(&self, norm: f64, rates: f64) -> f64 {
        norm / (rates * self.root_weights).max(1e-300)
    }

    /// How large a way's delta is.
    fn norm(&self, share: f64, rates: f64) -> f64 {
        share * rates * self.root_weights
    }

    fn remember(&mut self, device: DeviceId, is_anchors: bool, way: Way, wall: Wall, merged: Option<f64>) {
        if self.by_device.len() >= DELTAS_KEPT && !self.by_device.contains_key(&device) {
            // Who has merged nothing takes the place of nobody who has, however many keys somebody makes up.
            let first = self.by_device.iter().min_by_key(|(_, own)| (own.has_merged, own.last));
            match first.map(|(id, own)| (*id, own.has_merged)) {
                Some((_, true)) if merged.is_none() => return,
                first => first.and_then(|(id, _)| self.by_device.remove(&id)),
            };
        }
        let none =
            || Own { ways: VecDeque::new(), last_norm: 0.0, middle: None, has_merged: false, is_anchors, last: wall };
        let own = self.by_device.entry(device).or_insert_with(none);
        own.is_anchors = is_anchors;
        own.has_merged |= merged.is_some();
        own.last_norm = merged.unwrap_or(own.last_norm);
        own.add(way, wall);
    }

    /// The median over devices of each one's own.
    fn median(&self, spec: &RunSpec, now: Wall) -> Option<Way> {
        let lasts_s = SAY_LASTS_S.max(SAY_LASTS_LEASES * spec.lease.wall_s.max(spec.lease.wall_s_end.unwrap_or(0.0)));
        let since = now.unix_ms.saturating_sub((lasts_s * 1000.0) as u64);
        let with_say =
            || self.by_device.values().filter(|own| own.ways.len() >= SAY_DELTAS_MIN && own.last.unix_ms >= since);
        let middles = |anchors: bool| -> Vec<Way> {
            let of_those = with_say().filter(|own| own.is_anchors || !anchors);
            of_those.filter_map(|own| own.middle).collect()
        };
        middle(&mut middles(true)).or_else(|| {
            let mut all = middles(false);
            if all.len() >= SAY_DEVICES_MIN { middle(&mut all) } else { None }
        })
    }
}

/// The lower middle: of two, the smaller one's word counts.
fn middle(ways: &mut [Way]) -> Option<Way> {
    let at = ways.len().checked_sub(1)? / 2;
    Some(*ways.select_nth_unstable_by(at, |a, b| a.share.total_cmp(&b.share)).1)
}

/// The longest way that steps can lead. While rates rise, those of a small model all lead the same way: 284 of them
/// were seen to lead more than half of the whole.
fn most(spec: &RunSpec) -> f64 {
    let i = &spec.inner;
    let step = ((1.0 - i.beta1) / (1.0 - i.beta2).sqrt()).max(1.0) + i.weight_decay;
    WAY_SLACK * step * feedback_room(spec)
}

/// The longest way that passes beside what others do. Where they took more steps, theirs may have gone to and fro; what
/// an optimizer adds that starts afresh is little in many steps.
fn beside(spec: &RunSpec, median: Way, steps: u32) -> f64 {
    let steps = f64::from(steps.max(1));
    let fewer = (f64::from(median.steps) / steps).sqrt().max(1.0);
    spec.merge.norm_factor() * feedback_room(spec) * median.share * fewer + FRESH_STEPS / steps
}

/// The shortest way that counts as trained.
fn least(spec: &RunSpec, median: Option<Way>, steps: u32) -> f64 {
    // With a large epsilon Adam's steps are as short as its gradients.
    let ever = WAY_LEAST * (1e-8 / spec.inner.epsilon).min(1.0);
    let beside = |m: Way| m.share * (f64::from(m.steps) / f64::from(steps.max(1))).sqrt().min(1.0) / SHORTER_MAX;
    median.map_or(0.0, beside).max(ever)
}

/// A sparse delta sends at last what many before it left out: at random the root of their number, and more where they
/// agree.
fn feedback_room(spec: &RunSpec) -> f64 {
    let is_late = spec.delta.codec == CodecId::Sparse2 && spec.delta.feedback > 0.0;
    if is_late { (4096.0 / f64::from(spec.delta.k.max(1))).sqrt().sqrt().max(1.0) } else { 1.0 }
}

/// How much larger a single value can be where it waited for its turn.
fn values_room(spec: &RunSpec) -> f64 {
    if spec.delta.codec == CodecId::Sparse2 { 4096.0 / f64::from(spec.delta.k.clamp(1, 4096)) } else { 1.0 }
}

/// The share of a delta that its rounding loses at most, where feedback adds it to the next.
fn owed(spec: &RunSpec) -> f64 {
    let lost = match spec.delta.codec {
        CodecId::F32 => 0.0,
        CodecId::Blocks8 => 0.02,
        CodecId::Blocks4 => 0.15,
        CodecId::Blocks2 => 0.5,
        CodecId::Sparse2 => 1.0,
    };
    lost * spec.delta.feedback
}

fn progress(spec: &RunSpec, tokens: f64) -> f64 {
    tokens / spec.token_budget as f64
}

/// The sum of the learning rates of a lease's steps, as the device works them out.
fn sum_of_rates(spec: &RunSpec, told: Told, steps: u32) -> f64 {
    let points = RATES.min(steps.max(1));
    let rate = |point: u32| {
        let step = (f64::from(point) + 0.5) * f64::from(steps) / f64::from(points) - 0.5;
        spec.inner.learning_rate_at(progress(spec, told.tokens as f64 + step * told.tokens_per_step as f64))
    };
    (0..points).map(rate).sum::<f64>() / f64::from(points) * f64::from(steps)
}

/// The largest learning rate until now.
fn largest_rate(spec: &RunSpec, tokens_so_far: u64) -> f64 {
    spec.inner.learning_rate_at(progress(spec, tokens_so_far as f64).min(spec.inner.warmup))
}

#[cfg(test)]
mod tests;
