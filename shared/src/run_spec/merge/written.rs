//! `[merge]` as it is written, in files and in what devices are sent: flat, the settings of all rules beside each
//! other. A run is known by these bytes, so their order stays, and what was once written is written again.

use super::{Average, Correction, MergeRule, MergeSpec, Robust, StalenessSpec};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    rule: RuleName,
    #[serde(skip_serializing_if = "Option::is_none")]
    quorum: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_s: Option<f64>,
    learning_rate: f64,
    momentum: f64,
    interval: u32,
    c: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    average: Option<Average>,
    correction: Correction,
    staleness: StalenessSpec,
    staleness_max: u64,
    tokens_cap: f64,
    norm_factor_max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    robust: Option<Robust>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RuleName {
    Mean,
    Nesterov,
    DelayedNesterov,
}

/// Settings that stand beside a rule which does not have them. They do nothing. Files of earlier versions have some,
/// and every spec holds what was written down where nothing was said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Idle {
    momentum: f64,
    interval: u32,
    c: f64,
}

impl Default for Idle {
    fn default() -> Self {
        Idle { momentum: 0.0, interval: 4, c: 0.0 }
    }
}

impl Default for Written {
    fn default() -> Self {
        MergeSpec::default().into()
    }
}

impl From<Written> for MergeSpec {
    fn from(written: Written) -> Self {
        let Written { momentum, interval, c, .. } = written;
        let said = Idle { momentum, interval, c };
        // What the rule takes is not idle.
        let unset = Idle::default();
        let (rule, idle) = match written.rule {
            RuleName::Mean => (MergeRule::Mean, said),
            RuleName::Nesterov => (MergeRule::Nesterov { momentum }, Idle { momentum: unset.momentum, ..said }),
            RuleName::DelayedNesterov => (MergeRule::DelayedNesterov { momentum, interval, c }, unset),
        };
        MergeSpec {
            rule,
            quorum: written.quorum,
            grace_s: written.grace_s,
            learning_rate: written.learning_rate,
            average: written.average,
            correction: written.correction,
            staleness: written.staleness,
            staleness_max: written.staleness_max,
            tokens_cap: written.tokens_cap,
            norm_factor_max: written.norm_factor_max,
            robust: written.robust,
            idle,
        }
    }
}

impl From<MergeSpec> for Written {
    fn from(spec: MergeSpec) -> Self {
        let (rule, said) = match spec.rule {
            MergeRule::Mean => (RuleName::Mean, spec.idle),
            MergeRule::Nesterov { momentum } => (RuleName::Nesterov, Idle { momentum, ..spec.idle }),
            MergeRule::DelayedNesterov { momentum, interval, c } => {
                (RuleName::DelayedNesterov, Idle { momentum, interval, c })
            }
        };
        Written {
            rule,
            quorum: spec.quorum,
            grace_s: spec.grace_s,
            learning_rate: spec.learning_rate,
            momentum: said.momentum,
            interval: said.interval,
            c: said.c,
            average: spec.average,
            correction: spec.correction,
            staleness: spec.staleness,
            staleness_max: spec.staleness_max,
            tokens_cap: spec.tokens_cap,
            norm_factor_max: spec.norm_factor_max,
            robust: spec.robust,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> MergeSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_rule_holds_its_own_settings_and_no_others() {
        let all = r#""momentum": 0.5, "interval": 2, "c": 0.25"#;
        assert_eq!(read(&format!(r#"{{"rule": "mean", {all}}}"#)).rule, MergeRule::Mean);
        let nesterov = MergeRule::Nesterov { momentum: 0.5 };
        assert_eq!(read(&format!(r#"{{"rule": "nesterov", {all}}}"#)).rule, nesterov);
        let delayed = MergeRule::DelayedNesterov { momentum: 0.5, interval: 2, c: 0.25 };
        assert_eq!(read(&format!(r#"{{"rule": "delayed_nesterov", {all}}}"#)).rule, delayed);
        // What is left out is the same as what is written down.
        let said = MergeSpec { rule: nesterov, ..MergeSpec::default() };
        assert_eq!(read(r#"{"rule": "nesterov", "momentum": 0.5}"#), said);
        assert_eq!(read(r#"{"rule": "nesterov", "momentum": 0.5, "interval": 4, "c": 0.0}"#), said);
    }

    #[test]
    fn what_was_said_is_written_again() {
        for rule in ["mean", "nesterov", "delayed_nesterov"] {
            let json = format!(
                r#"{{"rule":"{rule}","quorum":3,"grace_s":1.5,"learning_rate":0.7,"momentum":0.5,"interval":2,"c":0.25,"average":"rda","correction":"heloco","staleness":{{"rule":"hinge","grace":1.0,"slope":2.0}},"staleness_max":7,"tokens_cap":1.5,"norm_factor_max":3.0,"robust":"clip"}}"#
            );
            assert_eq!(serde_json::to_string(&read(&json)).unwrap(), json);
        }
        assert!(serde_json::from_str::<MergeSpec>(r#"{"rule": "mean", "no_such_key": 1}"#).is_err());
    }
}
