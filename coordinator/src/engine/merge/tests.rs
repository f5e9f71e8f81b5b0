//! The merger as a whole: versions, checkpoints, refusals.

use super::*;
use nightjar_shared::ids::{BlobHash, LeaseId};

fn spec(momentum: f64) -> RunSpec {
    let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
    spec.model = ModelSpec { vocab_size: 9, hidden_size: 8, intermediate_size: 5, num_hidden_layers: 1, ..ModelSpec::tiny() };
    spec.merge.momentum = momentum;
    spec
}

fn delta(spec: &RunSpec, value: f32) -> Vec<u8> {
    let n = spec.model.parameters();
    delta::encode(&spec.model, delta::CodecId::Blocks8, &vec![value; n], &mut vec![0.0; n])
}

fn order(seq: u64, tokens: u64, weight: f64) -> MergeOrder {
    MergeOrder { seq, lease: LeaseId(seq), delta: BlobHash([0; 32]), tokens, weight }
}

fn started(spec: &RunSpec) -> Merger {
    let mut merger = Merger::start(spec.clone(), &spec.model.draw_all(1));
    merger.publish(Version(0), true).unwrap();
    merger
}

#[test]
fn a_version_is_the_one_before_minus_the_weighted_mean() {
    let spec = spec(0.0);
    let mut merger = started(&spec);
    let before = merger.weights().flat();
    merger.add(&order(1, 300, 1.0), &delta(&spec, 0.01)).unwrap();
    merger.add(&order(2, 100, 0.5), &delta(&spec, 0.04)).unwrap();
    let published = merger.publish(Version(1), false).unwrap();
    // (300 · 0.01 + 100 · 0.5 · 0.04) / 400 = 0.0125
    for (before, after) in before.iter().zip(merger.weights().flat()) {
        assert!((before - after - 0.0125).abs() < 2e-4, "{before} {after}");
    }
    assert_eq!((published.through_seq, published.keyframe), (2, None));
    assert_eq!(published.digest, merger.weights().digest());
}

#[test]
fn what_rounding_takes_is_published_later() {
    let spec = spec(0.0);
    let mut merger = started(&spec);
    let start = merger.weights().flat();
    for round in 0..50 {
        merger.add(&order(round + 1, 100, 1.0), &delta(&spec, 1e-6)).unwrap();
        merger.publish(Version(round + 1), round % 8 == 7).unwrap();
    }
    for ((start, end), left) in start.iter().zip(merger.weights().flat()).zip(&merger.feedback) {
        let published = f64::from(start - end) - f64::from(*left);
        assert!((published - 50e-6).abs() < 1e-6, "{published}");
    }
}

#[test]
fn a_checkpoint_goes_on_to_the_same_bits() {
    for momentum in [0.0, 0.9] {
        let spec = spec(momentum);
        let mut merger = started(&spec);
        merger.add(&order(1, 10, 1.0), &delta(&spec, 0.01)).unwrap();
        merger.publish(Version(1), true).unwrap();
        let bytes = merger.checkpoint();
        let mut restored = Merger::restore(spec.clone(), &bytes).unwrap();
        assert_eq!(restored, merger);
        for m in [&mut merger, &mut restored] {
            m.add(&order(2, 10, 1.0), &delta(&spec, 0.02)).unwrap();
        }
        assert_eq!(restored.publish(Version(2), false), merger.publish(Version(2), false));
    }
}

#[test]
fn a_damaged_checkpoint_is_none() {
    let spec = spec(0.0);
    let bytes = started(&spec).checkpoint();
    assert!(Merger::restore(spec.clone(), &bytes[..bytes.len() - 1]).is_none());
    for at in [0, 9, 100, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(Merger::restore(spec.clone(), &bytes).is_none(), "{at}");
    }
    let other = RunSpec { merge: nightjar_shared::run_spec::MergeSpec { momentum: 0.5, ..spec.merge.clone() }, ..spec };
    assert!(Merger::restore(other, &bytes).is_none());
}

#[test]
fn order_and_form_are_insisted_on() {
    let spec = spec(0.0);
    let mut merger = started(&spec);
    assert_eq!(merger.add(&order(2, 1, 1.0), &delta(&spec, 0.1)), Err(MergeError::OutOfOrder { expected: 1, got: 2 }));
    assert_eq!(merger.publish(Version(2), false), Err(MergeError::WrongVersion { have: Version(0), got: Version(2) }));
    let untouched = merger.clone();
    let mut cut = delta(&spec, 0.1);
    cut.pop();
    assert!(matches!(merger.add(&order(1, 1, 1.0), &cut), Err(MergeError::Delta(_))));
    assert_eq!(merger, untouched);
}

#[test]
fn a_norm_by_hand() {
    let spec = spec(0.0);
    let n = spec.model.parameters() as f64;
    let Measured { norm } = measure(&spec.model, &delta(&spec, 3.0)).unwrap();
    assert!((norm - 3.0 * n.sqrt()).abs() < 0.01 * norm);
}
