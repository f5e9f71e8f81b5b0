//! What of a run that exists may still be changed: what people read, when it ends, and how long and how large things
//! may get. Everything else decides what the weights are, and the ledger could not be replayed under another.

use super::{RunSpec, keys};
use serde_json::Value;
use std::{collections::BTreeSet, fmt};

/// A key that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Section and key.
    pub key: String,
    /// What it was; `None` where it was not there.
    pub before: Option<String>,
    /// What it is; `None` where it is there no more.
    pub now: Option<String>,
}

impl fmt::Display for Changed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(out, "{} is {}, was {}", self.key, words(&self.now), words(&self.before))
    }
}

/// A key that was changed and may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FixedKey {
    /// It decides what the weights are.
    #[error("{0}; that key is fixed once a run has begun")]
    Fixed(Changed),
    /// The schedule has gone too far for that.
    #[error("{0}; the budget of a run that has begun can only be raised")]
    Lowered(Changed),
}

impl RunSpec {
    /// What `now` has otherwise, if all of it may be changed in a run that began with this spec.
    pub fn changed_to(&self, now: &RunSpec) -> Result<Vec<Changed>, FixedKey> {
        let (before, after) = (keys::values(&self.said_as(now)), keys::values(&now.said_as(self)));
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut changes = vec![];
        for key in all {
            let (before, after) = (before.get(key), after.get(key));
            if before == after {
                continue;
            }
            let change =
                Changed { key: key.clone(), before: before.map(Value::to_string), now: after.map(Value::to_string) };
            if !keys::all().any(|(section, known)| known.may_change && section.path(known.name) == *key) {
                return Err(FixedKey::Fixed(change));
            }
            if key == "token_budget" && now.token_budget < self.token_budget {
                return Err(FixedKey::Lowered(change));
            }
            changes.push(change);
        }
        Ok(changes)
    }
}

impl RunSpec {
    /// With the values written down that are left to a default here, and written down in `other`.
    fn said_as(&self, other: &RunSpec) -> RunSpec {
        let mut said = self.clone();
        let (merge, theirs) = (&mut said.merge, &other.merge);
        if theirs.quorum.is_some() {
            merge.quorum.get_or_insert(self.quorum() as u32);
        }
        if theirs.grace_s.is_some() {
            merge.grace_s.get_or_insert(self.grace_s(self.lease.wall_s));
        }
        if theirs.average.is_some() {
            merge.average.get_or_insert(self.average());
        }
        if theirs.robust.is_some() {
            merge.robust.get_or_insert(self.robust());
        }
        if other.lease.wall_s_end.is_some() {
            said.lease.wall_s_end.get_or_insert(self.lease.wall_s);
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_spec::{Average, LeaseSpec, MergeRule, OperatorSpec, Robust, StalenessSpec};

    fn spec() -> RunSpec {
        serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap()
    }

    #[test]
    fn what_people_read_and_limits_may_change() {
        let mut now = spec();
        assert_eq!(spec().changed_to(&now), Ok(vec![]));
        now.description = "for the school".into();
        now.operator = Some(OperatorSpec { name: "Evening School".into(), contact: String::new() });
        now.token_budget = 2000;
        now.lease.deadline_s_min = 90.0;
        now.merge.norm_factor_max = 4.0;
        now.evaluate.samples = 9;
        let changes = spec().changed_to(&now).unwrap();
        let words: Vec<String> = changes.iter().map(Changed::to_string).collect();
        assert!(words.contains(&"token_budget is 2000, was 1000".to_owned()), "{words:?}");
        assert!(words.contains(&"operator.name is \"Evening School\", was not set".to_owned()), "{words:?}");
        assert_eq!(words.len(), 6);
        // And taken back, but for the budget.
        assert_eq!(
            now.changed_to(&spec()).unwrap_err().to_string(),
            "token_budget is 1000, was 2000; the budget of a run that has begun can only be raised"
        );
        assert_eq!(now.changed_to(&RunSpec { token_budget: 2000, ..spec() }).unwrap().len(), 5);
    }

    #[test]
    fn what_is_the_default_is_no_change() {
        let mut now = spec();
        (now.merge.quorum, now.merge.average, now.merge.grace_s) = (Some(1), Some(Average::Rda), Some(5.0));
        assert_eq!((spec().changed_to(&now), now.changed_to(&spec())), (Ok(vec![]), Ok(vec![])));
        now.merge.quorum = Some(3);
        assert!(spec().changed_to(&now).unwrap_err().to_string().starts_with("merge.quorum is 3, was 1;"));
        assert!(now.changed_to(&spec()).unwrap_err().to_string().starts_with("merge.quorum is 1, was 3;"));
        let later = RunSpec { lease: LeaseSpec { wall_s: 6.0, ..LeaseSpec::default() }, ..spec() };
        assert_eq!(spec().changed_to(&later).unwrap().len(), 1, "what follows from a change is none");
    }

    #[test]
    fn what_decides_the_weights_is_fixed() {
        let refused = |change: &dyn Fn(&mut RunSpec)| {
            let mut now = spec();
            change(&mut now);
            spec().changed_to(&now).unwrap_err().to_string()
        };
        assert!(refused(&|s| s.name = "y".into()).starts_with("name is \"y\", was \"x\""));
        assert!(refused(&|s| s.seed = 2).starts_with("seed is 2, was 1"));
        assert!(refused(&|s| s.model.num_hidden_layers = 2).starts_with("model.num_hidden_layers is 2, was 4"));
        assert!(refused(&|s| s.inner.learning_rate = 1.0).starts_with("inner.learning_rate"));
        assert!(refused(&|s| s.delta.k = 1).starts_with("delta.k"));
        assert!(refused(&|s| s.publish.keyframe_every = 1).starts_with("publish.keyframe_every"));
        assert!(refused(&|s| s.merge.rule = MergeRule::Nesterov { momentum: 0.0 }).starts_with("merge.rule"));
        assert!(refused(&|s| s.merge.robust = Some(Robust::Clip)).starts_with("merge.robust"));
        assert!(refused(&|s| s.merge.tokens_cap = 2.0).starts_with("merge.tokens_cap"));
        assert!(refused(&|s| s.merge.staleness = StalenessSpec::Constant).starts_with("merge.staleness"));
        assert!(refused(&|s| s.lease.ahead = false).starts_with("lease.ahead"));
    }
}
