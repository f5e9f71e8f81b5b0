//! Models and tokenizers as other programs write them.

use super::{put, small_model};
use nightjar_coordinator::dataset::byte_tokenizer;
use nightjar_shared::{
    model_folder::{ModelFolder, ModelFolderError},
    tokenizer::TextTokenizer,
};
use safetensors::{Dtype, tensor::TensorView};

/// A folder of config.json and model.safetensors; the first two bytes say how long the config is.
pub fn folder(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first_chunk() else { return };
    let (config, tensors) = bytes.split_at(usize::from(u16::from_le_bytes(*cut)).min(bytes.len()));
    let folder = put(&[("config.json", config), ("model.safetensors", tensors)]);
    let Ok(mut model) = ModelFolder::open(&folder) else { return };
    model.spec().validate().expect("it is taken");
    keeps(&model);
    model.tie_head();
    keeps(&model);
}

/// The header says that all weights are there. What they are is seen only when they are read.
fn keeps(model: &ModelFolder) {
    match model.weights() {
        Ok(weights) => {
            assert_eq!(weights.len(), model.spec().parameters());
            assert!(weights.iter().all(|weight| weight.is_finite()));
        }
        Err(ModelFolderError::Refused { reason, .. }) => assert!(reason.contains("not finite"), "{reason}"),
        Err(error) => panic!("{error}"),
    }
}

pub fn folders() -> Vec<Vec<u8>> {
    let model = small_model();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size, "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers, "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads, "max_position_embeddings": model.max_position_embeddings,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "hidden_act": "silu"
    });
    let config = serde_json::to_vec(&config).expect("plain data");
    let of = |dtype: Dtype, bytes: usize| {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> =
            model.tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), vec![0; bytes * t.len()])).collect();
        let views = data
            .iter()
            .map(|(name, shape, data)| (name.as_str(), TensorView::new(dtype, shape.clone(), data).expect("it fits")));
        let tensors = safetensors::serialize(views, None).expect("it can be written");
        [&(config.len() as u16).to_le_bytes()[..], &config, &tensors].concat()
    };
    vec![of(Dtype::F32, 4), of(Dtype::BF16, 2)]
}

/// A tokenizer.json, and some text for it.
pub fn tokenizer(bytes: &[u8]) {
    let Ok(tokenizer) = TextTokenizer::new(bytes, &["<|endoftext|>".to_owned()]) else { return };
    for text in ["", "the fox <|endoftext|> jumps", "Zwölf 🦊\r\n\u{0}\u{ad}"] {
        let Ok(tokens) = tokenizer.encode(text) else { continue };
        let is_known = |id: &u32| (*id as usize) < tokenizer.size();
        assert!(tokens.iter().all(is_known), "{tokens:?} of {}", tokenizer.size());
    }
}

pub fn tokenizers() -> Vec<Vec<u8>> {
    let bytes = byte_tokenizer().expect("a tokenizer of bytes");
    let special = serde_json::json!([{"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}]);
    let vocabulary: Vec<_> =
        "abcdefghijklmnop ".chars().map(|letter| serde_json::json!([letter.to_string(), -3.0])).collect();
    let vocabulary: Vec<_> = [serde_json::json!(["<unk>", 0.0])].into_iter().chain(vocabulary).collect();
    let unigram = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": null, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": vocabulary}});
    let bpe = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "NFC"}, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": 0.1, "unk_token": "a", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}});
    let mut seeds =
        vec![serde_json::to_vec(&unigram).expect("plain data"), serde_json::to_vec(&bpe).expect("plain data")];
    seeds.extend((bytes.len() <= 16 << 10).then_some(bytes));
    seeds
}
