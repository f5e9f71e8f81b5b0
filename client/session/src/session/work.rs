//! The worker: when it is given a lease or told to stop, and what becomes of what it says.

use super::{
    Action, Ahead, Permission, Report, Session, Spare, Stage, Timer, Training, Upload, Worker,
    claims::{Claim, Failure},
};
use crate::{
    journal::{HeldWeights, PendingDelta},
    lease::Lease,
};
use nightjar_shared::{time::Mono, wire::worker, work_files};
use std::time::Duration;

/// A worker that is told to stop is ended after this. The owner wants the machine back.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A lease that was begun is kept at least so long while its owner holds it back: it goes on from its checkpoint. A
/// long lease is kept for as long as it may take at all ([`Session::keep`]); then what it holds goes back to the pool,
/// for by then its base has grown old.
const KEEP_MIN: Duration = Duration::from_secs(15 * 60);

/// Where this device itself cannot carry out a lease, for want of room on the disk or of a device that works, it does
/// not ask for another before this.
pub(super) const UNABLE_RETRY: Duration = Duration::from_secs(600);

/// A lease is given back after its worker failed this often.
const WORKER_FAILURES_MAX: u32 = 3;

impl Session {
    pub(super) fn advance_worker(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.worker() == Worker::Idle && self.setback().is_some_and(|setback| setback.holds) {
            // What is trained ahead would wait for long, and come to nothing too.
            self.end_worker(out);
        }
        if self.may_train() {
            self.timers.clear(Timer::Keep);
            self.start_work(out);
            return;
        }
        let (frozen, free_memory) = match self.permission {
            Some(Permission::Yield { free_memory, .. }) => (true, free_memory),
            _ => (false, false),
        };
        let is_all_or_nothing = self.journal.lease.as_ref().is_some_and(|l| !l.kind.trains());
        match self.worker() {
            Worker::Off => {}
            // Half a measurement is worth nothing.
            Worker::Busy if is_all_or_nothing || self.parting.leaving => self.end_worker(out),
            // It is frozen: one that was told to stop will not hear it.
            Worker::Stopping if frozen => self.end_worker(out),
            // It stays so, or gives its memory back and goes on from its checkpoint one day.
            Worker::Busy if frozen => {
                if free_memory || self.parting.closing {
                    self.end_worker(out);
                }
            }
            Worker::Stopping => {}
            Worker::Busy => {
                self.stage = Stage::Working { stopping: true };
                self.timers.set(Timer::Stop, now + STOP_MAX);
                out.push(Action::StopWork);
            }
            // Its memory is the owner's too.
            Worker::Idle => self.end_worker(out),
        }
        let stopping = self.worker() == Worker::Stopping;
        if let Some(reason) = self.permission.as_ref().and_then(Permission::reason)
            && self.unfinished()
            && !stopping
            && !self.parting.closing
        {
            if !self.course.begun {
                self.stage = Stage::Returning { why: reason.to_owned() };
            } else if !self.timers.pending(Timer::Keep) {
                self.timers.set(Timer::Keep, now + self.keep());
            }
        }
    }

    /// How long a lease that was begun is kept for its owner.
    pub(super) fn keep(&self) -> Duration {
        let may_take_s = self.spec().map_or(0.0, |spec| {
            spec.lease.deadline_factor * spec.lease.wall_s.max(spec.lease.wall_s_end.unwrap_or_default())
        });
        KEEP_MIN.max(Duration::try_from_secs_f64(may_take_s).unwrap_or(KEEP_MIN))
    }

    /// Its owner has held the lease back for as long as it keeps.
    pub(super) fn kept_long_enough(&mut self, out: &mut Vec<Action>) {
        let reason = self.permission.as_ref().and_then(Permission::reason).map(str::to_owned);
        if let Some(why) = reason.filter(|_| self.unfinished()) {
            self.end_worker(out);
            self.stage = Stage::Returning { why };
        }
    }

