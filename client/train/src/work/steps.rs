//! The inner steps of a lease, or ahead of the next, at no more than the allowed rate and duty, with a checkpoint every
//! so often, in the middle of a step where that takes longer, when one is asked for, and before it stops.

use super::{
    duty::{Duty, Pace},
    environment::Environment,
    error::WorkError,
};
use crate::{
    batches::Batch,
    checkpoint::{Checkpoint, CheckpointStore, LeaseProgress},
    portion_limit::PortionLimit,
    submits::Gauge,
    trainer::{Gate, Portion, StepReport, TrainError, Trainer},
};
use burn::tensor::Device;
use nightjar_shared::{
    run_spec::RunSpec,
    wire::worker::{Progress, Saved, Train, from_worker},
};
use nightjar_work::lease;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Who rests for long tells that it is there this often.
const SIGN_EVERY: Duration = Duration::from_secs(60);

/// A micro-batch takes no longer than this, if it can be made of fewer samples: that much is lost at most, beside what
/// the last checkpoint does not have.
const MICRO_BATCH_MAX: Duration = Duration::from_secs(10);

/// Where the steps lead.
pub(super) enum Course<'a, 'd> {
    /// To a lease's delta: they are saved here on the way.
    Lease {
        /// Where.
        store: &'a mut CheckpointStore<'d>,
        /// Whether it begins with steps that were taken ahead, which are saved nowhere yet.
        adopted: bool,
    },
    /// Ahead of the next lease: they are saved nowhere, and end once this says so.
    Ahead(&'a dyn Fn() -> bool),
}

/// Takes steps until all are done or Stop comes.
#[expect(clippy::too_many_arguments, reason = "all that a lease is made of, put together here and nowhere else")]
pub(super) fn run(
    spec: &RunSpec,
    job: &Train,
    batches: &[Batch],
    trainer: &mut Trainer,
    progress: &mut LeaseProgress,
    course: Course<'_, '_>,
    gauge: Gauge,
    portion_limit: &mut PortionLimit,
    env: &Environment<'_>,
) -> Result<(), WorkError> {
    let now = Instant::now();
    let device = trainer.model().device().clone();
    let adopted = matches!(course, Course::Lease { adopted: true, .. });
    // Of such a lease the disk has no more than what it starts from, so that it is saved at the first occasion.
    let saved_place = if adopted { (0, 0) } else { (progress.steps, trainer.samples_begun()) };
    let unsaved = Duration::from_millis(if adopted { job.checkpoint_ms } else { 0 });
    let saved = now.checked_sub(unsaved).unwrap_or(now);
    let duty = Duty::new(env.live);
    let (told, samples_max) = (now, usize::MAX);
    let mut steps = Steps {
        spec,
        job,
        trainer,
        progress,
        course,
        env,
        device,
        duty,
        gauge,
        portion_limit,
        samples_max,
        told,
        saved,
        saved_place,
    };
    let _in_steps = env.live.in_steps();
    steps.take(batches)
}

struct Steps<'a, 'd> {
    spec: &'a RunSpec,
    job: &'a Train,
    trainer: &'a mut Trainer,
    progress: &'a mut LeaseProgress,
    course: Course<'a, 'd>,
    env: &'a Environment<'a>,
    device: Device,
    duty: Duty<'a>,
    gauge: Gauge,
    portion_limit: &'a mut PortionLimit,
    /// Samples at once, so that what the GPU is given is short.
    samples_max: usize,
    /// When progress was told.
    told: Instant,
    /// When the state was last the same in memory and on the disk.
    saved: Instant,
    /// Steps made by then, and samples of the next.
    saved_place: (u64, usize),
}

impl Steps<'_, '_> {
    fn take(&mut self, batches: &[Batch]) -> Result<(), WorkError> {
        let (start, train_s_before) = (Instant::now(), self.progress.train_s);
        let mut pace = Pace::new(self.env.live);
        let todo = batches.iter().take(self.job.steps as usize).enumerate().skip(self.progress.steps as usize);
        for (k, batch) in todo {
            let rate = lease::learning_rate(self.spec, self.job, k as u64);
            let Some(report) = self.step(batch, rate)? else { return self.save() };
            self.progress.count(report.loss, batch.samples() as u64, report.tokens);
            // The update is under way still.
            self.gauge.end();
            self.progress.train_s = train_s_before + start.elapsed().as_secs_f64();
            // Before the pauses that the owner's limits ask for, which may be longer than a process lives.
            let is_due = is_due(self.saved, self.job);
            if is_due && self.progress.steps < self.job.steps.into() {
                self.save()?;
            }
            self.duty.rest(|| heard(self.env) || self.course.is_over());
            pace.count(report.tokens);
            while pace.rest(SIGN_EVERY, || heard(self.env) || self.course.is_over()) {
                // A step may be long at so few tokens a second, and who says nothing is taken for hung.
                self.tell();
            }
            // They belong to the work: it goes as fast as it may.
            self.progress.train_s = train_s_before + start.elapsed().as_secs_f64();
            self.answer()?;
            if self.course.is_over() {
                return Ok(());
            }
            if is_due || self.told.elapsed() >= TELL_EVERY {
                self.tell();
            }
        }
        Ok(())
    }

