//! config.json and its companions, under the keys that `transformers` knows.

use super::ExportError;
use nightjar_shared::model_spec::ModelSpec;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// The token that ends a document, where the vocabulary has one.
pub struct EndOfText {
    id: u32,
    content: String,
}

/// Looks for the end of text among a tokenizer's tokens: the one that the data ends with, else one that is known. All
/// tokens must be the model's too.
pub fn end_of_text(
    tokenizer: &[u8],
    of_data: Option<u32>,
    model: &ModelSpec,
) -> Result<Option<EndOfText>, ExportError> {
    let tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|e| ExportError::BadTokenizer(e.to_string()))?;
    let tokens = tokenizer.get_vocab_size(true);
    if tokens > model.vocab_size as usize {
        return Err(ExportError::Vocabulary { tokenizer: tokens, model: model.vocab_size });
    }
    if let Some(end) = of_data.and_then(|id| Some(EndOfText { id, content: tokenizer.id_to_token(id)? })) {
        return Ok(Some(end));
    }
    let known = crate::dataset::END_OF_TEXT.iter();
    Ok(known
        .copied()
        .find_map(|content| Some(EndOfText { id: tokenizer.token_to_id(content)?, content: content.to_owned() })))
}

/// config.json.
pub fn model_config(model: &ModelSpec, end: Option<&EndOfText>) -> Value {
    json!({
        "architectures": [model.model_type.architecture()],
        "model_type": model.model_type,
        "torch_dtype": "float32",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_size(),
        "max_position_embeddings": model.max_position_embeddings,
        "rope_theta": model.rope_theta,
        "rope_scaling": null,
        "rms_norm_eps": model.rms_norm_eps,
        "tie_word_embeddings": model.tie_word_embeddings,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "initializer_range": 0.02,
        "use_cache": true,
        "bos_token_id": null,
        "eos_token_id": end.map(|end| end.id),
        "pad_token_id": null,
    })
}

/// generation_config.json: draw from the model's distribution as it is.
pub fn generation_config(end: Option<&EndOfText>) -> Value {
    json!({
        "bos_token_id": null,
        "eos_token_id": end.map(|end| end.id),
        "do_sample": true,
    })
}

/// tokenizer_config.json: read tokenizer.json as it is. Without it `transformers` would guess a class by the model's
/// type.
pub fn tokenizer_config(model: &ModelSpec, end: Option<&EndOfText>) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.max_position_embeddings,
        "clean_up_tokenization_spaces": false,
        "eos_token": end.map(|end| &end.content),
    })
}
