//! Why a lease could not be carried out, and whose fault that is.

use super::{base::BaseError, files::FileError};
use crate::{
    batches::BatchError, checkpoint::CheckpointError, device::DeviceError, model::ModelError, trainer::TrainError,
    weights::WeightsError,
};
use nightjar_shared::run_spec::RunSpecError;

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
    SpecText(#[from] serde_json::Error),
    /// Nothing can be trained by it.
    #[error("the run spec is not understood: {0}")]
    Spec(#[from] RunSpecError),
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
    /// There is nothing to compute on.
    #[error(transparent)]
    Device(#[from] DeviceError),
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
            WorkError::Device(_) => true,
            _ => false,
        }
    }
}
