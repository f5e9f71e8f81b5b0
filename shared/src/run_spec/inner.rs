//! `[inner]`: what a device does in its inner steps.

use crate::model_spec::{ModelSpec, Role};
use serde::{Deserialize, Serialize};

/// Muon's momentum where nothing is set (Jordan et al. 2024; MuLoCo, arXiv 2505.23725).
const MOMENTUM: f64 = 0.95;

// Skipped by serde where it says what a spec without the key means: a run is known by its spec, and runs of earlier
// versions have none.
#[allow(clippy::float_cmp)]
fn is_default_momentum(momentum: &f64) -> bool {
    *momentum == MOMENTUM
}

/// What makes a step of a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InnerOptimizer {
    /// AdamW (Loshchilov and Hutter, arXiv 1711.05101).
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// Muon (Jordan et al. 2024; scaled as in arXiv 2502.16982) for the matrices of the layers, AdamW for embedding, head
    /// and gains.
    Muon,
}

impl InnerOptimizer {
    fn is_default(&self) -> bool {
        *self == InnerOptimizer::AdamW
    }

    /// Whether a tensor's steps are orthogonalised: a matrix that maps activations to activations. The rows of an
    /// embedding or a head are tokens, which have nothing to do with each other.
    pub fn orthogonalises(self, role: Role) -> bool {
        match self {
            InnerOptimizer::AdamW => false,
            InnerOptimizer::Muon => !role.is_gain() && !matches!(role, Role::Embedding | Role::Head),
        }
    }

    /// How many parameters have a second moment: those that AdamW steps.
    pub fn second_moments(self, model: &ModelSpec) -> usize {
        model.tensors().iter().filter(|tensor| !self.orthogonalises(tensor.role)).map(|tensor| tensor.len()).sum()
    }
}

/// What a device does in its inner steps, under a cosine schedule by global progress.
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
    /// What makes a step of a gradient.
    #[serde(skip_serializing_if = "InnerOptimizer::is_default")]
    pub optimizer: InnerOptimizer,
    /// With `muon`: how much of a matrix's momentum the next step keeps.
    #[serde(skip_serializing_if = "is_default_momentum")]
    pub muon_momentum: f64,
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
    /// What becomes of the optimizer's state from one lease to the next.
    pub state: InnerState,
}

/// What becomes of the inner optimizer's state from one lease to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InnerState {
    /// The next lease goes on with it, as DiLoCo's workers do (arXiv 2311.08105).
    #[default]
    Keep,
    /// Every lease starts with moments of zero.
    Reset,
}

impl Default for InnerSpec {
    fn default() -> Self {
        InnerSpec {
            batch_samples: 4,
            optimizer: InnerOptimizer::AdamW,
            muon_momentum: MOMENTUM,
            learning_rate: 2e-3,
            warmup: 0.03,
            floor: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
            state: InnerState::Keep,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_spec::RunSpec;

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
    fn muon_keeps_one_number_for_a_parameter_of_a_layers_matrix() {
        let model = ModelSpec::tiny();
        assert_eq!(InnerOptimizer::AdamW.second_moments(&model), model.parameters());
        let [vocabulary, hidden, layers] = [model.vocab_size, model.hidden_size, model.num_hidden_layers];
        let gains = (2 * layers + 1) * hidden;
        let heads = if model.tie_word_embeddings { 1 } else { 2 };
        let want = heads * vocabulary * hidden + gains;
        assert_eq!(InnerOptimizer::Muon.second_moments(&model), want as usize);
    }

    #[test]
    fn a_spec_of_earlier_versions_stays_as_it_was() {
        let json = serde_json::to_value(InnerSpec::default()).unwrap();
        assert!(json.get("optimizer").is_none() && json.get("muon_momentum").is_none(), "{json}");
        let muon: InnerSpec = serde_json::from_str(r#"{"optimizer": "muon", "muon_momentum": 0.9}"#).unwrap();
        assert_eq!((muon.optimizer, muon.muon_momentum), (InnerOptimizer::Muon, 0.9));
        let refused =
            RunSpec { inner: InnerSpec { muon_momentum: 0.9, ..InnerSpec::default() }, ..RunSpec::new("x", 10) };
        let why = refused.validate().unwrap_err().to_string();
        assert!(
            why.ends_with("inner.optimizer = \"adamw\" does not have; it needs inner.optimizer = \"muon\""),
            "{why}"
        );
        assert_eq!(serde_json::from_value::<InnerSpec>(serde_json::to_value(&muon).unwrap()).unwrap(), muon);
    }
}
