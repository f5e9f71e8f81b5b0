//! What a lease starts from, read from the files that its job names.

use super::{
    error::WorkError,
    files::{self, FileError},
};
use crate::{
    batches::{Batch, Shard},
    optimizer::{Moments, StateSizes},
};
use nightjar_shared::{
    disk::Disk,
    run_spec::{InnerState, RunSpec},
    wire::worker::{Slice, Train},
};

pub(super) fn parse_spec(json: &str) -> Result<RunSpec, WorkError> {
    let spec: RunSpec = serde_json::from_str(json)?;
    spec.validate()?;
    Ok(spec)
}

pub(super) fn shard(spec: &RunSpec, slice: &Slice, disk: &dyn Disk) -> Result<Shard, WorkError> {
    let (context, vocab_size) = (spec.model.max_position_embeddings as usize, spec.model.vocab_size);
    Ok(Shard::read(&files::read(disk, &slice.shard_file)?, slice.shard_samples as usize, context, vocab_size)?)
}

pub(super) fn batches(spec: &RunSpec, slice: &Slice, disk: &dyn Disk) -> Result<Vec<Batch>, WorkError> {
    let (first, samples) = (slice.first_sample as usize, slice.samples as usize);
    Ok(shard(spec, slice, disk)?.batches(first, samples, spec.inner.batch_samples as usize)?)
}

/// The optimizer's state that the lease starts from. Where its file is gone or damaged it is fresh, and that is said:
/// it grows again, and the lease is worth more than it.
pub(super) fn moments(spec: &RunSpec, job: &Train, disk: &dyn Disk) -> Result<(Moments, Option<String>), WorkError> {
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
pub(super) fn residual(
    job: &Train,
    parameters: usize,
    disk: &dyn Disk,
) -> Result<(Vec<f32>, Option<String>), WorkError> {
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

pub(super) fn range(slice: &Slice) -> std::ops::Range<usize> {
    slice.first_sample as usize..slice.first_sample as usize + slice.samples as usize
}
