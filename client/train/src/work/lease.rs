//! One lease, trained or measured: base weights, shard, inner steps ([`super::steps`]), and at the end a delta with the
//! state that belongs to it, all synced before it is reported.

use super::{
    ahead::Cut,
    base::{self, BaseError},
    evaluation,
    files::{self, FileError},
    live::Live,
    steps::{self, Course},
};
use crate::{
    batches::{Batch, BatchError, Shard},
    bearing::Bearing,
    checkpoint::{Checkpoint, CheckpointError, CheckpointStore, LeaseProgress},
    device::OpenDevice,
    model::{Model, ModelError},
    optimizer::{AdamWConfig, Moments},
    precision::Precision,
    submits::{Gauge, Submits},
    trainer::{self, Portion, TrainError, Trainer},
    weights::WeightsError,
};
use burn::tensor::Device;
use nightjar_shaders::op;
use nightjar_shared::{
    delta::CodecId,
    disk::Disk,
    ids::{BlobHash, LeaseId},
    model_spec::ModelSpec,
    run_spec::{DeltaSpec, InnerState, RunSpec},
    version::Weights,
    wire::worker::{Base, Evaluate, Evaluated, Slice, Train, Trained, from_worker},
    work_files,
};
use std::{borrow::Cow, sync::atomic::AtomicBool};

/// Samples that go through the model together when it is measured, if memory allows.
const EVALUATED_AT_ONCE: usize = 16;

/// A lease that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// Its base weights cannot be built; a keyframe helps.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A state file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The run spec is malformed.
    #[error("the run spec is not understood: {0}")]
    Spec(String),
    /// The job lacks its base or its samples.
    #[error("the lease is incomplete")]
    Incomplete,
    /// A codec that this build does not have.
    #[error("codec {0} is unknown")]
    Codec(u32),
    /// The owner allows less memory than the model's training state and one sample take.
    #[error("this run's model takes at least {} MiB of memory to train, and its owner's preferences allow {} MiB", .needed >> 20, .allowed >> 20)]
    Memory {
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that it may take.
        allowed: u64,
    },
    /// The shard is malformed, or not as long as it should be.
    #[error("the shard is unusable: {0}")]
    Shard(#[from] BatchError),
    /// The model cannot be built or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The training state cannot be saved or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The inner steps diverged.
    #[error("training gave weights that are not finite")]
    NotFinite,
}

impl WorkError {
    /// Whether the disk does not take what is to be written, or does not give what is on it: not the lease's fault.
    pub fn is_of_disk(&self) -> bool {
        let is_checkpoints =
            matches!(self, WorkError::Checkpoint(CheckpointError::Write(_) | CheckpointError::Read(_)));
        is_checkpoints || matches!(self, WorkError::File(FileError::Disk { .. }))
    }

    /// Whether what computes is at fault: not the lease, the disk, or the training itself.
    pub fn is_of_device(&self) -> bool {
        match self {
            WorkError::Model(e) | WorkError::Train(TrainError::Model(e)) => {
                matches!(e, ModelError::Read(_) | ModelError::Weights(WeightsError::Read(_)))
            }
            WorkError::Train(TrainError::Weights(e)) => matches!(e, WeightsError::Read(_)),
            _ => false,
        }
    }
}

/// What a job is worked on with: everything around it that is not the job itself.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// Where all files are that jobs name.
    pub disk: &'a dyn Disk,
    /// Name of the checkpoint's two slots on it.
    pub checkpoint: &'a str,
    /// Bytes of memory that programs may still take; a quarter bounds the micro-batch.
    pub memory_free: u64,
    /// What the owner allows, and whether a checkpoint is wanted.
    pub live: &'a Live,
    /// Once set, training ends before the next micro-batch.
    pub stop: &'a AtomicBool,
    /// Hears of progress.
    pub say: &'a dyn Fn(from_worker::Body),
}

