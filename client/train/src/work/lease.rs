//! One lease, trained or measured: base weights, shard, inner steps ([`super::steps`]), and at the end a delta with the
//! state that belongs to it, all synced before it is reported.

use super::{
    ahead::LeaseEnd,
    base,
    environment::Environment,
    error::WorkError,
    evaluation, inputs, outputs,
    steps::{self, Course},
};
use crate::{
    batches::Batch,
    checkpoint::{Checkpoint, CheckpointStore, LeaseProgress},
    device::OpenDevice,
    model::Model,
    optimizer::{Moments, OptimizerConfig, StateSizes},
    portion_limit::PortionLimit,
    precision::Precision,
    submits::{Gauge, Submits},
    trainer::{self, Trainer},
};
use burn::tensor::Device;
use nightjar_shared::{
    delta::CodecId,
    model_spec::ModelSpec,
    run_spec::{DeltaSpec, RunSpec},
    wire::worker::{Evaluate, Evaluated, Train, Trained},
};
use std::borrow::Cow;

/// Samples that go through the model together when it is measured, if memory allows.
const EVALUATED_AT_ONCE: usize = 16;

/// Carries out leases, one after the other. A trainer for the model last trained stays from one to the next; all state
/// that counts is in the jobs' files, so leases of different devices may follow one another on one runner.
pub struct LeaseRunner {
    device: Device,
    precision: Precision,
    submits: Option<Submits>,
    portion_limit: PortionLimit,
    trainer: Option<(ModelSpec, OptimizerConfig, Trainer)>,
    end: Option<LeaseEnd>,
    /// State from earlier leases that the one at hand does without, a sentence each.
    lost: Vec<String>,
}

impl LeaseRunner {
    /// A runner on a device (see [`crate::open_device`]).
    pub fn new(device: Device) -> Self {
        LeaseRunner {
            device,
            precision: Precision::Full,
            submits: None,
            portion_limit: PortionLimit::default(),
            trainer: None,
            end: None,
            lost: vec![],
        }
    }

    /// A runner that keeps what a GPU is given at once short, and within what it bears.
    pub fn of(opened: OpenDevice) -> Self {
        let OpenDevice { device, precision, submits, portion_limit, .. } = opened;
        LeaseRunner { precision, submits, portion_limit, ..Self::new(device) }
    }

    /// A runner on the processor, whatever the number of its threads (see [`crate::device::compute_alone`]).
    pub fn on_processor() -> Self {
        Self::new(Device::flex())
    }

    /// Mean loss of weights on some samples, nats a token.
    pub fn loss_on(&self, spec: &ModelSpec, flat: &[f32], samples: &Batch) -> Result<f64, WorkError> {
        let model = Model::new(spec, flat, &self.device)?;
        let (nats, tokens) = trainer::evaluate(&model, samples, EVALUATED_AT_ONCE)?;
        Ok(nats / tokens.max(1) as f64)
    }

