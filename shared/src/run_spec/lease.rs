//! `[lease]`: how much work a device is given at a time.

use serde::{Deserialize, Serialize};

/// How leases are sized: H follows the device's measured speed (DyLU, arXiv 2401.09135), so that every device reports
/// after about [`LeaseSpec::wall_s_at`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseSpec {
    /// When leases end.
    pub pacing: Pacing,
    /// Wall time that a lease should take, from grant to delta, in seconds; with rounds, the length of a round.
    pub wall_s: f64,
    /// Where leases are to grow with progress (post-local SGD, arXiv 1808.07217): the wall time that a lease should
    /// take at the end of the token budget. In between it changes by the same factor for the same progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_s_end: Option<f64>,
    /// With rounds: a round is as long as the deltas' agreement asks (`engine/round.rs`), from so many seconds to as
    /// many as `wall_s` says, or ten times as many where leases cost much besides training. If it is not less than `wall_s`, or
    /// `steps` are fixed, all are as long as that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_s_min: Option<f64>,
    /// Whether a device trains on while its delta travels (`engine/ahead.rs`): its next lease begins with those steps.
    /// Off, a device waits for its next lease.
    pub ahead: bool,
    /// Until so many tokens are merged, anchor nodes train alone, as long as any does: from a random start what counts
    /// is the number of steps one after the other, and many devices are no sooner there than the fastest
    /// (docs/study.md).
    #[serde(skip_serializing_if = "is_none")]
    pub warm_tokens: u64,
    /// Inner steps of every lease, whatever the device's speed, as DiLoCo has it. 0: as many as fill the wall time.
    pub steps: u32,
    /// Inner steps of a device's first lease, which measures its speed.
    pub calibration_steps: u32,
    /// Most inner steps in a lease.
    pub steps_max: u32,
    /// A lease expires after this many times the wall time that it should take.
    pub deadline_factor: f64,
    /// A lease never expires sooner than this, in seconds.
    pub deadline_s_min: f64,
}

/// When leases end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// Each by itself, after its wall time: deltas come at any time, and `merge.quorum` of them make a version.
    Free,
    /// All together, with the round: a version is made when all leases of the round are back, or `merge.grace_s` after
    /// its end of what is there, if that is a quorum. The default, since staleness of even one version costs
    /// (docs/study.md).
    #[default]
    Rounds,
    /// In rounds, but only as many in a row as an operator orders from weights that it gives: a *series*
    /// (`engine/series.rs`). Between two series nobody trains.
    Series,
}

impl Default for LeaseSpec {
    fn default() -> Self {
        LeaseSpec {
            pacing: Pacing::Rounds,
            wall_s: 60.0,
            wall_s_end: None,
            wall_s_min: Some(5.0),
            ahead: true,
            warm_tokens: 0,
            steps: 0,
            calibration_steps: 4,
            steps_max: 500,
            deadline_factor: 4.0,
            deadline_s_min: 60.0,
        }
    }
}

fn is_none(tokens: &u64) -> bool {
    *tokens == 0
}

impl LeaseSpec {
    /// Wall time that a lease should take, in seconds, at `progress`: the share of the token budget that the whole run
    /// has consumed.
    pub fn wall_s_at(&self, progress: f64) -> f64 {
        let growth = self.wall_s_end.map_or(1.0, |end| end / self.wall_s);
        self.wall_s * libm::pow(growth, progress.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_grows_by_the_same_factor_for_the_same_progress() {
        let spec = LeaseSpec { wall_s: 10.0, wall_s_end: Some(160.0), ..LeaseSpec::default() };
        for (progress, wall_s) in [(0.0, 10.0), (0.25, 20.0), (0.5, 40.0), (1.0, 160.0), (7.0, 160.0)] {
            assert!((spec.wall_s_at(progress) - wall_s).abs() < 1e-9, "{progress}");
        }
        assert_eq!(LeaseSpec::default().wall_s_at(0.7), 60.0);
    }
}
