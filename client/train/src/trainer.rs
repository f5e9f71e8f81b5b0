//! A model with its optimizer: one call an inner step, micro-batches inside, nothing applied that is not finite.

use crate::{
    batches::Batch,
    checkpoint::Begun,
    model::{Gradient, Gradients, Model, ModelError},
    optimizer::{Moments, Optimizer, OptimizerConfig},
    precision::{LossScale, Precision},
    weights::{Weights, WeightsError},
};
use burn::tensor::{Device, Tensor, Transaction};
use nightjar_shaders::op::{self, Heads};
use nightjar_shared::model_spec::ModelSpec;

/// Why a step was not made. Weights and moments are as before it.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Loss or gradient is infinite or not a number.
    #[error("the step gave a loss of {loss} and a gradient norm of {grad_norm}; it was not applied")]
    NotFinite {
        /// Mean nats a token.
        loss: f64,
        /// Global norm.
        grad_norm: f64,
    },
    /// The caller asked to stop in the middle.
    #[error("stopped in the middle")]
    Stopped,
    /// The batch has no samples.
    #[error("the batch is empty")]
    EmptyBatch,
    /// The model refused the batch, or the device failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// State and model do not fit, or the device failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Where in a step its caller may pause it, or end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Before a micro-batch.
    MicroBatch,
    /// Before a layer, on either way.
    Layer,
}

/// What one inner step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean nats a token, before the update.
    pub loss: f64,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens predicted.
    pub tokens: u64,
}

/// [`Begun`] on the device, `scale` times as large.
struct Sum {
    batch: Batch,
    scale: f32,
    samples: usize,
    /// Of samples from before this process.
    nats: f64,
    /// Of each micro-batch since: read only when they are wanted, since the device is waited for then.
    of_parts: Vec<Tensor<1>>,
    gradient: Weights,
}

/// A model in training.
pub struct Trainer {
    model: Model,
    optimizer: Optimizer,
    portion: Portion,
    precision: Precision,
    loss_scale: LossScale,
    /// Of a step that was stopped: it goes on from there if the same batch comes again.
    begun: Option<Sum>,
}

/// How much of a batch goes through the model at once, and what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Samples, at least one.
    pub micro_batch: usize,
    /// Whether a layer keeps its input only and computes the rest anew in the backward pass, for about a third more
    /// arithmetic.
    pub recompute: bool,
}

impl Portion {
    /// Tokens at once that keep a device busy: with fewer, its matrix products wait for memory.
    const TOKENS_ENOUGH: u64 = 1024;

    /// The largest portion of a batch of `samples` whose activations fit `memory` bytes of a device. Layers are
    /// recomputed where otherwise not even 1024 tokens would fit. Never less than one sample, whatever the memory.
    pub fn fitting(spec: &ModelSpec, context: usize, samples: usize, memory: u64, device: &Device) -> Self {
        let (samples, context) = (samples.max(1) as u64, context.max(1) as u64);
        let fixed = Self::fixed_bytes(spec, device);
        let of_sample = |recompute| Self::sample_bytes(spec, context, recompute, device);
        let fits = |recompute| (memory.saturating_sub(fixed) / of_sample(recompute)).clamp(1, samples);
        let plain = fits(false);
        let recompute = plain * context < Self::TOKENS_ENOUGH.min(samples * context) && fits(true) > plain
            || memory < fixed + of_sample(false);
        Portion { micro_batch: if recompute { fits(true) } else { plain } as usize, recompute }
    }

    /// Bytes that its activations and logits take, as far as they can be reckoned.
    pub fn bytes(&self, spec: &ModelSpec, context: usize, device: &Device) -> u64 {
        let of_sample = Self::sample_bytes(spec, context.max(1) as u64, self.recompute, device);
        Self::fixed_bytes(spec, device) + self.micro_batch as u64 * of_sample
    }

    /// Bytes of the logits of a chunk of tokens, twice, since their gradient's product needs room as well.
    fn fixed_bytes(spec: &ModelSpec, device: &Device) -> u64 {
        let vocabulary = spec.vocab_size as usize;
        2 * 4 * (op::chunk_tokens(vocabulary, op::is_host(device)) * vocabulary) as u64
    }

    /// Bytes that one sample's activations take on this device. In half the width they take less, which makes up for
    /// the copy of the matrices.
    fn sample_bytes(spec: &ModelSpec, context: u64, recompute: bool, device: &Device) -> u64 {
        let [heads, kv] = [spec.num_attention_heads, spec.num_key_value_heads].map(|n| n as usize);
        let shape = Heads { batch: 1, context: context as usize, heads, kv, size: spec.head_size() };
        let scores = op::attention_scores(shape, device);
        spec.sample_bytes(context, recompute, [scores.kept, scores.at_once].map(|n| n as u64))
    }
}

impl Sum {
    fn samples_in(sum: Option<&Sum>) -> usize {
        sum.map_or(0, |sum| sum.samples)
    }

