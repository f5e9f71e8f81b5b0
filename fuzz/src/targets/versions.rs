//! Deltas up, versions down, and the merger's own state. The first byte chooses what run they are read for.

use super::small_model;
use nightjar_coordinator::engine::{
    event::MergeOrder,
    merge::{Merger, measure},
};
use nightjar_shared::{
    delta::{self, CodecId, DeltaSpec},
    ids::{BlobHash, LeaseId, Version},
    rng,
    run_spec::{MergeRule, RunSpec},
    version::{INTEGER_LIMIT, Weights, keyframe, of_head, update},
};

fn spec_of(choice: u8) -> RunSpec {
    let mut spec = RunSpec::new("fuzz", 1_000_000);
    spec.model = small_model();
    spec.delta.codec = CodecId::ALL[usize::from(choice) % CodecId::ALL.len()];
    spec.merge.rule = match choice / 16 % 3 {
        0 => MergeRule::Mean,
        1 => MergeRule::Nesterov { momentum: 0.9 },
        _ => MergeRule::DelayedNesterov { momentum: 0.9, interval: 3, c: 0.5 },
    };
    spec.publish.codec = [CodecId::Blocks2, CodecId::Blocks4, CodecId::Blocks8][usize::from(choice) / 64 % 3];
    spec
}

fn gradient(seed: u64) -> Vec<f32> {
    (0..small_model().parameters() as u64).map(|i| rng::normal(seed, 0, i) as f32 * 1e-2).collect()
}

fn encoded(spec: &RunSpec, seed: u64) -> Vec<u8> {
    let gradient = gradient(seed);
    delta::encode(&spec.model, &spec.delta, &gradient, &mut vec![0.0; gradient.len()])
}

/// A delta as a device uploads it.
pub fn delta(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let spec = spec_of(*choice);
    let (n, mut end) = (spec.model.parameters(), 0);
    let mut flat = vec![0.0; n];
    let decoded = delta::decode(&spec.model, bytes, |at, values| {
        assert!(at >= end && values.iter().all(|value| value.is_finite()), "values in order, each a number");
        end = at + values.len();
        flat[at..end].copy_from_slice(values);
    });
    let mut sum = vec![0.0; n];
    let halves = vec![0.5; spec.model.tensors().len()];
    let added = delta::add_scaled(&spec.model, bytes, &halves, &mut sum);
    assert_eq!(decoded, added);
    let measured = measure(&spec, bytes);
    let is_asked_for = delta::check_head(&spec.model, &spec.delta, bytes).is_ok();
    assert_eq!(measured.is_ok(), decoded.is_ok() && is_asked_for);
    if decoded.is_ok() {
        assert!(sum.iter().zip(&flat).all(|(sum, value)| *sum == 0.5 * value));
    }
    let Ok(measured) = measured else { return };
    assert!(measured.norm.is_finite() && measured.largest.is_finite());
    assert!(
        delta::bytes_allowed(&spec.model, &spec.delta).contains(&(bytes.len() as u64)),
        "no other length is let in"
    );
    if spec.delta.codec == CodecId::F32 {
        let again = delta::encode(&spec.model, &DeltaSpec { feedback: 0.0, ..spec.delta }, &flat, &mut sum);
        assert_eq!(again, bytes);
    }
}

pub fn deltas() -> Vec<Vec<u8>> {
    (0..CodecId::ALL.len() as u8).map(|choice| [vec![choice], encoded(&spec_of(choice), 1)].concat()).collect()
}

fn within(weights: &Weights) -> bool {
    weights.tensors.iter().flat_map(|t| &t.integers).all(|n| n.unsigned_abs() < INTEGER_LIMIT.unsigned_abs())
}

/// A whole model.
pub fn keyframe(bytes: &[u8]) {
    let model = small_model();
    let Ok(weights) = keyframe::decode(&model, bytes) else { return };
    assert!(within(&weights) && weights.flat().iter().all(|value| value.is_finite()));
    assert_eq!(keyframe::encoded_bytes(&model), bytes.len() as u64);
    assert_eq!(of_head(bytes), Some(weights.version));
    assert_eq!(keyframe::decode(&model, &keyframe::encode(&model, &weights)), Ok(weights));
}

