//! What serving a run takes of a machine, counted from what is kept and written for each parameter. A test holds the
//! numbers against the merger's own.

use super::{looks_back, outer::Outer, robust};
use nightjar_shared::{delta, run_spec::RunSpec};

/// Bytes of the program and its ledger; what follows comes on top.
const PROGRAM_BYTES: u64 = 64 << 20;
/// Deltas in memory at once: two are measured, one is merged.
const DELTAS_AT_ONCE: u64 = 3;
/// An update, a squash of it, and the updates that the squash is made of, in bytes a parameter.
const UPDATES_BYTES: u64 = 6;
/// An update and the squashes that end at it, on the disk, in bytes a parameter.
const UPDATES_STORED_BYTES: u64 = 3;
/// A keyframe, in bytes a parameter.
const KEYFRAME_BYTES: u64 = 2;

fn parameters(spec: &RunSpec) -> u64 {
    spec.model.parameters() as u64
}

/// Vectors of f32 beside the weights that a checkpoint holds: feedback, the rule's, the correction's.
fn checkpointed(spec: &RunSpec) -> u64 {
    // For a model of no parameters a rule has as many.
    let rule = Outer::new(&spec.merge, 0);
    let has_direction = looks_back(spec) && rule.momentum().is_none();
    1 + rule.vectors().len() as u64 + u64::from(has_direction)
}

/// Bytes of a checkpoint, nearly.
fn checkpoint_bytes(spec: &RunSpec) -> u64 {
    4 * (1 + checkpointed(spec)) * parameters(spec)
}

/// Bytes of memory that serving takes at its worst moment, when a checkpoint is written or read.
pub fn memory_bytes(spec: &RunSpec) -> u64 {
    let n = parameters(spec);
    let merger = 4 * (2 + checkpointed(spec)) * n;
    let deltas =
        (DELTAS_AT_ONCE + robust::held_max(spec.robust())) * *delta::bytes_allowed(&spec.model, &spec.delta).end();
    // Drawn weights are as long as a checkpoint's, and are gone before the first is made.
    PROGRAM_BYTES + merger + deltas + checkpoint_bytes(spec).max(UPDATES_BYTES * n)
}

/// Bytes on the disk that a version takes, with keyframe and checkpoint or without.
pub fn published_bytes(spec: &RunSpec, keyframe: bool) -> u64 {
    let whole = if keyframe { KEYFRAME_BYTES * parameters(spec) + checkpoint_bytes(spec) } else { 0 };
    UPDATES_STORED_BYTES * parameters(spec) + whole
}

/// The same, of the largest, and of the deltas that it is made of.
pub fn version_bytes(spec: &RunSpec) -> u64 {
    published_bytes(spec, true) + 2 * *delta::bytes_allowed(&spec.model, &spec.delta).end()
}

/// Bytes on the disk that a run takes from its first version on: two checkpoints, and one that is being written.
pub fn run_bytes(spec: &RunSpec) -> u64 {
    version_bytes(spec) + 2 * checkpoint_bytes(spec)
}

#[cfg(test)]
mod tests {
    use super::{super::Merger, *};

    #[test]
    fn the_numbers_are_those_of_the_merger() {
        for toml in [
            "",
            r#", "merge": {"rule": "nesterov"}"#,
            r#", "merge": {"rule": "delayed_nesterov"}"#,
            r#", "merge": {"correction": "heloco"}"#,
            r#", "merge": {"rule": "nesterov", "correction": "heloco"}"#,
            r#", "merge": {"robust": "direction"}"#,
            r#", "merge": {"robust": "clip"}"#,
        ] {
            let spec: RunSpec =
                serde_json::from_str(&format!(r#"{{"name": "x", "token_budget": 1000{toml}}}"#)).unwrap();
            let mut merger = Merger::start(spec.clone(), &spec.model.draw_all(1));
            let made = merger.publish(nightjar_shared::ids::Version(0), true).unwrap();
            let (n, checkpoint) = (spec.model.parameters() as u64, merger.checkpoint().len() as u64);
            assert!(
                (checkpoint_bytes(&spec)..checkpoint_bytes(&spec) + n / 10).contains(&checkpoint),
                "{toml}: {checkpoint}"
            );
            assert!(made.keyframe.unwrap().len() as u64 <= KEYFRAME_BYTES * n + n / 10);
            assert!(memory_bytes(&spec) > PROGRAM_BYTES + checkpoint + 4 * n && run_bytes(&spec) > 3 * checkpoint);
        }
    }
}
