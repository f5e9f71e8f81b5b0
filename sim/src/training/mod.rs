//! What a worker does, behind one trait with three bodies: [`synthetic`] makes the gradient up (for the kill swarm),
//! [`cost`] knows only lengths (for a million devices), and `real` (feature `real`) takes the inner steps that ship.

pub mod cost;
pub mod synthetic;

use crate::disk::SimDisk;
use nightjar_shared::{
    run_spec::RunSpec,
    version::Weights,
    wire::worker::{from_worker, to_worker},
};
use std::sync::Arc;

/// Names a job from [`Training::begin`] or [`Training::measure`] on until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// A lease's work, as a device's session hands it to its worker.
#[derive(Clone)]
pub struct Job {
    /// The device's place in the population.
    pub device: u32,
    /// Its disk. Files that the job names are on it when the job begins. The files that it leaves are written no sooner
    /// than in [`Training::finish`], which alone has a place in virtual time.
    pub disk: Arc<SimDisk>,
    /// The job: `Train` or `Evaluate`, never `Stop`.
    pub body: to_worker::Body,
    /// The run spec that the job's text says, parsed once.
    pub spec: Arc<RunSpec>,
    /// Inner steps that its worker took ahead of it, behind the lease that the job names.
    pub ahead: Option<u32>,
}

/// A version's losses, nats a token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// On held-out text.
    pub heldout: f64,
    /// On out-of-domain text, where there is one.
    pub ood: Option<f64>,
}

/// Does the work of all devices. Jobs of several devices are open at once, so that a body with threads may carry them
/// out side by side; what comes out depends on the jobs only, never on which thread was faster.
pub trait Training {
    /// Whether weights, deltas and shards are bytes. In cost mode they are names and lengths: nothing is on any disk.
    fn has_bytes(&self) -> bool {
        true
    }

    /// A job begins, at its virtual time. It may be worked on from now on, as if all its steps counted.
    fn begin(&mut self, job: Job) -> JobId;

    /// A job ends, at its virtual time: leaves its files on the device's disk (synced) and gives what the worker
    /// reports:
    /// `Trained`, `Evaluated` or `Failed`. Of a training job `steps` (at least 1, at most what the job asks for) inner
    /// steps count, since its owner may have wanted the computer back; `train_ms` is the virtual time that they took.
    fn finish(&mut self, id: JobId, steps: u32, train_ms: u64) -> from_worker::Body;

    /// A job comes to nothing: its worker was ended. No file is left.
    fn abandon(&mut self, id: JobId);

    /// Begins to measure a version's losses, which takes no virtual time; `None` where nothing can be measured.
    fn measure(&mut self, _weights: &Weights) -> Option<JobId> {
        None
    }

    /// What [`Training::measure`] found; waits for it.
    fn measured(&mut self, _id: JobId) -> Losses {
        Losses::default()
    }
}
