//! One lease, trained or measured: base weights, shard, inner steps ([`super::steps`]), and at the end a delta with the
//! state that belongs to it, all synced before it is reported.

use super::{
    ahead::LeaseEnd,
    environment::Environment,
    error::WorkError,
    evaluation,
    steps::{self, Course},
};
use crate::{
    batches::Batch,
    checkpoint::{CheckpointStore, LeaseProgress},
    device::OpenDevice,
    model::Model,
    optimizer::{Moments, OptimizerConfig},
    portion_limit::PortionLimit,
    precision::Precision,
    submits::{Gauge, Submits},
    trainer::{self, Trainer},
};
use burn::tensor::Device;
use nightjar_shaders::op;
use nightjar_shared::{
    model_spec::ModelSpec,
    run_spec::{DeltaSpec, RunSpec},
    wire::worker::{Evaluate, Evaluated, Train, Trained},
};
use nightjar_work::{Lease, LeaseError, Start, base, lease};

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
        let lease = Lease::open(job, env.disk, env.live)?;
        self.lost.clear();
        let mut store = CheckpointStore::open(env.disk, env.checkpoint, lease.state_sizes())?;
        let (mut trainer, mut progress, adopted) = self.take_up(&lease, &store, env)?;
        let (spec, batches) = (&lease.spec, &lease.batches);
        let course = Course::Lease { store: &mut store, adopted };
        let gauge = Gauge::new(self.submits.clone(), &self.device);
        steps::run(spec, job, batches, &mut trainer, &mut progress, course, gauge, &mut self.portion_limit, env)?;
        let after = if progress.steps > 0 { trainer.weights()? } else { vec![] };
        let device = trainer.model().device();
        let encode = |delta: &DeltaSpec, gradient: &[f32], residual: &mut [f32]| {
            op::delta::encode(&spec.model, delta, gradient, residual, device)
        };
        let moments = || trainer.moments().map_err(WorkError::from);
        let mut trained = lease.finish(&progress, &after, encode, moments, env.disk)?;
        trained.begin_anew = self.submits.as_ref().is_some_and(Submits::are_too_long);
        trained.lost.extend(std::mem::take(&mut self.lost));
        if progress.steps > 0 {
            self.end = LeaseEnd::behind(spec, job, &trained, after);
        }
        self.keep(spec, trainer);
        Ok(trained)
    }

    /// Measures the loss on a lease's samples.
    pub fn evaluate(&mut self, job: &Evaluate, env: &Environment<'_>) -> Result<Evaluated, WorkError> {
        let _at_work = env.live.at_work();
        let spec = lease::parse_spec(&job.run_spec_json)?;
        let incomplete = LeaseError::Incomplete;
        let (Some(base), Some(slice)) = (&job.base, &job.slice) else { return Err(incomplete.into()) };
        let weights = base::build(env.disk, &spec.model, base)?;
        let model = Model::new(&spec.model, &weights.flat(), &self.device)?;
        let samples = lease::shard(&spec, slice, env.disk)?.range(lease::range(slice))?;
        let gauge = Gauge::new(self.submits.clone(), &self.device);
        let at_once = || env.portion(&spec, &self.portion_limit, &self.device, EVALUATED_AT_ONCE).micro_batch;
        let (nats, tokens) = evaluation::run(&model, &samples, at_once, gauge, env)?;
        let weights_file = lease::keep_weights(base, &weights, env.disk)?;
        Ok(Evaluated { lease_id: job.lease_id, nats, tokens, weights_file })
    }

    /// A trainer at the lease's start, at its last checkpoint, or where training ahead has come; the last is said.
    fn take_up(
        &mut self,
        lease: &Lease<'_>,
        store: &CheckpointStore<'_>,
        env: &Environment<'_>,
    ) -> Result<(Trainer, LeaseProgress, bool), WorkError> {
        let end = self.end.take().filter(|end| !lease.is_saved_in(store) && end.leads_to(lease.job));
        if let Some(end) = end
            && let Some((_, _, mut trainer)) = self.trainer.take()
        {
            let ahead = end.moved_onto(&lease.flat, &mut trainer)?;
            self.halve(&mut trainer);
            let LeaseProgress { lease_id, base_version, .. } = lease.progress();
            return Ok((trainer, LeaseProgress { lease_id, base_version, ..ahead }, true));
        }
        let Start { progress, weights, moments, begun, lost } = lease.start(store, env.disk)?;
        self.lost.extend(lost);
        let mut trainer = self.trainer(&lease.spec, &weights, &moments, env)?;
        if let (Some(begun), Some(batch)) = (begun, lease.batches.get(progress.steps as usize)) {
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
        let (_, _, trainer) = self.trainer.as_mut().ok_or(LeaseError::Incomplete)?;
        let spec = lease::parse_spec(&end.job.run_spec_json)?;
        let slice = end.job.slice.as_ref().ok_or(LeaseError::Incomplete)?;
        let batches = lease::batches(&spec, slice, env.disk)?;
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
        let spec = lease::parse_spec(&end.job.run_spec_json)?;
        let (moments, _) = lease::moments(&spec, &end.job, env.disk)?;
        let trainer = self.trainer(&spec, &end.weights, &moments, env)?;
        self.keep(&spec, trainer);
        self.end = Some(end);
        Ok(())
    }
}
