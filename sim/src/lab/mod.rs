//! What Nightjar is compared with: one device alone, per-step data parallel, synchronous DiLoCo, and HALoS. They have
//! no coordinator and no leases, so they run here in plain loops, with the trainer, the rules' arithmetic and the
//! measure that the simulation has, and with virtual time by the same formulas. Every byte that they would send is
//! counted.

mod asynchronous;
mod halos;
mod in_step;

use crate::{
    real::{Measure, loss_on},
    results::Point,
};
use nightjar_shared::{model_spec::ModelSpec, rng, run_spec::InnerSpec};
use nightjar_train::{
    Batch, DeviceSettings, Moments, OptimizerConfig, StepReport, TrainError, Trainer, device::compute_alone,
    open_device, work::WorkError,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Samples that go through the model at once.
const MICRO_BATCH: usize = 64;
/// Each lease's speed is its device's, give or take so much; as the reference has it.
const JITTER: f64 = 0.1;

/// A device's way to the others: the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Mbit/s from the device.
    pub up: f64,
    /// Mbit/s to the device.
    pub down: f64,
    /// Seconds one way.
    pub latency_s: f64,
}

impl Link {
    fn up_s(&self, bytes: u64) -> f64 {
        self.latency_s + bytes as f64 * 8.0 / (self.up * 1e6)
    }

    fn down_s(&self, bytes: u64) -> f64 {
        self.latency_s + bytes as f64 * 8.0 / (self.down * 1e6)
    }
}

/// How the devices train together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The first device, by itself.
    Alone,
    /// Gradients are averaged at every step, in bf16 both ways; the slowest device and its link set the pace.
    DataParallel,
    /// Synchronous DiLoCo (arXiv 2311.08105): all take `steps` from the same weights, in f32 both ways, and wait for
    /// the slowest.
    Diloco {
        /// H.
        steps: u32,
        /// The outer learning rate.
        learning_rate: f64,
        /// The outer momentum.
        momentum: f64,
    },
    /// HALoS (arXiv 2506.04531), whose regional servers are next to their devices: what is sent to them costs bytes and
    /// no time; what crosses regions costs both.
    Halos {
        /// H of the fastest device; the others' follow their speed.
        steps: u32,
        /// Regions; devices are dealt out to them in turn.
        regions: u32,
    },
}

/// One comparison's settings.
#[derive(Clone, Debug)]
pub struct Lab {
    /// How the devices train together.
    pub method: Method,
    /// The model.
    pub model: ModelSpec,
    /// The inner steps.
    pub inner: InnerSpec,
    /// Tokens of all devices together; the learning rate's schedule ends here.
    pub token_budget: u64,
    /// Each device's tokens a second.
    pub speeds: Vec<f64>,
    /// Each device's link.
    pub link: Link,
    /// Where windows and speeds are drawn from.
    pub seed: u64,
    /// The text to train on, as tokens.
    pub text: Arc<[u32]>,
    /// What losses are measured on.
    pub measure: Measure,
    /// Measurements on the way, evenly spaced over the budget.
    pub measurements: u32,
    /// Weights to start from, and the optimizer's state, if there is one.
    pub start: (Arc<[f32]>, Option<Arc<Moments>>),
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabResult {
    /// Losses and what they cost.
    pub curve: Vec<Point>,
    /// Outer steps; steps, where every step is one.
    pub rounds: u64,
    /// Time in steps / time of all devices.
    pub utilisation: f64,
}

impl Lab {
    /// Runs it on this thread.
    pub fn run(&self) -> Result<LabResult, WorkError> {
        // A thread that computes alone already stays so.
        let _alone = compute_alone().ok();
        match self.method {
            Method::Alone => self.data_parallel(&self.speeds[..1]),
            Method::DataParallel => self.data_parallel(&self.speeds),
            Method::Diloco { steps, learning_rate, momentum } => {
                self.diloco(steps, learning_rate as f32, momentum as f32)
            }
            Method::Halos { steps, regions } => self.halos(steps, regions as usize),
        }
    }

    fn tokens_per_step(&self) -> u64 {
        u64::from(self.inner.batch_samples) * u64::from(self.model.max_position_embeddings)
    }

    fn learning_rate_at(&self, tokens: f64) -> f64 {
        self.inner.learning_rate_at(tokens / self.token_budget as f64)
    }

    /// Virtual seconds that a device takes for so many tokens, the `round`-th time that it is asked.
    fn step_s(&self, device: usize, tokens: u64, round: u64) -> f64 {
        let jitter = 1.0 - JITTER + 2.0 * JITTER * rng::unit(self.seed, rng::stream::SIM + 60 + device as u64, round);
        tokens as f64 / self.speeds[device] * jitter
    }

    fn trainer(&self) -> Result<Trainer, WorkError> {
        let settings =
            DeviceSettings { choice: "flex".parse().unwrap_or_default(), threads: 1, ..DeviceSettings::default() };
        let device = open_device(&settings)?.device;
        let (weights, moments) = &self.start;
        let mut trainer = Trainer::new(&self.model, weights, OptimizerConfig::from(&self.inner), MICRO_BATCH, &device)?;
        if let Some(moments) = moments {
            trainer.load_moments(moments)?;
        }
        Ok(trainer)
    }

    /// One inner step of a device on windows drawn for it.
    fn step(
        &self,
        trainer: &mut Trainer,
        stream: usize,
        step: u64,
        samples: usize,
        tokens: f64,
    ) -> Result<StepReport, TrainError> {
        let context = self.model.max_position_embeddings as usize;
        let batch = Batch::drawn(&self.text, context, self.seed, stream as u64, step, samples);
        trainer.step(&batch, self.learning_rate_at(tokens))
    }
}

/// Measures as often as was asked, and at the end.
struct Watch<'a> {
    lab: &'a Lab,
    next: u64,
    curve: Vec<Point>,
}

/// What had been spent when something was measured.
#[derive(Clone, Copy, Default)]
struct Spent {
    virtual_s: f64,
    tokens: u64,
    bytes_up: u64,
    bytes_down: u64,
    rounds: u64,
}

impl<'a> Watch<'a> {
    fn new(lab: &'a Lab) -> Self {
        Watch { lab, next: 0, curve: vec![] }
    }

    fn is_due(&self, tokens: u64) -> bool {
        tokens >= self.next || tokens >= self.lab.token_budget
    }

    /// Measures weights, if that is due.
    fn look(&mut self, spent: Spent, weights: &[f32]) -> Result<(), WorkError> {
        if !self.is_due(spent.tokens) || self.curve.last().is_some_and(|p| p.tokens == spent.tokens && p.tokens > 0) {
            return Ok(());
        }
        let every = (self.lab.token_budget / u64::from(self.lab.measurements.max(1))).max(1);
        self.next = (spent.tokens / every + 1) * every;
        let loss = |batch: &Batch| loss_on(&self.lab.model, weights, batch);
        self.curve.push(Point {
            virtual_s: spent.virtual_s,
            tokens: spent.tokens,
            bytes_up: spent.bytes_up,
            bytes_down: spent.bytes_down,
            loss: Some(loss(&self.lab.measure.heldout)?),
            loss_ood: self.lab.measure.ood.as_ref().map(loss).transpose()?,
            version: spent.rounds,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
