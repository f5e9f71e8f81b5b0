//! What is around a job: disk, memory, the owner's limits, and somebody who listens.

use crate::{portion_limit::PortionLimit, trainer::Portion};
use burn::tensor::Device;
use nightjar_shared::{disk::Disk, run_spec::RunSpec, wire::worker::from_worker};
use nightjar_work::Live;
use std::sync::atomic::AtomicBool;

/// What a job is worked on with: everything around it that is not the job itself.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
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

impl Environment<'_> {
    /// How much of a batch goes through the model at once: what a quarter of the free memory holds, and what the owner
    /// allows holds beside the training state. A GPU's own memory cannot be asked through `wgpu`; the computer's stands
    /// in for it, until the device has shown that it bears less.
    pub(super) fn portion(&self, spec: &RunSpec, limit: &PortionLimit, device: &Device, samples: usize) -> Portion {
        let model = &spec.model;
        let allowed = match self.live.memory_bytes() {
            u64::MAX => u64::MAX,
            bytes => bytes.saturating_sub(model.state_bytes()),
        };
        let context = model.max_position_embeddings as usize;
        Portion::fitting(model, context, samples, allowed.min(self.memory_free / 4).min(limit.most()), device)
    }
}
