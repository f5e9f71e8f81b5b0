//! The inner optimizer on a device. AdamW's numbers are [`AdamWConfig`]'s, which a page computes by as well. With Muon the
//! matrices of the layers take orthogonalised steps ([`muon`]) and keep no second moment.

mod muon;

use crate::{
    model::Model,
    weights::{Weights, WeightsError},
};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use nightjar_shaders::op::{self, Update};
use nightjar_shared::model_spec::{Layout, ModelSpec};
pub use nightjar_work::{AdamWConfig, Moments, OptimizerConfig, StateSizes};
use std::ops::Range;

/// How a block of the weights is stepped.
#[expect(clippy::large_enum_variant, reason = "there is one a block, and a tensor's handle is small beside its values")]
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
        self.t += 1;
        let nightjar_work::Update { gradient_scale, decay, beta1, beta2, step_size, second_correction, epsilon } =
            self.config.adamw.update(self.t, norm, scale, lr);
        let update = Update { gradient_scale, decay: 1.0, beta1, beta2, step_size, second_correction, epsilon };
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
