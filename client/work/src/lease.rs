//! One lease to be trained: the job understood, with all that it starts from, and what it leaves behind.

use crate::{
    LeaseError, Live, Moments, StateSizes, base,
    batches::{Batch, Shard},
    checkpoint::{Begun, Checkpoint, CheckpointStore, LeaseProgress},
    files::{self, FileError},
};
use nightjar_shared::{
    delta::CodecId,
    disk::Disk,
    ids::{BlobHash, LeaseId},
    run_spec::{DeltaSpec, InnerState, RunSpec},
    version::Weights,
    wire::worker::{Base, Slice, Train, Trained},
    work_files,
};
use std::borrow::Cow;

/// A lease's job with what it is worked on with.
pub struct Lease<'a> {
    /// The job.
    pub job: &'a Train,
    /// Its run.
    pub spec: RunSpec,
    /// Its base weights as one flat vector.
    pub flat: Vec<f32>,
    /// A batch for each step.
    pub batches: Vec<Batch>,
    base: Weights,
    delta: DeltaSpec,
}

/// Where a lease's training begins: at its base, or where a checkpoint has it.
pub struct Start<'a> {
    /// How far it is.
    pub progress: LeaseProgress,
    /// The weights as a flat vector.
    pub weights: Cow<'a, [f32]>,
    /// The optimizer's state.
    pub moments: Moments,
    /// What is done of the next step, if any of it is.
    pub begun: Option<Begun>,
    /// State from earlier leases that it does without, a sentence each.
    pub lost: Vec<String>,
}

impl<'a> Lease<'a> {
    /// Reads all that the job names, or says what is wrong with it.
    pub fn open(job: &'a Train, disk: &dyn Disk, live: &Live) -> Result<Self, LeaseError> {
        let spec = parse_spec(&job.run_spec_json)?;
        let codec = CodecId::from_number(job.codec).ok_or(LeaseError::Codec(job.codec))?;
        let delta = DeltaSpec { codec, ..spec.delta.clone() };
        // Training on with too little would end in the worker being killed, and killed again.
        let (needed, allowed) = (spec.model.training_bytes(), live.memory_bytes());
        if allowed < needed {
            return Err(LeaseError::Memory { needed, allowed });
        }
        let slice = job.slice.as_ref().ok_or(LeaseError::Incomplete)?;
        let base = base::build(disk, &spec.model, job.base.as_ref().ok_or(LeaseError::Incomplete)?)?;
        let (flat, batches) = (base.flat(), batches(&spec, slice, disk)?);
        Ok(Lease { job, spec, flat, batches, base, delta })
    }

    /// How many values its state has.
    pub fn state_sizes(&self) -> StateSizes {
        StateSizes::of(&self.spec.model, self.spec.inner.optimizer)
    }

    /// The lease, not one step made.
    pub fn progress(&self) -> LeaseProgress {
        let base_version = self.base.version.0;
        LeaseProgress { lease_id: self.job.lease_id, base_version, ..LeaseProgress::default() }
    }

    /// Whether the checkpoint is this lease's.
    pub fn is_saved_in(&self, store: &CheckpointStore<'_>) -> bool {
        let place = |p: &LeaseProgress| (p.lease_id, p.base_version);
        store.progress().is_some_and(|saved| place(&saved) == place(&self.progress()))
    }

