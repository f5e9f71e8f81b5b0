//! The inner optimizer: AdamW with decoupled decay on matrices only, bias-corrected moments and clipping by the global
//! norm, as the PyTorch reference has it.

use crate::{
    model::Model,
    weights::{Layout, Weights, WeightsError},
};
use burn::tensor::Device;
use nightjar_shaders::op::{self, Update};
use nightjar_shared::{model_spec::ModelSpec, run_spec::InnerSpec};

/// AdamW's settings; the default is the reference's.
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

/// The optimizer's state as flat vectors, for a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// First moments, in flat order.
    pub m: Vec<f32>,
    /// Second moments, in flat order.
    pub v: Vec<f32>,
    /// Updates made.
    pub t: u64,
}

/// AdamW with its moments on the device.
pub struct AdamW {
    config: AdamWConfig,
    m: Weights,
    v: Weights,
    t: u64,
    decays: Vec<bool>,
}

impl AdamW {
    /// A fresh optimizer, its moments zero.
    pub fn new(config: AdamWConfig, spec: &ModelSpec, device: &Device) -> Self {
        let decays = Layout::of(spec).blocks.iter().map(|block| block.role.decays()).collect();
        AdamW { config, m: Weights::zeros(spec, device), v: Weights::zeros(spec, device), t: 0, decays }
    }

    /// Its state.
    pub fn moments(&self) -> Result<Moments, WeightsError> {
        Ok(Moments { m: self.m.to_flat()?, v: self.v.to_flat()?, t: self.t })
    }

    /// Replaces its state.
    pub fn load(&mut self, spec: &ModelSpec, moments: &Moments, device: &Device) -> Result<(), WeightsError> {
        let (m, v) = (Weights::from_flat(spec, &moments.m, device)?, Weights::from_flat(spec, &moments.v, device)?);
        (self.m, self.v, self.t) = (m, v, moments.t);
        Ok(())
    }

    /// Updates the model by a gradient that is `scale` times too large and whose true global norm the caller has read.
    pub(crate) fn step(&mut self, model: &mut Model, gradient: &Weights, norm: f64, scale: f32, lr: f64) {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, clip_norm } = self.config;
        self.t += 1;
        let power = self.t.min(1 << 30) as i32;
        let update = Update {
            gradient_scale: if norm > clip_norm { (clip_norm / norm) as f32 } else { 1.0 } / scale,
            decay: 1.0,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            step_size: (lr / (1.0 - beta1.powi(power))) as f32,
            second_correction: (1.0 / (1.0 - beta2.powi(power))) as f32,
            epsilon: epsilon as f32,
        };
        for (i, decays) in self.decays.iter().enumerate() {
            let update = if *decays { Update { decay: (1.0 - lr * weight_decay) as f32, ..update } } else { update };
            let blocks = [&mut model.weights, &mut self.m, &mut self.v].map(|w| &mut w.blocks[i]);
            // Taken out, so that the update finds the memory unshared and works in place.
            let [w, m, v] = blocks.map(|b| b.extract());
            [model.weights.blocks[i], self.m.blocks[i], self.v.blocks[i]] =
                op::adamw(w, m, v, &gradient.blocks[i], update);
        }
    }
}

impl From<&InnerSpec> for AdamWConfig {
    fn from(spec: &InnerSpec) -> Self {
        let InnerSpec { beta1, beta2, epsilon, weight_decay, clip_norm, .. } = *spec;
        AdamWConfig { beta1, beta2, epsilon, weight_decay, clip_norm }
    }
}