fn start() -> Weights {
    let model = small_model();
    let mut weights = Weights::start(&model, &model.draw_all(1));
    weights.version = Version(7);
    keyframe::round(&mut weights);
    weights
}

pub fn keyframes() -> Vec<Vec<u8>> {
    vec![keyframe::encode(&small_model(), &start())]
}

/// One update, or two after each other: the first two bytes say where the second begins.
pub fn update(bytes: &[u8]) {
    let model = small_model();
    let Some((cut, bytes)) = bytes.split_first_chunk() else { return };
    let (first, second) = bytes.split_at(usize::from(u16::from_le_bytes(*cut)).min(bytes.len()));
    let parts: Vec<&[u8]> = [first, second].into_iter().filter(|part| !part.is_empty()).collect();
    let squashed = update::squash(&model, &parts);
    if let Ok(squashed) = &squashed {
        assert_eq!(update::squash(&model, &[squashed]).as_ref(), Ok(squashed), "there is one way to write it");
    }
    let mut weights = start();
    // Any version may be the one before.
    weights.version =
        first.get(8..16).and_then(|b| b.try_into().ok()).map_or(weights.version, |b| Version(u64::from_le_bytes(b)));
    let before = weights.clone();
    for part in &parts {
        if update::apply(&model, &mut weights, part).is_err() {
            return;
        }
        assert!(within(&weights) && of_head(part) == Some(weights.version));
    }
    if !parts.is_empty() {
        let mut at_once = before;
        update::apply(&model, &mut at_once, &squashed.expect("each of them is an update, and they fit"))
            .expect("the same");
        assert_eq!(at_once, weights, "however the way is cut");
    }
}

pub fn updates() -> Vec<Vec<u8>> {
    let model = small_model();
    let mut seeds = vec![];
    for codec in [CodecId::Blocks2, CodecId::Blocks4, CodecId::Blocks8] {
        let mut weights = start();
        let first = update::publish(&model, codec, &mut weights, &mut gradient(2));
        let second = update::publish(&model, codec, &mut weights, &mut gradient(3));
        let squash = update::squash(&model, &[&first, &second]).expect("they fit");
        let cut = (first.len() as u16).to_le_bytes();
        seeds.push([&cut[..], &first, &second].concat());
        seeds.push([&(squash.len() as u16).to_le_bytes()[..], &squash].concat());
    }
    seeds
}

/// The merger's own state, under a hash that fits.
pub fn checkpoint(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let whole = |body: &[u8]| [body, &BlobHash::of(body).0].concat();
    let spec = spec_of(*choice);
    let Some(mut merger) = Merger::restore(spec.clone(), &whole(body)) else { return };
    assert!(within(merger.weights()));
    let again = merger.checkpoint();
    assert_eq!(Merger::restore(spec.clone(), &again).map(|merger| merger.checkpoint()), Some(again));
    // It goes on from there, whatever it was.
    let (version, seq) = (merger.weights().version, merger.last_seq());
    let order = MergeOrder { seq: seq + 1, lease: LeaseId(1), delta: BlobHash([0; 32]), tokens: 100, weight: 1.0 };
    merger.add(&order, &encoded(&spec, 4)).expect("it is the next");
    merger.publish(version.next(), true).expect("it is the next");
    assert!(within(merger.weights()));
}

pub fn checkpoints() -> Vec<Vec<u8>> {
    let of = |choice: u8| {
        let spec = spec_of(choice);
        let mut merger = Merger::start(spec.clone(), &spec.model.draw_all(1));
        let order = MergeOrder { seq: 1, lease: LeaseId(1), delta: BlobHash([0; 32]), tokens: 100, weight: 1.0 };
        merger.publish(Version(0), true).expect("a start");
        merger.add(&order, &encoded(&spec, 5)).expect("the first");
        merger.publish(Version(1), false).expect("the second version");
        let whole = merger.checkpoint();
        [&[choice], &whole[..whole.len() - 32]].concat()
    };
    [0, 16, 32].map(of).to_vec()
}
