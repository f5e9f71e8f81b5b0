//! The duty cycle: after each micro-batch as much rest as makes the share of computing what the owner allows.

use nightjar_work::Live;
use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

/// One that rests looks this often whether it is to stop, or may do more.
const NAP: Duration = Duration::from_millis(20);
/// So many micro-batches are remembered.
const REMEMBERED: usize = 16;
/// One that took this many times as long as the shortest remembered was not computing all that time: the process was
/// frozen, or the computer slept.
const STRETCH_MAX: u32 = 8;
/// What the first micro-batch counts at most, having nothing to be compared with.
const FIRST_MAX: Duration = Duration::from_secs(10);

/// How long to rest after computing so long.
fn due(busy: Duration, duty: f64) -> Duration {
    Duration::try_from_secs_f64(busy.as_secs_f64() * (1.0 / duty - 1.0)).unwrap_or(Duration::MAX)
}

/// The share of computing, kept over a lease.
pub(super) struct Duty<'a> {
    live: &'a Live,
    /// When what is being computed was begun.
    since: Option<Instant>,
    recent: VecDeque<Duration>,
}

impl<'a> Duty<'a> {
    /// Nothing is being computed yet.
    pub fn new(live: &'a Live) -> Self {
        Duty { live, since: None, recent: VecDeque::with_capacity(REMEMBERED) }
    }

    /// Between two micro-batches: rests for the one that is done, and notes that the next begins.
    pub fn breathe(&mut self, heard: impl Fn() -> bool) {
        self.rest(heard);
        self.since = Some(Instant::now());
    }

    /// After the last of a step: rests for what was computed, as long as is due, hearing of new limits, until `heard`
    /// says that there is something else to do.
    pub fn rest(&mut self, heard: impl Fn() -> bool) {
        let Some(since) = self.since.take() else { return };
        let busy = self.count(since.elapsed());
        let start = Instant::now();
        while !heard() {
            let left = due(busy, self.live.duty()).saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }

    /// What of this time counts as computing.
    fn count(&mut self, took: Duration) -> Duration {
        let busy = self.recent.iter().min().map_or(FIRST_MAX, |shortest| *shortest * STRETCH_MAX).min(took);
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(busy);
        busy
    }
}

/// The cap on tokens a second, kept over a lease.
pub(super) struct Pace<'a> {
    live: &'a Live,
    /// What is in force.
    cap: Option<f64>,
    /// Since when it counts, and what was trained on since.
    since: Instant,
    tokens: u64,
}

impl<'a> Pace<'a> {
    /// The first step begins.
    pub fn new(live: &'a Live) -> Self {
        Pace { live, cap: live.tokens_per_s_max(), since: Instant::now(), tokens: 0 }
    }

    /// Notes that so many tokens were trained on.
    pub fn count(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Rests until what was trained on is no more than the cap gives, for `longest` at most, or until `heard` says that
    /// there is something else to do; whether more rest is due. Another cap counts from the moment on at which it is
    /// heard.
    pub fn rest(&mut self, longest: Duration, heard: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while !heard() {
            let cap = self.live.tokens_per_s_max();
            if cap != self.cap {
                *self = Pace::new(self.live);
            }
            let seconds = cap.map_or(0.0, |cap| self.tokens as f64 / cap);
            let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let left = due.saturating_sub(self.since.elapsed());
            if left.is_zero() {
                return false;
            }
            if start.elapsed() >= longest {
                return true;
            }
            thread::sleep(left.min(NAP));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_work::DUTY_MIN;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rest_and_work_make_the_duty() {
        assert_eq!(due(100 * MS, 1.0), Duration::ZERO);
        assert_eq!(due(100 * MS, 0.5), 100 * MS);
        assert_eq!(due(100 * MS, 0.25), 300 * MS);
        assert_eq!(due(MS, DUTY_MIN).as_millis(), 99);
        assert_eq!(due(Duration::MAX, DUTY_MIN), Duration::MAX);
    }

    /// A process that was frozen for an hour in the middle of a micro-batch does not rest for an hour.
    #[test]
    fn time_frozen_is_not_time_computed() {
        let live = Live::default();
        let mut duty = Duty::new(&live);
        assert_eq!(duty.count(3600 * 1000 * MS), FIRST_MAX);
        let mut duty = Duty::new(&live);
        for took in [20, 10, 30, 79] {
            assert_eq!(duty.count(took * MS), took * MS);
        }
        assert_eq!(duty.count(3600 * 1000 * MS), 80 * MS);
        // Micro-batches that really got slower are believed in the end.
        for _ in 0..3 * REMEMBERED {
            duty.count(200 * MS);
        }
        assert_eq!(duty.count(200 * MS), 200 * MS);
    }

    #[test]
    fn nonsense_counts_as_the_least() {
        let live = Live::default();
        for (said, meant) in
            [(1.0, 1.0), (0.5, 0.5), (0.0, DUTY_MIN), (-1.0, DUTY_MIN), (7.0, 1.0), (f64::NAN, DUTY_MIN)]
        {
            live.allow(said, 0);
            assert_eq!((live.duty(), live.memory_bytes()), (meant, u64::MAX));
        }
    }

    /// What is heard in the middle of a rest ends it or changes it: else this test would take minutes.
    #[test]
    fn new_limits_and_a_stop_are_heard_in_the_middle_of_a_rest() {
        let live = Live::default();
        live.allow(DUTY_MIN, 0);
        let mut duty = Duty::new(&live);
        duty.recent.push_back(Duration::from_secs(10));
        duty.since = Instant::now().checked_sub(Duration::from_secs(10));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(50 * MS);
                live.allow(1.0, 0);
            });
            duty.rest(|| false);
        });
        live.allow(DUTY_MIN, 0);
        duty.since = Instant::now().checked_sub(Duration::from_secs(10));
        let asked = std::cell::Cell::new(0);
        duty.rest(|| asked.replace(asked.get() + 1) == 2);
    }

    /// A cap that is heard in the middle of a rest ends it: else this test would take days.
    #[test]
    fn another_cap_is_heard_in_the_middle_of_a_rest() {
        let live = Live::default();
        live.cap(1.0);
        let mut pace = Pace::new(&live);
        pace.count(1_000_000);
        assert!(pace.rest(Duration::ZERO, || false), "it has not rested enough");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(50 * MS);
                live.cap(0.0);
            });
            while pace.rest(Duration::from_secs(3600), || false) {}
        });
        // What was trained on under another cap is not paid for under this one.
        live.cap(2.0);
        assert!(!pace.rest(Duration::from_secs(3600), || false));
        for (said, meant) in [(0.0, None), (-1.0, None), (1e-300, Some(1.0)), (7.0, Some(7.0)), (f64::NAN, Some(1.0))] {
            live.cap(said);
            assert_eq!(live.tokens_per_s_max(), meant, "{said}");
        }
    }
}
