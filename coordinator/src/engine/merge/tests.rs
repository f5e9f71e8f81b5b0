//! The merger as a whole: versions, checkpoints, refusals.

use super::*;
use nightjar_shared::{
    ids::{BlobHash, LeaseId},
    model_spec::ModelSpec,
    rng,
    run_spec::{Average, Correction, MergeRule, MergeSpec, Robust},
};
use proptest::prelude::*;

fn spec(momentum: f64) -> RunSpec {
    let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
    spec.model =
        ModelSpec { vocab_size: 9, hidden_size: 8, intermediate_size: 5, num_hidden_layers: 1, ..ModelSpec::tiny() };
    spec.merge = MergeSpec { rule: MergeRule::Nesterov { momentum }, average: Some(Average::Mean), ..spec.merge };
    (spec.delta.codec, spec.publish.codec) = (delta::CodecId::Blocks8, delta::CodecId::Blocks8);
    spec
}

fn delta(spec: &RunSpec, value: f32) -> Vec<u8> {
    let n = spec.model.parameters();
    delta::encode(&spec.model, &spec.delta, &vec![value; n], &mut vec![0.0; n])
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

/// A device may send any bytes that decode: values so small that what divides by their length would leave all ranges.
#[test]
fn values_of_no_size_do_no_harm() {
    for (average, correction, rule) in [
        (Average::Rda, Correction::None, MergeRule::Mean),
        (Average::Rda, Correction::Heloco, MergeRule::Nesterov { momentum: 0.9 }),
        (Average::Mean, Correction::Heloco, MergeRule::Nesterov { momentum: 0.9 }),
    ] {
        let mut spec = spec(0.0);
        spec.merge = MergeSpec { average: Some(average), correction, rule, ..spec.merge };
        spec.delta.codec = delta::CodecId::F32;
        let n = spec.model.parameters();
        let mut merger = started(&spec);
        let (mut seq, mut version) = (0, 0);
        for size in [f32::from_bits(1), 9.2e-41, 1e-38, 1e-30, 1e-20, 1e-16, 1e-14, 1e-8] {
            // One tensor next to nothing, the others as they should be; and beside it an honest one.
            let mut values = vec![1e-3; n];
            values[100..].fill(0.0);
            values[n - 3] = size;
            let hostile = delta::encode(&spec.model, &spec.delta, &values, &mut vec![0.0; n]);
            for bytes in [&hostile, &noisy(&spec, seq)] {
                seq += 1;
                merger.add(&order(seq, 1 << 40, 1.0), bytes).unwrap();
            }
            version += 1;
            merger.publish(Version(version), false).unwrap();
            assert!(merger.feedback.iter().all(|v| v.is_finite()), "{average:?} {correction:?} {size:e}");
            let share = merger.agreement.share().unwrap();
            assert!((0.0..=1.0).contains(&share), "{average:?} {correction:?} {size:e}: {share}");
        }
    }
}

/// A delta of values drawn from a seed, around a common signal.
fn noisy(spec: &RunSpec, seed: u64) -> Vec<u8> {
    let n = spec.model.parameters();
    let value = |i| (1e-3 * (rng::normal(1, 0, i) + rng::normal(seed, 1, i))) as f32;
    let values: Vec<f32> = (0..n as u64).map(value).collect();
    delta::encode(&spec.model, &spec.delta, &values, &mut vec![0.0; n])
}

fn any_merge() -> impl Strategy<Value = MergeSpec> {
    let delayed = (1u32..4, prop_oneof![Just(0.9), Just(0.0)])
        .prop_map(|(interval, momentum)| MergeRule::DelayedNesterov { momentum, interval, c: 0.0 });
    let rule = prop_oneof![Just(MergeRule::Mean), Just(MergeRule::Nesterov { momentum: 0.9 }), delayed];
    let average = prop_oneof![Just(Average::Mean), Just(Average::Rda)];
    let correction = prop_oneof![Just(Correction::None), Just(Correction::Heloco)];
    let cap = prop_oneof![Just(0.0), Just(2.0)];
    let robust = prop_oneof![Just(Robust::None), Just(Robust::Clip), Just(Robust::Direction)];
    (rule, average, correction, cap, robust).prop_map(|(rule, average, correction, tokens_cap, robust)| MergeSpec {
        rule,
        average: Some(average),
        correction,
        robust: Some(robust),
        tokens_cap,
        ..MergeSpec::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever the rule, a merger restored from any version's checkpoint goes on to the same bits as the one that
    /// never stopped, and so do the weights of a device that applies what is published.
    #[test]
    fn a_checkpoint_goes_on_to_the_same_bits(
        merge in any_merge(),
        rounds in proptest::collection::vec((1u64..7, any::<bool>()), 2..7),
        stop in 0usize..7,
    ) {
        let spec = RunSpec { merge, ..spec(0.0) };
        spec.validate().unwrap();
        let mut merger = started(&spec);
        let mut restored = None;
        let mut device = merger.weights().clone();
        for (round, (deltas, is_keyframe)) in rounds.into_iter().enumerate() {
            if round == stop {
                restored = Some(Merger::restore(spec.clone(), &merger.checkpoint()).unwrap());
                prop_assert_eq!(restored.as_ref(), Some(&merger));
            }
            let first = merger.last_seq() + 1;
            let version = merger.weights().version.next();
            let mut published = vec![];
            for merger in [Some(&mut merger), restored.as_mut()].into_iter().flatten() {
                for seq in first..first + deltas {
                    let order = order(seq, 100 * (1 + seq % 5), if seq % 3 == 0 { 0.5 } else { 1.0 });
                    merger.add(&order, &noisy(&spec, seq)).unwrap();
                }
                published.push(merger.publish(version, is_keyframe).unwrap());
            }
            prop_assert!(published.iter().all(|p| p == &published[0]));
            update::apply(&spec.model, &mut device, published[0].update.as_ref().unwrap()).unwrap();
            if is_keyframe {
                let n = spec.model.parameters();
                keyframe::redefine(&mut device, &mut vec![0.0; n]);
            }
            prop_assert_eq!(device.digest(), published[0].digest);
            prop_assert!(merger.feedback.iter().all(|f| f.is_finite()));
        }
        if let Some(restored) = restored {
            prop_assert_eq!(restored, merger);
        }
    }
}

/// By how much the first weight moves down when these deltas, each of one value throughout, make version 1.
fn moved(spec: &RunSpec, deltas: &[(u64, f64, f32)]) -> f32 {
    let mut merger = started(spec);
    let before = merger.weights().flat()[0];
    for ((tokens, weight, value), seq) in deltas.iter().zip(1..) {
        merger.add(&order(seq, *tokens, *weight), &delta(spec, *value)).unwrap();
    }
    merger.publish(Version(1), false).unwrap();
    before - merger.weights().flat()[0] - merger.feedback[0]
}

#[test]
fn a_cap_bounds_what_one_device_says() {
    let mut spec = spec(0.0);
    let deltas = [(100, 1.0, 0.01), (100, 1.0, 0.01), (1000, 1.0, 0.05)];
    // (200 · 0.01 + 1000 · 0.05) / 1200
    assert!((moved(&spec, &deltas) - 0.043_333).abs() < 1e-4);
    spec.merge.tokens_cap = 2.0;
    // (200 · 0.01 + 200 · 0.05) / 400
    assert!((moved(&spec, &deltas) - 0.03).abs() < 1e-4);
    spec.merge.tokens_cap = 10.0;
    assert!((moved(&spec, &deltas) - 0.043_333).abs() < 1e-4, "the cap is not reached");
}

#[test]
fn fed_async_is_the_mean_of_one_with_its_rate_and_staleness() {
    let mut spec = spec(0.0);
    spec.merge = MergeSpec { rule: MergeRule::Mean, learning_rate: 0.6, ..spec.merge };
    // α = 0.6, τ = 3: 0.6 · (1 + 3)^-0.5 = 0.3, whatever the tokens.
    let weight = spec.merge.staleness.weight(3);
    assert!((moved(&spec, &[(700, weight, 0.1)]) - 0.03).abs() < 1e-4);
}

#[test]
fn agreement_is_measured() {
    let spec = spec(0.0);
    let mut merger = started(&spec);
    merger.add(&order(1, 100, 1.0), &noisy(&spec, 1)).unwrap();
    assert_eq!(merger.publish(Version(1), false).unwrap().agreement, None, "one delta");
    for seq in 2..10 {
        merger.add(&order(seq, 100, 1.0), &noisy(&spec, seq)).unwrap();
    }
    let share = merger.publish(Version(2), false).unwrap().agreement.unwrap();
    assert!((share - 0.5).abs() < 0.1, "as much signal as noise: {share}");
}

#[test]
fn delayed_momentum_moves_at_every_second_version() {
    let mut spec = spec(0.0);
    spec.merge.rule = MergeRule::DelayedNesterov { momentum: 0.5, interval: 2, c: 0.0 };
    let mut merger = started(&spec);
    let start = merger.weights().flat()[0];
    let mut moved = vec![];
    for round in 1..=4 {
        merger.add(&order(round, 100, 1.0), &delta(&spec, 0.02)).unwrap();
        merger.publish(Version(round), false).unwrap();
        moved.push(f64::from(start - merger.weights().flat()[0] - merger.feedback[0]));
    }
    // 0.01; + 0.01 + 0.5 · 0.02; + 0.01; + 0.01 + 0.5 · (0.5 · 0.02 + 0.02)
    for (got, want) in moved.iter().zip([0.01, 0.03, 0.04, 0.065]) {
        assert!((got - want).abs() < 2e-4, "{moved:?}");
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
    let with = |bytes: &[u8], at: usize, number: u64| {
        let mut body = bytes[..bytes.len() - 32].to_vec();
        body[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let hash = *blake3::hash(&body).as_bytes();
        [body, hash.to_vec()].concat()
    };
    // The last delta, an agreement, arrivals, the version: numbers that nothing can follow, under a hash that fits.
    for at in [8, 16, 24, 32, 8 + 32 + 8 * RECENT] {
        assert!(Merger::restore(spec.clone(), &with(&bytes, at, u64::MAX)).is_none(), "{at}");
    }
    let rule = MergeRule::DelayedNesterov { momentum: 0.5, interval: 3, c: 0.0 };
    let delayed = RunSpec { merge: MergeSpec { rule, ..spec.merge.clone() }, ..spec.clone() };
    let of_delayed = started(&delayed).checkpoint();
    for (arrived, is_possible) in [(2, true), (3, false), (u64::from(u32::MAX), false)] {
        let restored = Merger::restore(delayed.clone(), &with(&of_delayed, 32, arrived));
        assert_eq!(restored.is_some(), is_possible, "{arrived} arrivals of 3");
    }
    let rule = MergeRule::Nesterov { momentum: 0.5 };
    let other = RunSpec { merge: MergeSpec { rule, ..spec.merge.clone() }, ..spec };
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
    let Measured { norm, largest } = measure(&spec, &delta(&spec, 3.0)).unwrap();
    assert!((norm - 3.0 * n.sqrt()).abs() < 0.01 * norm);
    assert!((largest - 3.0).abs() < 0.03, "{largest}");
}
