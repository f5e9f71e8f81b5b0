//! Why a lease's work could not be begun or brought to its end, whatever computes.

use crate::{base::BaseError, batches::BatchError, checkpoint::CheckpointError, files::FileError};
use nightjar_shared::run_spec::RunSpecError;

/// A lease that cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
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
    /// The training state cannot be saved or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The inner steps diverged.
    #[error("training gave weights that are not finite")]
    NotFinite,
}

impl LeaseError {
    /// Whether its base is wrong, for which a keyframe helps.
    pub fn is_of_base(&self) -> bool {
        matches!(self, LeaseError::Base(_))
    }

    /// Whether the disk does not take what is to be written, or does not give what is on it: not the lease's fault.
    pub fn is_of_disk(&self) -> bool {
        let is_checkpoints =
            matches!(self, LeaseError::Checkpoint(CheckpointError::Write(_) | CheckpointError::Read(_)));
        is_checkpoints || matches!(self, LeaseError::File(FileError::Disk { .. }))
    }
}