    /// Trains a lease until its steps are done or Stop comes.
    pub fn train(&mut self, job: &Train, env: &Environment<'_>) -> Result<Trained, WorkError> {
        let _at_work = env.live.at_work();
        let spec = inputs::parse_spec(&job.run_spec_json)?;
        let codec = CodecId::from_number(job.codec).ok_or(WorkError::Codec(job.codec))?;
        let delta = DeltaSpec { codec, ..spec.delta.clone() };
        // Training on with too little would end in this process being killed, and killed again.
        let (needed, allowed) = (spec.model.training_bytes(), env.live.memory_bytes());
        if allowed < needed {
            return Err(WorkError::Memory { needed, allowed });
        }
        let (base, slice) =
            (job.base.as_ref().ok_or(WorkError::Incomplete)?, job.slice.as_ref().ok_or(WorkError::Incomplete)?);
        self.lost.clear();
        let weights = base::build(env.disk, &spec.model, base)?;
        let flat = weights.flat();
        let batches = inputs::batches(&spec, slice, env.disk)?;
        let mut store =
            CheckpointStore::open(env.disk, env.checkpoint, StateSizes::of(&spec.model, spec.inner.optimizer))?;
        let (mut trainer, mut progress, adopted) = self.take_up(&spec, job, &flat, &batches, &store, env)?;
        let course = Course::Lease { store: &mut store, adopted };
        let gauge = Gauge::new(self.submits.clone(), &self.device);
        steps::run(&spec, job, &batches, &mut trainer, &mut progress, course, gauge, &mut self.portion_limit, env)?;
        let mut trained = Trained {
            lease_id: job.lease_id,
            steps: progress.steps as u32,
            samples: progress.samples as u32,
            train_ms: (progress.train_s * 1000.0) as u64,
            loss_first: progress.loss_first,
            loss_last: progress.loss_last,
            begin_anew: self.submits.as_ref().is_some_and(Submits::are_too_long),
            ..Default::default()
        };
        if progress.steps > 0 {
            trained.weights_file = outputs::keep_weights(base, &weights, env.disk)?;
            let after = outputs::finish(&spec, job, &delta, &flat, &trainer, &mut trained, env.disk)?;
            self.end = LeaseEnd::behind(&spec, job, &trained, after);
        }
        trained.lost.extend(std::mem::take(&mut self.lost));
        self.keep(&spec, trainer);
        Ok(trained)
    }

    /// Measures the loss on a lease's samples.
    pub fn evaluate(&mut self, job: &Evaluate, env: &Environment<'_>) -> Result<Evaluated, WorkError> {
        let _at_work = env.live.at_work();
        let spec = inputs::parse_spec(&job.run_spec_json)?;
        let (base, slice) =
            (job.base.as_ref().ok_or(WorkError::Incomplete)?, job.slice.as_ref().ok_or(WorkError::Incomplete)?);
        let weights = base::build(env.disk, &spec.model, base)?;
        let model = Model::new(&spec.model, &weights.flat(), &self.device)?;
        let samples = inputs::shard(&spec, slice, env.disk)?.range(inputs::range(slice))?;
        let gauge = Gauge::new(self.submits.clone(), &self.device);
        let at_once = || env.portion(&spec, &self.portion_limit, &self.device, EVALUATED_AT_ONCE).micro_batch;
        let (nats, tokens) = evaluation::run(&model, &samples, at_once, gauge, env)?;
        let weights_file = outputs::keep_weights(base, &weights, env.disk)?;
        Ok(Evaluated { lease_id: job.lease_id, nats, tokens, weights_file })
    }

    /// A trainer at the lease's start, at its last checkpoint, or where training ahead has come; the last is said.
    fn take_up(
        &mut self,
        spec: &RunSpec,
        job: &Train,
        flat: &[f32],
        batches: &[Batch],
        store: &CheckpointStore<'_>,
        env: &Environment<'_>,
    ) -> Result<(Trainer, LeaseProgress, bool), WorkError> {
        let base_version = job.base.as_ref().map_or(0, |b| b.version);
        let saved = store.progress().is_some_and(|p| (p.lease_id, p.base_version) == (job.lease_id, base_version));
        let end = self.end.take().filter(|end| !saved && end.leads_to(job));
        if let Some(end) = end
            && let Some((_, _, mut trainer)) = self.trainer.take()
        {
            let progress = end.moved_onto(flat, &mut trainer)?;
            self.halve(&mut trainer);
            return Ok((trainer, LeaseProgress { lease_id: job.lease_id, base_version, ..progress }, true));
        }
        let checkpoint = if saved { store.load()? } else { None };
        let (progress, weights, moments, begun) = match checkpoint {
            Some(Checkpoint { progress, weights, moments, begun }) => (progress, Cow::Owned(weights), moments, begun),
            None => {
                let progress = LeaseProgress { lease_id: job.lease_id, base_version, ..Default::default() };
                let (moments, lost) = inputs::moments(spec, job, env.disk)?;
                self.lost.extend(lost);
                (progress, Cow::Borrowed(flat), moments, None)
            }
        };
        let mut trainer = self.trainer(spec, &weights, &moments, env)?;
        if let (Some(begun), Some(batch)) = (begun, batches.get(progress.steps as usize)) {
            trainer.go_on_from(batch, &begun)?;
        }
        Ok((trainer, progress, false))
    }

