//! `[keep]`: how long what a run was made of stays in its state folder. It decides nothing of the training, and devices
//! are not told of it.

use crate::ids::Version;
use serde::{Deserialize, Serialize};

/// What stays. A blob goes once every limit that is set for it lets it go; where none is set, it stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepSpec {
    /// So many of the newest versions can be put together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<u64>,
    /// So many of the newest merged deltas can be merged again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deltas: Option<u64>,
    /// Neither goes before it is so many days old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<f64>,
    /// Of older versions, the keyframes of these stay: those whose number is a multiple of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milestones: Option<u64>,
}

impl KeepSpec {
    /// Whether nothing is said: then the section is not written, as before there was one.
    pub fn is_unset(&self) -> bool {
        *self == KeepSpec::default()
    }

    /// Whether versions are ever given up.
    pub fn gives_up_versions(&self) -> bool {
        self.versions.is_some() || self.days.is_some()
    }

    /// Whether merged deltas are ever given up.
    pub fn gives_up_deltas(&self) -> bool {
        self.deltas.is_some() || self.days.is_some()
    }

    /// Every so many versions a keyframe stays for good. Version 0 is a multiple of everything: a run's beginning stays.
    pub fn milestone_every(&self) -> u64 {
        self.milestones.unwrap_or(u64::MAX)
    }

    /// Whether a version's keyframe stays when the version is given up.
    pub fn is_milestone(&self, version: Version) -> bool {
        version.0.is_multiple_of(self.milestone_every())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_spec::RunSpec;

    #[test]
    fn without_a_rule_the_spec_is_written_as_before() {
        let mut spec = RunSpec::new("x", 10);
        assert!(!serde_json::to_string(&spec).unwrap().contains("\"keep\":"));
        spec.keep.days = Some(30.0);
        let json = serde_json::to_string(&spec).unwrap();
        assert!(json.ends_with(r#","keep":{"days":30.0}}"#), "{json}");
        assert_eq!(serde_json::from_str::<RunSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn a_rule_may_change_and_is_no_longer_than_it_says() {
        let (before, mut now) = (RunSpec::new("x", 10), RunSpec::new("x", 10));
        now.keep = KeepSpec { versions: Some(9), deltas: Some(0), ..KeepSpec::default() };
        let changes: Vec<String> = before.changed_to(&now).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["keep.deltas is 0, was not set", "keep.versions is 9, was not set"]);
        assert_eq!(now.changed_to(&before).unwrap().len(), 2);
        assert!(now.keep.gives_up_versions() && now.keep.gives_up_deltas());
        assert!(!KeepSpec { milestones: Some(9), ..KeepSpec::default() }.gives_up_versions());
    }

    #[test]
    fn the_beginning_is_always_a_milestone() {
        let (none, tenth) = (KeepSpec::default(), KeepSpec { milestones: Some(10), ..KeepSpec::default() });
        let of = |keep: &KeepSpec| (0..25).filter(|v| keep.is_milestone(Version(*v))).collect::<Vec<_>>();
        assert_eq!((of(&none), of(&tenth)), (vec![0], vec![0, 10, 20]));
    }
}
