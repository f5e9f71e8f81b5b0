//! The run spec: what a lab writes in `run.toml`, and what every device is sent. It is data: a device runs only the
//! kernels in its own binary.

mod change;
mod inner;
mod keep;
pub mod keys;
mod lease;
mod merge;
mod operator;
mod table;
mod track;

pub use change::{Changed, FixedKey};
pub use inner::{InnerOptimizer, InnerSpec, InnerState};
pub use keep::KeepSpec;
pub use lease::{LeaseSpec, Pacing};
pub use merge::{Average, Correction, Idle, MergeRule, MergeSpec, Robust, StalenessSpec};
pub use operator::OperatorSpec;
pub use table::SECTIONS;
pub use track::TrackSpec;

pub use crate::delta::{DeltaSpec, ResidualSpec};
use crate::{delta::CodecId, model_spec::ModelSpec, model_spec::ModelSpecError, rng};
use serde::{Deserialize, Serialize};

/// Everything that decides how a run trains. Unknown keys are refused, so that a typing mistake is noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Shown to volunteers.
    pub name: String,
    /// What the project is, in a sentence or two; shown to volunteers.
    #[serde(default)]
    pub description: String,
    /// Who runs it; shown to volunteers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorSpec>,
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
    /// How deltas are encoded.
    #[serde(default)]
    pub delta: DeltaSpec,
    /// How deltas are merged.
    #[serde(default)]
    pub merge: MergeSpec,
    /// How versions are published.
    #[serde(default)]
    pub publish: PublishSpec,
    /// When held-out loss is measured.
    #[serde(default)]
    pub evaluate: EvaluateSpec,
    /// What stays of versions and deltas.
    #[serde(default, skip_serializing_if = "KeepSpec::is_unset")]
    pub keep: KeepSpec,
    /// Where it is written down how the run goes.
    #[serde(default, skip_serializing_if = "TrackSpec::is_unset")]
    pub track: TrackSpec,
}

/// How versions are published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishSpec {
    /// How an update's values are coded: `blocks8`, `blocks4` or `blocks2`.
    pub codec: CodecId,
    /// Every so many versions the whole model is published as a keyframe; in between, updates. A keyframe's 16 bits a
    /// parameter over 64 versions are 0.25 a version, so with `blocks2` 2.28 in all; squashes serve those who missed
    /// some, so keyframes only serve those who come anew, and the coordinator's restart.
    pub keyframe_every: u64,
}

impl Default for PublishSpec {
    fn default() -> Self {
        PublishSpec { codec: CodecId::Blocks2, keyframe_every: 64 }
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
        key: String,
        /// What it holds.
        value: f64,
        /// What it may hold.
        allowed: String,
    },
    /// A text is too long, or missing.
    #[error("{key} is {bytes} bytes long; allowed is {least} to {most}")]
    TextLength {
        /// Section and key.
        key: String,
        /// Its length.
        bytes: usize,
        /// The shortest that it may be.
        least: usize,
        /// The longest that it may be.
        most: usize,
    },
    /// A text would do something where it is shown.
    #[error("{key} holds a control character; write plain text")]
    TextControl {
        /// Section and key.
        key: String,
    },
    /// A word that means something elsewhere, but not here.
    #[error("{key} is \"{word}\"; allowed is {allowed}")]
    OtherWord {
        /// Section and key.
        key: String,
        /// What it holds.
        word: String,
        /// What it may hold.
        allowed: String,
    },
    /// A setting that belongs to another rule.
    #[error("{key} is {value}, which {there} does not have; it needs {needed}")]
    Misplaced {
        /// Section and key.
        key: String,
        /// What it holds.
        value: String,
        /// The rule that there is.
        there: String,
        /// The rules that have it.
        needed: String,
    },
}

impl RunSpecError {
    /// The section and key that it is about, where it is about one.
    pub fn key(&self) -> Option<String> {
        match self {
            RunSpecError::Model(error) => error.key().map(|key| format!("model.{key}")),
            RunSpecError::OutOfRange { key, .. }
            | RunSpecError::TextLength { key, .. }
            | RunSpecError::TextControl { key }
            | RunSpecError::OtherWord { key, .. }
            | RunSpecError::Misplaced { key, .. } => Some(key.clone()),
        }
    }
}

