//! The run spec: what a lab writes in `run.toml`, and what every device is sent. It is data: a device runs only the
//! kernels in its own binary.

use crate::{model_spec::ModelSpec, model_spec::ModelSpecError, rng};
use serde::{Deserialize, Serialize};

/// Everything that decides how a run trains. Unknown keys are refused, so that a typing mistake is noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Shown to volunteers.
    pub name: String,
    /// What the project is and who runs it, in a sentence or two; shown to volunteers.
    #[serde(default)]
    pub description: String,
    /// All of the run's randomness starts here.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// Tokens to train on in all; the learning rate's schedule ends here.
    pub token_budget: u64,
    /// The model's shape.
    #[serde(default = "ModelSpec::tiny")]
    pub model: ModelSpec,
    /// What a device does in its inner steps.
    #[serde(default)]
    pub inner: InnerSpec,
    /// How leases are sized.
    #[serde(default)]
    pub lease: LeaseSpec,
    /// How deltas are merged.
    #[serde(default)]
    pub merge: MergeSpec,
    /// How versions are published.
    #[serde(default)]
    pub publish: PublishSpec,
    /// When held-out loss is measured.
    #[serde(default)]
    pub evaluate: EvaluateSpec,
}

/// The inner optimizer: AdamW (Loshchilov and Hutter, arXiv 1711.05101) under a cosine schedule by global progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InnerSpec {
    /// Samples in one inner step's batch, over all its micro-batches.
    pub batch_samples: u32,
    /// The schedule's peak.
    pub learning_rate: f64,
    /// Share of the token budget over which the rate rises from zero.
    pub warmup: f64,
    /// Share of the peak at which the cosine ends.
    pub floor: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, on matrices only.
    pub weight_decay: f64,
    /// Gradients above this global norm are scaled down to it.
    pub clip_norm: f64,
}

impl Default for InnerSpec {
    fn default() -> Self {
        InnerSpec {
            batch_samples: 4,
            learning_rate: 2e-3,
            warmup: 0.03,
            floor: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
        }
    }
}

impl InnerSpec {
    /// The learning rate at `progress`, the share of the token budget that the whole run has consumed: a linear
    /// warm-up, then a cosine from the peak down to `floor` of it.
    pub fn learning_rate_at(&self, progress: f64) -> f64 {
        if progress < self.warmup {
            return self.learning_rate * progress.max(1e-3) / self.warmup;
        }
        let way = ((progress - self.warmup) / (1.0 - self.warmup)).min(1.0);
        let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * way));
        self.learning_rate * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// How leases are sized: H follows the device's measured speed (DyLU, arXiv 2401.09135), so that every device reports
/// after about `wall_s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseSpec {
    /// Wall time that a lease should take, from grant to delta, in seconds.
    pub wall_s: f64,
    /// Inner steps of a device's first lease, which measures its speed.
    pub calibration_steps: u32,
    /// Most inner steps in a lease.
    pub steps_max: u32,
    /// A lease expires after this many times the wall time that it should take.
    pub deadline_factor: f64,
    /// A lease never expires sooner than this, in seconds.
    pub deadline_s_min: f64,
}

impl Default for LeaseSpec {
    fn default() -> Self {
        LeaseSpec { wall_s: 60.0, calibration_steps: 4, steps_max: 500, deadline_factor: 4.0, deadline_s_min: 60.0 }
    }
}

/// How much a stale delta counts. `tau` is the number of versions published since the one it started from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum StalenessSpec {
    /// 1, whatever the staleness.
    Constant,
    /// (1 + tau)^-power (FedAsync, arXiv 1903.03934; FedBuff uses power 0.5).
    Polynomial {
        /// The exponent.
        power: f64,
    },
    /// 1 up to `grace`, then 1 / (slope · (tau − grace) + 1) (FedAsync).
    Hinge {
        /// Staleness that costs nothing.
        grace: f64,
        /// How fast the weight falls beyond.
        slope: f64,
    },
}

