//! What every version must agree on: the layout of a model, and its first weights.

use super::*;
use crate::{
    ids::BlobHash,
    version::{Weights, keyframe},
};

/// Figures from the PyTorch reference's golden.json: count, first values, sum and sum of squares.
#[test]
fn tiny_starts_from_the_references_weights() {
    let spec = ModelSpec::tiny();
    let w = spec.draw_all(1);
    assert_eq!(w.len(), 824_448);
    let first = [
        -0.007_147_702_388_465_404_5,
        0.002_719_067_037_105_560_3,
        0.029_507_834_464_311_6,
        -0.022_009_300_068_020_82,
        -0.001_157_494_960_352_777_8,
    ];
    for (got, want) in w.iter().zip(first) {
        assert!((f64::from(*got) - want).abs() < 1e-9, "{got} {want}");
    }
    let sum: f64 = w.iter().map(|x| f64::from(*x)).sum();
    let squares: f64 = w.iter().map(|x| f64::from(*x).powi(2)).sum();
    assert!((sum - 1_158.859_437_344_688_6).abs() < 1e-3, "{sum}");
    assert!((squares - 1_396.801_534_623_028_1).abs() < 1e-3, "{squares}");
}

#[test]
fn tensors_tile_the_flat_vector() {
    let spec = ModelSpec { num_key_value_heads: 2, tie_word_embeddings: false, ..ModelSpec::small() };
    let mut next = 0;
    for t in spec.tensors() {
        assert_eq!(t.offset, next, "{}", t.name);
        next += t.len();
    }
    assert_eq!(next, spec.parameters());
}

#[test]
fn impossible_shapes_are_refused_by_key() {
    let bad = ModelSpec { num_attention_heads: 3, ..ModelSpec::tiny() };
    assert!(bad.validate().unwrap_err().to_string().contains("model.hidden_size must be a multiple"));
    assert!(ModelSpec { vocab_size: 0, ..ModelSpec::tiny() }.validate().is_err());
    let refusal = |spec: ModelSpec| spec.validate().unwrap_err().to_string();
    assert_eq!(
        refusal(ModelSpec { rope_theta: -2.0, ..ModelSpec::tiny() }),
        "model.rope_theta is -2.0; allowed is 1e-3 to 1e30"
    );
    assert!(ModelSpec { rope_theta: f64::NAN, ..ModelSpec::tiny() }.validate().is_err());
    assert!(refusal(ModelSpec { hidden_size: 20, ..ModelSpec::tiny() }).contains("20 / 4 = 5, which is odd"));
    ModelSpec::tiny().validate().unwrap();
}

#[test]
fn memory_grows_with_the_context_and_not_with_its_square() {
    let sample = |context: u32| {
        let spec = ModelSpec { max_position_embeddings: context, ..ModelSpec::small() };
        spec.training_bytes() - spec.state_bytes()
    };
    assert!(sample(128) < 16 << 20 && sample(16_384) > 256 << 20, "{} and {}", sample(128), sample(16_384));
    assert_eq!(sample(32_768) - sample(16_384), 2 * (sample(16_384) - sample(8192)));
}

/// Recorded from the version that wrote the list by hand: names, shapes, places and decay.
const TENSORS: &str = "\
model.embed_tokens.weight [6, 8] at 0, decays
model.layers.0.input_layernorm.weight [8] at 48
model.layers.0.self_attn.q_proj.weight [8, 8] at 56, decays
model.layers.0.self_attn.k_proj.weight [4, 8] at 120, decays
model.layers.0.self_attn.v_proj.weight [4, 8] at 152, decays
model.layers.0.self_attn.o_proj.weight [8, 8] at 184, decays
model.layers.0.post_attention_layernorm.weight [8] at 248
model.layers.0.mlp.gate_proj.weight [10, 8] at 256, decays
model.layers.0.mlp.up_proj.weight [10, 8] at 336, decays
model.layers.0.mlp.down_proj.weight [8, 10] at 416, decays
model.layers.1.input_layernorm.weight [8] at 496
model.layers.1.self_attn.q_proj.weight [8, 8] at 504, decays
model.layers.1.self_attn.k_proj.weight [4, 8] at 568, decays
model.layers.1.self_attn.v_proj.weight [4, 8] at 600, decays
model.layers.1.self_attn.o_proj.weight [8, 8] at 632, decays
model.layers.1.post_attention_layernorm.weight [8] at 696
model.layers.1.mlp.gate_proj.weight [10, 8] at 704, decays
model.layers.1.mlp.up_proj.weight [10, 8] at 784, decays
model.layers.1.mlp.down_proj.weight [8, 10] at 864, decays
model.norm.weight [8] at 944
lm_head.weight [6, 8] at 952, decays
";

/// Two layers with grouped heads and a head of its own.
fn little() -> ModelSpec {
    ModelSpec {
        vocab_size: 6,
        hidden_size: 8,
        intermediate_size: 10,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        tie_word_embeddings: false,
        ..ModelSpec::tiny()
    }
}

