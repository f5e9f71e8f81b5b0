//! How much a page rests: as much as makes the share of computing, and the tokens a second, what the owner allows. The
//! time is an argument.

use nightjar_work::Live;
use std::time::Duration;

/// One that rests looks this often whether it is to stop, or may do more.
const NAP: Duration = Duration::from_millis(100);
/// What counts of a micro-batch at most: a page that was frozen in the middle of one did not compute all that time.
const COMPUTED_MAX: Duration = Duration::from_secs(10);

/// What was computed, and what rest is due for it.
pub struct Pace<'a> {
    live: &'a Live,
    /// Since the last rest.
    computed: Duration,
    /// The cap on tokens a second in force, since when, and what was trained on since.
    cap: Option<f64>,
    since: Duration,
    tokens: u64,
}

impl<'a> Pace<'a> {
    /// Nothing is computed yet.
    pub fn new(live: &'a Live, now: Duration) -> Self {
        Pace { live, computed: Duration::ZERO, cap: live.tokens_per_s_max(), since: now, tokens: 0 }
    }

    /// Notes that something was computed for so long.
    pub fn computed(&mut self, took: Duration) {
        self.computed += took.min(COMPUTED_MAX);
    }

    /// Notes that so many tokens were trained on.
    pub fn count(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// How long to nap, having rested so long already; `None` if no more rest is due. Another cap counts from the moment
    /// on at which it is heard.
    pub fn due(&mut self, rested: Duration, now: Duration) -> Option<Duration> {
        let cap = self.live.tokens_per_s_max();
        if cap != self.cap {
            (self.cap, self.since, self.tokens) = (cap, now, 0);
        }
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX);
        let by_duty = seconds(self.computed.as_secs_f64() * (1.0 / self.live.duty() - 1.0)).saturating_sub(rested);
        let by_cap = cap.map_or(Duration::ZERO, |cap| seconds(self.tokens as f64 / cap));
        let left = by_duty.max(by_cap.saturating_sub(now.saturating_sub(self.since)));
        (!left.is_zero()).then_some(left.min(NAP))
    }

    /// Notes that what was due was rested, or broken off.
    pub fn rested(&mut self) {
        self.computed = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn rest_and_work_make_the_duty() {
        let live = Live::default();
        let mut pace = Pace::new(&live, 5 * S);
        pace.computed(S);
        assert_eq!(pace.due(Duration::ZERO, 6 * S), None, "all of the time is allowed");
        live.allow(0.25, 0);
        assert_eq!(pace.due(Duration::ZERO, 6 * S), Some(NAP));
        assert_eq!(pace.due(3 * S - NAP / 2, 6 * S), Some(NAP / 2));
        assert_eq!(pace.due(3 * S, 9 * S), None);
        pace.rested();
        assert_eq!(pace.due(Duration::ZERO, 9 * S), None);
        // An hour in which the page was frozen is no hour of computing.
        pace.computed(3600 * S);
        assert_eq!(pace.due(30 * S, 3700 * S), None);
    }

    #[test]
    fn the_cap_is_kept_from_when_it_is_heard() {
        let live = Live::default();
        let mut pace = Pace::new(&live, S);
        pace.count(1_000_000);
        live.cap(100.0);
        assert_eq!(pace.due(Duration::ZERO, 2 * S), None, "what was trained on before does not count");
        pace.count(300);
        assert_eq!(pace.due(Duration::ZERO, 2 * S), Some(NAP));
        assert_eq!(pace.due(Duration::ZERO, 5 * S), None);
    }
}