/// Where leases are worked on. A trainer for the model last trained stays from one to the next; all state that counts
/// is in the jobs' files, so leases of different devices may follow one another on one bench.
pub struct Bench {
    device: Device,
    precision: Precision,
    pub(super) submits: Option<Submits>,
    pub(super) bearing: Bearing,
    pub(super) trainer: Option<(ModelSpec, AdamWConfig, Trainer)>,
    pub(super) cut: Option<Cut>,
    /// State from earlier leases that the one at hand does without, a sentence each.
    lost: Vec<String>,
}

impl Bench {
    /// A bench on a device (see [`crate::open_device`]).
    pub fn new(device: Device) -> Self {
        Bench {
            device,
            precision: Precision::Full,
            submits: None,
            bearing: Bearing::default(),
            trainer: None,
            cut: None,
            lost: vec![],
        }
    }

    /// A bench that keeps what a GPU is given at once short, and within what it bears.
    pub fn of(opened: OpenDevice) -> Self {
        let OpenDevice { device, precision, submits, bearing, .. } = opened;
        Bench { precision, submits, bearing, ..Self::new(device) }
    }

    /// A bench on the processor, whatever the number of its threads (see [`crate::device::compute_alone`]).
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
    pub fn train(&mut self, job: &Train, room: &Room<'_>) -> Result<Trained, WorkError> {
        let _at_work = room.live.at_work();
        let spec = parse_spec(&job.run_spec_json)?;
        let codec = CodecId::from_number(job.codec).ok_or(WorkError::Codec(job.codec))?;
        let delta = DeltaSpec { codec, ..spec.delta.clone() };
        // Training on with too little would end in this process being killed, and killed again.
        let (needed, allowed) = (spec.model.training_bytes(), room.live.memory_bytes());
        if allowed < needed {
            return Err(WorkError::Memory { needed, allowed });
        }
        let (base, slice) =
            (job.base.as_ref().ok_or(WorkError::Incomplete)?, job.slice.as_ref().ok_or(WorkError::Incomplete)?);
        self.lost.clear();
        let weights = base::build(room.disk, &spec.model, base)?;
        let flat = weights.flat();
        let batches = batches(&spec, slice, room.disk)?;
        let mut store = CheckpointStore::open(room.disk, room.checkpoint, flat.len())?;
        let (mut trainer, mut progress, adopted) = self.take_up(&spec, job, &flat, &batches, &store, room)?;
        let course = Course::Lease { store: &mut store, adopted };
        let gauge = Gauge::new(self.submits.clone(), &self.device);
        steps::run(&spec, job, &batches, &mut trainer, &mut progress, course, gauge, &mut self.bearing, room)?;
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
            trained.weights_file = keep_weights(base, &weights, room.disk)?;
            let after = finish(&spec, job, &delta, &flat, &trainer, &mut trained, room.disk)?;
            self.cut = Cut::behind(&spec, job, &trained, after);
        }
        trained.lost.extend(std::mem::take(&mut self.lost));
        self.keep(&spec, trainer);
        Ok(trained)
    }

    /// Measures the loss on a lease's samples.
    pub fn evaluate(&mut self, job: &Evaluate, room: &Room<'_>) -> Result<Evaluated, WorkError> {
        let _at_work = room.live.at_work();
        let spec = parse_spec(&job.run_spec_json)?;
        let (base, slice) =
            (job.base.as_ref().ok_or(WorkError::Incomplete)?, job.slice.as_ref().ok_or(WorkError::Incomplete)?);
        let weights = base::build(room.disk, &spec.model, base)?;
        let model = Model::new(&spec.model, &weights.flat(), &self.device)?;
        let samples = shard(&spec, slice, room.disk)?.range(range(slice))?;
        let gauge = Gauge::new(self.submits.clone(), &self.device);
        let at_once = || portion(&spec, room, &self.bearing, &self.device, EVALUATED_AT_ONCE).micro_batch;
        let (nats, tokens) = evaluation::run(&model, &samples, at_once, gauge, room)?;
        let weights_file = keep_weights(base, &weights, room.disk)?;
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
        room: &Room<'_>,
    ) -> Result<(Trainer, LeaseProgress, bool), WorkError> {
        let base_version = job.base.as_ref().map_or(0, |b| b.version);
        let saved = store.progress().is_some_and(|p| (p.lease_id, p.base_version) == (job.lease_id, base_version));
        let cut = self.cut.take().filter(|cut| !saved && cut.leads_to(job));
        if let Some(cut) = cut
            && let Some((_, _, mut trainer)) = self.trainer.take()
        {
            let progress = cut.moved_onto(flat, &mut trainer)?;
            self.halve(&mut trainer);
            return Ok((trainer, LeaseProgress { lease_id: job.lease_id, base_version, ..progress }, true));
        }
        let checkpoint = if saved { store.load()? } else { None };
        let (progress, weights, moments, begun) = match checkpoint {
            Some(Checkpoint { progress, weights, moments, begun }) => (progress, Cow::Owned(weights), moments, begun),
            None => {
                let progress = LeaseProgress { lease_id: job.lease_id, base_version, ..Default::default() };
                let (moments, lost) = moments(spec, job, flat.len(), room.disk)?;
                self.lost.extend(lost);
                (progress, Cow::Borrowed(flat), moments, None)
            }
        };
        let mut trainer = self.trainer(spec, &weights, &moments, room)?;
        if let (Some(begun), Some(batch)) = (begun, batches.get(progress.steps as usize)) {
            trainer.go_on_from(batch, &begun)?;
        }
        Ok((trainer, progress, false))
    }

    /// A trainer with these weights and moments: the last, if it fits.
    pub(super) fn trainer(
        &mut self,
        spec: &RunSpec,
        weights: &[f32],
        moments: &Moments,
        room: &Room<'_>,
    ) -> Result<Trainer, WorkError> {
        let config = AdamWConfig::from(&spec.inner);
        let portion = portion(spec, room, &self.bearing, &self.device, spec.inner.batch_samples as usize);
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
    pub(super) fn keep(&mut self, spec: &RunSpec, trainer: Trainer) {
        self.trainer = Some((spec.model.clone(), AdamWConfig::from(&spec.inner), trainer));
    }
}

