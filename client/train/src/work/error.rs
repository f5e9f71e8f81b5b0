//! Why a lease could not be carried out, and whose fault that is.

use crate::{device::DeviceError, model::ModelError, trainer::TrainError, weights::WeightsError};
use nightjar_work::{LeaseError, base::BaseError, batches::BatchError, checkpoint::CheckpointError, files::FileError};

/// A lease that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// It cannot be begun, or brought to its end, whatever computes.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// There is nothing to compute on.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model cannot be built or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// What is an error of the lease's is one here.
macro_rules! of_lease {
    ($($error:ty),*) => {
        $(impl From<$error> for WorkError {
            fn from(error: $error) -> Self {
                WorkError::Lease(error.into())
            }
        })*
    };
}
of_lease!(BaseError, BatchError, CheckpointError, FileError);

impl WorkError {
    /// Whether the lease's base is wrong, for which a keyframe helps.
    pub fn is_of_base(&self) -> bool {
        matches!(self, WorkError::Lease(e) if e.is_of_base())
    }

    /// Whether the disk does not take what is to be written, or does not give what is on it: not the lease's fault.
    pub fn is_of_disk(&self) -> bool {
        matches!(self, WorkError::Lease(e) if e.is_of_disk())
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