/// Ledgers and devices hold weights in this order.
#[test]
fn a_llamas_tensors_stay_where_they_are() {
    let line = |t: &TensorSpec| {
        let decays = if t.role.decays() { ", decays" } else { "" };
        format!("{} {:?} at {}{decays}\n", t.name, t.shape, t.offset)
    };
    assert_eq!(little().tensors().iter().map(line).collect::<String>(), TENSORS);
    let tied: String = ModelSpec { tie_word_embeddings: true, ..little() }.tensors().iter().map(line).collect();
    assert_eq!(Some(tied.as_str()), TENSORS.strip_suffix("lm_head.weight [6, 8] at 952, decays\n"));
}

/// A run that is replayed from version 0 draws it once more.
#[test]
fn a_llama_starts_from_the_same_bits() {
    for (spec, seed, hash) in [
        (ModelSpec::tiny(), 1, "2800a71b53ea19c66a6040c613eabcd40bc6cf90ab0c5b503d68fc56a6e3500e"),
        (little(), 7, "4981ffe3811d2492c9ce805ff9e9e1cf73ba96347fd59626517cebb16f0a5075"),
    ] {
        let first = Weights::start(&spec, &spec.draw_all(seed));
        assert_eq!(BlobHash::of(&keyframe::encode(&spec, &first)).to_string(), hash);
    }
}

/// A run's id is a hash of this text.
#[test]
fn a_llama_is_written_as_ever() {
    let text = [
        r#"{"vocab_size":6,"hidden_size":8,"intermediate_size":10,"num_hidden_layers":2,"num_attention_heads":2"#,
        r#""num_key_value_heads":1,"max_position_embeddings":128,"rope_theta":10000.0,"rms_norm_eps":0.00001"#,
        r#""tie_word_embeddings":false}"#,
    ];
    assert_eq!(serde_json::to_string(&little()).unwrap(), text.join(","));
}

/// Qwen3-0.6B: figures from its config.json and its model card.
fn qwen3() -> ModelSpec {
    ModelSpec {
        model_type: Family::Qwen3,
        vocab_size: 151_936,
        hidden_size: 1024,
        intermediate_size: 3072,
        num_hidden_layers: 28,
        num_attention_heads: 16,
        num_key_value_heads: 8,
        head_dim: Some(128),
        max_position_embeddings: 40_960,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
    }
}

#[test]
fn another_family_has_its_own_layers() {
    assert_eq!(qwen3().parameters(), 596_049_920);
    let tensors = qwen3().tensors();
    let last_layer: Vec<_> = tensors.iter().filter(|t| t.layer == Some(27)).map(|t| (&*t.name, &*t.shape)).collect();
    assert_eq!(
        last_layer,
        [
            ("model.layers.27.input_layernorm.weight", [1024].as_slice()),
            ("model.layers.27.self_attn.q_proj.weight", &[2048, 1024]),
            ("model.layers.27.self_attn.k_proj.weight", &[1024, 1024]),
            ("model.layers.27.self_attn.v_proj.weight", &[1024, 1024]),
            ("model.layers.27.self_attn.q_norm.weight", &[128]),
            ("model.layers.27.self_attn.k_norm.weight", &[128]),
            ("model.layers.27.self_attn.o_proj.weight", &[1024, 2048]),
            ("model.layers.27.post_attention_layernorm.weight", &[1024]),
            ("model.layers.27.mlp.gate_proj.weight", &[3072, 1024]),
            ("model.layers.27.mlp.up_proj.weight", &[3072, 1024]),
            ("model.layers.27.mlp.down_proj.weight", &[1024, 3072]),
        ]
    );
    assert_eq!(tensors.len(), 1 + 28 * 11 + 1);
    let gains = tensors.iter().filter(|t| !t.role.decays());
    assert_eq!(gains.map(TensorSpec::len).sum::<usize>(), 28 * (2 * 1024 + 2 * 128) + 1024);
    // q, k and v are one matrix, and so are gate and up.
    assert_eq!(tensors.last().map(|t| t.group), Some(1 + 28 * 8));
    let text = serde_json::to_string(&qwen3()).unwrap();
    assert_eq!(serde_json::from_str::<ModelSpec>(&text).unwrap(), qwen3());
}

#[test]
fn a_family_without_formulas_is_refused() {
    let refusal = qwen3().validate().unwrap_err();
    assert_eq!(refusal.to_string(), "model.model_type is \"qwen3\"; only \"llama\" can be trained");
    let wide = ModelSpec { head_dim: Some(64), ..ModelSpec::tiny() }.validate().unwrap_err().to_string();
    assert_eq!(wide, "model.head_dim is 64; only hidden_size / num_attention_heads = 32 can be trained");
    ModelSpec { head_dim: Some(32), ..ModelSpec::tiny() }.validate().unwrap();
    let odd = ModelSpec { head_dim: Some(127), ..qwen3() }.validate().unwrap_err().to_string();
    assert_eq!(odd, "model.head_dim is 127, which is odd; it must be even");
    assert!(ModelSpec { head_dim: Some(0), ..qwen3() }.validate().is_err());
}
