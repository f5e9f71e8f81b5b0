//! Warm starts: weights that one device trained before a row begins, as anchors do before volunteers are invited.

use super::texts::{Corpus, Texts};
use crate::text::tokens;
use anyhow::{Context, Result};
use nightjar_shared::{model_spec::ModelSpec, version::Weights};
use nightjar_train::{AdamWConfig, Batch, DeviceSettings, Trainer, device::compute_alone, open_device};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, PoisonError};

/// Steps over which the learning rate rises.
const WARMUP: u64 = 200;
/// The stream that its windows are drawn from: no device's.
const WORKER: u64 = 1 << 20;

/// How a warm start was trained: alone, at a constant learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warm {
    /// Inner steps.
    pub steps: u64,
    /// Samples a step.
    pub batch_samples: usize,
    /// The learning rate.
    pub learning_rate: f64,
}

/// The weights that rows with this seed start from: drawn, or trained from those; each is trained once.
pub fn start(texts: &Texts, corpus: Corpus, model: &ModelSpec, warm: Option<Warm>, seed: u64) -> Result<Arc<[f32]>> {
    let drawn = || Weights::start(model, &model.draw_all(seed)).flat();
    let Some(warm) = warm else { return Ok(drawn().into()) };
    let key = serde_json::to_string(&(corpus, model, warm, seed))?;
    // Held while one is trained: another row most likely waits for the same.
    let mut trained = texts.trained.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(weights) = trained.get(&key) {
        return Ok(weights.clone());
    }
    let text = tokens(&texts.get(corpus)?.train.concat());
    let weights: Arc<[f32]> = warm.train(model, &drawn(), &text, seed).context("the warm start failed")?.into();
    trained.insert(key, weights.clone());
    Ok(weights)
}

impl Warm {
    fn train(&self, model: &ModelSpec, start: &[f32], text: &[u32], seed: u64) -> Result<Vec<f32>> {
        // A thread that computes alone already stays so.
        let _alone = compute_alone().ok();
        let settings = DeviceSettings { choice: "flex".parse()?, threads: 1, ..DeviceSettings::default() };
        let device = open_device(&settings)?.device;
        let mut trainer = Trainer::new(model, start, AdamWConfig::default(), self.batch_samples, &device)?;
        let context = model.max_position_embeddings as usize;
        for step in 0..self.steps {
            let batch = Batch::drawn(text, context, seed, WORKER, step, self.batch_samples);
            trainer.step(&batch, self.learning_rate * ((step + 1) as f64 / WARMUP as f64).min(1.0))?;
        }
        Ok(trainer.weights()?)
    }
}
