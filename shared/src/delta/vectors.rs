//! The test vectors of docs/protocol.md: what they say is what is encoded, and it decodes.

use super::*;
use data_encoding::HEXLOWER;

/// One layer; an embedding of `vocab_size` × 2 and eleven small tensors.
fn model(vocab_size: u32) -> ModelSpec {
    let width = ModelSpec { hidden_size: 2, intermediate_size: 1, num_hidden_layers: 1, ..ModelSpec::tiny() };
    ModelSpec { vocab_size, num_attention_heads: 1, num_key_value_heads: 1, ..width }
}

fn dense_input(i: usize) -> f32 {
    (i as f32 % 7.0 - 3.0) * (i as f32 + 1.0) / 64.0
}

fn sparse_input(i: usize) -> f32 {
    (i as u32).wrapping_mul(2_654_435_761) as i32 as f32 / 137_438_953_472.0 // 2^37
}

#[test]
fn the_protocols_vectors_are_what_is_encoded() {
    let protocol = include_str!("../../../docs/protocol.md");
    for codec in CodecId::ALL {
        let (model, input): (_, fn(usize) -> f32) =
            if *codec == CodecId::Sparse2 { (model(2100), sparse_input) } else { (model(5), dense_input) };
        let delta = DeltaSpec { codec: *codec, k: 8, ..DeltaSpec::default() };
        let gradient: Vec<f32> = (0..model.parameters()).map(input).collect();
        let mut residual = vec![0.0; gradient.len()];
        let hex = HEXLOWER.encode(&encode(&model, &delta, &gradient, &mut residual));
        let line = format!("{} {hex}\n", serde_json::to_value(codec).unwrap().as_str().unwrap());
        assert!(protocol.contains(&line), "docs/protocol.md should have:\n{line}");
        let mut lost = gradient.clone();
        add_scaled(&model, &HEXLOWER.decode(hex.as_bytes()).unwrap(), &vec![-1.0; model.tensors().len()], &mut lost)
            .unwrap();
        assert_eq!(lost, residual, "{codec:?}");
    }
}
