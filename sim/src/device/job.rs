//! What a simulated worker is at: how far it is at any moment, whatever slowed it down or stopped it on the way.

use crate::training::JobId;
use nightjar_shared::{time::Mono, wire::worker::to_worker};
use std::time::Duration;

/// A worker saves its training this often, so that a process that is killed loses no more.
pub const CHECKPOINT_MS: u64 = 60_000;

/// A job of the worker.
pub struct Job {
    /// Counts the jobs of its device.
    pub number: u32,
    /// What trains.
    pub id: JobId,
    /// What the session asked for.
    pub body: to_worker::Body,
    /// Since when its inner steps have taken what they take now.
    pub began: Mono,
    /// Seconds that one takes.
    pub step_s: f64,
    /// Inner steps that were taken before that.
    pub before: u32,
    /// The seconds of those.
    pub before_s: f64,
    /// Inner steps of them that a checkpoint has.
    pub saved: u32,
    /// A checkpoint is written every minute from then on.
    pub saves_since: Mono,
    /// Inner steps that the lease will have when it is due.
    pub steps: u32,
    /// Of a measurement.
    pub due: Option<Mono>,
}

impl Job {
    /// When it will have taken all its steps, if nothing comes between.
    pub fn due(&self) -> Mono {
        self.due.unwrap_or(self.began + Duration::from_secs_f64(f64::from(self.steps - self.before) * self.step_s))
    }

    /// Inner steps that its latest checkpoint has.
    pub fn saved(&self, now: Mono) -> u32 {
        let since_ms = now.since(self.saves_since).as_millis() as u64;
        let at = self.saves_since + Duration::from_millis(since_ms / CHECKPOINT_MS * CHECKPOINT_MS);
        let taken = (at.since(self.began).as_millis() as f64 / 1000.0 / self.step_s) as u32;
        if at < self.began { self.saved } else { (self.before + taken).min(self.steps) }
    }

    /// From now on everything takes so many times as long.
    pub fn stretch(&mut self, times: f64, now: Mono) {
        self.saved = self.saved(now);
        let taken = (now.since(self.began).as_secs_f64() / self.step_s).min(f64::from(self.steps - self.before));
        self.before += taken as u32;
        self.before_s += taken.floor() * self.step_s;
        self.step_s *= times;
        self.began = Mono { ms: now.ms.saturating_sub((taken.fract() * self.step_s * 1000.0) as u64) };
        self.due = self.due.map(|due| now + due.since(now).mul_f64(times));
    }

    /// It has stood still since then.
    pub fn stood(&mut self, paused: Duration) {
        self.began = self.began + paused;
        self.saves_since = self.saves_since + paused;
        self.due = self.due.map(|due| due + paused);
    }
}

/// A worker that trains ahead.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// Behind this lease.
    pub lease_id: u64,
    /// When it would have begun at this pace if it had never paused.
    pub since: Mono,
    /// Seconds that an inner step takes.
    pub step_s: f64,
    /// Most inner steps.
    pub steps_max: u32,
}

impl Ahead {
    /// Inner steps that it has taken once the one at hand is done, and when it would have begun if it had never paused.
    pub fn at(&self, now: Mono) -> (u32, Mono) {
        let taken = (now.since(self.since).as_secs_f64() / self.step_s).ceil();
        if taken <= f64::from(self.steps_max) {
            return (taken as u32, self.since);
        }
        let all = Duration::from_secs_f64(f64::from(self.steps_max) * self.step_s);
        (self.steps_max, self.since + now.since(self.since).saturating_sub(all))
    }

    /// From now on everything takes so many times as long.
    pub fn stretch(&mut self, times: f64, now: Mono) {
        let taken = (now.since(self.since).as_secs_f64() / self.step_s).min(f64::from(self.steps_max));
        self.step_s *= times;
        self.since = Mono { ms: now.ms.saturating_sub((taken * self.step_s * 1000.0) as u64) };
    }
}

/// How far a lease was when its worker last saved it.
#[derive(Clone, Copy)]
pub struct Checkpoint {
    /// The lease.
    pub lease_id: u64,
    /// What it trains from.
    pub base_version: u64,
    /// Inner steps.
    pub steps: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Mono {
        Mono { ms: (seconds * 1000.0) as u64 }
    }

    /// A hundred steps of two seconds from second 10 on.
    fn job() -> Job {
        let (began, saves_since) = (at(10.0), at(10.0));
        let body = to_worker::Body::Train(Default::default());
        Job { number: 1, id: JobId(1), body, began, step_s: 2.0, before: 0, before_s: 0.0, saved: 0, saves_since, steps: 100, due: None }
    }

    #[test]
    fn a_slower_pace_keeps_what_was_done() {
        let mut job = job();
        assert_eq!(job.due(), at(210.0));
        // Ten steps and a half are done; the rest takes twice as long.
        job.stretch(2.0, at(31.0));
        assert_eq!((job.before, job.due()), (10, at(31.0 + 89.5 * 4.0)));
        // And back, another ten and a half later.
        job.stretch(0.5, at(73.0));
        assert_eq!((job.before, job.due()), (21, at(73.0 + 79.0 * 2.0)));
        let spent_s = job.before_s + f64::from(job.steps - job.before) * job.step_s;
        assert!((spent_s - 222.0).abs() < 4.1, "{spent_s}");
    }

    #[test]
    fn a_checkpoint_is_at_most_a_minute_old_whatever_the_pace() {
        let mut job = job();
        assert_eq!([job.saved(at(69.9)), job.saved(at(70.0)), job.saved(at(129.9))], [0, 30, 30]);
        job.stretch(3.0, at(100.0));
        // Saved at second 70: 30 steps; at second 130: 45, and five of the slow ones.
        assert_eq!([job.saved(at(129.9)), job.saved(at(130.0))], [30, 50]);
    }

    #[test]
    fn a_frozen_worker_goes_on_where_it_stood() {
        let mut job = job();
        job.stood(Duration::from_secs(500));
        assert_eq!((job.due(), job.saved(at(570.0))), (at(710.0), 30));
        let mut measuring = Job { due: Some(at(50.0)), ..job };
        measuring.stood(Duration::from_secs(7));
        measuring.stretch(2.0, at(37.0));
        assert_eq!(measuring.due(), at(77.0));
    }

    #[test]
    fn what_was_trained_ahead_stays_when_the_pace_changes() {
        let mut ahead = Ahead { lease_id: 1, since: at(10.0), step_s: 2.0, steps_max: 20 };
        assert_eq!(ahead.at(at(19.0)).0, 5);
        ahead.stretch(2.0, at(19.0));
        assert_eq!([ahead.at(at(20.0)).0, ahead.at(at(25.5)).0], [5, 7]);
    }
}
