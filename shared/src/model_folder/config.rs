//! config.json: the model that it describes, or the key that keeps us from computing it. Absent keys mean what the
//! configuration classes of transformers take them for.

use crate::model_spec::{Family, ModelSpec, ModelSpecError};
use serde_json::{Map, Value};

/// What a config.json says.
pub(super) struct Config {
    pub spec: ModelSpec,
    pub notes: Vec<String>,
}

/// Why a config.json is not that of a model that can be trained.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("it is no JSON ({0})")]
    NotJson(#[from] serde_json::Error),
    #[error("it holds no JSON object")]
    NotAnObject,
    /// A value that makes another model of it.
    #[error("{key} is {value}; only {allowed} can be trained")]
    OtherModel { key: String, value: Value, allowed: String },
    /// The same, of the rotary embedding.
    #[error("{key} is {value}; only {allowed} can be trained: rotary embeddings without scaling")]
    Scaled { key: String, value: Value, allowed: String },
    /// A value of another kind than its key takes.
    #[error("{key} is {value}; it must be {needed}")]
    OtherKind { key: String, value: Value, needed: String },
    /// Two keys for the same number that say two.
    #[error("{key} is {value}, and {other} is {other_value}; they must be equal, or one left out")]
    Contradiction { key: String, value: f64, other: String, other_value: f64 },
    /// Under the names of config.json, which has no sections.
    #[error("{}", .0.to_string().replace("model.", ""))]
    Shape(#[from] ModelSpecError),
}

impl ConfigError {
    fn other_model(key: &str, value: &Value, allowed: impl Into<String>) -> Self {
        ConfigError::OtherModel { key: key.to_owned(), value: value.clone(), allowed: allowed.into() }
    }

    fn other_kind(key: &str, value: &Value, needed: impl Into<String>) -> Self {
        ConfigError::OtherKind { key: key.to_owned(), value: value.clone(), needed: needed.into() }
    }
}

/// A value that changes nothing.
#[derive(Clone, Copy)]
enum Neutral {
    /// Only absent, or null.
    Absent,
    False,
    True,
    Zero,
    One,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list of nothing else than this word, or an empty one.
    ListOf(&'static str),
}

impl Neutral {
    fn holds(self, value: &Value) -> bool {
        let is = |number: f64| value.as_f64() == Some(number);
        value.is_null()
            || match self {
                Neutral::Absent => false,
                Neutral::False => *value == Value::Bool(false),
                Neutral::True => *value == Value::Bool(true),
                Neutral::Zero => is(0.0) || *value == Value::Bool(false),
                Neutral::One => is(1.0),
                Neutral::Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
                Neutral::ListOf(only) => value.as_array().is_some_and(|list| list.iter().all(|word| word == only)),
            }
    }

    fn allowed(self) -> String {
        match self {
            Neutral::Absent => "null".into(),
            Neutral::False => "false".into(),
            Neutral::True => "true".into(),
            Neutral::Zero => "0".into(),
            Neutral::One => "1".into(),
            Neutral::Words(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
            Neutral::ListOf(only) => format!("[{only:?}]"),
        }
    }
}

/// Keys that make another model of it, and the only value that each may have.
const FIXED: [(&str, Neutral); 51] = [
    ("hidden_act", Neutral::Words(&["silu", "swish"])),
    ("hidden_activation", Neutral::Words(&["silu", "swish"])),
    ("quantization_config", Neutral::Absent),
    ("compression_config", Neutral::Absent),
    ("attention_bias", Neutral::False),
    ("mlp_bias", Neutral::False),
    ("lm_head_bias", Neutral::False),
    ("use_bias", Neutral::False),
    ("bias", Neutral::False),
    ("qkv_bias", Neutral::False),
    ("attention_dropout", Neutral::Zero),
    ("hidden_dropout", Neutral::Zero),
    ("residual_dropout", Neutral::Zero),
    ("resid_pdrop", Neutral::Zero),
    ("embd_pdrop", Neutral::Zero),
    ("mlp_dropout", Neutral::Zero),
    ("pretraining_tp", Neutral::One),
    ("sliding_window", Neutral::Zero),
    ("use_sliding_window", Neutral::False),
    ("attention_chunk_size", Neutral::Zero),
    ("layer_types", Neutral::ListOf("full_attention")),
    ("attention_sinks", Neutral::False),
    ("partial_rotary_factor", Neutral::One),
    ("rotary_pct", Neutral::One),
    ("rope_interleaved", Neutral::False),
    ("rope_type", Neutral::Words(&["default"])),
    ("rope_scaling_factor", Neutral::One),
    ("no_rope_layers", Neutral::ListOf("")),
    ("no_rope_layer_interval", Neutral::Zero),
    ("alibi", Neutral::False),
    ("attn_logit_softcapping", Neutral::Zero),
    ("final_logit_softcapping", Neutral::Zero),
    ("logit_softcap", Neutral::Zero),
    ("logits_soft_cap", Neutral::Zero),
    ("logit_softcapping", Neutral::Zero),
    ("logit_scale", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("embedding_multiplier", Neutral::One),
    ("residual_multiplier", Neutral::One),
    ("attention_multiplier", Neutral::Absent),
    ("query_pre_attn_scalar", Neutral::Absent),
    ("scale_embeddings", Neutral::False),
    ("clip_qkv", Neutral::Absent),
    ("qk_norm", Neutral::False),
    ("use_qk_norm", Neutral::False),
    ("num_experts", Neutral::Zero),
    ("num_local_experts", Neutral::Zero),
    ("n_routed_experts", Neutral::Zero),
    ("is_encoder_decoder", Neutral::False),
    ("is_causal", Neutral::True),
    ("add_cross_attention", Neutral::False),
];

/// Keys that say nothing about what is computed. Those of generation, of training elsewhere, and of the library itself.
const HARMLESS: [&str; 38] = [
    // Of layers that slide a window over the context, which FIXED refuses.
    "max_window_layers",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    "use_cache",
    "initializer_range",
    "_name_or_path",
    "name_or_path",
    "_from_model_config",
    "_commit_hash",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "attn_implementation",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "torchscript",
    "use_bfloat16",
    "task_specific_params",
    "problem_type",
    "tokenizer_class",
    "id2label",
    "label2id",
    "num_labels",
    "max_length",
    "temperature",
    "top_k",
    "top_p",
    "num_beams",
    "do_sample",
    "gradient_checkpointing",
];

/// Keys that are read.
const READ: [&str; 15] = [
    "model_type",
    "architectures",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "head_dim",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
];

/// What a class of transformers takes absent keys for, as far as its family differs from others.
struct Defaults {
    class: &'static str,
    vocab_size: u32,
    intermediate_size: u32,
    max_position_embeddings: u32,
    head_dim: Option<u32>,
}

impl Defaults {
    fn of(family: Family) -> Self {
        match family {
            Family::Llama => Defaults {
                class: "LlamaConfig",
                vocab_size: 32_000,
                intermediate_size: 11_008,
                max_position_embeddings: 2048,
                head_dim: None,
            },
            Family::Qwen3 => Defaults {
                class: "Qwen3Config",
                vocab_size: 151_936,
                intermediate_size: 22_016,
                max_position_embeddings: 32_768,
                head_dim: Some(128),
            },
        }
    }
}

/// Reads a config.json, and refuses a model that cannot be trained.
pub(super) fn read(json: &[u8]) -> Result<Config, ConfigError> {
    let config = described(json)?;
    config.spec.validate()?;
    Ok(config)
}

/// What a config.json describes, whether or not it can be trained.
pub(super) fn described(json: &[u8]) -> Result<Config, ConfigError> {
    let value: Value = serde_json::from_slice(json)?;
    let config = value.as_object().ok_or(ConfigError::NotAnObject)?;
    let at = |key: &str| config.get(key).unwrap_or(&Value::Null);
    let model_type: Family = serde_json::from_value(at("model_type").clone())
        .map_err(|_| ConfigError::other_model("model_type", at("model_type"), Family::computed()))?;
    let architectures = ("architectures", Neutral::ListOf(model_type.architecture()));
    for (key, neutral) in std::iter::once(architectures).chain(FIXED) {
        if !neutral.holds(at(key)) {
            return Err(ConfigError::other_model(key, at(key), neutral.allowed()));
        }
    }
    let defaults = Defaults::of(model_type);
    let mut supposed = vec![];
    let mut size = |key: &str, default: u32| match at(key) {
        Value::Null => {
            supposed.push(format!("{key} = {default}"));
            Ok(default)
        }
        value => whole(key, value),
    };
    let mut spec = ModelSpec {
        model_type,
        vocab_size: size("vocab_size", defaults.vocab_size)?,
        hidden_size: size("hidden_size", 4096)?,
        intermediate_size: size("intermediate_size", defaults.intermediate_size)?,
        num_hidden_layers: size("num_hidden_layers", 32)?,
        num_attention_heads: size("num_attention_heads", 32)?,
        num_key_value_heads: 0,
        head_dim: None,
        max_position_embeddings: size("max_position_embeddings", defaults.max_position_embeddings)?,
        rope_theta: rope_theta(config)?,
        rms_norm_eps: positive("rms_norm_eps", at("rms_norm_eps"))?.unwrap_or(1e-6),
        tie_word_embeddings: match at("tie_word_embeddings") {
            Value::Null => false,
            Value::Bool(is_tied) => *is_tied,
            value => return Err(ConfigError::other_kind("tie_word_embeddings", value, "true or false")),
        },
    };
    spec.num_key_value_heads = match at("num_key_value_heads") {
        Value::Null => spec.num_attention_heads,
        value => whole("num_key_value_heads", value)?,
    };
    spec.head_dim = match at("head_dim") {
        Value::Null => defaults.head_dim,
        value => Some(whole("head_dim", value)?),
    };
    let mut notes = vec![];
    if !supposed.is_empty() {
        notes.push(format!("config.json leaves out what {} takes for {}", defaults.class, supposed.join(", ")));
    }
    let unknown = unknown_keys(config);
    if !unknown.is_empty() {
        notes.push(format!("config.json has keys that are not used: {}", unknown.join(", ")));
    }
    Ok(Config { spec: spec.canonical(), notes })
}

fn whole(key: &str, value: &Value) -> Result<u32, ConfigError> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| ConfigError::other_kind(key, value, format!("a whole number up to {}", u32::MAX)))
}

fn positive(key: &str, value: &Value) -> Result<Option<f64>, ConfigError> {
    match value {
        Value::Null => Ok(None),
        value => match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(ConfigError::other_kind(key, value, "a number above 0")),
        },
    }
}

/// The rotary embedding's base. transformers 5 keeps it in `rope_parameters`; before, it was a key of its own, and
/// `rope_scaling` said what is done to it. Whatever is there must say the same.
fn rope_theta(config: &Map<String, Value>) -> Result<f64, ConfigError> {
    let mut theta: Option<(String, f64)> = None;
    let mut note = |key: String, value: &Value| -> Result<(), ConfigError> {
        let Some(found) = positive(&key, value)? else { return Ok(()) };
        match &theta {
            Some((before, value)) if *value != found => {
                Err(ConfigError::Contradiction { key: before.clone(), value: *value, other: key, other_value: found })
            }
            Some(_) => Ok(()),
            None => {
                theta = Some((key, found));
                Ok(())
            }
        }
    };
    note("rope_theta".into(), config.get("rope_theta").unwrap_or(&Value::Null))?;
    for section in ["rope_parameters", "rope_scaling"] {
        let parameters = match config.get(section) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(parameters)) => parameters,
            Some(value) => return Err(ConfigError::other_kind(section, value, "an object, or null")),
        };
        // The kind first: it says more than the numbers that come with it.
        let (kinds, others): (Vec<_>, Vec<_>) = parameters.iter().partition(|(key, _)| key.ends_with("type"));
        for (key, value) in kinds.into_iter().chain(others) {
            let neutral = match key.as_str() {
                "rope_theta" => {
                    note(format!("{section}.rope_theta"), value)?;
                    continue;
                }
                // `type` is the name that rope_type had first.
                "rope_type" | "type" => Neutral::Words(&["default"]),
                "factor" | "partial_rotary_factor" | "attention_factor" => Neutral::One,
                _ => Neutral::Absent,
            };
            if !neutral.holds(value) {
                let key = format!("{section}.{key}");
                return Err(ConfigError::Scaled { key, value: value.clone(), allowed: neutral.allowed() });
            }
        }
    }
    Ok(theta.map_or(10_000.0, |(_, theta)| theta))
}

/// Keys that say something, and that neither we nor the model's class know.
fn unknown_keys(config: &Map<String, Value>) -> Vec<&str> {
    let says_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let known =
        |key: &str| READ.contains(&key) || HARMLESS.contains(&key) || FIXED.iter().any(|(fixed, _)| *fixed == key);
    config.iter().filter(|(key, value)| !known(key) && !says_nothing(value)).map(|(key, _)| key.as_str()).collect()
}
