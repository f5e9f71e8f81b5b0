//! A model with its optimizer on a browser's GPU: one call an inner step, micro-batches inside, nothing applied that is
//! not finite. What `client/train/src/trainer.rs` is to a native worker.

use super::{
    buffers::PlanError,
    executor::{Executor, Kind},
    gpu::{GpuError, OpenGpu},
    passes::Passes,
    program::{ALIGNMENT, Buffer, Program},
};
use nightjar_shared::{model_spec::ModelSpec, run_spec::InnerOptimizer};
use nightjar_wgsl::rope_tables;
use nightjar_work::{AdamWConfig, Moments, OptimizerConfig, batches::Batch, checkpoint::Begun};

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
    /// A page cannot train this model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The GPU is at fault.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A batch is of another context than the model.
    #[error("a batch of {context} tokens a sample, for a model of {want}")]
    Context {
        /// Tokens of a sample.
        context: usize,
        /// Tokens that the model takes.
        want: usize,
    },
    /// A vector is not as long as the model.
    #[error("the model has {want} parameters, the flat vector holds {got} values")]
    WrongLength {
        /// Parameters of the model.
        want: usize,
        /// Length of the vector.
        got: usize,
    },
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

/// How far a step has come whose gradient is on the GPU.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    samples: usize,
    nats: f64,
}

/// A model in training.
pub struct Trainer {
    passes: Passes,
    executor: Executor,
    config: AdamWConfig,
    /// Updates made.
    t: u64,
    /// Of a step that was left off: the next one goes on from there.
    begun: Sum,
}

/// What a model's numbers are on the GPU.
#[derive(Clone, Copy)]
enum Which {
    Weights,
    First,
    Second,
    Gradient,
}

impl Trainer {
    /// A model of which at most so many samples go through at once, its memory taken and nothing in it, and its kernels
    /// compiled.
    pub async fn new(
        gpu: &mut OpenGpu,
        spec: &ModelSpec,
        config: OptimizerConfig,
        samples: usize,
    ) -> Result<Self, TrainError> {
        let OptimizerConfig { adamw: config, optimizer, .. } = config;
        if optimizer != InnerOptimizer::AdamW {
            return Err(PlanError::Optimizer(optimizer).into());
        }
        let passes = Passes::of(spec, samples)?;
        passes.buffers.fit(gpu.buffer_bytes_max())?;
        let mut executor = Executor::new(gpu, &passes.buffers.numbers).await?;
        let sizes = passes.sizes();
        for (table, buffer) in rope_tables(sizes.context, sizes.head, spec.rope_theta)
            .iter()
            .zip([passes.buffers.cosine, passes.buffers.sine])
        {
            gpu.write(executor.buffer(buffer), bits(table))?;
        }
        let update = config.update(1, 1.0, 1.0, 0.0);
        for (kind, program) in [
            (Kind::Begin, passes.begin()),
            (Kind::Gradient(samples), passes.gradient(samples, 1.0)),
            (Kind::Norms, passes.norms()),
            (Kind::Update, passes.update(&update)),
        ] {
            executor.prepare(gpu, kind, &program).await?;
        }
        Ok(Trainer { passes, executor, config, t: 0, begun: Sum::default() })
    }

    /// Most samples that go through at once.
    pub fn samples_at_once(&self) -> usize {
        self.passes.buffers.samples
    }

