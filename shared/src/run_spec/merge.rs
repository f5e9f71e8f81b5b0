//! `[merge]`: how deltas become the next version. Which rules there are, under the field's names.

mod written;

pub use written::Idle;

use serde::{Deserialize, Serialize};

/// How deltas become the next version: a quorum buffer (FedBuff, arXiv 2106.06639), each delta weighted by its
/// staleness and by the tokens it was trained on (PAPAYA, arXiv 2111.04877); then the outer step.
///
/// FedAsync (arXiv 1903.03934) is `quorum = 1`, `rule = "mean"`, its α as `learning_rate` and a polynomial staleness:
/// every arrival moves the weights by α·s(τ)·Δ. (FedAsync's own form mixes with the device's weights, and so also takes
/// back a share of what others did since the device's base version; a delta carries no such term.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "written::Written", into = "written::Written")]
pub struct MergeSpec {
    /// The outer step.
    pub rule: MergeRule,
    /// Deltas in the buffer that make a version. By default 1 with rounds, whose version waits for all of them, and 4
    /// without.
    pub quorum: Option<u32>,
    /// Once the quorum is there, so long is waited for more (Decoupled DiLoCo, arXiv 2604.21428), in seconds. By
    /// default a sixth of a round's wall time and at most 5, and 0 without rounds.
    pub grace_s: Option<f64>,
    /// The outer step's learning rate.
    pub learning_rate: f64,
    /// How the buffer's deltas are averaged. By default `rda` with rounds, `mean` without (docs/study.md).
    pub average: Option<Average>,
    /// What is done to a delta before it is averaged.
    pub correction: Correction,
    /// What is done about deltas that the others speak against. By default nothing.
    pub robust: Option<Robust>,
    /// How much a stale delta counts.
    pub staleness: StalenessSpec,
    /// A delta more versions stale than this is not merged.
    pub staleness_max: u64,
    /// A delta counts as no more tokens than this many times the recent median of all deltas. 0: no cap.
    pub tokens_cap: f64,
    /// A delta is not merged whose steps led more than this many times as far as those of the other devices
    /// ([`MergeSpec::norm_factor`]).
    pub norm_factor_max: f64,
    /// What the file says of other rules.
    pub idle: Idle,
}

/// The outer step's rule, with the settings that it alone has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MergeRule {
    /// θ ← θ − η·Δ (local SGD; FedBuff, arXiv 2106.06639).
    #[default]
    Mean,
    /// m ← μ·m + Δ, θ ← θ − η·(Δ + μ·m) (DiLoCo, arXiv 2311.08105).
    Nesterov {
        /// μ; 0 makes it the mean.
        momentum: f64,
    },
    /// The momentum moves only at every so many versions (Asynchronous Local-SGD, arXiv 2401.09135, algorithm 3).
    DelayedNesterov {
        /// β.
        momentum: f64,
        /// Versions from one move to the next.
        interval: u32,
        /// Share of the momentum that versions in between apply.
        c: f64,
    },
}

impl MergeRule {
    /// Its momentum; 0 where it has none.
    pub fn momentum(&self) -> f64 {
        match *self {
            MergeRule::Mean => 0.0,
            MergeRule::Nesterov { momentum } | MergeRule::DelayedNesterov { momentum, .. } => momentum,
        }
    }
}

/// How the deltas of the buffer are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Their weighted mean.
    Mean,
    /// Radial-directional averaging (Decoupled DiLoCo, arXiv 2604.21428): lengths and directions are averaged apart, a
    /// tensor at a time, so that the step does not shrink as more deltas that disagree take part.
    Rda,
}

/// What is done to a delta before it is averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Nothing.
    #[default]
    None,
    /// Tensors that go against the momentum are turned towards it (HeLoCo, arXiv 2606.00271).
    Heloco,
}

/// What is done about deltas of a version that its other deltas speak against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Robust {
    /// Nothing.
    None,
    /// Tensors that are far from where the run was heading are drawn towards it (centred clipping, Karimireddy et al.,
    /// arXiv 2012.10333).
    Clip,
    /// Deltas count by how far they point where the others point (as FLTrust, arXiv 2012.13995, weighs by a trusted
    /// one); copies count once.
    Direction,
}

/// How much a stale delta counts. `tau` is the number of versions published since the one it started from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum StalenessSpec {
    /// 1, whatever the staleness.
    Constant,
    /// (1 + tau)^-power (FedAsync, arXiv 1903.03934; FedBuff uses power 0.5).
    Polynomial {
        /// The exponent.
        power: f64,
    },
    /// 1 up to `grace`, then 1 / (slope · (tau − grace) + 1) (FedAsync).
    Hinge {
        /// Staleness that costs nothing.
        grace: f64,
        /// How fast the weight falls beyond.
        slope: f64,
    },
}

