//! The inner optimizer, as far as it is numbers. AdamW has decoupled decay on matrices only, bias-corrected moments and
//! clipping by the global norm, as the PyTorch reference has it. With Muon the matrices of the layers keep no second
//! moment.

use nightjar_shared::{
    model_spec::ModelSpec,
    run_spec::{InnerOptimizer, InnerSpec},
};

/// AdamW's settings, and what of them both optimizers share; the default is the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, on matrices only; multiplied by the learning rate.
    pub weight_decay: f64,
    /// Largest global norm of a gradient; a larger one is scaled down to it.
    pub clip_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip_norm: 1.0 }
    }
}

/// Which optimizer, and its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// For every tensor, or for those that Muon leaves.
    pub adamw: AdamWConfig,
    /// Which steps tensors take.
    pub optimizer: InnerOptimizer,
    /// With Muon: how much of a matrix's momentum the next step keeps.
    pub momentum: f64,
}

impl From<AdamWConfig> for OptimizerConfig {
    fn from(adamw: AdamWConfig) -> Self {
        OptimizerConfig { adamw, optimizer: InnerOptimizer::AdamW, momentum: 0.0 }
    }
}

impl From<&InnerSpec> for OptimizerConfig {
    fn from(spec: &InnerSpec) -> Self {
        let InnerSpec { optimizer, muon_momentum: momentum, beta1, beta2, epsilon, weight_decay, clip_norm, .. } =
            *spec;
        OptimizerConfig { adamw: AdamWConfig { beta1, beta2, epsilon, weight_decay, clip_norm }, optimizer, momentum }
    }
}

/// The optimizer's state as flat vectors, for a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// First moments, in flat order; with Muon a matrix's momentum stands in their place.
    pub m: Vec<f32>,
    /// Second moments, in flat order, of the tensors that have some ([`InnerOptimizer::second_moments`]).
    pub v: Vec<f32>,
    /// Updates made.
    pub t: u64,
}

/// How many values the weights and their optimizer's state have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSizes {
    /// Weights, and first moments.
    pub parameters: usize,
    /// Second moments.
    pub second_moments: usize,
}

impl StateSizes {
    /// Of a model that is trained so.
    pub fn of(spec: &ModelSpec, optimizer: InnerOptimizer) -> Self {
        StateSizes { parameters: spec.parameters(), second_moments: optimizer.second_moments(spec) }
    }

    /// The moments that an optimizer starts with.
    pub fn zero(self) -> Moments {
        Moments { m: vec![0.0; self.parameters], v: vec![0.0; self.second_moments], t: 0 }
    }
}

/// One update as a kernel computes it, the same for every number of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// What the gradient is multiplied by.
    pub gradient_scale: f32,
    /// What a weight that decays is multiplied by; another keeps its size.
    pub decay: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// The learning rate, with the first moment's bias taken out.
    pub step_size: f32,
    /// What takes the second moment's bias out.
    pub second_correction: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

impl AdamWConfig {
    /// Update `t`, the first of which is 1, by a gradient that is `scale` times too large and whose true global norm is
    /// `norm`.
    pub fn update(&self, t: u64, norm: f64, scale: f32, lr: f64) -> Update {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, clip_norm } = *self;
        let power = t.min(1 << 30) as i32;
        Update {
            gradient_scale: if norm > clip_norm { (clip_norm / norm) as f32 } else { 1.0 } / scale,
            decay: (1.0 - lr * weight_decay) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            step_size: (lr / (1.0 - beta1.powi(power))) as f32,
            second_correction: (1.0 / (1.0 - beta2.powi(power))) as f32,
            epsilon: epsilon as f32,
        }
    }
}
