//! Devices in step: data parallel (of which a device alone is the case of one), and synchronous DiLoCo.

use super::{Lab, LabResult, Spent, Watch};
use nightjar_coordinator::engine::merge::nesterov::Nesterov;
use nightjar_train::{Trainer, work::WorkError};

/// Bytes of a bf16 and of an f32 value.
const BF16: u64 = 2;
const F32: u64 = 4;

impl Lab {
    /// One trainer takes the steps of all: the mean of their gradients is the gradient of all their samples.
    pub(super) fn data_parallel(&self, speeds: &[f64]) -> Result<LabResult, WorkError> {
        let (devices, own) = (speeds.len(), self.tokens_per_step());
        let samples = self.inner.batch_samples as usize * devices;
        let bytes = if devices > 1 { BF16 * self.model.parameters() as u64 } else { 0 };
        let exchange_s = if devices > 1 { self.link.up_s(bytes) + self.link.down_s(bytes) } else { 0.0 };
        let (mut trainer, mut watch, mut spent, mut busy_s) =
            (self.trainer()?, Watch::new(self), Spent::default(), 0.0);
        loop {
            if watch.is_due(spent.tokens) {
                watch.look(spent, &trainer.weights()?)?;
            }
            if spent.tokens >= self.token_budget {
                break;
            }
            self.step(&mut trainer, 0, spent.rounds, samples, spent.tokens as f64)?;
            let times: Vec<f64> = (0..devices).map(|d| self.step_s(d, own, spent.rounds)).collect();
            busy_s += times.iter().sum::<f64>();
            spent.virtual_s += times.iter().copied().fold(0.0, f64::max) + exchange_s;
            spent.tokens += own * devices as u64;
            spent.bytes_up += bytes * devices as u64;
            spent.bytes_down += bytes * devices as u64;
            spent.rounds += 1;
        }
        let utilisation = busy_s / (spent.virtual_s * devices as f64);
        Ok(LabResult { curve: watch.curve, rounds: spent.rounds, utilisation })
    }

    pub(super) fn diloco(&self, steps: u32, learning_rate: f32, momentum: f32) -> Result<LabResult, WorkError> {
        let (devices, own) = (self.speeds.len(), self.tokens_per_step() * u64::from(steps));
        let bytes = F32 * self.model.parameters() as u64;
        let mut trainers = (0..devices).map(|_| self.trainer()).collect::<Result<Vec<Trainer>, _>>()?;
        let mut theta = self.start.0.to_vec();
        let mut outer = Nesterov::new(momentum, theta.len());
        let (mut watch, mut spent, mut busy_s) = (Watch::new(self), Spent::default(), 0.0);
        loop {
            watch.look(spent, &theta)?;
            if spent.tokens >= self.token_budget {
                break;
            }
            let mut mean = vec![0f32; theta.len()];
            for (device, trainer) in trainers.iter_mut().enumerate() {
                trainer.load_weights(&theta)?;
                for h in 0..u64::from(steps) {
                    let tokens = spent.tokens + h * self.tokens_per_step() * devices as u64;
                    let step = spent.rounds * u64::from(steps) + h;
                    self.step(trainer, device, step, self.inner.batch_samples as usize, tokens as f64)?;
                }
                for ((mean, from), to) in mean.iter_mut().zip(&theta).zip(trainer.weights()?) {
                    *mean += (from - to) / devices as f32;
                }
            }
            outer.step(learning_rate, &mean, &mut theta);
            let times: Vec<f64> = (0..devices).map(|d| self.step_s(d, own, spent.rounds)).collect();
            busy_s += times.iter().sum::<f64>();
            spent.virtual_s +=
                self.link.down_s(bytes) + times.iter().copied().fold(0.0, f64::max) + self.link.up_s(bytes);
            spent.tokens += own * devices as u64;
            spent.bytes_up += bytes * devices as u64;
            spent.bytes_down += bytes * devices as u64;
            spent.rounds += 1;
        }
        let utilisation = busy_s / (spent.virtual_s * devices as f64);
        Ok(LabResult { curve: watch.curve, rounds: spent.rounds, utilisation })
    }
}
