//! `[track]`: where a coordinator writes down how its run goes, for the tools that labs look at. It decides nothing of the
//! training, and devices are not told of it.

use serde::{Deserialize, Serialize};

/// Where what is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackSpec {
    /// The folder for TensorBoard's event files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensorboard: Option<String>,
    /// A CSV file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csv: Option<String>,
}

impl TrackSpec {
    /// Whether nothing is said: then the section is not written, as before there was one.
    pub fn is_unset(&self) -> bool {
        *self == TrackSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::run_spec::RunSpec;

    #[test]
    fn without_a_place_the_spec_is_written_as_before_and_a_place_may_change() {
        let (before, mut now) = (RunSpec::new("x", 10), RunSpec::new("x", 10));
        assert!(!serde_json::to_string(&before).unwrap().contains("track"));
        now.track.csv = Some("run.csv".into());
        assert_eq!(serde_json::from_str::<RunSpec>(&serde_json::to_string(&now).unwrap()).unwrap(), now);
        let changes: Vec<String> = before.changed_to(&now).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["track.csv is \"run.csv\", was not set"]);
        now.track.csv = Some(String::new());
        assert_eq!(now.validate().unwrap_err().to_string(), "track.csv is 0 bytes long; allowed is 1 to 4096");
    }
}
