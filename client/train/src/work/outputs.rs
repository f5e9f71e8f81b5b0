//! What a lease leaves: base weights for later ones, and a delta with the state that belongs to it.

use super::{error::WorkError, files, inputs};
use crate::trainer::Trainer;
use nightjar_shaders::op;
use nightjar_shared::{
    disk::Disk,
    ids::{BlobHash, LeaseId},
    run_spec::{DeltaSpec, InnerState, RunSpec},
    version::Weights,
    wire::worker::{Base, Train, Trained},
    work_files,
};

/// The file of the base weights, for later leases: the one that they came from, or a new one.
pub(super) fn keep_weights(base: &Base, weights: &Weights, disk: &dyn Disk) -> Result<String, WorkError> {
    if base.keyframe_file.is_empty() && base.updates.is_empty() {
        return Ok(base.weights_file.clone());
    }
    let file = work_files::weights(weights.version);
    files::write_weights(disk, &file, weights)?;
    Ok(file)
}

/// Encodes the delta and writes it with the state that belongs to it. Gives the weights that it was made from.
pub(super) fn finish(
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
    let (mut residual, lost) = inputs::residual(job, base.len(), disk)?;
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
