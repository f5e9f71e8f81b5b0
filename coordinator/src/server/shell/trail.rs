//! How fast a run goes lately, by the tokens of its versions, and how long that leaves. Leases tell less: when a round's
//! version stands, none may be out.

use std::collections::VecDeque;

/// Versions that are looked back on.
const POINTS: usize = 32;

/// See the module. Times are seconds from any beginning.
pub(super) struct Trail(VecDeque<(f64, u64)>);

impl Trail {
    /// Of a run that has trained on so many tokens by now.
    pub fn new(now_s: f64, tokens: u64) -> Self {
        Trail(VecDeque::from([(now_s, tokens)]))
    }

    /// A version stands.
    pub fn pass(&mut self, now_s: f64, tokens: u64) {
        self.0.push_back((now_s, tokens));
        if self.0.len() > POINTS {
            self.0.pop_front();
        }
    }

    /// Seconds until the budget is used up, at this speed; `None` where nothing moved.
    pub fn left_s(&self, budget: u64) -> Option<f64> {
        let ((since_s, before), (now_s, tokens)) = (self.0.front()?, self.0.back()?);
        let (took_s, made) = (now_s - since_s, tokens.saturating_sub(*before));
        (took_s > 0.0 && made > 0).then(|| budget.saturating_sub(*tokens) as f64 * took_s / made as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_newest_versions() {
        let mut trail = Trail::new(100.0, 500);
        assert_eq!(trail.left_s(1000), None);
        trail.pass(110.0, 600);
        assert_eq!(trail.left_s(1000), Some(40.0));
        trail.pass(130.0, 600);
        assert_eq!(trail.left_s(1000), Some(120.0));
        for version in 0..POINTS as u64 {
            trail.pass(200.0 + version as f64, 600 + 10 * version);
        }
        assert_eq!(trail.left_s(1000), Some(9.0));
        assert_eq!(trail.left_s(10), Some(0.0));
    }
}
