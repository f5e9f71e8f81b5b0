//! How far the deltas of a version agree: what share of them is signal, and what is noise that their mean averages out.
//!
//! With v the deltas as they are weighted, s = (‖Σv‖² − Σ‖v‖²) / ((Σ‖v‖)² − Σ‖v‖²): the mean cosine of all pairs, each
//! weighted by both lengths. If deltas are one signal plus independent noise, s estimates without bias the signal's
//! share of their squared length, whatever their number; for n of equal length it is (n·ρ − 1)/(n − 1) with ρ = ‖mean‖²
//! / mean ‖v‖². It is the counterpart for deltas of the gradient noise scale (McCandlish et al., arXiv 1812.06162).
//!
//! What deltas have in common only in their places, not in their values, lowers it: deltas of a sparse codec agree less
//! than the pseudo-gradients behind them. It is measured of what is summed up: deltas after their correction (which
//! makes them more alike), and with RDA their tensors' directions.

/// How much an older version counts: about ten are averaged.
const FADE: f64 = 0.9;

/// The share of signal, smoothed over versions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// ‖Σv‖² − Σ‖v‖², in units of (Σ‖v‖)², faded and summed.
    pub(super) common: f64,
    /// (Σ‖v‖)² − Σ‖v‖², likewise.
    pub(super) whole: f64,
}

impl Agreement {
    /// Learns from one version, given ‖Σv‖², Σ‖v‖ and Σ‖v‖². A version of one delta teaches nothing.
    pub fn learn(&mut self, square_of_sum: f64, lengths: f64, squares: f64) {
        let all = lengths * lengths;
        // Two deltas of which one is a millionth of the other are as one. What is no number teaches nothing either.
        if all - squares > 1e-6 * all && (square_of_sum - squares).is_finite() && all.is_finite() {
            self.common = FADE * self.common + (square_of_sum - squares) / all;
            self.whole = FADE * self.whole + (all - squares) / all;
        }
    }

    /// The share of signal, 0 to 1; `None` before the first version of several deltas.
    pub fn share(&self) -> Option<f64> {
        (self.whole > 0.0).then(|| (self.common / self.whole).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::rng;

    fn of(deltas: &[Vec<f64>]) -> Agreement {
        let mut agreement = Agreement::default();
        learn(&mut agreement, deltas);
        agreement
    }

    fn learn(agreement: &mut Agreement, deltas: &[Vec<f64>]) {
        let square = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
        let sum: Vec<f64> = (0..deltas[0].len()).map(|i| deltas.iter().map(|d| d[i]).sum()).collect();
        let lengths = deltas.iter().map(|d| square(d).sqrt()).sum();
        agreement.learn(square(&sum), lengths, deltas.iter().map(|d| square(d)).sum());
    }

    #[test]
    fn by_hand() {
        // Lengths 1, 1 and 2; cosines 1, 0, 0, weighted by 1, 2, 2: 1/5.
        let agreement = of(&[vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 2.0]]);
        assert!((agreement.share().unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(of(&[vec![3.0, 4.0]]).share(), None, "one delta agrees with nobody");
        assert_eq!(Agreement::default().share(), None);
        assert_eq!(of(&[vec![1.0], vec![1.0]]).share(), Some(1.0));
        assert_eq!(of(&[vec![1.0], vec![-1.0]]).share(), Some(0.0));
    }

    #[test]
    fn it_estimates_the_share_of_signal_for_any_number_of_deltas() {
        // Signal 1 and noise 3 in square a value: a quarter is signal.
        for devices in [2u64, 4, 16] {
            let mut agreement = Agreement::default();
            for version in 0..20 {
                let noise = |d, i| 3f64.sqrt() * rng::normal(version, d, i);
                let deltas: Vec<Vec<f64>> =
                    (0..devices).map(|d| (0..500).map(|i| 1.0 + noise(d, i)).collect()).collect();
                learn(&mut agreement, &deltas);
            }
            let share = agreement.share().unwrap();
            assert!((share - 0.25).abs() < 0.03, "{devices} devices: {share}");
        }
    }
}