impl StalenessSpec {
    /// The weight of a delta that is `tau` versions stale.
    pub fn weight(&self, tau: u64) -> f64 {
        let tau = tau as f64;
        match *self {
            StalenessSpec::Constant => 1.0,
            StalenessSpec::Polynomial { power } => libm::pow(1.0 + tau, -power),
            StalenessSpec::Hinge { grace, slope } if tau > grace => 1.0 / (slope * (tau - grace) + 1.0),
            StalenessSpec::Hinge { .. } => 1.0,
        }
    }
}

/// How deltas become the next version: a quorum buffer (FedBuff, arXiv 2106.06639), each delta weighted by its
/// staleness and by the tokens it was trained on (PAPAYA, arXiv 2111.04877), then SGD with Nesterov momentum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MergeSpec {
    /// Deltas in the buffer that make a version.
    pub quorum: u32,
    /// The outer step's learning rate.
    pub learning_rate: f64,
    /// The outer step's momentum.
    pub momentum: f64,
    /// How much a stale delta counts.
    pub staleness: StalenessSpec,
    /// A delta more versions stale than this is not merged.
    pub staleness_max: u64,
    /// A delta whose norm is above this many times the recent median is not merged.
    pub norm_factor_max: f64,
}

impl Default for MergeSpec {
    fn default() -> Self {
        MergeSpec {
            quorum: 4,
            learning_rate: 1.0,
            momentum: 0.0,
            staleness: StalenessSpec::Polynomial { power: 0.5 },
            staleness_max: 32,
            norm_factor_max: 8.0,
        }
    }
}

/// How versions are published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishSpec {
    /// Every so many versions the whole model is published as a keyframe; in between, updates.
    pub keyframe_every: u64,
}

impl Default for PublishSpec {
    fn default() -> Self {
        PublishSpec { keyframe_every: 16 }
    }
}

/// When anchor nodes measure held-out loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSpec {
    /// Every so many versions.
    pub every: u64,
    /// Held-out samples in one measurement.
    pub samples: u32,
}

impl Default for EvaluateSpec {
    fn default() -> Self {
        EvaluateSpec { every: 1, samples: 256 }
    }
}

mod defaults {
    pub fn seed() -> u64 {
        1
    }
}

/// A run spec that cannot be trained.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RunSpecError {
    /// The model's section is at fault.
    #[error(transparent)]
    Model(#[from] ModelSpecError),
    /// A number is outside what is allowed.
    #[error("{key} is {value}; allowed is {allowed}")]
    OutOfRange {
        /// Section and key.
        key: &'static str,
        /// What it holds.
        value: f64,
        /// What it may hold.
        allowed: &'static str,
    },
}

