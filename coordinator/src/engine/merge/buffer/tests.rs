//! What the buffer averages, on a model of a few tensors, against numbers worked by hand.

use super::*;
use nightjar_shared::{
    delta::CodecId,
    run_spec::{DeltaSpec, MergeSpec},
};

fn model() -> ModelSpec {
    ModelSpec {
        vocab_size: 3,
        hidden_size: 4,
        intermediate_size: 2,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        ..ModelSpec::tiny()
    }
}

fn with(merge: MergeSpec) -> Buffer {
    Buffer::new(&RunSpec { model: model(), merge, ..RunSpec::new("x", 1) })
}

fn new(average: Average, robust: Robust) -> Buffer {
    with(MergeSpec { average: Some(average), robust: Some(robust), ..MergeSpec::default() })
}

/// A delta whose tensor `t` has these first two values, and is zero elsewhere.
fn delta(values: &[(usize, [f32; 2])]) -> Vec<u8> {
    let model = model();
    let mut flat = vec![0.0; model.parameters()];
    for (t, pair) in values {
        flat[model.tensors()[*t].offset..][..2].copy_from_slice(pair);
    }
    let exact = DeltaSpec { codec: CodecId::F32, ..DeltaSpec::default() };
    delta::encode(&model, &exact, &flat, &mut vec![0.0; model.parameters()])
}

fn pair(flat: &[f32], tensor: usize) -> [f32; 2] {
    let at = model().tensors()[tensor].offset;
    [flat[at], flat[at + 1]]
}

fn close(got: [f32; 2], want: [f32; 2]) {
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?}, expected {want:?}");
}

#[test]
fn tokens_decide_each_deltas_share_and_staleness_shortens_the_step() {
    let mut buffer = new(Average::Mean, Robust::None);
    buffer.add(300, 1.0, &delta(&[(2, [1.0, 0.0])]), &[]).unwrap();
    // Three versions stale: (1 + 3)^-0.5 = 0.5.
    buffer.add(100, MergeSpec::default().staleness.weight(3), &delta(&[(2, [5.0, 0.0])]), &[]).unwrap();
    // (300·1 + 100·0.5·5) / 400
    close(pair(buffer.average(), 2), [1.375, 0.0]);
    buffer.clear();
    assert_eq!(buffer, new(Average::Mean, Robust::None));
}

#[test]
fn rda_keeps_the_length_where_deltas_disagree_and_averages_the_embedding_plainly() {
    let mut buffer = new(Average::Rda, Robust::None);
    buffer.add(100, 1.0, &delta(&[(0, [2.0, 0.0]), (2, [3.0, 0.0])]), &[]).unwrap();
    buffer.add(100, 1.0, &delta(&[(0, [0.0, 2.0]), (2, [0.0, 1.0])]), &[]).unwrap();
    let average = buffer.average();
    close(pair(average, 0), [1.0, 1.0]);
    // Lengths 3 and 1, so 2 on average; directions (1, 0) and (0, 1), so (1, 1)/√2. The plain mean is (1.5, 0.5).
    close(pair(average, 2), [2f32.sqrt(), 2f32.sqrt()]);
    close(pair(average, 3), [0.0, 0.0]);
}

#[test]
fn rda_counts_tokens_and_staleness_once_in_each_average() {
    let mut buffer = new(Average::Rda, Robust::None);
    buffer.add(300, 1.0, &delta(&[(2, [4.0, 0.0])]), &[]).unwrap();
    buffer.add(100, 0.5, &delta(&[(2, [0.0, 8.0])]), &[]).unwrap();
    // Length: (300·4 + 100·0.5·8) / 400 = 4. Direction: (300, 50), of length 304.138.
    close(pair(buffer.average(), 2), [4.0 * 300.0 / 304.138_13, 4.0 * 50.0 / 304.138_13]);
}

#[test]
fn heloco_turns_each_delta_before_it_is_averaged() {
    let model = model();
    let mut momentum = vec![0.0; model.parameters()];
    momentum[model.tensors()[2].offset] = 5.0;
    for average in [Average::Mean, Average::Rda] {
        let mut buffer = with(MergeSpec {
            average: Some(average),
            correction: run_spec::Correction::Heloco,
            ..MergeSpec::default()
        });
        buffer.add(10, 1.0, &delta(&[(2, [-3.0, 4.0]), (3, [1.0, 1.0])]), &momentum).unwrap();
        // As worked out in `heloco`: −3 becomes −2.1. A tensor without momentum stays. What is in the sum is ten times
        // that, or ten times the two tensors' directions.
        let in_sum = if average == Average::Mean { 100.0 * (2.1f64 * 2.1 + 16.0 + 2.0) } else { 200.0 };
        assert!((buffer.squares / in_sum - 1.0).abs() < 1e-6, "{} {in_sum}", buffer.squares);
        assert!((buffer.square_of_sum() / in_sum - 1.0).abs() < 1e-6, "one delta is its own sum");
        close(pair(buffer.average(), 2), [-2.1, 4.0]);
        close(pair(&buffer.sum, 3), [1.0, 1.0]);
    }
}

