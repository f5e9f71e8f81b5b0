//! How far apart a lease's checkpoints are. Each writes the whole training state, and disks wear out by what is
//! written, so a large model is saved less often than its owner would like to lose.

use super::Session;

const DAY_MS: f64 = 24.0 * 3600.0 * 1000.0;
/// Weights and two moments.
const CHECKPOINT_BYTES_PER_PARAMETER: f64 = 12.0;

impl Session {
    /// Milliseconds between two checkpoints of a lease of this run.
    pub(super) fn checkpoint_ms(&self) -> u64 {
        let bytes =
            self.spec.as_ref().map_or(0.0, |spec| CHECKPOINT_BYTES_PER_PARAMETER * spec.model.parameters() as f64);
        apart_ms(bytes, self.profile.checkpoint_bytes_day_max).max(self.profile.checkpoint_ms)
    }
}

/// The least time between two checkpoints of so many bytes with which a day's stay within its bytes.
fn apart_ms(bytes: f64, day_max: Option<u64>) -> u64 {
    day_max.map_or(0, |day_max| (DAY_MS * bytes / day_max.max(1) as f64).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_large_the_model_a_day_of_checkpoints_stays_within_its_bytes() {
        let day_max = 20u64 << 30;
        for parameters in [1e4, 0.8e6, 110e6, 10e9] {
            let (bytes, apart) = (12.0 * parameters, apart_ms(12.0 * parameters, Some(day_max)));
            assert!((DAY_MS / apart as f64) * bytes <= day_max as f64, "{parameters}");
            assert!(
                apart <= 1 || bytes * DAY_MS / (apart as f64 - 1.0) >= day_max as f64,
                "no further apart than need be"
            );
        }
        assert_eq!((apart_ms(1e9, None), apart_ms(0.0, Some(1))), (0, 0));
        assert_eq!(apart_ms(12.0 * 0.8e6, Some(day_max)) / 1000, 38);
    }
}
