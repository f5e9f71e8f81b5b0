//! Whether this device is too warm, told by its speed: no browser says how warm it is, but a phone that heats up
//! computes more slowly. Where it falls below 60 % of what it was in the first minutes, it rests. Time is an argument.

use nightjar_shared::time::Mono;
use std::time::Duration;

/// Speed is measured over at least so long.
const SPAN: Duration = Duration::from_secs(30);
/// The first spans that were trained say how fast it is when it is cool.
const FIRST_SPANS: usize = 6;
/// The part of that speed below which it rests.
const REST_BELOW: f64 = 0.6;
/// The first rest; each that follows soon is twice as long.
const REST_MIN: Duration = Duration::from_secs(3 * 60);
/// The longest.
const REST_MAX: Duration = Duration::from_secs(24 * 60);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Heat {
    /// Tokens a second of the first spans.
    first: Vec<f64>,
    /// The span at hand: when it began, and how many tokens had been trained.
    span: Option<(Mono, u64)>,
    rests: u32,
    until: Option<Mono>,
}

impl Heat {
    /// So many tokens were trained of the lease at hand by now, without a pause since it was told last.
    pub fn trained(&mut self, tokens: u64, now: Mono) {
        let Some((since, before)) = self.span.filter(|(_, before)| *before <= tokens) else {
            self.span = Some((now, tokens));
            return;
        };
        let took = now.since(since);
        if took < SPAN {
            return;
        }
        self.span = Some((now, tokens));
        let speed = (tokens - before) as f64 / took.as_secs_f64();
        if self.first.len() < FIRST_SPANS {
            self.first.push(speed);
        } else if speed < REST_BELOW * self.cool_speed() {
            self.until = Some(now + (REST_MIN * (1 << self.rests.min(3))).min(REST_MAX));
            self.rests += 1;
            self.span = None;
        } else {
            self.rests = 0;
        }
    }

    /// Training has paused: what it does next is measured anew.
    pub fn paused(&mut self) {
        self.span = None;
    }

    /// It trains something else: how fast it is at that has to be seen.
    pub fn begin_anew(&mut self) {
        *self = Heat { until: self.until, ..Heat::default() };
    }

    /// Until when it rests; `None`: it need not.
    pub fn rests_until(&self, now: Mono) -> Option<Mono> {
        self.until.filter(|until| now < *until)
    }

    /// The middle one of the first spans: one that something else disturbed does not count.
    fn cool_speed(&self) -> f64 {
        let mut speeds = self.first.clone();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trains so many spans at a speed; gives the time after them.
    fn train(heat: &mut Heat, spans: u32, tokens_per_s: u64, mut now: Mono, tokens: &mut u64) -> Mono {
        for _ in 0..spans {
            for _ in 0..3 {
                now = now + Duration::from_secs(10);
                *tokens += 10 * tokens_per_s;
                heat.trained(*tokens, now);
            }
        }
        now
    }

    #[test]
    fn it_rests_where_its_speed_falls_and_longer_each_time() {
        let (mut heat, mut tokens) = (Heat::default(), 0);
        heat.trained(0, Mono::default());
        let now = train(&mut heat, 20, 1000, Mono::default(), &mut tokens);
        let now = train(&mut heat, 20, 610, now, &mut tokens);
        assert_eq!(heat.rests_until(now), None, "a little slower is no matter");
        let now = train(&mut heat, 1, 590, now, &mut tokens);
        let until = heat.rests_until(now).unwrap();
        assert_eq!(until.since(now), REST_MIN);
        assert_eq!(heat.rests_until(until), None);
        heat.trained(tokens, until);
        let now = train(&mut heat, 1, 500, until, &mut tokens);
        assert_eq!(heat.rests_until(now).unwrap().since(now), 2 * REST_MIN);
        let now = heat.rests_until(now).unwrap();
        heat.trained(tokens, now);
        let now = train(&mut heat, 2, 950, now, &mut tokens);
        let now = train(&mut heat, 1, 100, now, &mut tokens);
        assert_eq!(heat.rests_until(now).unwrap().since(now), REST_MIN, "it had cooled down");
    }

    #[test]
    fn a_pause_and_another_lease_are_no_loss_of_speed() {
        let (mut heat, mut tokens) = (Heat::default(), 0);
        heat.trained(0, Mono::default());
        let now = train(&mut heat, 10, 1000, Mono::default(), &mut tokens);
        heat.paused();
        let now = now + Duration::from_secs(7200);
        heat.trained(tokens, now);
        assert_eq!(heat.rests_until(now), None);
        // The next lease counts from nothing.
        let mut tokens = 0;
        heat.trained(tokens, now + Duration::from_secs(40));
        let now = train(&mut heat, 3, 1000, now + Duration::from_secs(40), &mut tokens);
        assert_eq!(heat.rests_until(now), None);
        heat.begin_anew();
        heat.trained(tokens, now);
        let now = train(&mut heat, 20, 10, now, &mut tokens);
        assert_eq!(heat.rests_until(now), None, "another model is slower in itself");
    }

    #[test]
    fn one_slow_span_among_the_first_says_nothing() {
        let (mut heat, mut tokens) = (Heat::default(), 0);
        heat.trained(0, Mono::default());
        let now = train(&mut heat, 1, 10, Mono::default(), &mut tokens);
        let now = train(&mut heat, 8, 1000, now, &mut tokens);
        assert_eq!(heat.rests_until(now), None);
        let now = train(&mut heat, 1, 300, now, &mut tokens);
        assert!(heat.rests_until(now).is_some());
    }
}
