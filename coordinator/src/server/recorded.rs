//! Run files as they were once taken, with the spec and the run's id that came of them. A run is known by the hash of
//! its spec's bytes, and devices read those bytes: whatever changes here loses its runs.
//!
//! `recorded.txt` holds the cases. Each begins with `== ` and its name. What was given follows, a run file or, where it
//! begins with a brace, a spec as an earlier version stored it; then a line `--`, the spec's bytes, and the id. Cases
//! are added; none is ever changed.

use super::run_identity;
use crate::run_file;
use nightjar_shared::{run_spec::RunSpec, shard::Manifest};

const CASES: &str = include_str!("recorded.txt");

struct Case {
    name: &'static str,
    given: &'static str,
    json: &'static str,
    id: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |text: &'static str| {
        let (name, rest) = text.split_once('\n')?;
        let (given, came) = rest.split_once("--\n")?;
        let (json, id) = came.trim_end().split_once('\n')?;
        Some(Case { name, given, json, id })
    };
    CASES.split("== ").skip(1).map(|text| case(text).unwrap_or_else(|| panic!("no case: {text}"))).collect()
}

fn manifest() -> Manifest {
    let json = r#"{"format": 1, "context": 64, "vocab_size": 256, "tokenizer": null, "train": [], "heldout": []}"#;
    serde_json::from_str(json).unwrap()
}

#[test]
fn every_run_file_makes_the_same_run_as_ever() {
    let cases = cases();
    assert!(cases.len() >= 24, "the recordings were not found");
    for Case { name, given, json, id } in cases {
        let spec: RunSpec = match given.starts_with('{') {
            true => serde_json::from_str(given).unwrap_or_else(|error| panic!("{name}: {error}")),
            false => run_file::parse(given.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}")).spec,
        };
        let run = run_identity(&spec, &manifest());
        assert_eq!((run.spec_json.as_str(), run.run_id.to_string().as_str()), (json, id), "{name}");
    }
}

/// What a ledger or a device holds of such a run is read, and written as it was.
#[test]
fn every_stored_spec_is_read_as_it_was_written() {
    for Case { name, json, .. } in cases() {
        let stored: RunSpec = serde_json::from_str(json).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(serde_json::to_string(&stored).unwrap(), json, "{name}");
        assert_eq!(stored.changed_to(&stored.clone()), Ok(vec![]), "{name}");
    }
}
