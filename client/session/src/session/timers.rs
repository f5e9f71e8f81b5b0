//! All of a session's timers on one screen.

use nightjar_shared::{rng, time::Mono};
use std::time::Duration;

/// A time at which something is due or allowed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Connecting is allowed again.
    Reconnect,
    /// Asking is allowed again, after a refusal.
    Request,
    /// Fetching or uploading is allowed again.
    Transfer,
    /// The worker may be given a lease again, after a crash.
    Work,
    /// The next lease may be asked for, after some that came to nothing.
    Again,
    /// The disk is tried again.
    Disk,
    /// The lease is to be renewed.
    Renew,
    /// A question must have been answered.
    Answer,
    /// A worker that was told to stop must have reported.
    Stop,
    /// A lease that its owner holds back is given back.
    Keep,
    /// A connection with nothing to say on it is closed.
    Linger,
    /// The process must have ended.
    Close,
}

const TIMERS: [Timer; 12] = [
    Timer::Reconnect,
    Timer::Request,
    Timer::Transfer,
    Timer::Work,
    Timer::Again,
    Timer::Disk,
    Timer::Renew,
    Timer::Answer,
    Timer::Stop,
    Timer::Keep,
    Timer::Linger,
    Timer::Close,
];

/// First delay of a back-off; each further one doubles.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest delay of a back-off.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The timers' state. Delays are jittered by counter-based draws, so that a thousand devices that lost the same
/// coordinator do not come back at the same instant, and a replay sees the same delays.
#[derive(Debug)]
pub struct Timers {
    at: [Option<Mono>; TIMERS.len()],
    attempts: [u32; TIMERS.len()],
    seed: u64,
    draws: u64,
}

impl Timers {
    /// None is set.
    pub fn new(seed: u64) -> Self {
        Timers { at: [None; TIMERS.len()], attempts: [0; TIMERS.len()], seed, draws: 0 }
    }

    /// Whether the timer is set and still to come.
    pub fn pending(&self, timer: Timer) -> bool {
        self.at[timer as usize].is_some()
    }

    /// When the timer is due, if it is set.
    pub fn at(&self, timer: Timer) -> Option<Mono> {
        self.at[timer as usize]
    }

    /// Sets a timer.
    pub fn set(&mut self, timer: Timer, at: Mono) {
        self.at[timer as usize] = Some(at);
    }

    /// Unsets a timer and forgets its failed attempts.
    pub fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
        self.attempts[timer as usize] = 0;
    }

    /// Another failed attempt: sets the timer to half to one and a half times a delay that doubles up to a minute.
    pub fn back_off(&mut self, timer: Timer, now: Mono) {
        let attempt = &mut self.attempts[timer as usize];
        let delay = BACKOFF_FIRST.saturating_mul(1 << (*attempt).min(10)).min(BACKOFF_MAX);
        *attempt += 1;
        let jitter = 0.5 + self.draw();
        self.set(timer, now + delay.mul_f64(jitter));
    }

    /// Waits as long as the coordinator asked, and up to a quarter more.
    pub fn wait(&mut self, timer: Timer, now: Mono, delay: Duration) {
        let jitter = 1.0 + 0.25 * self.draw();
        self.set(timer, now + delay.min(Duration::from_secs(24 * 3600)).mul_f64(jitter));
    }

    /// Failed attempts in a row.
    pub fn attempts(&self, timer: Timer) -> u32 {
        self.attempts[timer as usize]
    }

    /// Unsets and returns the timers that are due.
    pub fn due(&mut self, now: Mono) -> Vec<Timer> {
        let due: Vec<Timer> = TIMERS.into_iter().filter(|t| self.at[*t as usize].is_some_and(|at| at <= now)).collect();
        for timer in &due {
            self.at[*timer as usize] = None;
        }
        due
    }

    /// The earliest time at which one is due.
    pub fn next(&self) -> Option<Mono> {
        self.at.iter().flatten().min().copied()
    }

    fn draw(&mut self) -> f64 {
        self.draws += 1;
        rng::unit(self.seed, rng::stream::JITTER, self.draws)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_doubles_with_jitter_and_has_an_end() {
        let mut timers = Timers::new(1);
        let delays: Vec<u64> = (0..12)
            .map(|_| {
                timers.back_off(Timer::Reconnect, Mono::default());
                timers.next().unwrap().ms
            })
            .collect();
        for (i, delay) in delays.iter().enumerate() {
            let middle = (500u64 << i).min(60_000);
            assert!((middle / 2..=middle * 3 / 2).contains(delay), "{i}: {delay}");
        }
        timers.clear(Timer::Reconnect);
        assert_eq!((timers.next(), timers.attempts(Timer::Reconnect)), (None, 0));
    }
}