fn shard(spec: &RunSpec, slice: &Slice, disk: &dyn Disk) -> Result<Shard, WorkError> {
    let (context, vocab_size) = (spec.model.max_position_embeddings as usize, spec.model.vocab_size);
    Ok(Shard::read(&files::read(disk, &slice.shard_file)?, slice.shard_samples as usize, context, vocab_size)?)
}

pub(super) fn batches(spec: &RunSpec, slice: &Slice, disk: &dyn Disk) -> Result<Vec<Batch>, WorkError> {
    let (first, samples) = (slice.first_sample as usize, slice.samples as usize);
    Ok(shard(spec, slice, disk)?.batches(first, samples, spec.inner.batch_samples as usize)?)
}

/// The optimizer's state that the lease starts from. Where its file is gone or damaged it is fresh, and that is said:
/// it grows again, and the lease is worth more than it.
pub(super) fn moments(
    spec: &RunSpec,
    job: &Train,
    parameters: usize,
    disk: &dyn Disk,
) -> Result<(Moments, Option<String>), WorkError> {
    let fresh = || Moments { m: vec![0.0; parameters], v: vec![0.0; parameters], t: 0 };
    if job.optimizer_file.is_empty() || spec.inner.state == InnerState::Reset {
        return Ok((fresh(), None));
    }
    match files::read_moments(disk, &job.optimizer_file, parameters) {
        Ok(moments) => Ok((moments, None)),
        Err(e @ (FileError::Missing(_) | FileError::Damaged(_))) => {
            Ok((fresh(), Some(format!("the optimizer's state began anew: {e}"))))
        }
        Err(e) => Err(e.into()),
    }
}

/// The file of the base weights, for later leases: the one that they came from, or a new one.
fn keep_weights(base: &Base, weights: &Weights, disk: &dyn Disk) -> Result<String, WorkError> {
    if base.keyframe_file.is_empty() && base.updates.is_empty() {
        return Ok(base.weights_file.clone());
    }
    let file = work_files::weights(weights.version);
    files::write_weights(disk, &file, weights)?;
    Ok(file)
}