#[test]
fn a_damaged_delta_changes_nothing() {
    for average in [Average::Mean, Average::Rda] {
        let mut buffer = new(average, Robust::None);
        let untouched = buffer.clone();
        let mut bytes = delta(&[(2, [1.0, 2.0])]);
        bytes.pop();
        assert!(buffer.add(10, 1.0, &bytes, &[]).is_err());
        assert_eq!(buffer, untouched);
    }
}

#[test]
fn runs_are_cut_where_tensors_end() {
    let layout = model().tensors();
    let flat: Vec<f32> = (0..model().parameters()).map(|i| i as f32).collect();
    let mut seen: Vec<f32> = vec![];
    let mut tensors = Cutter::new(&layout);
    for (at, run) in [(0, &flat[..5]), (5, &flat[5..20]), (30, &flat[30..])] {
        tensors.cut(at, run, |t, at, values| {
            assert!(layout[t].range().contains(&at) && at + values.len() <= layout[t].range().end);
            assert_eq!(values[0], at as f32);
            seen.extend(values);
        });
    }
    let expected: Vec<f32> = flat[..20].iter().chain(&flat[30..]).copied().collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_is_clipped_ends_at_the_usual_distance_from_the_momentum() {
    let model = model();
    let mut momentum = vec![0.0; model.parameters()];
    // The rule has no momentum of its own, so this fades by a tenth a version: the centre is (1, 0).
    momentum[model.tensors()[2].offset] = 10.0;
    let mut buffer = new(Average::Mean, Robust::Clip);
    for pair in [[2.0, 0.0], [1.0, 1.0], [1.0, -1.0], [-3.0, 4.0]] {
        buffer.add(10, 1.0, &delta(&[(2, pair)]), &momentum).unwrap();
    }
    buffer.settle(&momentum).unwrap();
    // Distances 1, 1, 1 and √32: the last becomes (1, 0) + (−4, 4)/√32.
    let root = 0.5f32.sqrt();
    close(pair(buffer.average(), 2), [(2.0 + 1.0 + 1.0 + 1.0 - root) / 4.0, root / 4.0]);
}

#[test]
fn what_the_others_speak_against_is_neither_added_nor_counted() {
    let mut buffer = new(Average::Mean, Robust::Direction);
    for (tokens, pair) in [(100, [1.0, 0.0]), (300, [1.0, 1.0]), (100, [0.0, 1.0]), (100, [-9.0, -9.0])] {
        buffer.add(tokens, 1.0, &delta(&[(2, pair)]), &[]).unwrap();
    }
    assert!(!buffer.is_empty());
    buffer.settle(&[]).unwrap();
    // (100·1 + 300·1) / 500
    close(pair(buffer.average(), 2), [0.8, 0.8]);
}

#[test]
fn more_than_a_company_are_judged_in_turn_and_few_are_left_alone() {
    let opposite = delta(&[(2, [-1.0, 0.0])]);
    let honest = |y: f32| delta(&[(2, [1.0, y])]);
    for robust in [Robust::Clip, Robust::Direction] {
        let mut few = new(Average::Mean, robust);
        for bytes in [&honest(0.0), &honest(0.0), &opposite] {
            few.add(10, 1.0, bytes, &[]).unwrap();
        }
        few.settle(&[]).unwrap();
        close(pair(few.average(), 2), [1.0 / 3.0, 0.0]);
    }
    let mut many = new(Average::Mean, Robust::Direction);
    for number in 0..COMPANY {
        many.add(10, 1.0, &honest(if number % 2 == 0 { 1.0 } else { -1.0 }), &[]).unwrap();
    }
    assert!(many.held.is_empty(), "they were judged");
    many.add(10, 1.0, &opposite, &[]).unwrap();
    many.settle(&[]).unwrap();
    assert!(pair(many.average(), 2)[0] > 0.999);
}
