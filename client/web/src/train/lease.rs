//! One lease after another, trained or measured on a page's GPU: what `client/train/src/work/lease.rs` is to a native
//! worker, with the same messages, files and checkpoints. It is all one thread: whoever sets the limits runs while the
//! GPU computes.

use super::{
    buffers::samples_within,
    environment::{Environment, WorkError},
    gpu::{GpuError, OpenGpu},
    steps,
    trainer::{StepReport, TrainError, Trainer},
};
use nightjar_shared::{
    delta,
    model_spec::ModelSpec,
    run_spec::{InnerOptimizer, RunSpec},
    wire::worker::{Evaluate, Evaluated, Train, Trained, from_worker, to_worker},
};
use nightjar_work::{
    AdamWConfig, Lease, LeaseError, Moments, OptimizerConfig, Start, StateSizes, base, checkpoint::CheckpointStore,
    lease, trial,
};

/// Tokens at once that keep a GPU busy.
const TOKENS_ENOUGH: usize = 2048;

/// Carries out leases on one GPU. A trainer for the model last trained stays from one to the next.
pub struct LeaseRunner {
    gpu: OpenGpu,
    trainer: Option<(ModelSpec, OptimizerConfig, Trainer)>,
    /// Most samples at once, so that no micro-batch takes too long.
    samples_max: usize,
}

impl LeaseRunner {
    /// Opens the GPU, and has it answer a trial whose answer is known: a browser that miscomputes a kernel says nothing.
    pub async fn open() -> Result<Self, TrainError> {
        let mut gpu = OpenGpu::open().await?;
        let mut trainer = Trainer::new(&mut gpu, &trial::spec(), AdamWConfig::default().into(), trial::AT_ONCE).await?;
        let weights = trial::weights();
        trainer.load(&gpu, &weights, &StateSizes::of(&trial::spec(), InnerOptimizer::AdamW).zero(), None)?;
        let (batch, mut steps) = (trial::batch(), vec![]);
        for _ in trial::ANSWER {
            while !trainer.micro_batch(&mut gpu, &batch).await? {}
            let StepReport { loss, grad_norm, .. } = trainer.update(&gpu, &batch, trial::RATE).await?;
            steps.push([loss, grad_norm]);
        }
        match trial::mistake(&steps) {
            Some(mistake) => Err(GpuError::Wrong(mistake).into()),
            None => Ok(LeaseRunner { gpu, trainer: None, samples_max: usize::MAX }),
        }
    }

    /// How many samples of the lease at hand, or the last, go through at once; 0 before the first.
    pub fn samples_at_once(&self) -> usize {
        self.trainer.as_ref().map_or(0, |(_, _, trainer)| trainer.samples_at_once())
    }

    /// What the browser calls the GPU.
    pub fn name(&self) -> &str {
        self.gpu.name()
    }

    /// Carries out a job, and says what came of it.
    pub async fn run(&mut self, job: to_worker::Body, env: &Environment<'_>) -> from_worker::Body {
        let done = match job {
            to_worker::Body::Train(job) => self.train(&job, env).await.map(from_worker::Body::Trained),
            to_worker::Body::Evaluate(job) => self.evaluate(&job, env).await.map(from_worker::Body::Evaluated),
            to_worker::Body::Stop(_) | to_worker::Body::Limits(_) | to_worker::Body::Checkpoint(_) => {
                Err(LeaseError::Incomplete.into())
            }
        };
        done.unwrap_or_else(|e| from_worker::Body::Failed(e.failed()))
    }

    /// Trains a lease until its steps are done or Stop comes. It may be dropped in the middle, if the runner is, too: the
    /// last checkpoint stays.
    pub async fn train(&mut self, job: &Train, env: &Environment<'_>) -> Result<Trained, WorkError> {
        let lease = Lease::open(job, env.disk, env.live)?;
        let spec = &lease.spec;
        let mut store = CheckpointStore::open(env.disk, env.checkpoint, lease.state_sizes())?;
        let Start { mut progress, weights, moments, begun, lost } = lease.start(&store, env.disk)?;
        let mut trainer = self.trainer(spec, env.live.memory_bytes()).await?;
        trainer.load(&self.gpu, &weights, &moments, begun.as_ref())?;
        drop((weights, moments, begun));
        if steps::run(&lease, &mut self.gpu, &mut trainer, &mut store, &mut progress, env).await? {
            self.samples_max = (trainer.samples_at_once() / 2).max(1);
        }
        let (mut after, mut moments) = (vec![], Moments::default());
        if progress.steps > 0 {
            (after, moments) = (trainer.weights(&self.gpu).await?, trainer.moments(&self.gpu).await?);
        }
        let encode = |encoding: &_, gradient: &[f32], residual: &mut [f32]| {
            delta::encode(&spec.model, encoding, gradient, residual)
        };
        let mut trained = lease.finish(&progress, &after, encode, || Ok::<_, LeaseError>(moments), env.disk)?;
        trained.lost.extend(lost);
        self.keep(spec, trainer);
        Ok(trained)
    }

    /// Measures the loss on a lease's samples.
    pub async fn evaluate(&mut self, job: &Evaluate, env: &Environment<'_>) -> Result<Evaluated, WorkError> {
        let spec = lease::parse_spec(&job.run_spec_json)?;
        let (Some(base), Some(slice)) = (&job.base, &job.slice) else { return Err(LeaseError::Incomplete.into()) };
        let weights = base::build(env.disk, &spec.model, base)?;
        let samples = lease::shard(&spec, slice, env.disk)?.range(lease::range(slice))?;
        let mut trainer = self.trainer(&spec, env.live.memory_bytes()).await?;
        trainer.load_weights(&self.gpu, &weights.flat())?;
        let mut nats = 0.0;
        for part in samples.parts(trainer.samples_at_once()) {
            (env.hold)().await;
            if env.is_stopped() {
                return Err(WorkError::Stopped);
            }
            nats += trainer.nats(&mut self.gpu, &part).await?;
        }
        self.keep(&spec, trainer);
        let weights_file = lease::keep_weights(base, &weights, env.disk)?;
        Ok(Evaluated { lease_id: job.lease_id, nats, tokens: samples.tokens() as u64, weights_file })
    }

    /// A trainer for a run's model: the last, if it fits.
    async fn trainer(&mut self, spec: &RunSpec, allowed: u64) -> Result<Trainer, TrainError> {
        let (model, config) = (&spec.model, OptimizerConfig::from(&spec.inner));
        let enough = TOKENS_ENOUGH.div_ceil(model.max_position_embeddings as usize);
        let most = enough.min(spec.inner.batch_samples as usize).min(self.samples_max);
        let samples = samples_within(model, most, allowed.saturating_sub(model.state_bytes()))?;
        let last = self
            .trainer
            .take()
            .filter(|(of, with, trainer)| (of, *with, trainer.samples_at_once()) == (model, config, samples));
        match last {
            Some((_, _, trainer)) => Ok(trainer),
            // The last one's memory was given back before this one takes any.
            None => Trainer::new(&mut self.gpu, model, config, samples).await,
        }
    }

    /// The trainer stays for what comes next.
    fn keep(&mut self, spec: &RunSpec, trainer: Trainer) {
        self.trainer = Some((spec.model.clone(), OptimizerConfig::from(&spec.inner), trainer));
    }
}
