//! What a simulated worker is at: how far it is at any moment, whatever slowed it down or stopped it on the way.

use crate::training::JobId;
use nightjar_shared::{time::Mono, wire::worker::to_worker};
use std::time::Duration;

/// Inner steps of one pace, and those before.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since when a step has taken what it takes now.
    since: Mono,
    /// Seconds that one takes.
    step_s: f64,
    /// Whole steps that were taken before that,
    taken: u32,
    /// what was done of the next, as a part of 1,
    part: f64,
    /// and the seconds of all of it.
    spent_s: f64,
}

impl Progress {
    /// None yet.
    pub fn new(since: Mono, step_s: f64) -> Self {
        Progress { since, step_s, taken: 0, part: 0.0, spent_s: 0.0 }
    }

    /// With what a checkpoint had.
    pub fn after(self, saved: Saved) -> Self {
        Progress { taken: saved.steps, spent_s: saved.spent_s, ..self }
    }

    /// Steps that were taken, and the part of the next.
    fn steps_at(&self, now: Mono) -> f64 {
        f64::from(self.taken) + (self.part + now.since(self.since).as_secs_f64() / self.step_s)
    }

    /// Steps that will have been taken when the one at hand is done.
    pub fn steps_with_the_next(&self, now: Mono) -> u32 {
        self.steps_at(now).ceil() as u32
    }

    /// How long it takes, from `since` on, until there are so many.
    fn left(&self, steps: u32) -> Duration {
        let left = f64::from(steps.saturating_sub(self.taken)) - self.part;
        Duration::from_secs_f64((left * self.step_s).max(0.0))
    }

    /// When so many steps will have been taken, if nothing comes between.
    pub fn due(&self, steps: u32) -> Mono {
        self.since + self.left(steps)
    }

    /// Seconds of so many steps in all, at this pace from here on.
    pub fn spent_s_with(&self, steps: u32) -> f64 {
        self.spent_s + (f64::from(steps) - f64::from(self.taken) - self.part) * self.step_s
    }

    /// From now on a step takes so many times as long; there are no more than `steps_max`.
    pub fn stretch(&mut self, times: f64, now: Mono, steps_max: u32) {
        let steps = self.steps_at(now).min(f64::from(steps_max));
        self.spent_s += (steps - f64::from(self.taken) - self.part) * self.step_s;
        (self.taken, self.part) = (steps as u32, steps.fract());
        (self.since, self.step_s) = (now, self.step_s * times);
    }

    /// It has stood still for so long.
    pub fn stood(&mut self, paused: Duration) {
        self.since = self.since + paused;
    }
}

/// What a checkpoint has of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saved {
    /// Inner steps,
    pub steps: u32,
    /// and the seconds of them.
    pub spent_s: f64,
}

impl Saved {
    /// Of no more steps than these.
    pub fn at_most(self, steps: u32) -> Self {
        let share = f64::from(steps) / f64::from(self.steps.max(1));
        if self.steps > steps { Saved { steps, spent_s: self.spent_s * share } } else { self }
    }
}

/// A job of the worker.
pub struct Job {
    /// Counts the jobs of its device.
    pub number: u32,
    /// What trains.
    pub id: JobId,
    /// What the session asked for.
    pub body: to_worker::Body,
    /// How far it is.
    pub progress: Progress,
    /// Inner steps that the lease will have when it is due.
    pub steps: u32,
    /// When a measurement is done.
    pub measured: Option<Mono>,
    /// What the latest checkpoint has, when the pace last changed.
    pub saved: Saved,
    /// Checkpoints are written from then on.
    saves_since: Mono,
}

impl Job {
    /// It begins, or goes on from a checkpoint or from steps ahead; a measurement is done at `measured`.
    pub fn new(
        number: u32,
        id: JobId,
        body: to_worker::Body,
        progress: Progress,
        steps: u32,
        measured: Option<Mono>,
    ) -> Self {
        let saved = Saved { steps: progress.taken, spent_s: progress.spent_s };
        Job { number, id, body, progress, steps, measured, saved, saves_since: progress.since }
    }

    /// When it will have taken all its steps, if nothing comes between.
    pub fn due(&self) -> Mono {
        self.measured.unwrap_or_else(|| self.progress.due(self.steps))
    }

    /// What its latest checkpoint has, of those that are written every so many milliseconds.
    pub fn saved(&self, now: Mono, every_ms: u64) -> Saved {
        let since_ms = now.since(self.saves_since).as_millis() as u64;
        let at = self.saves_since + Duration::from_millis(since_ms / every_ms * every_ms);
        if at < self.progress.since {
            return self.saved;
        }
        let steps = (self.progress.steps_at(at) as u32).min(self.steps);
        Saved { steps, spent_s: self.progress.spent_s_with(steps) }
    }