/// Encodes the delta and writes it with the state that belongs to it. Gives the weights that it was made from.
fn finish(
    spec: &RunSpec,
    job: &Train,
    encoding: &DeltaSpec,
    base: &[f32],
    trainer: &Trainer,
    trained: &mut Trained,
    disk: &dyn Disk,
) -> Result<Vec<f32>, WorkError> {
    let after = trainer.weights()?;
    let pseudo_gradient: Vec<f32> = base.iter().zip(&after).map(|(base, after)| base - after).collect();
    if !pseudo_gradient.iter().all(|v| v.is_finite()) {
        return Err(WorkError::NotFinite);
    }
    let (mut residual, lost) = residual(job, base.len(), disk)?;
    trained.lost.extend(lost);
    let device = trainer.model().device();
    let delta = op::delta::encode(&spec.model, encoding, &pseudo_gradient, &mut residual, device);
    let lease = LeaseId(job.lease_id);
    trained.delta_file = work_files::delta(lease);
    trained.delta_hash = BlobHash::of(&delta).0.to_vec();
    trained.delta_bytes = delta.len() as u64;
    files::write(disk, &trained.delta_file, &delta)?;
    // Without feedback there is nothing to remember.
    if encoding.feedback > 0.0 {
        trained.residual_file = work_files::residual(lease);
        files::write_residual(disk, &trained.residual_file, &residual)?;
    }
    if spec.inner.state == InnerState::Keep {
        trained.optimizer_file = work_files::optimizer(lease);
        files::write_moments(disk, &trained.optimizer_file, &trainer.moments()?)?;
    }
    Ok(after)
}

/// What earlier deltas lost to rounding, as much of it as the session lets count. Where its file is gone or damaged it
/// is nothing, and that is said.
fn residual(job: &Train, parameters: usize, disk: &dyn Disk) -> Result<(Vec<f32>, Option<String>), WorkError> {
    let scale = job.residual_scale as f32;
    if job.residual_file.is_empty() || scale == 0.0 {
        return Ok((vec![0.0; parameters], None));
    }
    let mut residual = match files::read_residual(disk, &job.residual_file, parameters) {
        Ok(residual) => residual,
        Err(e @ (FileError::Missing(_) | FileError::Damaged(_))) => {
            let lost = format!("what earlier deltas lost to rounding is forgotten: {e}");
            return Ok((vec![0.0; parameters], Some(lost)));
        }
        Err(e) => return Err(e.into()),
    };
    if scale != 1.0 {
        residual.iter_mut().for_each(|r| *r *= scale);
    }
    Ok((residual, None))
}

fn range(slice: &Slice) -> std::ops::Range<usize> {
    slice.first_sample as usize..slice.first_sample as usize + slice.samples as usize
}

pub(super) fn parse_spec(json: &str) -> Result<RunSpec, WorkError> {
    let spec: RunSpec = serde_json::from_str(json).map_err(|e| WorkError::Spec(e.to_string()))?;
    spec.validate().map_err(|e| WorkError::Spec(e.to_string()))?;
    Ok(spec)
}

/// How much of a batch goes through the model at once: what a quarter of the free memory holds, and what the owner
/// allows holds beside the training state. A GPU's own memory cannot be asked through `wgpu`; the computer's stands in
/// for it, until the device has shown that it bears less.
pub(super) fn portion(spec: &RunSpec, room: &Room<'_>, bearing: &Bearing, device: &Device, samples: usize) -> Portion {
    let model = &spec.model;
    let allowed = match room.live.memory_bytes() {
        u64::MAX => u64::MAX,
        bytes => bytes.saturating_sub(model.state_bytes()),
    };
    let context = model.max_position_embeddings as usize;
    Portion::fitting(model, context, samples, allowed.min(room.memory_free / 4).min(bearing.most()), device)
}
