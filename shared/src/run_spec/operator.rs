//! `[operator]`: who runs the run, and where volunteers can turn. It decides nothing of the training; as a part of the
//! run spec every device is told of it.

use serde::{Deserialize, Serialize};

/// Who runs a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSpec {
    /// A person, a lab, a school.
    pub name: String,
    /// A web page or an e-mail address; empty: there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contact: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_spec::RunSpec;

    fn spec(more: &str) -> RunSpec {
        serde_json::from_str(&format!(r#"{{"name": "x", "token_budget": 10{more}}}"#)).unwrap()
    }

    #[test]
    fn who_runs_it_is_told_within_bounds() {
        let told = spec(r#", "operator": {"name": "Evening School", "contact": "https://school.example"}"#);
        told.validate().unwrap();
        assert_eq!(told.operator.unwrap().contact, "https://school.example");
        let too_long = format!(r#", "operator": {{"name": "{}"}}"#, "n".repeat(257));
        let refused = spec(&too_long).validate().unwrap_err().to_string();
        assert_eq!(refused, "operator.name is 257 bytes long; allowed is 1 to 256");
        assert!(spec(r#", "operator": {"name": ""}"#).validate().is_err());
        let escape = spec(r#", "description": "see \u001b[2J""#).validate().unwrap_err().to_string();
        assert_eq!(escape, "description holds a control character; write plain text");
        assert!(serde_json::from_str::<OperatorSpec>(r#"{"name": "x", "phone": "1"}"#).is_err());
    }

    /// The run's id is a hash of these bytes, and devices from before there was an operator know no such key.
    #[test]
    fn without_one_the_spec_is_written_as_before() {
        assert!(!serde_json::to_string(&spec("")).unwrap().contains("operator"));
    }
}