impl RunSpec {
    /// A run that leaves to its default what need not be said.
    pub fn new(name: &str, token_budget: u64) -> Self {
        RunSpec {
            name: name.to_owned(),
            description: String::new(),
            operator: None,
            seed: defaults::seed(),
            token_budget,
            model: ModelSpec::tiny(),
            inner: InnerSpec::default(),
            lease: LeaseSpec::default(),
            delta: DeltaSpec::default(),
            merge: MergeSpec::default(),
            publish: PublishSpec::default(),
            evaluate: EvaluateSpec::default(),
            keep: KeepSpec::default(),
            track: TrackSpec::default(),
        }
    }

    /// Refuses what cannot be trained, naming the key and what is allowed.
    pub fn validate(&self) -> Result<(), RunSpecError> {
        self.model.validate()?;
        keys::check(self)?;
        if self.has_series() { self.is_plain_mean() } else { Ok(()) }
    }

    /// A series answers with the weighted mean of what its devices trained: whoever gives the weights has an outer
    /// optimizer of its own.
    fn is_plain_mean(&self) -> Result<(), RunSpecError> {
        let is_mean = self.merge.rule == MergeRule::Mean;
        let others = [
            ("merge.rule", is_mean, "\"mean\""),
            ("merge.learning_rate", self.merge.learning_rate == 1.0, "1"),
            ("merge.average", self.average() == Average::Mean, "\"mean\""),
            ("merge.correction", self.merge.correction == Correction::None, "\"none\""),
        ];
        let Some((key, _, needed)) = others.into_iter().find(|(_, fits, _)| !fits) else { return Ok(()) };
        let value = keys::values(self).get(key).map(ToString::to_string).unwrap_or_default();
        let there = "lease.pacing = \"series\"".to_owned();
        Err(RunSpecError::Misplaced { key: key.to_owned(), value, there, needed: format!("{key} = {needed}") })
    }

    /// Deltas that make a version.
    pub fn quorum(&self) -> u64 {
        u64::from(self.merge.quorum.unwrap_or(if self.has_rounds() { 1 } else { 4 }))
    }

    /// Seconds that latecomers are waited for, after leases of so many.
    pub fn grace_s(&self, wall_s: f64) -> f64 {
        // In a long round everybody waits for the last: with many devices there always is one.
        self.merge.grace_s.unwrap_or(if self.has_rounds() { (wall_s / 6.0).min(5.0) } else { 0.0 })
    }

    /// How deltas are averaged.
    pub fn average(&self) -> Average {
        self.merge.average.unwrap_or(match self.lease.pacing {
            Pacing::Rounds => Average::Rda,
            Pacing::Free | Pacing::Series => Average::Mean,
        })
    }

    /// What is done about deltas that the others speak against.
    pub fn robust(&self) -> Robust {
        self.merge.robust.unwrap_or(Robust::None)
    }

    /// Whether devices train on while their deltas travel. With an optimizer that starts afresh at every lease they
    /// cannot; and in a series they would train on weights that nobody gave.
    pub fn trains_ahead(&self) -> bool {
        self.lease.ahead && self.inner.state == InnerState::Keep && !self.has_series()
    }

    /// Whether leases end together.
    pub fn has_rounds(&self) -> bool {
        self.lease.pacing != Pacing::Free
    }

    /// Whether rounds begin only when an operator gives the weights that they start from.
    pub fn has_series(&self) -> bool {
        self.lease.pacing == Pacing::Series
    }

    /// What devices are told of it, by words that those of earlier versions know: what is kept or written down, and who begins a round,
    /// is the coordinator's business.
    pub fn for_devices(&self) -> RunSpec {
        let mut told = RunSpec { keep: KeepSpec::default(), track: TrackSpec::default(), ..self.clone() };
        if self.has_series() {
            (told.lease.pacing, told.lease.ahead) = (Pacing::Rounds, false);
        }
        told
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
    fn a_bad_number_is_named() {
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 10}"#).unwrap();
        assert_eq!(spec, RunSpec::new("x", 10));
        spec.validate().unwrap();
        spec.merge.rule = MergeRule::Nesterov { momentum: 1.0 };
        assert_eq!(spec.validate().unwrap_err().to_string(), "merge.momentum is 1; allowed is 0 to 0.999999");
        spec.merge.rule = MergeRule::Nesterov { momentum: f64::NAN };
        assert!(spec.validate().is_err());
        spec.merge.rule = MergeRule::Nesterov { momentum: 0.5 };
        spec.publish.codec = CodecId::Sparse2;
        assert_eq!(
            spec.validate().unwrap_err().to_string(),
            "publish.codec is \"sparse2\"; allowed is \"blocks2\", \"blocks4\" or \"blocks8\""
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<RunSpec>(r#"{"name": "x", "token_budget": 10, "tokens": 3}"#).is_err());
    }
}