    /// With one more micro-batch in it, whose pass gave the gradient so far.
    fn and(sum: Option<Sum>, batch: &Batch, scale: f32, samples: usize, made: Gradient) -> Sum {
        match sum {
            Some(mut sum) => {
                sum.samples += samples;
                sum.of_parts.push(made.nats);
                sum.gradient = made.sum;
                sum
            }
            None => {
                Sum { batch: batch.clone(), scale, samples, nats: 0.0, of_parts: vec![made.nats], gradient: made.sum }
            }
        }
    }

    /// The sum of nats, and the sums of squares of the gradient's blocks: all that is read of it, in one transaction.
    fn read(&self) -> Result<(f64, f64), TrainError> {
        let mut all = Transaction::default();
        for nats in &self.of_parts {
            all = all.register(nats.clone());
        }
        for block in &self.gradient.blocks {
            all = all.register(op::sum_of_squares(block));
        }
        let failed = |e: String| TrainError::Model(ModelError::Read(e));
        let mut values = all.try_execute().map_err(|e| failed(e.to_string()))?.into_iter().map(|data| {
            let values = data.as_slice::<f32>().map_err(|e| failed(format!("{e:?}")))?;
            Ok::<f64, TrainError>(values.iter().map(|x| f64::from(*x)).sum())
        });
        let nats = values.by_ref().take(self.of_parts.len()).sum::<Result<f64, _>>()?;
        Ok((self.nats + nats, values.sum::<Result<f64, _>>()?))
    }
}

/// A batch's gradient, still to be scaled down, with mean nats a token and its true global norm.
struct Taken {
    gradient: Weights,
    loss: f64,
    grad_norm: f64,
}

impl Trainer {
    /// Starts from a flat vector, with fresh moments. A step's batch is cut into micro-batches of `micro_batch` samples
    /// (at least one), whose gradients add up to the whole batch's.
    pub fn new(
        spec: &ModelSpec,
        flat: &[f32],
        config: impl Into<OptimizerConfig>,
        micro_batch: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let model = Model::new(spec, flat, device)?;
        let optimizer = Optimizer::new(config.into(), spec, model.device());
        let portion = Portion { micro_batch: micro_batch.max(1), recompute: false };
        let precision = Precision::Full;
        Ok(Trainer { model, optimizer, portion, precision, loss_scale: LossScale::first(precision), begun: None })
    }

    /// Changes how much goes through the model at once, and what is kept of it. The gradient stays the same.
    pub fn set_portion(&mut self, portion: Portion) {
        self.portion = Portion { micro_batch: portion.micro_batch.max(1), ..portion };
    }

    /// Changes what products are computed in.
    pub fn set_precision(&mut self, precision: Precision) {
        (self.precision, self.loss_scale, self.begun) = (precision, LossScale::first(precision), None);
    }