impl StalenessSpec {
    /// The weight of a delta that is `tau` versions stale.
    pub fn weight(&self, tau: u64) -> f64 {
        let tau = tau as f64;
        match *self {
            StalenessSpec::Constant => 1.0,
            StalenessSpec::Polynomial { power } => libm::pow(1.0 + tau, -power),
            StalenessSpec::Hinge { grace, slope } if tau > grace => 1.0 / (slope * (tau - grace) + 1.0),
            StalenessSpec::Hinge { .. } => 1.0,
        }
    }
}

impl Default for MergeSpec {
    fn default() -> Self {
        MergeSpec {
            rule: MergeRule::Mean,
            quorum: None,
            grace_s: None,
            learning_rate: 1.0,
            average: None,
            correction: Correction::None,
            robust: None,
            staleness: StalenessSpec::Polynomial { power: 0.5 },
            staleness_max: 32,
            tokens_cap: 0.0,
            norm_factor_max: NORM_FACTOR_UNSET,
            idle: Idle::default(),
        }
    }
}

/// What is written where nothing is set: run specs of earlier versions have it, and a run is known by its spec.
const NORM_FACTOR_UNSET: f64 = 8.0;
/// And what that means. Where one simulated device in five sends the opposite of what it trained, 1.9 times as long, a
/// run of the smallest model is 0.06 nats a token behind an honest one after 400,000 tokens; 8 times as long, it stands
/// still.
const NORM_FACTOR: f64 = 2.0;

impl MergeSpec {
    /// How many times as far as those of the other devices a delta's steps may lead: 2, unless the run spec says
    /// otherwise. 8, which earlier versions wrote down where nothing was set, counts as that.
    pub fn norm_factor(&self) -> f64 {
        if self.norm_factor_max == NORM_FACTOR_UNSET { NORM_FACTOR } else { self.norm_factor_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_spec::RunSpec;

    #[test]
    fn staleness_weights_by_hand() {
        assert_eq!(StalenessSpec::Constant.weight(9), 1.0);
        assert!((StalenessSpec::Polynomial { power: 0.5 }.weight(3) - 0.5).abs() < 1e-15);
        let hinge = StalenessSpec::Hinge { grace: 4.0, slope: 10.0 };
        assert_eq!((hinge.weight(4), hinge.weight(5)), (1.0, 1.0 / 11.0));
    }

    #[test]
    fn rules_go_by_the_fields_names() {
        let spec: RunSpec = serde_json::from_str(
            r#"{"name": "x", "token_budget": 10, "merge": {"rule": "delayed_nesterov", "momentum": 0.9, "average": "rda",
                "correction": "heloco", "tokens_cap": 4}}"#,
        )
        .unwrap();
        spec.validate().unwrap();
        let merge = spec.merge;
        assert_eq!(
            (merge.rule, merge.average, merge.correction),
            (MergeRule::DelayedNesterov { momentum: 0.9, interval: 4, c: 0.0 }, Some(Average::Rda), Correction::Heloco)
        );
        assert_eq!(merge.tokens_cap, 4.0);
    }

    #[test]
    fn what_earlier_versions_wrote_is_no_choice() {
        let unset = MergeSpec::default();
        assert_eq!((unset.norm_factor_max, unset.norm_factor()), (8.0, 2.0));
        assert_eq!(MergeSpec { norm_factor_max: 3.0, ..unset }.norm_factor(), 3.0);
    }

    #[test]
    fn momentum_that_would_not_be_used_is_refused() {
        let refusal = |merge| RunSpec { merge, ..RunSpec::new("x", 10) }.validate().unwrap_err().to_string();
        let why = refusal(serde_json::from_str(r#"{"rule": "mean", "momentum": 0.9}"#).unwrap());
        let words =
            "merge.momentum is 0.9, which merge.rule = \"mean\" does not have; it needs merge.rule = \"nesterov\"";
        assert!(why.starts_with(words), "{why}");
        assert_eq!(
            refusal(MergeSpec { tokens_cap: 0.5, ..MergeSpec::default() }),
            "merge.tokens_cap is 0.5; allowed is 1 or more; 0 for no cap"
        );
        let hinge = StalenessSpec::Hinge { grace: 4.0, slope: -0.5 };
        assert_eq!(
            refusal(MergeSpec { staleness: hinge, ..MergeSpec::default() }),
            "merge.staleness.slope is -0.5; allowed is 0 to 1000000000"
        );
    }
}
