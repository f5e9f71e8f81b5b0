//! The inner steps of a lease at no more than the allowed rate and duty, with a checkpoint every so often, when one is
//! asked for, and before they stop, in the middle of a step if need be.

use super::{
    clock,
    environment::{Environment, WorkError},
    gpu::OpenGpu,
    pace::Pace,
    trainer::{StepReport, Trainer},
};
use nightjar_shared::wire::worker::{Progress, Saved, from_worker};
use nightjar_work::{
    Lease,
    batches::Batch,
    checkpoint::{Checkpoint, CheckpointStore, LeaseProgress},
    lease::learning_rate,
};
use std::time::Duration;

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// A micro-batch takes no longer than this, if it can be made of fewer samples.
const MICRO_BATCH_MAX: Duration = Duration::from_secs(5);

/// Takes the steps of a lease from where it is, until all are done or Stop comes. Whether a micro-batch took too long.
pub(super) async fn run(
    lease: &Lease<'_>,
    gpu: &mut OpenGpu,
    trainer: &mut Trainer,
    store: &mut CheckpointStore<'_>,
    progress: &mut LeaseProgress,
    env: &Environment<'_>,
) -> Result<bool, WorkError> {
    let (now, saved_place) = (clock::now(), (progress.steps, trainer.samples_begun()));
    let (pace, slow, told, saved) = (Pace::new(env.live, now), false, now, now);
    let mut steps = Steps { lease, gpu, trainer, store, progress, env, pace, slow, told, saved, saved_place };
    steps.take().await?;
    Ok(steps.slow)
}

struct Steps<'a, 'd> {
    lease: &'a Lease<'a>,
    gpu: &'a mut OpenGpu,
    trainer: &'a mut Trainer,
    store: &'a mut CheckpointStore<'d>,
    progress: &'a mut LeaseProgress,
    env: &'a Environment<'a>,
    pace: Pace<'a>,
    /// Whether a micro-batch took too long.
    slow: bool,
    /// When progress was told.
    told: Duration,
    /// When the state was last the same in memory and on the disk, and how far it was then.
    saved: Duration,
    saved_place: (u64, usize),
}

impl Steps<'_, '_> {
    /// Steps made, and samples of the next.
    fn place(&self) -> (u64, usize) {
        (self.progress.steps, self.trainer.samples_begun())
    }

    async fn take(&mut self) -> Result<(), WorkError> {
        let lease = self.lease;
        let todo = lease.batches.iter().take(lease.job.steps as usize).enumerate().skip(self.progress.steps as usize);
        for (k, batch) in todo {
            let rate = learning_rate(&lease.spec, lease.job, k as u64);
            let Some(report) = self.step(batch, rate).await? else { return self.save().await };
            self.progress.count(report.loss, batch.samples() as u64, report.tokens);
            self.pace.count(report.tokens);
            if self.progress.steps < lease.job.steps.into() && self.is_due() {
                self.save().await?;
            }
            self.tell();
        }
        Ok(())
    }

    /// One inner step; `None` if Stop came first.
    async fn step(&mut self, batch: &Batch, rate: f64) -> Result<Option<StepReport>, WorkError> {
        loop {
            let start = clock::now();
            self.rest().await;
            self.progress.train_s += (clock::now() - start).as_secs_f64();
            // Before it holds: nobody knows for how long.
            self.answer().await?;
            (self.env.hold)().await;
            if self.env.is_stopped() {
                return Ok(None);
            }
            let start = clock::now();
            let is_last = self.trainer.micro_batch(self.gpu, batch).await?;
            let report = if is_last { Some(self.trainer.update(self.gpu, batch, rate).await?) } else { None };
            let took = clock::now() - start;
            // Rests belong to the work: it goes as fast as it may.
            self.progress.train_s += took.as_secs_f64();
            self.pace.computed(took);
            self.slow |= took > MICRO_BATCH_MAX;
            self.env.live.give_sign();
            if report.is_some() {
                return Ok(report);
            }
            if self.is_due() {
                self.save().await?;
            }
            self.tell();
        }
    }

    fn is_due(&self) -> bool {
        clock::now() - self.saved >= Duration::from_millis(self.lease.job.checkpoint_ms)
    }

    /// Rests as much as the owner's limits ask for, hearing of new ones.
    async fn rest(&mut self) {
        let start = clock::now();
        while let Some(nap) = self.pace.due(clock::now() - start, clock::now()) {
            if self.env.is_stopped() || self.env.live.checkpoint_asked() {
                break;
            }
            clock::sleep(nap).await;
            self.env.live.give_sign();
        }
        self.pace.rested();
    }

    /// Saves and says so, if that is asked for.
    async fn answer(&mut self) -> Result<(), WorkError> {
        if self.env.live.take_checkpoint() {
            self.save().await?;
            let steps = self.saved_place.0 as u32;
            (self.env.say)(from_worker::Body::Saved(Saved { lease_id: self.lease.job.lease_id, steps }));
        }
        Ok(())
    }

    /// Writes what was done since the last checkpoint, if anything was.
    async fn save(&mut self) -> Result<(), WorkError> {
        let place = self.place();
        if place > self.saved_place {
            let (gpu, trainer) = (&*self.gpu, &*self.trainer);
            let (weights, moments) = (trainer.weights(gpu).await?, trainer.moments(gpu).await?);
            let checkpoint =
                Checkpoint { progress: *self.progress, weights, moments, begun: trainer.begun(gpu).await? };
            self.store.save(checkpoint)?;
            self.saved_place = place;
        }
        self.saved = clock::now();
        Ok(())
    }

    /// Tells how far it is, unless it did so just now.
    fn tell(&mut self) {
        if clock::now() - self.told < TELL_EVERY {
            return;
        }
        self.told = clock::now();
        (self.env.say)(from_worker::Body::Progress(Progress {
            lease_id: self.lease.job.lease_id,
            steps: self.progress.steps as u32,
            loss: self.progress.loss_last,
            tokens: self.progress.tokens,
            train_ms: (self.progress.train_s * 1000.0) as u64,
            unsaved_ms: (clock::now() - self.saved).as_millis() as u64,
            submit_us: 0,
            written_bytes: 0,
        }));
    }
}
