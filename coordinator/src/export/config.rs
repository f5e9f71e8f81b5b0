//! config.json and its companions, under the keys that `transformers` knows.

use super::{Companions, Dtype, ExportError};
use nightjar_shared::model_spec::ModelSpec;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use tokenizers::Tokenizer;

/// A token with a part to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub content: String,
}

/// The special tokens of a model's vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    /// Begins a text, where somebody writes it there: training never saw it, so nothing puts it there by itself.
    pub bos: Option<Special>,
    /// Ends one.
    pub eos: Option<Special>,
    /// Fills a batch up.
    pub pad: Option<Special>,
    /// Stands for what no other token does.
    pub unk: Option<Special>,
    /// All that end what is generated: the above, what ended the data's documents, and those of the start.
    pub ends: BTreeSet<u32>,
}

impl Specials {
    /// Looks for them among a tokenizer's tokens. A run that started from a folder has that one's; else the end of text
    /// is the token that the data ends with, or one that is known. All tokens must be the model's too.
    pub fn find(
        tokenizer: &[u8],
        of_data: Option<u32>,
        companions: &Companions,
        model: &ModelSpec,
    ) -> Result<Self, ExportError> {
        let tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|e| ExportError::BadTokenizer(e.to_string()))?;
        let tokens = tokenizer.get_vocab_size(true);
        if tokens > model.vocab_size as usize {
            return Err(ExportError::Vocabulary { tokenizer: tokens, model: model.vocab_size });
        }
        let named = |name: &str| Some(Special { id: tokenizer.token_to_id(name)?, content: name.to_owned() });
        let of = |name: &Option<String>| name.as_deref().and_then(named);
        let of_data = of_data.and_then(|id| Some(Special { id, content: tokenizer.id_to_token(id)? }));
        let known = || crate::dataset::END_OF_TEXT.iter().copied().find_map(named);
        let eos = of(&companions.eos).or_else(|| of_data.clone()).or_else(known);
        // Library defaults are often left there: a number counts only if no text becomes it.
        let added = tokenizer.get_added_tokens_decoder();
        let stated = companions.generation.get("eos_token_id").map(ids).unwrap_or_default().into_iter();
        let stated = stated.filter(|id| added.get(id).is_some_and(|token| token.special));
        let ends = stated.chain([&eos, &of_data].into_iter().flatten().map(|special| special.id)).collect();
        Ok(Specials { bos: of(&companions.bos), pad: of(&companions.pad), unk: of(&companions.unk), eos, ends })
    }

    fn end_ids(&self) -> Value {
        match self.ends.len() {
            0 => Value::Null,
            1 => self.ends.first().copied().into(),
            _ => self.ends.iter().copied().collect(),
        }
    }
}

/// A number, or several.
fn ids(value: &Value) -> Vec<u32> {
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    values.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn id(special: &Option<Special>) -> Value {
    special.as_ref().map(|special| special.id).into()
}

/// config.json.
pub fn model_config(model: &ModelSpec, dtype: Dtype, specials: &Specials) -> Value {
    json!({
        "architectures": [model.model_type.architecture()],
        "model_type": model.model_type,
        "torch_dtype": dtype.name(),
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
        "bos_token_id": id(&specials.bos),
        "eos_token_id": specials.end_ids(),
        "pad_token_id": id(&specials.pad),
    })
}

/// generation_config.json: what the start's says; else, draw from the model's distribution as it is.
pub fn generation_config(companions: &Companions, specials: &Specials) -> Value {
    let mut config = companions.generation.clone();
    if config.is_empty() {
        config.insert("do_sample".to_owned(), true.into());
    }
    config.insert("bos_token_id".to_owned(), id(&specials.bos));
    config.insert("eos_token_id".to_owned(), specials.end_ids());
    config.insert("pad_token_id".to_owned(), id(&specials.pad));
    let of_library = ["transformers_version", "_from_model_config"];
    config.retain(|key, value| !value.is_null() && !of_library.contains(&&**key));
    config.into()
}

/// tokenizer_config.json: read tokenizer.json as it is. Without it `transformers` would guess a class by the model's
/// type, and that class might put a token in front.
pub fn tokenizer_config(model: &ModelSpec, companions: &Companions, specials: &Specials) -> Value {
    let mut config: Map<String, Value> = companions.tokenizer.clone();
    let content = |special: &Option<Special>| special.as_ref().map(|special| special.content.clone()).into();
    let keys: [(&str, Value); 9] = [
        ("tokenizer_class", "PreTrainedTokenizerFast".into()),
        ("model_max_length", model.max_position_embeddings.into()),
        ("clean_up_tokenization_spaces", false.into()),
        ("add_bos_token", false.into()),
        ("add_eos_token", false.into()),
        ("bos_token", content(&specials.bos)),
        ("eos_token", content(&specials.eos)),
        ("pad_token", content(&specials.pad)),
        ("unk_token", content(&specials.unk)),
    ];
    config.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    config.retain(|_, value| !value.is_null());
    config.into()
}

/// A tokenizer.json that makes of text what training saw: it puts nothing in front of it or behind. What is so already
/// stays as it is, byte for byte.
pub fn plain_tokenizer(json: Vec<u8>) -> Result<Vec<u8>, ExportError> {
    let bad = |error: serde_json::Error| ExportError::BadTokenizer(error.to_string());
    let mut tokenizer: Value = serde_json::from_slice(&json).map_err(bad)?;
    let Some(processor) = tokenizer.get("post_processor").filter(|p| !p.is_null()) else { return Ok(json) };
    let steps = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    let kept: Vec<Value> = steps.iter().filter(|step| step["type"] == "ByteLevel").cloned().collect();
    if kept.len() == steps.len() {
        return Ok(json);
    }
    tokenizer["post_processor"] = kept.into_iter().next().unwrap_or(Value::Null);
    serde_json::to_vec(&tokenizer).map_err(bad)
}