    /// Bytes of the GPU's memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.passes.buffers.bytes()
    }

    /// How many samples of a step are done that was left off.
    pub fn samples_begun(&self) -> usize {
        self.begun.samples
    }

    /// Replaces weights and optimizer state; what was begun of a step is the next one's, or nothing.
    pub fn load(
        &mut self,
        gpu: &OpenGpu,
        weights: &[f32],
        moments: &Moments,
        begun: Option<&Begun>,
    ) -> Result<(), TrainError> {
        self.upload(gpu, Which::Weights, weights)?;
        self.upload(gpu, Which::First, &moments.m)?;
        self.upload(gpu, Which::Second, &moments.v)?;
        (self.t, self.begun) = (moments.t, Sum::default());
        if let Some(begun) = begun {
            self.upload(gpu, Which::Gradient, &begun.gradient)?;
            self.begun = Sum { samples: begun.samples, nats: begun.nats };
        }
        Ok(gpu.check()?)
    }

    /// Replaces the weights alone, which nothing is trained from.
    pub fn load_weights(&mut self, gpu: &OpenGpu, weights: &[f32]) -> Result<(), TrainError> {
        self.begun = Sum::default();
        self.upload(gpu, Which::Weights, weights)
    }

    /// The weights as a flat vector.
    pub async fn weights(&self, gpu: &OpenGpu) -> Result<Vec<f32>, GpuError> {
        self.download(gpu, Which::Weights).await
    }

    /// The optimizer's state.
    pub async fn moments(&self, gpu: &OpenGpu) -> Result<Moments, GpuError> {
        let (m, v) = (self.download(gpu, Which::First).await?, self.download(gpu, Which::Second).await?);
        Ok(Moments { m, v, t: self.t })
    }

    /// What a step that was left off has done.
    pub async fn begun(&self, gpu: &OpenGpu) -> Result<Option<Begun>, GpuError> {
        let Sum { samples, nats } = self.begun;
        if samples == 0 {
            return Ok(None);
        }
        Ok(Some(Begun { samples, nats, gradient: self.download(gpu, Which::Gradient).await? }))
    }

    /// Adds the next micro-batch of a batch to its gradient, and waits for it. Whether that was the last.
    pub async fn micro_batch(&mut self, gpu: &mut OpenGpu, batch: &Batch) -> Result<bool, TrainError> {
        let Some(part) = batch.parts_from(self.begun.samples, self.samples_at_once()).next() else { return Ok(true) };
        if self.begun.samples == 0 {
            self.run(gpu, Kind::Begin, &self.passes.begin()).await?;
        }
        let program = self.passes.gradient(part.samples(), 1.0 / batch.tokens() as f32);
        let nats = self.pass(gpu, Kind::Gradient(part.samples()), &program, &part).await?;
        self.begun.samples += part.samples();
        self.begun.nats += nats;
        Ok(self.begun.samples >= batch.samples())
    }

    /// The sum of nats over all tokens of a batch of no more samples than go through at once, without training.
    pub async fn nats(&mut self, gpu: &mut OpenGpu, batch: &Batch) -> Result<f64, TrainError> {
        let program = self.passes.nats(batch.samples());
        self.pass(gpu, Kind::Nats(batch.samples()), &program, batch).await
    }

    /// Carries out a pass of some samples, and waits for the sum of their nats.
    async fn pass(
        &mut self,
        gpu: &mut OpenGpu,
        kind: Kind,
        program: &Program,
        samples: &Batch,
    ) -> Result<f64, TrainError> {
        let (context, want) = (samples.context(), self.passes.sizes().context);
        if context != want {
            return Err(TrainError::Context { context, want });
        }
        let tokens = samples.inputs();
        for (buffer, words) in [
            (self.passes.buffers.tokens, &tokens),
            (self.passes.buffers.targets, &samples.targets()),
            (self.passes.buffers.order, &sorted(&tokens)),
        ] {
            gpu.write(self.executor.buffer(buffer), words)?;
        }
        self.executor.prepare(gpu, kind, program).await?;
        self.run(gpu, kind, program).await?;
        let nats = self.read(gpu, self.passes.buffers.nats, tokens.len()).await?;
        Ok(nats.iter().map(|x| f64::from(*x)).sum())
    }

    /// Ends the step that all micro-batches of a batch were added to: its update, if all is finite.
    pub async fn update(&mut self, gpu: &OpenGpu, batch: &Batch, lr: f64) -> Result<StepReport, TrainError> {
        let Sum { nats, .. } = std::mem::take(&mut self.begun);
        self.run(gpu, Kind::Norms, &self.passes.norms()).await?;
        let norms = self.read(gpu, self.passes.buffers.norms, self.passes.buffers.norms.numbers).await?;
        let squares: f64 = norms.iter().step_by(ALIGNMENT).map(|sum| f64::from(*sum)).sum();
        let (loss, grad_norm) = (nats / batch.tokens() as f64, squares.sqrt());
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(TrainError::NotFinite { loss, grad_norm });
        }
        self.t += 1;
        let update = self.config.update(self.t, grad_norm, 1.0, lr);
        self.run(gpu, Kind::Update, &self.passes.update(&update)).await?;
        Ok(StepReport { loss, grad_norm, tokens: batch.tokens() as u64 })
    }

    async fn run(&self, gpu: &OpenGpu, kind: Kind, program: &Program) -> Result<(), GpuError> {
        self.executor.run(gpu, kind, program).await
    }

    async fn read(&self, gpu: &OpenGpu, from: Buffer, numbers: usize) -> Result<Vec<f32>, GpuError> {
        let mut words = Vec::with_capacity(numbers);
        gpu.read(self.executor.buffer(from), numbers, &mut words).await?;
        Ok(words.into_iter().map(f32::from_bits).collect())
    }

    /// A number of each block, in flat order.
    fn blocks(&self, which: Which) -> impl Iterator<Item = Buffer> {
        self.passes.buffers.blocks.iter().map(move |block| match which {
            Which::Weights => block.weights,
            Which::First => block.first,
            Which::Second => block.second,
            Which::Gradient => block.gradient,
        })
    }

    fn upload(&self, gpu: &OpenGpu, which: Which, flat: &[f32]) -> Result<(), TrainError> {
        let want = self.blocks(which).map(|buffer| buffer.numbers).sum();
        if flat.len() != want {
            return Err(TrainError::WrongLength { want, got: flat.len() });
        }
        let mut rest = flat;
        for buffer in self.blocks(which) {
            let (of_block, after) = rest.split_at(buffer.numbers);
            gpu.write(self.executor.buffer(buffer), bits(of_block))?;
            rest = after;
        }
        Ok(())
    }

    async fn download(&self, gpu: &OpenGpu, which: Which) -> Result<Vec<f32>, GpuError> {
        let mut words = Vec::with_capacity(self.blocks(which).map(|buffer| buffer.numbers).sum());
        for buffer in self.blocks(which) {
            gpu.read(self.executor.buffer(buffer), buffer.numbers, &mut words).await?;
        }
        Ok(words.into_iter().map(f32::from_bits).collect())
    }
}

/// The places of tokens, sorted by token and then by place.
fn sorted(tokens: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|place| tokens[*place as usize]);
    order
}

/// Numbers as their bits.
#[allow(unsafe_code)]
fn bits(values: &[f32]) -> &[u32] {
    // SAFETY: both are four bytes, aligned alike, and any bits are a number of either.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}
