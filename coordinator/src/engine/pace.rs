//! A device's pace: how fast it trains, and what every lease costs it besides: messages, transfers, building the
//! weights. A lease that is to end at a given time needs the two apart: in a short one most of the time is not
//! training, and by tokens over wall time alone the device would pass for slow.

/// Least share of a lease's wall time that counts as training, whatever the device says: its word decides how much work
/// it is given, and must not make it look more than so many times as fast as its deltas come in.
const TRAINING_SHARE_MIN: f64 = 0.25;

/// Learned from leases, of which each counts half as much as the next: a short one (the first) soon counts for little.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    tokens: f64,
    train_s: f64,
    wall_s: f64,
    overhead_s: f64,
}

impl Pace {
    /// As remembered from an earlier process, with the weight of one lease.
    pub fn remembered(tokens_per_s: f64, lease_wall_s: f64) -> Self {
        if tokens_per_s <= 0.0 {
            return Pace::default();
        }
        Pace { tokens: tokens_per_s * lease_wall_s, train_s: lease_wall_s, wall_s: lease_wall_s, overhead_s: 0.0 }
    }

    /// Learns from a lease: its tokens, the time in its inner steps as the device tells it, and the time from its grant
    /// to its delta, in seconds.
    pub fn learn(&mut self, tokens: u64, train_s: f64, wall_s: f64) {
        let wall_s = wall_s.max(1e-3);
        let train_s = train_s.clamp(TRAINING_SHARE_MIN * wall_s, wall_s);
        // The first lease comes with the whole model, as no other does.
        if self.wall_s > 0.0 {
            self.overhead_s = (self.overhead_s + wall_s - train_s) / 2.0;
        }
        self.tokens = self.tokens / 2.0 + tokens as f64;
        self.train_s = self.train_s / 2.0 + train_s;
        self.wall_s = self.wall_s / 2.0 + wall_s;
    }

    /// Tokens a second of wall time; 0 if unknown.
    pub fn tokens_per_s(&self) -> f64 {
        if self.wall_s > 0.0 { self.tokens / self.wall_s } else { 0.0 }
    }

    /// Seconds that a lease costs besides training; 0 if unknown.
    pub fn overhead_s(&self) -> f64 {
        self.overhead_s
    }

    /// Tokens that it trains on in a lease of so many seconds; `None` if unknown.
    pub fn tokens_in(&self, lease_s: f64) -> Option<f64> {
        (self.train_s > 0.0).then(|| (lease_s - self.overhead_s).max(0.0) * self.tokens / self.train_s)
    }

    /// Seconds of a lease of so many tokens; 0 if unknown.
    pub fn lease_s(&self, tokens: f64) -> f64 {
        if self.tokens > 0.0 { self.overhead_s + tokens * self.train_s / self.tokens } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of 1000 tokens a second, each of whose leases costs it half a second besides.
    fn learned(leases: u32) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..leases {
            pace.learn(1000, 1.0, 1.5);
        }
        pace
    }

    #[test]
    fn training_and_what_a_lease_costs_besides_are_told_apart() {
        let pace = learned(12);
        assert!((pace.tokens_per_s() - 1000.0 / 1.5).abs() < 1e-9);
        let (long, short) = (pace.tokens_in(60.5).unwrap(), pace.tokens_in(1.0).unwrap());
        assert!((long - 60_000.0).abs() < 1.0 && (short - 500.0).abs() < 1.0, "{long} {short}");
        assert!((pace.lease_s(500.0) - 1.0).abs() < 1e-3);
        assert_eq!(pace.tokens_in(0.2), Some(0.0));
        assert_eq!(Pace::default().tokens_in(60.0), None);
    }

    #[test]
    fn the_first_lease_says_nothing_about_what_the_next_costs() {
        assert_eq!(learned(1).lease_s(1000.0), 1.0);
    }

    #[test]
    fn a_device_that_boasts_gains_little() {
        let (mut boaster, mut idler) = (Pace::default(), Pace::default());
        for _ in 0..12 {
            boaster.learn(1000, 0.0, 1.0);
            idler.learn(1000, 1e9, 1.0);
        }
        let told = boaster.tokens_in(100.75).unwrap() / 100.0;
        assert!((told - 4000.0).abs() < 1.0, "{told}");
        assert_eq!(idler.tokens_in(1.0), Some(1000.0));
    }

    #[test]
    fn it_is_remembered_by_its_rate() {
        let pace = Pace::remembered(250.0, 60.0);
        assert_eq!((pace.tokens_per_s(), pace.tokens_in(10.0)), (250.0, Some(2500.0)));
        assert_eq!(Pace::remembered(0.0, 60.0).tokens_in(10.0), None);
    }
}