    /// One inner step; `None` if Stop came first. A checkpoint in the middle has all micro-batches that are finished;
    /// one that is under way when it is asked for begins again after it.
    fn step(&mut self, batch: &Batch, rate: f64) -> Result<Option<StepReport>, WorkError> {
        loop {
            let samples = self.spec.inner.batch_samples as usize;
            let portion = self.env.portion(self.spec, self.portion_limit, &self.device, samples);
            let portion = Portion { micro_batch: portion.micro_batch.min(self.samples_max), ..portion };
            self.trainer.set_portion(portion);
            if self.gauge.is_at_its_end() && portion.micro_batch > 1 {
                self.samples_max = portion.micro_batch / 2;
                self.gauge.forget();
                continue;
            }
            // What is half done cannot be saved.
            if let Some(samples) = self.gauge.took().and_then(|took| in_time(portion.micro_batch, took)) {
                tracing::info!("{} samples at once take too long; {samples} from here on", portion.micro_batch);
                self.samples_max = samples;
                self.gauge.forget();
                continue;
            }
            self.portion_limit.begin(portion.bytes(&self.spec.model, batch.context(), &self.device));
            let (env, duty, gauge, limit) = (self.env, &mut self.duty, &mut self.gauge, &mut *self.portion_limit);
            let (job, saved, mut has_more) = (self.job, self.saved, false);
            let go_on = |gate| {
                // From the second on there is a micro-batch more to save, and one that the device has borne. It is
                // saved before the pause that the duty asks for.
                if gate != Gate::Layer && std::mem::replace(&mut has_more, true) {
                    gauge.end();
                    limit.end();
                    if is_due(saved, job) {
                        return false;
                    }
                }
                pass(gate, gauge, duty, env, || heard(env))
            };
            match self.trainer.step_while(batch, rate, go_on) {
                Ok(report) => {
                    self.portion_limit.end();
                    return Ok(Some(report));
                }
                Err(TrainError::Stopped) => self.portion_limit.leave_off(),
                Err(e) => {
                    let e = WorkError::from(e);
                    // A loss that is not finite says nothing against the portion.
                    if !e.is_of_device() {
                        self.portion_limit.leave_off();
                    }
                    return Err(e);
                }
            }
            if stopped(self.env) {
                return Ok(None);
            }
            self.answer()?;
            if is_due(self.saved, self.job) {
                self.save()?;
                self.tell();
            }
        }
    }

    /// Saves and says so, if that is asked for.
    fn answer(&mut self) -> Result<(), WorkError> {
        if self.env.live.take_checkpoint() {
            self.save()?;
            let saved = match self.course {
                Course::Lease { .. } => Saved { lease_id: self.job.lease_id, steps: self.saved_place.0 as u32 },
                Course::Ahead(_) => Saved::default(),
            };
            (self.env.say)(from_worker::Body::Saved(saved));
        }
        Ok(())
    }

    /// Writes what was done since the last checkpoint, if anything was. Who is stopped in the middle of a micro-batch
    /// loses those before it in the step, and the checkpoint may have them.
    fn save(&mut self) -> Result<(), WorkError> {
        let place = (self.progress.steps, self.trainer.samples_begun());
        if let Course::Lease { store, .. } = &mut self.course
            && place > self.saved_place
        {
            let (weights, moments, begun) = (self.trainer.weights()?, self.trainer.moments()?, self.trainer.begun()?);
            store.save(Checkpoint { progress: *self.progress, weights, moments, begun })?;
            self.saved_place = place;
        }
        self.saved = Instant::now();
        Ok(())
    }

    fn tell(&mut self) {
        if matches!(self.course, Course::Ahead(_)) {
            return;
        }
        self.told = Instant::now();
        (self.env.say)(from_worker::Body::Progress(Progress {
            lease_id: self.job.lease_id,
            steps: self.progress.steps as u32,
            loss: self.progress.loss_last,
            tokens: self.progress.tokens,
            train_ms: (self.progress.train_s * 1000.0) as u64,
            unsaved_ms: self.saved.elapsed().as_millis() as u64,
            submit_us: self.gauge.longest().map_or(0, |longest| longest.as_micros() as u64),
            // Whoever passes it on knows.
            written_bytes: 0,
        }));
    }
}

impl Course<'_, '_> {
    fn is_over(&self) -> bool {
        matches!(self, Course::Ahead(until) if until())
    }
}

/// How many samples at once take no longer than they may, where so many took so long.
fn in_time(samples: usize, took: Duration) -> Option<usize> {
    let share = MICRO_BATCH_MAX.as_secs_f64() / took.as_secs_f64();
    (share < 1.0 && samples > 1).then(|| ((samples as f64 * share) as usize).max(1))
}

/// Whether the last checkpoint is as old as one may be.
fn is_due(saved: Instant, job: &Train) -> bool {
    saved.elapsed() >= Duration::from_millis(job.checkpoint_ms)
}

/// Passes a gate: the device falls never far behind, and the duty is kept. Whether to go on; `heard` says whether there
/// is something else to do where a micro-batch has ended.
pub(super) fn pass(
    gate: Gate,
    gauge: &mut Gauge,
    duty: &mut Duty<'_>,
    env: &Environment<'_>,
    heard: impl Fn() -> bool + Copy,
) -> bool {
    if gate == Gate::Layer {
        // What was frozen or stopped leaves no long queue behind.
        gauge.layer();
        // A checkpoint can wait for the micro-batch: what is half done cannot be saved.
        env.live.give_sign();
        return !stopped(env);
    }
    // Never more than one micro-batch is under way.
    gauge.end();
    duty.breathe(heard);
    gauge.begin();
    !heard()
}

pub(super) fn stopped(env: &Environment<'_>) -> bool {
    env.stop.load(Ordering::Relaxed)
}

/// Whether there is something else to do than the step at hand.
fn heard(env: &Environment<'_>) -> bool {
    env.live.give_sign();
    stopped(env) || env.live.checkpoint_asked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_batch_that_takes_too_long_has_fewer_samples() {
        let s = Duration::from_secs;
        assert_eq!(in_time(14, s(83)), Some(1));
        assert_eq!(in_time(14, s(20)), Some(7));
        assert_eq!([in_time(14, s(10)), in_time(1, s(1000))], [None, None]);
    }
}
