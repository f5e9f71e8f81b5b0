//! Percentiles of what was measured.

/// The middle, the 99th percentile and the most of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Figures {
    /// By nearest rank, so each is a number that was measured; of fewer than a hundred, the 99th percentile is the
    /// most.
    /// `None` of none.
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let rank = |share: f64| numbers.get((share * numbers.len() as f64).ceil() as usize - 1).copied();
        let max = *numbers.last()?;
        Some(Figures { p50: rank(0.5)?, p99: rank(0.99)?, max })
    }

    /// For scripts.
    pub fn json(self) -> serde_json::Value {
        serde_json::json!({ "p50": self.p50, "p99": self.p99, "max": self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_that_were_measured() {
        assert_eq!(Figures::of(vec![]), None);
        assert_eq!(Figures::of(vec![7.0]), Some(Figures { p50: 7.0, p99: 7.0, max: 7.0 }));
        let of = |n: u32| Figures::of((1..=n).rev().map(f64::from).collect()).unwrap();
        assert_eq!(of(4), Figures { p50: 2.0, p99: 4.0, max: 4.0 });
        assert_eq!(of(200), Figures { p50: 100.0, p99: 198.0, max: 200.0 });
    }
}
