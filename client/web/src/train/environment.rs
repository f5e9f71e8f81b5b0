//! What is around a job, and why one could not be carried out.

use super::{gpu::GpuError, trainer::TrainError};
use nightjar_shared::{
    disk::Disk,
    wire::worker::{Failed, from_worker},
};
use nightjar_work::{LeaseError, Live, base::BaseError, batches::BatchError, checkpoint::CheckpointError};
use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
};

/// What a lease is worked on with.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Where all files are that jobs name.
    pub disk: &'a dyn Disk,
    /// Name of the checkpoint's two slots on it.
    pub checkpoint: &'a str,
    /// What the owner allows, and whether a checkpoint is wanted.
    pub live: &'a Live,
    /// Once set, training ends before the next micro-batch.
    pub stop: &'a AtomicBool,
    /// Waited for before each micro-batch: as long as the owner has something else to do.
    pub hold: &'a dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>,
    /// Hears of progress.
    pub say: &'a dyn Fn(from_worker::Body),
}

impl Environment<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A lease that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// It cannot be begun, or brought to its end, whatever computes.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Half a measurement is worth nothing.
    #[error("stopped in the middle")]
    Stopped,
}

impl From<GpuError> for WorkError {
    fn from(error: GpuError) -> Self {
        WorkError::Train(error.into())
    }
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
of_lease!(BaseError, BatchError, CheckpointError);

impl WorkError {
    /// As it is said to whoever gave the job.
    pub fn failed(&self) -> Failed {
        let (base_is_wrong, disk_failed) = match self {
            WorkError::Lease(e) => (e.is_of_base(), e.is_of_disk()),
            WorkError::Train(_) | WorkError::Stopped => (false, false),
        };
        let device_failed = matches!(self, WorkError::Train(TrainError::Gpu(_)));
        Failed { sentence: self.to_string(), base_is_wrong, device_failed, disk_failed }
    }
}