    pub(super) fn start_work(&mut self, out: &mut Vec<Action>) {
        let Stage::Fetching { fetched, .. } = self.stage else { return };
        let (Some(lease), Some(run)) = (&self.journal.lease, &self.journal.run) else { return };
        if fetched < lease.blobs().count() || self.timers.pending(Timer::Work) || !self.disk_works() {
            return;
        }
        out.push(Action::Work(self.job(lease, run)));
        self.stage = Stage::Working { stopping: false };
        self.spare = None;
        self.course.begun = true;
        self.course.training = Training::default();
    }

    pub(super) fn worker_says(&mut self, message: &worker::from_worker::Body, now: Mono, out: &mut Vec<Action>) {
        match self.claim(message, now) {
            Ok(Claim::Ready { device }) => self.profile.hardware = device,
            Ok(Claim::Progress(training)) => self.course.training = training,
            Ok(Claim::NoStep { lost }) => {
                let was_stopping = self.worker() == Worker::Stopping;
                self.worker_idle(None);
                self.note_lost_state(&lost, out);
                if was_stopping {
                    self.stage = Stage::Returning { why: "it was stopped before its first step".into() };
                } else {
                    self.failed_attempt("the worker ended a lease without a step".into(), now, out);
                }
            }
            Ok(Claim::Trained { delta, weights, lost }) => self.trained(delta, weights, &lost, now, out),
            Ok(Claim::Evaluated { nats, tokens, weights }) => {
                self.worker_idle(None);
                self.stage = Stage::Measured { nats, tokens };
                self.hold_weights(weights);
                self.commit(out);
            }
            Ok(Claim::AheadOver) => {
                if let Some(Spare { ahead: Some(ahead) }) = &mut self.spare {
                    ahead.over = true;
                }
            }
            Ok(Claim::Failed(failure)) => self.worker_failed(failure, now, out),
            Ok(Claim::Nothing) => {}
            Err(untrue) => {
                let was_working = self.working();
                self.end_worker(out);
                if was_working {
                    self.failed_attempt(untrue.to_string(), now, out);
                } else {
                    out.push(Action::Report(Report::Trouble(untrue.to_string())));
                }
            }
        }
    }

    pub(super) fn is_at_work_on(&self, lease_id: u64) -> bool {
        self.working() && self.journal.lease.as_ref().is_some_and(|l| l.id.0 == lease_id)
    }

    pub(super) fn trained(
        &mut self,
        delta: PendingDelta,
        weights: bool,
        lost: &[String],
        now: Mono,
        out: &mut Vec<Action>,
    ) {
        let goes_on = |l: &&Lease| l.ahead_steps > 0 && l.steps == delta.trained.steps;
        let ahead = |l: &Lease| Ahead { of: l.id, since: now, over: false };
        self.worker_idle(self.journal.lease.as_ref().filter(goes_on).map(ahead));
        self.note_lost_state(lost, out);
        self.disk_served();
        self.hold_weights(weights);
        self.journal.delta = Some(delta);
        // Nobody else has seen it, so there is no need to ask whether it is wanted.
        self.stage = Stage::Delivering { upload: Upload::Wanted };
        self.commit(out);
    }

    /// What the worker left in the delta's place is not what it said: not a byte of it is sent, and nothing else is
    /// believed.
    pub(super) fn delta_is_untrue(&mut self, why: String, now: Mono, out: &mut Vec<Action>) {
        self.end_worker(out);
        self.journal.delta = None;
        self.timers.back_off(Timer::Work, now);
        self.words.obstacle = format!("the worker failed: {why}");
        out.push(Action::Report(Report::Trouble(self.words.obstacle.clone())));
        self.stage = Stage::Returning { why };
        self.commit(out);
    }

    /// Notes that the lease's base weights are on the disk, built and checked, if they were kept.
    pub(super) fn hold_weights(&mut self, kept: bool) {
        let Some(lease) = &self.journal.lease else { return };
        if kept {
            let file = work_files::weights(lease.base_version);
            self.journal.weights = Some(HeldWeights { version: lease.base_version, digest: lease.base_digest, file });
        }
        let shard = lease.shard;
        self.journal.used_shard(shard);
    }

