//! Training ahead: after a lease's steps the worker goes on with the samples behind its range, until the agent has
//! another job. If that is the lease that begins there, its weights are the new version's plus what those steps
//! changed; if not, they come to nothing. In memory only: who ends the worker gives them up.

use super::error::WorkError;
use crate::{checkpoint::LeaseProgress, trainer::Trainer};
use nightjar_shared::{
    run_spec::RunSpec,
    wire::worker::{Slice, Train, Trained},
};

/// Where a lease ended, and what comes behind it.
#[derive(Clone, Debug)]
pub struct LeaseEnd {
    /// The steps behind the lease, as if they were a lease of their own.
    pub(super) job: Train,
    /// The weights from which its delta was made.
    pub(super) weights: Vec<f32>,
    /// How far the steps behind it have come.
    pub(super) progress: LeaseProgress,
}

impl LeaseEnd {
    /// Behind a lease that was trained to its end; `None` if it may not be trained ahead.
    pub(super) fn behind(spec: &RunSpec, job: &Train, trained: &Trained, weights: Vec<f32>) -> Option<Self> {
        let slice = job.slice.as_ref().filter(|_| job.ahead_steps > 0 && trained.steps == job.steps)?;
        let first_sample = slice.first_sample + slice.samples;
        let samples = job.ahead_steps.checked_mul(spec.inner.batch_samples)?;
        let job = Train {
            slice: Some(Slice { first_sample, samples, ..slice.clone() }),
            steps: job.ahead_steps,
            progress_tokens: job.progress_tokens + u64::from(job.steps) * job.progress_tokens_per_step,
            optimizer_file: trained.optimizer_file.clone(),
            ..job.clone()
        };
        Some(LeaseEnd { job, weights, progress: LeaseProgress::default() })
    }

    /// Whether this lease begins with the steps behind that one.
    pub(super) fn leads_to(&self, job: &Train) -> bool {
        let what = |job: &Train| {
            (job.run_spec_json.clone(), job.slice.as_ref().map(|s| (s.shard_file.clone(), s.first_sample)))
        };
        job.ahead_of == self.job.lease_id && what(job) == what(&self.job) && self.progress.steps <= job.steps.into()
    }

    /// Moves what was trained ahead onto a new base: its weights, plus what those steps changed. Says how far they
    /// came.
    pub(super) fn moved_onto(&self, base: &[f32], trainer: &mut Trainer) -> Result<LeaseProgress, WorkError> {
        let now = trainer.weights()?;
        let changed = now.iter().zip(&self.weights).map(|(now, end)| now - end);
        trainer.load_weights(&base.iter().zip(changed).map(|(base, changed)| base + changed).collect::<Vec<f32>>())?;
        Ok(self.progress)
    }

    /// The same, for no more than so many steps.
    pub fn for_steps(self, steps: u32) -> Self {
        LeaseEnd { job: Train { steps: steps.min(self.job.steps), ..self.job }, ..self }
    }
}
