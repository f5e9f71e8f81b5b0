//! Training ahead: after a lease's steps the worker goes on with the samples behind its range, until the agent has
//! another job. If that is the lease that begins there, its weights are the new version's plus what those steps
//! changed; if not, they come to nothing. In memory only: who ends the worker gives them up.

use super::{
    lease::{Bench, Room, WorkError, batches, moments, parse_spec},
    steps::{self, Course},
};
use crate::{checkpoint::LeaseProgress, submits::Gauge, trainer::Trainer};
use nightjar_shared::{
    run_spec::RunSpec,
    wire::worker::{Slice, Train, Trained},
};

/// Where a lease ended, and what comes behind it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The steps behind the lease, as if they were a lease of their own.
    job: Train,
    /// The weights from which its delta was made.
    weights: Vec<f32>,
    /// How far the steps behind it have come.
    progress: LeaseProgress,
}

impl Cut {
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
        Some(Cut { job, weights, progress: LeaseProgress::default() })
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
        let changed = now.iter().zip(&self.weights).map(|(now, cut)| now - cut);
        trainer.load_weights(&base.iter().zip(changed).map(|(base, changed)| base + changed).collect::<Vec<f32>>())?;
        Ok(self.progress)
    }

    /// The same, for no more than so many steps.
    pub fn for_steps(self, steps: u32) -> Self {
        Cut { job: Train { steps: steps.min(self.job.steps), ..self.job }, ..self }
    }
}

impl Bench {
    /// Trains on behind the lease that was trained last, as far as that may be, until there is something else to do.
    /// What fails comes to nothing: the next lease will find out whether it fails again.
    /// Says behind which lease, unless there is something else to do: then nothing computes any more.
    pub fn train_ahead(&mut self, room: &Room<'_>, until: &dyn Fn() -> bool) -> Option<u64> {
        let mut cut = self.cut.take()?;
        let lease_id = cut.job.lease_id;
        if self.follow(&mut cut, room, until).is_ok() {
            self.cut = Some(cut);
        }
        (!until()).then_some(lease_id)
    }

    fn follow(&mut self, cut: &mut Cut, room: &Room<'_>, until: &dyn Fn() -> bool) -> Result<(), WorkError> {
        let (_, _, trainer) = self.trainer.as_mut().ok_or(WorkError::Incomplete)?;
        let spec = parse_spec(&cut.job.run_spec_json)?;
        let slice = cut.job.slice.as_ref().ok_or(WorkError::Incomplete)?;
        let batches = batches(&spec, slice, room.disk)?;
        let gauge = Gauge::new(self.submits.clone(), trainer.model().device());
        let (course, bearing) = (Course::Ahead(until), &mut self.bearing);
        steps::run(&spec, &cut.job, &batches, trainer, &mut cut.progress, course, gauge, bearing, room)
    }

    /// Where the lease that was trained last ended, to take it up again elsewhere.
    pub fn take_cut(&mut self) -> Option<Cut> {
        self.cut.take()
    }

    /// Goes back to where a lease ended.
    pub fn take_up_cut(&mut self, cut: Cut, room: &Room<'_>) -> Result<(), WorkError> {
        let spec = parse_spec(&cut.job.run_spec_json)?;
        let (moments, _) = moments(&spec, &cut.job, cut.weights.len(), room.disk)?;
        let trainer = self.trainer(&spec, &cut.weights, &moments, room)?;
        self.keep(&spec, trainer);
        self.cut = Some(cut);
        Ok(())
    }
}