    /// A trainer with these weights and moments: the last, if it fits.
    fn trainer(
        &mut self,
        spec: &RunSpec,
        weights: &[f32],
        moments: &Moments,
        env: &Environment<'_>,
    ) -> Result<Trainer, WorkError> {
        let config = OptimizerConfig::from(&spec.inner);
        let portion = env.portion(spec, &self.portion_limit, &self.device, spec.inner.batch_samples as usize);
        let mut trainer = match self.trainer.take() {
            Some((model, settings, mut trainer)) if model == spec.model && settings == config => {
                trainer.load_weights(weights)?;
                trainer
            }
            _ => {
                let mut trainer = Trainer::new(&spec.model, weights, config, portion.micro_batch, &self.device)?;
                trainer.set_precision(self.precision);
                trainer
            }
        };
        self.halve(&mut trainer);
        trainer.set_portion(portion);
        trainer.load_moments(moments)?;
        Ok(trainer)
    }

    /// An earlier lease's weights may have been too large for half the width; these may not be.
    fn halve(&self, trainer: &mut Trainer) {
        if trainer.precision() != self.precision {
            tracing::info!("half the width is tried again");
            trainer.set_precision(self.precision);
        }
    }

    /// The trainer stays for what comes next.
    fn keep(&mut self, spec: &RunSpec, trainer: Trainer) {
        self.trainer = Some((spec.model.clone(), OptimizerConfig::from(&spec.inner), trainer));
    }

    /// Trains on behind the lease that was trained last, as far as that may be, until there is something else to do.
    /// What fails comes to nothing: the next lease will find out whether it fails again.
    /// Says behind which lease, unless there is something else to do: then nothing computes any more.
    pub fn train_ahead(&mut self, env: &Environment<'_>, until: &dyn Fn() -> bool) -> Option<u64> {
        let mut end = self.end.take()?;
        let lease_id = end.job.lease_id;
        if self.follow(&mut end, env, until).is_ok() {
            self.end = Some(end);
        }
        (!until()).then_some(lease_id)
    }

    fn follow(&mut self, end: &mut LeaseEnd, env: &Environment<'_>, until: &dyn Fn() -> bool) -> Result<(), WorkError> {
        let (_, _, trainer) = self.trainer.as_mut().ok_or(WorkError::Incomplete)?;
        let spec = inputs::parse_spec(&end.job.run_spec_json)?;
        let slice = end.job.slice.as_ref().ok_or(WorkError::Incomplete)?;
        let batches = inputs::batches(&spec, slice, env.disk)?;
        let gauge = Gauge::new(self.submits.clone(), trainer.model().device());
        let (course, limit) = (Course::Ahead(until), &mut self.portion_limit);
        steps::run(&spec, &end.job, &batches, trainer, &mut end.progress, course, gauge, limit, env)
    }

    /// Where the lease that was trained last ended, to take it up again elsewhere.
    pub fn take_end(&mut self) -> Option<LeaseEnd> {
        self.end.take()
    }

    /// Goes back to where a lease ended.
    pub fn resume_from(&mut self, end: LeaseEnd, env: &Environment<'_>) -> Result<(), WorkError> {
        let spec = inputs::parse_spec(&end.job.run_spec_json)?;
        let (moments, _) = inputs::moments(&spec, &end.job, env.disk)?;
        let trainer = self.trainer(&spec, &end.weights, &moments, env)?;
        self.keep(&spec, trainer);
        self.end = Some(end);
        Ok(())
    }
}