    /// The lease at its last checkpoint, or at its beginning.
    pub fn start(&self, store: &CheckpointStore<'_>, disk: &dyn Disk) -> Result<Start<'_>, LeaseError> {
        let checkpoint = if self.is_saved_in(store) { store.load()? } else { None };
        if let Some(Checkpoint { progress, weights, moments, begun }) = checkpoint {
            return Ok(Start { progress, weights: weights.into(), moments, begun, lost: vec![] });
        }
        let (moments, lost) = moments(&self.spec, self.job, disk)?;
        let (progress, weights) = (self.progress(), Cow::Borrowed(&self.flat[..]));
        Ok(Start { progress, weights, moments, begun: None, lost: lost.into_iter().collect() })
    }

    /// Writes what the training leaves and says it: the base weights for later leases, and the delta to the weights
    /// `after` it, as `encode` makes it of pseudo-gradient and residual, with the state that belongs to it; `moments` is
    /// asked for the optimizer's state if it is kept. Nothing, if not one step was made.
    pub fn finish<E: From<LeaseError>>(
        &self,
        progress: &LeaseProgress,
        after: &[f32],
        encode: impl FnOnce(&DeltaSpec, &[f32], &mut [f32]) -> Vec<u8>,
        moments: impl FnOnce() -> Result<Moments, E>,
        disk: &dyn Disk,
    ) -> Result<Trained, E> {
        let mut trained = progress.trained();
        if progress.steps == 0 {
            return Ok(trained);
        }
        let base = self.job.base.as_ref().ok_or(LeaseError::Incomplete)?;
        trained.weights_file = keep_weights(base, &self.base, disk)?;
        let pseudo_gradient: Vec<f32> = self.flat.iter().zip(after).map(|(base, after)| base - after).collect();
        if !pseudo_gradient.iter().all(|v| v.is_finite()) {
            return Err(LeaseError::NotFinite.into());
        }
        let (mut residual, lost) = residual(self.job, self.flat.len(), disk)?;
        trained.lost.extend(lost);
        let delta = encode(&self.delta, &pseudo_gradient, &mut residual);
        drop(pseudo_gradient);
        let lease = LeaseId(self.job.lease_id);
        trained.delta_file = work_files::delta(lease);
        trained.delta_hash = BlobHash::of(&delta).0.to_vec();
        trained.delta_bytes = delta.len() as u64;
        files::write(disk, &trained.delta_file, &delta).map_err(LeaseError::File)?;
        // Without feedback there is nothing to remember.
        if self.delta.feedback > 0.0 {
            trained.residual_file = work_files::residual(lease);
            files::write_residual(disk, &trained.residual_file, &residual).map_err(LeaseError::File)?;
        }
        if self.spec.inner.state == InnerState::Keep {
            trained.optimizer_file = work_files::optimizer(lease);
            files::write_moments(disk, &trained.optimizer_file, &moments()?).map_err(LeaseError::File)?;
        }
        Ok(trained)
    }
}

/// The run that a job is of.
pub fn parse_spec(json: &str) -> Result<RunSpec, LeaseError> {
    let spec: RunSpec = serde_json::from_str(json)?;
    spec.validate()?;
    Ok(spec)
}

/// The shard that a job's samples are in.
pub fn shard(spec: &RunSpec, slice: &Slice, disk: &dyn Disk) -> Result<Shard, LeaseError> {
    let (context, vocab_size) = (spec.model.max_position_embeddings as usize, spec.model.vocab_size);
    Ok(Shard::read(&files::read(disk, &slice.shard_file)?, slice.shard_samples as usize, context, vocab_size)?)
}

/// A batch for each step on a job's samples.
pub fn batches(spec: &RunSpec, slice: &Slice, disk: &dyn Disk) -> Result<Vec<Batch>, LeaseError> {
    let (first, samples) = (slice.first_sample as usize, slice.samples as usize);
    Ok(shard(spec, slice, disk)?.batches(first, samples, spec.inner.batch_samples as usize)?)
}

/// The learning rate of a job's step.
pub fn learning_rate(spec: &RunSpec, job: &Train, step: u64) -> f64 {
    let tokens = job.progress_tokens as f64 + step as f64 * job.progress_tokens_per_step as f64;
    spec.inner.learning_rate_at(tokens / spec.token_budget as f64)
}

/// The file of the base weights, for later leases: the one that they came from, or a new one.
pub fn keep_weights(base: &Base, weights: &Weights, disk: &dyn Disk) -> Result<String, LeaseError> {
    if base.keyframe_file.is_empty() && base.updates.is_empty() {
        return Ok(base.weights_file.clone());
    }
    let file = work_files::weights(weights.version);
    files::write_weights(disk, &file, weights)?;
    Ok(file)
}

/// The optimizer's state that the lease starts from. Where its file is gone or damaged it is fresh, and that is said:
/// it grows again, and the lease is worth more than it.
pub fn moments(spec: &RunSpec, job: &Train, disk: &dyn Disk) -> Result<(Moments, Option<String>), LeaseError> {
    let sizes = StateSizes::of(&spec.model, spec.inner.optimizer);
    if job.optimizer_file.is_empty() || spec.inner.state == InnerState::Reset {
        return Ok((sizes.zero(), None));
    }
    match files::read_moments(disk, &job.optimizer_file, sizes) {
        Ok(moments) => Ok((moments, None)),
        Err(e @ (FileError::Missing(_) | FileError::Damaged(_))) => {
            Ok((sizes.zero(), Some(format!("the optimizer's state began anew: {e}"))))
        }
        Err(e) => Err(e.into()),
    }
}

/// What earlier deltas lost to rounding, as much of it as the session lets count. Where its file is gone or damaged it
/// is nothing, and that is said.
fn residual(job: &Train, parameters: usize, disk: &dyn Disk) -> Result<(Vec<f32>, Option<String>), LeaseError> {
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

/// The samples of a job, in its shard.
pub fn range(slice: &Slice) -> std::ops::Range<usize> {
    slice.first_sample as usize..slice.first_sample as usize + slice.samples as usize
}