    /// From now on everything takes so many times as long.
    pub fn stretch(&mut self, times: f64, now: Mono) {
        self.progress.stretch(times, now, self.steps);
        self.measured = self.measured.map(|at| now + at.since(now).mul_f64(times));
    }

    /// It has stood still for so long.
    pub fn stood(&mut self, paused: Duration) {
        self.progress.stood(paused);
        self.saves_since = self.saves_since + paused;
        self.measured = self.measured.map(|at| at + paused);
    }

    /// For how long it has been at work until then, in seconds.
    pub fn at_work_s(&self, now: Mono) -> f64 {
        self.progress.spent_s + now.since(self.progress.since).as_secs_f64()
    }
}

/// A worker that trains ahead.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// Behind this lease.
    pub lease_id: u64,
    /// How far it is.
    pub progress: Progress,
    /// Most inner steps.
    pub steps_max: u32,
}

impl Ahead {
    /// Inner steps that it has taken once the one at hand is done, and its progress without the time that it waited
    /// after the last that it may take.
    pub fn at(&self, now: Mono) -> (u32, Progress) {
        let taken = self.progress.steps_at(now).ceil();
        if taken <= f64::from(self.steps_max) {
            return (taken as u32, self.progress);
        }
        let waited = now.since(self.progress.since).saturating_sub(self.progress.left(self.steps_max));
        (self.steps_max, Progress { since: self.progress.since + waited, ..self.progress })
    }
}

/// How far a lease was when its worker last saved it.
#[derive(Clone, Copy)]
pub struct Checkpoint {
    /// The lease.
    pub lease_id: u64,
    /// What it trains from.
    pub base_version: u64,
    /// What was saved.
    pub saved: Saved,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Mono {
        Mono { ms: (seconds * 1000.0) as u64 }
    }

    /// A hundred steps of two seconds from second 10 on.
    fn job() -> Job {
        let body = to_worker::Body::Train(Default::default());
        Job::new(1, JobId(1), body, Progress::new(at(10.0), 2.0), 100, None)
    }

    #[test]
    fn a_slower_pace_keeps_what_was_done() {
        let mut job = job();
        assert_eq!(job.due(), at(210.0));
        // Ten steps and a half are done; the rest takes twice as long.
        job.stretch(2.0, at(31.0));
        assert_eq!(job.due(), at(31.0 + 89.5 * 4.0));
        // And back, another ten and a half later.
        job.stretch(0.5, at(73.0));
        assert_eq!(job.due(), at(73.0 + 79.0 * 2.0));
        let spent_s = job.progress.spent_s_with(100);
        assert!((spent_s - 221.0).abs() < 1e-6, "{spent_s}: as long as it took");
    }

    #[test]
    fn a_checkpoint_is_at_most_so_old_whatever_the_pace() {
        let mut job = job();
        let steps = |job: &Job, s: f64| job.saved(at(s), 60_000).steps;
        assert_eq!([steps(&job, 69.9), steps(&job, 70.0), steps(&job, 129.9)], [0, 30, 30]);
        job.saved = job.saved(at(100.0), 60_000);
        job.stretch(3.0, at(100.0));
        // Saved at second 70: 30 steps, in a minute; at second 130: 45, and five of the slow ones.
        assert_eq!([steps(&job, 129.9), steps(&job, 130.0)], [30, 50]);
        assert_eq!([job.saved(at(129.0), 60_000).spent_s, job.saved(at(131.0), 60_000).spent_s], [60.0, 120.0]);
    }

    #[test]
    fn a_frozen_worker_goes_on_where_it_stood() {
        let mut job = job();
        job.stood(Duration::from_secs(500));
        assert_eq!((job.due(), job.saved(at(570.0), 60_000).steps), (at(710.0), 30));
        let mut measuring = Job { measured: Some(at(50.0)), ..job };
        measuring.stood(Duration::from_secs(7));
        measuring.stretch(2.0, at(37.0));
        assert_eq!(measuring.due(), at(77.0));
    }

    #[test]
    fn what_was_trained_ahead_stays_when_the_pace_changes_and_costs_what_it_cost() {
        // At the very beginning of time, where nothing can be put off into the past.
        let mut ahead = Ahead { lease_id: 1, progress: Progress::new(at(0.0), 2.0), steps_max: 20 };
        assert_eq!(ahead.at(at(9.0)).0, 5);
        ahead.progress.stretch(100.0, at(9.0), 20);
        assert_eq!([ahead.at(at(10.0)).0, ahead.at(at(110.0)).0, ahead.at(at(310.0)).0], [5, 6, 7]);
        let (taken, progress) = ahead.at(at(1e6));
        assert_eq!(taken, 20);
        assert!((progress.spent_s_with(20) - (9.0 + 15.5 * 200.0)).abs() < 1e-6, "{progress:?}");
        assert!(progress.due(20) <= at(1e6), "what it waited for is not training");
    }
}