impl RunSpec {
    /// Refuses what cannot be trained, naming the key and what is allowed.
    pub fn validate(&self) -> Result<(), RunSpecError> {
        self.model.validate()?;
        let (i, l, m) = (&self.inner, &self.lease, &self.merge);
        // key, value, least, most, words
        let ranges = [
            ("token_budget", self.token_budget as f64, 1.0, 1e18, "at least 1"),
            ("inner.batch_samples", f64::from(i.batch_samples), 1.0, 65536.0, "1 to 65536"),
            ("inner.learning_rate", i.learning_rate, 0.0, 10.0, "0 to 10"),
            ("inner.warmup", i.warmup, 0.0, 0.99, "0 to 0.99"),
            ("inner.floor", i.floor, 0.0, 1.0, "0 to 1"),
            ("inner.beta1", i.beta1, 0.0, 0.999_999, "0 to 0.999999"),
            ("inner.beta2", i.beta2, 0.0, 0.999_999, "0 to 0.999999"),
            ("inner.epsilon", i.epsilon, 1e-20, 1.0, "1e-20 to 1"),
            ("inner.weight_decay", i.weight_decay, 0.0, 10.0, "0 to 10"),
            ("inner.clip_norm", i.clip_norm, 1e-9, 1e9, "a positive number"),
            ("lease.wall_s", l.wall_s, 0.1, 1e6, "0.1 to 1000000"),
            ("lease.calibration_steps", f64::from(l.calibration_steps), 1.0, 10_000.0, "1 to 10000"),
            ("lease.steps_max", f64::from(l.steps_max), 1.0, 100_000.0, "1 to 100000"),
            ("lease.deadline_factor", l.deadline_factor, 1.0, 1000.0, "1 to 1000"),
            ("lease.deadline_s_min", l.deadline_s_min, 0.1, 1e7, "0.1 to 10000000"),
            ("merge.quorum", f64::from(m.quorum), 1.0, 100_000.0, "1 to 100000"),
            ("merge.learning_rate", m.learning_rate, 0.0, 10.0, "0 to 10"),
            ("merge.momentum", m.momentum, 0.0, 0.999_999, "0 to 0.999999"),
            ("merge.norm_factor_max", m.norm_factor_max, 1.0, 1e9, "at least 1"),
            ("publish.keyframe_every", self.publish.keyframe_every as f64, 1.0, 1e6, "1 to 1000000"),
            ("evaluate.every", self.evaluate.every as f64, 1.0, 1e6, "1 to 1000000"),
            ("evaluate.samples", f64::from(self.evaluate.samples), 1.0, 1e6, "1 to 1000000"),
        ];
        for (key, value, least, most, allowed) in ranges {
            if !(least..=most).contains(&value) {
                return Err(RunSpecError::OutOfRange { key, value, allowed });
            }
        }
        match m.staleness {
            StalenessSpec::Polynomial { power } if !(0.0..=10.0).contains(&power) => {
                Err(RunSpecError::OutOfRange { key: "merge.staleness.power", value: power, allowed: "0 to 10" })
            }
            StalenessSpec::Hinge { grace, slope } if !(grace >= 0.0 && slope >= 0.0 && slope.is_finite()) => {
                Err(RunSpecError::OutOfRange { key: "merge.staleness.slope", value: slope, allowed: "0 or more, and grace too" })
            }
            _ => Ok(()),
        }
    }

    /// Tokens that one inner step trains on.
    pub fn tokens_per_step(&self) -> u64 {
        u64::from(self.inner.batch_samples) * self.tokens_per_sample()
    }

    /// Tokens that one sample trains on: one context, each predicting its successor.
    pub fn tokens_per_sample(&self) -> u64 {
        u64::from(self.model.max_position_embeddings)
    }

    /// A number in `[0, 1)` for a retry's jitter: the same for the same device and attempt.
    pub fn jitter(&self, who: u64, attempt: u64) -> f64 {
        rng::unit(self.seed ^ who, rng::stream::JITTER, attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_warms_up_peaks_and_ends_at_the_floor() {
        let inner = InnerSpec::default();
        assert!((inner.learning_rate_at(0.0) - 2e-3 * 1e-3 / 0.03).abs() < 1e-12);
        assert!((inner.learning_rate_at(0.03) - 2e-3).abs() < 1e-12);
        assert!((inner.learning_rate_at(0.515) - 2e-3 * 0.55).abs() < 1e-9);
        assert!((inner.learning_rate_at(1.0) - 2e-4).abs() < 1e-12);
        assert_eq!(inner.learning_rate_at(7.0), inner.learning_rate_at(1.0));
    }

    #[test]
    fn staleness_weights_by_hand() {
        assert_eq!(StalenessSpec::Constant.weight(9), 1.0);
        assert!((StalenessSpec::Polynomial { power: 0.5 }.weight(3) - 0.5).abs() < 1e-15);
        let hinge = StalenessSpec::Hinge { grace: 4.0, slope: 10.0 };
        assert_eq!((hinge.weight(4), hinge.weight(5)), (1.0, 1.0 / 11.0));
    }

    #[test]
    fn a_bad_number_is_named() {
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 10}"#).unwrap();
        spec.validate().unwrap();
        spec.merge.momentum = 1.0;
        assert_eq!(spec.validate().unwrap_err().to_string(), "merge.momentum is 1; allowed is 0 to 0.999999");
        spec.merge.momentum = f64::NAN;
        assert!(spec.validate().is_err());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<RunSpec>(r#"{"name": "x", "token_budget": 10, "tokens": 3}"#).is_err());
    }
}