    /// The worker is done with the lease at hand.
    fn worker_idle(&mut self, ahead: Option<Ahead>) {
        self.worker_gone();
        self.spare = Some(Spare { ahead });
        self.timers.clear(Timer::Work);
    }

    /// There is no worker any more. What the lease at hand needs is still on the disk, for another.
    fn worker_gone(&mut self) {
        if self.working() {
            let fetched = self.journal.lease.as_ref().map_or(0, |lease| lease.blobs().count());
            self.stage = Stage::Fetching { fetched, underway: false };
        }
        self.spare = None;
        self.timers.clear(Timer::Stop);
    }

    pub(super) fn worker_failed(&mut self, failure: Failure, now: Mono, out: &mut Vec<Action>) {
        let Failure { why, base_is_wrong, disk_failed } = failure;
        self.end_worker(out);
        if disk_failed {
            self.disk_refused(why, now, out);
        } else if base_is_wrong {
            if self.journal.lease.as_ref().is_some_and(|lease| lease.keyframe.is_some()) {
                // Another may be no better.
                self.timers.back_off(Timer::Work, now);
                self.words.obstacle = format!("the run's weights do not fit together: {why}");
                out.push(Action::Report(Report::Trouble(self.words.obstacle.clone())));
            } else {
                self.note_lost_state(&[format!("the weights on this disk are fetched anew: {why}")], out);
            }
            // With no weights named in the next request, a keyframe comes.
            self.journal.weights = None;
            self.give_back(why, now);
            self.commit(out);
        } else {
            self.failed_attempt(why, now, out);
        }
    }

    pub(super) fn worker_exited(&mut self, why: String, now: Mono, out: &mut Vec<Action>) {
        let was_at_work = self.worker() == Worker::Busy;
        self.worker_gone();
        if was_at_work {
            self.failed_attempt(why, now, out);
        }
    }

    /// Another takes the lease up from its checkpoint.
    pub(super) fn worker_replaced(&mut self) {
        self.worker_gone();
    }

    /// There will be none for a while, and that is no fault of the lease.
    pub(super) fn worker_refused(&mut self, why: String, until: Option<Mono>, now: Mono, out: &mut Vec<Action>) {
        self.worker_gone();
        self.timers.set(Timer::Work, until.unwrap_or(now + UNABLE_RETRY));
        self.words.obstacle.clone_from(&why);
        if until.is_none() {
            if self.words.trouble != why {
                out.push(Action::Report(Report::Trouble(why.clone())));
            }
            self.words.trouble.clone_from(&why);
            if self.unfinished() {
                self.stage = Stage::Returning { why };
            }
        }
    }

    /// The worker failed at the lease at hand: it tries again after a while, or the lease goes back.
    pub(super) fn failed_attempt(&mut self, why: String, now: Mono, out: &mut Vec<Action>) {
        self.timers.back_off(Timer::Work, now);
        // A blob may be gone from the disk: then it is fetched again.
        self.stage = Stage::begin();
        if self.timers.attempts(Timer::Work).is_multiple_of(WORKER_FAILURES_MAX) {
            self.give_back(why.clone(), now);
        }
        self.words.obstacle = format!("the worker failed: {why}");
        out.push(Action::Report(Report::Trouble(self.words.obstacle.clone())));
    }

    /// What the lease had to do without is made anew on the way: it is said once, until it happens to another.
    fn note_lost_state(&mut self, lost: &[String], out: &mut Vec<Action>) {
        let lost = lost.join("; ");
        if !lost.is_empty() && lost != self.words.lost_state {
            out.push(Action::Report(Report::Trouble(lost.clone())));
        }
        self.words.lost_state = lost;
    }

    pub(super) fn end_worker(&mut self, out: &mut Vec<Action>) {
        if self.worker() != Worker::Off {
            self.worker_gone();
            out.push(Action::EndWorker);
        }
    }
}
