//! The whole versions of docs/protocol.md: what they say is what is written, and reading them ends in the same bits.

use super::*;
use crate::delta::CodecId;
use data_encoding::HEXLOWER;

/// One layer of width 2, over five tokens: 38 parameters.
fn model() -> ModelSpec {
    let width = ModelSpec { hidden_size: 2, intermediate_size: 1, num_hidden_layers: 1, ..ModelSpec::tiny() };
    ModelSpec { vocab_size: 5, num_attention_heads: 1, num_key_value_heads: 1, ..width }
}

/// The change of one version.
fn change(feedback: &mut [f32]) {
    for (i, f) in feedback.iter_mut().enumerate() {
        *f += (i as f32 % 5.0 - 2.0) / 512.0;
    }
}

#[test]
fn the_protocols_versions_are_what_is_written() {
    let protocol = include_str!("../../../docs/protocol.md");
    let holds = |name: &str, bytes: &[u8]| {
        let line = format!("{name} {}\n", HEXLOWER.encode(bytes));
        assert!(protocol.contains(&line), "docs/protocol.md should have:\n{line}");
    };
    let model = model();
    let drawn: Vec<f32> = (0..model.parameters()).map(|i| (i as f32 % 7.0 - 3.0) * (i as f32 + 1.0) / 64.0).collect();
    let (mut start, mut rest) = (Weights::start(&model, &drawn), vec![0.0; drawn.len()]);
    keyframe::redefine(&mut start, &mut rest);
    let first = keyframe::encode(&model, &start);
    holds("keyframe", &first);
    assert_eq!(keyframe::decode(&model, &first).unwrap(), start);

    let publish = |from: &Weights, feedback: &mut [f32], codec| {
        let mut weights = from.clone();
        change(feedback);
        let bytes = update::publish(&model, codec, &mut weights, feedback);
        let mut read = from.clone();
        update::apply(&model, &mut read, &bytes).unwrap();
        assert_eq!(read, weights, "{codec:?}");
        (weights, bytes)
    };
    for (name, codec) in [
        ("update-blocks8", CodecId::Blocks8),
        ("update-blocks4", CodecId::Blocks4),
        ("update-blocks2", CodecId::Blocks2),
    ] {
        holds(name, &publish(&start, &mut rest.clone(), codec).1);
    }
    let (once, one) = publish(&start, &mut rest, CodecId::Blocks4);
    let (twice, two) = publish(&once, &mut rest, CodecId::Blocks4);
    let both = update::squash(&model, &[&one, &two]).unwrap();
    holds("update-squash", &both);
    holds("digest", &twice.digest());
    update::apply(&model, &mut start, &both).unwrap();
    assert_eq!(start, twice);
}
