//! What seeds say: means and differences with 95 % confidence intervals (Student's t), paired by seed where two
//! variants are compared, since a seed's data and initial weights move both the same way.

/// A mean and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The interval's lower end; NaN with fewer than two values.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How many values it rests on.
    pub n: usize,
}

impl Estimate {
    /// Of values that are independent draws; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let half = if n < 2 { f64::NAN } else { t_quantile(n - 1) * (squares / (n - 1) as f64 / n as f64).sqrt() };
        Some(Estimate { mean, low: mean - half, high: mean + half, n })
    }

    /// Of positive values of which ratios matter: the geometric mean, with the interval of the logarithms.
    pub fn of_ratios(values: &[f64]) -> Option<Self> {
        let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
        let of_logs = Estimate::of(&logs)?;
        Some(of_logs.map(f64::exp))
    }

    /// Half of the interval's width.
    pub fn half(&self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// Carried over to another scale by a function that never falls.
    pub fn map(self, scale: impl Fn(f64) -> f64) -> Self {
        Estimate { mean: scale(self.mean), low: scale(self.low), high: scale(self.high), n: self.n }
    }
}

/// The 97.5 % quantile of Student's t with so many degrees of freedom. Between the table's rows the row above counts,
/// which makes intervals a little wider, never narrower.
fn t_quantile(freedom: usize) -> f64 {
    const FIRST: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    match freedom {
        0 => f64::NAN,
        1..=30 => FIRST[freedom - 1],
        31..=39 => 2.042,
        40..=59 => 2.021,
        60..=119 => 2.000,
        _ => 1.980,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 5e-4, "{a} is not {b}");
    }

    #[test]
    fn an_interval_worked_by_hand() {
        // Mean 3, s = √2.5, s/√5 = 0.70711, t(4) = 2.776: 3 ± 1.96293.
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        close(estimate.mean, 3.0);
        close(estimate.half(), 1.96293);
        close(estimate.low, 1.03707);
        assert_eq!(estimate.n, 5);
        // Two values a apart: t(1) · a/2.
        close(Estimate::of(&[0.0, 1.0]).unwrap().half(), 6.353);
    }

    #[test]
    fn one_value_has_no_interval_and_none_has_no_mean() {
        let one = Estimate::of(&[2.0]).unwrap();
        assert!(one.mean == 2.0 && one.low.is_nan() && one.high.is_nan());
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn ratios_are_averaged_as_ratios() {
        let estimate = Estimate::of_ratios(&[2.0, 8.0]).unwrap();
        close(estimate.mean, 4.0);
        // Twice as fast and half as fast are as far from even as each other.
        close(estimate.low * estimate.high, 16.0);
        let even = Estimate::of_ratios(&[0.5, 2.0, 0.5, 2.0]).unwrap();
        close(even.mean, 1.0);
        assert!(even.low < 1.0 && even.high > 1.0);
    }

    #[test]
    fn more_seeds_make_t_smaller() {
        let quantiles: Vec<f64> = (1..200).map(t_quantile).collect();
        assert!(quantiles.windows(2).all(|w| w[1] <= w[0]));
        assert!(quantiles.iter().all(|t| *t >= 1.96));
    }
}