    /// What products are computed in: what was set, or [`Precision::Full`] where that did not do for these weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the loss is multiplied by just now.
    pub fn loss_scale(&self) -> f32 {
        self.loss_scale.value()
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Replaces the weights, keeping the moments: a new lease starts from a new version.
    pub fn load_weights(&mut self, flat: &[f32]) -> Result<(), TrainError> {
        self.begun = None;
        Ok(self.model.load(flat)?)
    }

    /// The weights as a flat vector.
    pub fn weights(&self) -> Result<Vec<f32>, TrainError> {
        Ok(self.model.to_flat()?)
    }

    /// Replaces the optimizer's state.
    pub fn load_moments(&mut self, moments: &Moments) -> Result<(), TrainError> {
        let device = self.model.device().clone();
        let spec = self.model.spec().clone();
        Ok(self.optimizer.load(&spec, moments, &device)?)
    }

    /// The optimizer's state.
    pub fn moments(&self) -> Result<Moments, TrainError> {
        Ok(self.optimizer.moments()?)
    }

    /// How many samples of a step are done that was stopped.
    pub fn samples_begun(&self) -> usize {
        Sum::samples_in(self.begun.as_ref())
    }

    /// What a step that was stopped has done.
    pub fn begun(&self) -> Result<Option<Begun>, TrainError> {
        let Some(sum) = &self.begun else { return Ok(None) };
        // A power of two.
        let gradient = sum.gradient.to_flat()?.into_iter().map(|g| g / sum.scale).collect();
        Ok(Some(Begun { samples: sum.samples, nats: sum.read()?.0, gradient }))
    }

    /// Lets the next step, which is on this batch, go on from what was done of it before.
    pub fn go_on_from(&mut self, batch: &Batch, begun: &Begun) -> Result<(), TrainError> {
        let (model, scale) = (&self.model, self.loss_scale.value());
        let scaled: Vec<f32> = begun.gradient.iter().map(|g| g * scale).collect();
        let gradient = Weights::from_flat(model.spec(), &scaled, model.device())?;
        let Begun { samples, nats, .. } = *begun;
        self.begun = Some(Sum { batch: batch.clone(), scale, samples, nats, of_parts: vec![], gradient });
        Ok(())
    }

    /// One inner step on a batch.
    pub fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepReport, TrainError> {
        self.step_while(batch, lr, |_| true)
    }

    /// One inner step that asks `go_on` at each gate; on false it ends as [`TrainError::Stopped`], and goes on from the
    /// last micro-batch that was finished where the next one is on the same batch.
    ///
    /// A gradient that leaves the range of half a type's width is taken anew with a smaller scale, and where that does
    /// not help the step and all later ones are made in f32: a batch is never lost to rounding.
    pub fn step_while(
        &mut self,
        batch: &Batch,
        lr: f64,
        mut go_on: impl FnMut(Gate) -> bool,
    ) -> Result<StepReport, TrainError> {
        if batch.samples() == 0 {
            return Err(TrainError::EmptyBatch);
        }
        loop {
            let scale = self.loss_scale.value();
            let Taken { gradient, loss, grad_norm } = self.gradient(batch, scale, &mut go_on)?;
            if loss.is_finite() && grad_norm.is_finite() {
                self.loss_scale.held();
                self.optimizer.step(&mut self.model, &gradient, grad_norm, scale, lr);
                return Ok(StepReport { loss, grad_norm, tokens: batch.tokens() as u64 });
            }
            // A loss that is not finite comes from the way forward, which no scale changes.
            if loss.is_finite() && self.loss_scale.overflowed() {
                continue;
            }
            if self.precision == Precision::Full {
                return Err(TrainError::NotFinite { loss, grad_norm });
            }
            tracing::warn!("a loss of {loss} in half the width: steps are made in f32 until the next lease");
            self.set_precision(Precision::Full);
        }
    }

    /// Mean loss and gradient of a batch; the gradient is `scale` times as large as it should be.
    fn gradient(
        &mut self,
        batch: &Batch,
        scale: f32,
        go_on: &mut dyn FnMut(Gate) -> bool,
    ) -> Result<Taken, TrainError> {
        let tokens = batch.tokens();
        let operands = self.model.operands(self.precision);
        let (recompute, share) = (self.portion.recompute, scale / tokens as f32);
        let mut sum = self.begun.take().filter(|sum| sum.scale == scale && sum.batch == *batch);
        for part in batch.parts_from(Sum::samples_in(sum.as_ref()), self.portion.micro_batch) {
            if !go_on(Gate::MicroBatch) {
                self.begun = sum;
                return Err(TrainError::Stopped);
            }
            let (inputs, targets) = (part.inputs(), part.targets());
            // Added to a block at a time, so a pass that is left off takes what came before it along.
            let earlier = sum.as_mut().map(|sum| std::mem::replace(&mut sum.gradient, Weights { blocks: vec![] }));
            let pass =
                Gradients { operands: &operands, scale: share, earlier, recompute, go_on: &mut || go_on(Gate::Layer) };
            let made = self.model.gradient(pass, &inputs, &targets, part.context())?.ok_or(TrainError::Stopped)?;
            sum = Some(Sum::and(sum, batch, scale, part.samples(), made));
        }
        let sum = sum.ok_or(TrainError::EmptyBatch)?;
        let (nats, squares) = sum.read()?;
        Ok(Taken { gradient: sum.gradient, loss: nats / tokens as f64, grad_norm: squares.sqrt() / f64::from(scale) })
    }

    /// Sum of nats over all tokens of a batch, and their number, without training.
    pub fn evaluate(&self, batch: &Batch) -> Result<(f64, u64), TrainError> {
        evaluate(&self.model, batch, self.portion.micro_batch)
    }
}

/// Sum of nats over all tokens of a batch, and their number; `at_once` samples go through the model together.
pub fn evaluate(model: &Model, batch: &Batch, at_once: usize) -> Result<(f64, u64), TrainError> {
    evaluate_while(model, batch, || at_once, |_| true)
}

/// The same, with `at_once` asked before each micro-batch and `go_on` at each gate; on false it ends as
/// [`TrainError::Stopped`].
pub fn evaluate_while(
    model: &Model,
    batch: &Batch,
    mut at_once: impl FnMut() -> usize,
    mut go_on: impl FnMut(Gate) -> bool,
) -> Result<(f64, u64), TrainError> {
    let (mut sum, mut done) = (0.0, 0);
    while done < batch.samples() {
        if !go_on(Gate::MicroBatch) {
            return Err(TrainError::Stopped);
        }
        let Some(part) = batch.parts_from(done, at_once()).next() else { break };
        let nats = model.nats_while(&part.inputs(), &part.targets(), part.context(), &mut || go_on(Gate::Layer))?;
        sum += nats.ok_or(TrainError::Stopped)?.iter().map(|x| f64::from(*x)).sum::<f64>();
        done += part.samples();
    }
    Ok((sum, batch.tokens() as u64))
}
