//! The inner optimizer. AdamW has decoupled decay on matrices only, bias-corrected moments and clipping by the global
//! norm, as the PyTorch reference has it. With Muon the matrices of the layers take orthogonalised steps ([`muon`]) and
//! keep no second moment.

mod muon;

use crate::{
    model::Model,
    weights::{Layout, Weights, WeightsError},
};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use nightjar_shaders::op::{self, Update};
use nightjar_shared::{
    model_spec::ModelSpec,
    run_spec::{InnerOptimizer, InnerSpec},
};
use std::ops::Range;

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
        let InnerSpec { optimizer, momentum, beta1, beta2, epsilon, weight_decay, clip_norm, .. } = *spec;
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

/// How a block of the weights is stepped.
enum Step {
    /// Elementwise, with second moments.
    AdamW { v: Tensor<2>, decays: bool },
    /// Each of its matrices, so many rows one after the other, orthogonalised.
    Muon { rows: Vec<Range<usize>> },
}

/// The optimizer with its moments on the device.
pub struct Optimizer {
    config: OptimizerConfig,
    m: Weights,
    steps: Vec<Step>,
    t: u64,
}

impl Optimizer {
    /// A fresh optimizer, its moments zero.
    pub fn new(config: OptimizerConfig, spec: &ModelSpec, device: &Device) -> Self {
        let layout = Layout::of(spec);
        let steps = layout.blocks.iter().map(|block| match config.optimizer.orthogonalises(block.role) {
            false => Step::AdamW { v: Tensor::zeros(block.shape, device), decays: block.role.decays() },
            true => Step::Muon { rows: block.rows.clone() },
        });
        Optimizer { config, m: Weights::zeros(spec, device), steps: steps.collect(), t: 0 }
    }

    /// Its state.
    pub fn moments(&self) -> Result<Moments, WeightsError> {
        let second = self.second().fold(Transaction::default(), |all, v| all.register(v.clone()));
        let data = second.try_execute().map_err(|e| WeightsError::Read(e.to_string()))?;
        let mut v = vec![];
        for block in data {
            v.extend_from_slice(block.as_slice::<f32>().map_err(|e| WeightsError::Read(format!("{e:?}")))?);
        }
        Ok(Moments { m: self.m.to_flat()?, v, t: self.t })
    }

    fn second(&self) -> impl Iterator<Item = &Tensor<2>> {
        self.steps.iter().filter_map(|step| match step {
            Step::AdamW { v, .. } => Some(v),
            Step::Muon { .. } => None,
        })
    }

    /// Replaces its state.
    pub fn load(&mut self, spec: &ModelSpec, moments: &Moments, device: &Device) -> Result<(), WeightsError> {
        let want: usize = self.second().map(|v| v.shape().num_elements()).sum();
        if moments.v.len() != want {
            return Err(WeightsError::WrongLength { want, got: moments.v.len() });
        }
        self.m = Weights::from_flat(spec, &moments.m, device)?;
        self.t = moments.t;
        let mut left = &moments.v[..];
        for step in &mut self.steps {
            if let Step::AdamW { v, .. } = step {
                let (own, others) = left.split_at(v.shape().num_elements());
                *v = Tensor::from_data(TensorData::new(own.to_vec(), v.dims()), device);
                left = others;
            }
        }
        Ok(())
    }

    /// Updates the model by a gradient that is `scale` times too large and whose true global norm the caller has read.
    pub(crate) fn step(&mut self, model: &mut Model, gradient: &Weights, norm: f64, scale: f32, lr: f64) {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, clip_norm } = self.config.adamw;
        self.t += 1;
        let power = self.t.min(1 << 30) as i32;
        let decay = (1.0 - lr * weight_decay) as f32;
        let update = Update {
            gradient_scale: if norm > clip_norm { (clip_norm / norm) as f32 } else { 1.0 } / scale,
            decay: 1.0,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            step_size: (lr / (1.0 - beta1.powi(power))) as f32,
            second_correction: (1.0 / (1.0 - beta2.powi(power))) as f32,
            epsilon: epsilon as f32,
        };
        let momentum = self.config.momentum as f32;
        for (i, step) in self.steps.iter_mut().enumerate() {
            // Taken out, so that the update finds the memory unshared and works in place.
            let [w, m] = [&mut model.weights, &mut self.m].map(|weights| weights.blocks[i].extract());
            let g = &gradient.blocks[i];
            [model.weights.blocks[i], self.m.blocks[i]] = match step {
                Step::AdamW { v, decays } => {
                    let update = Update { decay: if *decays { decay } else { 1.0 }, ..update };
                    let [w, m, second] = op::adamw(w, m, v.extract(), g, update);
                    *v = second;
                    [w, m]
                }
                Step::Muon { rows } => {
                    let m = muon::momentum(m, g, update.gradient_scale, momentum);
                    let step = muon::step(&m, g, update.gradient_scale, momentum, rows);
                    [w.mul_scalar(decay) - step.mul_scalar(lr as f32), m]
                }
            };
        }
    }
}
