//! A folder as `transformers` writes and reads it: config.json, model.safetensors, tokenizer.json.

use crate::{
    batches::Batch,
    model::{Model, ModelError},
    text::load_tokenizer,
    trainer::{TrainError, evaluate},
};
use burn::tensor::Device;
use nightjar_shared::model_spec::{ModelSpec, ModelSpecError, TensorSpec};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file is missing or unreadable.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// config.json is no JSON object.
    #[error("config.json does not parse: {0}")]
    ConfigJson(#[from] serde_json::Error),
    /// config.json describes something else than a plain Llama model.
    #[error("config.json: {key} is {value}; {allowed}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What this version handles.
        allowed: &'static str,
    },
    /// Its sizes fit no model.
    #[error("config.json: {0}")]
    Spec(#[from] ModelSpecError),
    /// model.safetensors is damaged.
    #[error("model.safetensors does not parse: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A tensor that config.json asks for is not there.
    #[error("model.safetensors has no tensor {0}")]
    MissingTensor(String),
    /// A tensor of another shape than config.json asks for.
    #[error("model.safetensors: {name} has shape {got:?}, config.json asks for {want:?}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// What it should be.
        want: Vec<usize>,
    },
    /// A tensor of a type that is not read.
    #[error("model.safetensors: {name} is of type {dtype:?}; F32, BF16 and F16 are read")]
    WrongType {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
    /// A tensor that no part of the model uses.
    #[error("model.safetensors has a tensor {0} that this model has no place for")]
    UnknownTensor(String),
    /// tokenizer.json is damaged, or the text cannot be encoded or decoded by it.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// The text has too few tokens to measure anything on.
    #[error("the text has {0} tokens; at least 2 are needed")]
    TooShort(usize),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model failed on a batch.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// How text becomes tokens.
pub enum Vocabulary {
    /// A token is a byte.
    Bytes,
    /// What tokenizer.json says.
    Tokenizer(Box<Tokenizer>),
}

impl Vocabulary {
    /// The text's tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, FolderError> {
        match self {
            Vocabulary::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Vocabulary::Tokenizer(t) => {
                Ok(t.encode(text, false).map_err(|e| FolderError::Tokenizer(e.to_string()))?.get_ids().to_vec())
            }
        }
    }

    /// The tokens' text; what is no whole character becomes U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, FolderError> {
        match self {
            Vocabulary::Bytes => {
                let bytes: Vec<u8> = tokens.iter().map(|t| u8::try_from(*t).unwrap_or(b'?')).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Vocabulary::Tokenizer(t) => t.decode(tokens, false).map_err(|e| FolderError::Tokenizer(e.to_string())),
        }
    }
}

/// A folder in memory.
pub struct Folder {
    /// The model's shape.
    pub spec: ModelSpec,
    /// Its weights as a flat vector.
    pub weights: Vec<f32>,
    /// Its vocabulary.
    pub vocabulary: Vocabulary,
}

/// What [`Folder::evaluate_text`] measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextLoss {
    /// Sum over all predicted tokens.
    pub nats: f64,
    /// Tokens predicted: all but the first.
    pub tokens: u64,
    /// Bytes of text that they stand for.
    pub bytes: u64,
}

impl TextLoss {
    /// Nats a byte.
    pub fn nats_per_byte(&self) -> f64 {
        self.nats / self.bytes as f64
    }
}

/// Reads a folder. Without tokenizer.json a vocabulary of 256 is taken for bytes.
pub fn load_folder(folder: &Path) -> Result<Folder, FolderError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| FolderError::Read { path, source })
    };
    let spec = spec_from_config(&serde_json::from_slice(&read("config.json")?)?)?;
    let weights = weights_from_safetensors(&spec, &read("model.safetensors")?)?;
    let vocabulary = match read("tokenizer.json") {
        Ok(bytes) => Vocabulary::Tokenizer(Box::new(load_tokenizer(&bytes)?)),
        Err(FolderError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound && spec.vocab_size == 256 => {
            Vocabulary::Bytes
        }
        Err(e) => return Err(e),
    };
    Ok(Folder { spec, weights, vocabulary })
}

/// The model's shape from a `LlamaForCausalLM`'s config.json. What would compute differently is refused.
pub fn spec_from_config(config: &Value) -> Result<ModelSpec, FolderError> {
    let refuse = |key, allowed| {
        let value = config.get(key).unwrap_or(&Value::Null).to_string();
        FolderError::Unsupported { key, value, allowed }
    };
    let is = |key: &str, allowed: &[Value]| config.get(key).is_none_or(|v| v.is_null() || allowed.contains(v));
    if config.get("model_type") != Some(&"llama".into()) {
        return Err(refuse("model_type", "only llama is handled"));
    }
    for (key, fine, allowed) in [
        ("hidden_act", is("hidden_act", &["silu".into()]), "only silu is handled"),
        ("attention_bias", is("attention_bias", &[false.into()]), "biases are not handled"),
        ("mlp_bias", is("mlp_bias", &[false.into()]), "biases are not handled"),
        ("rope_scaling", is("rope_scaling", &[]), "scaled rotary embeddings are not handled"),
    ] {
        if !fine {
            return Err(refuse(key, allowed));
        }
    }
    let size = |key: &'static str, default: Option<u32>| match config.get(key).filter(|v| !v.is_null()) {
        Some(v) => v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| refuse(key, "a whole number is needed")),
        None => default.ok_or_else(|| refuse(key, "a whole number is needed")),
    };
    // transformers 5 moved the base of the wavelengths into an object of its own.
    let rope = config.get("rope_parameters").filter(|v| v.is_object());
    if rope.and_then(|r| r.get("rope_type")).is_some_and(|t| t != "default") {
        return Err(refuse("rope_parameters", "scaled rotary embeddings are not handled"));
    }
    let rope_theta = rope.and_then(|r| r.get("rope_theta")).or(config.get("rope_theta")).and_then(Value::as_f64);
    let num_attention_heads = size("num_attention_heads", None)?;
    let spec = ModelSpec {
        vocab_size: size("vocab_size", None)?,
        hidden_size: size("hidden_size", None)?,
        intermediate_size: size("intermediate_size", None)?,
        num_hidden_layers: size("num_hidden_layers", None)?,
        num_attention_heads,
        num_key_value_heads: size("num_key_value_heads", Some(num_attention_heads))?,
        max_position_embeddings: size("max_position_embeddings", Some(2048))?,
        rope_theta: rope_theta.unwrap_or(10_000.0),
        rms_norm_eps: config.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
        tie_word_embeddings: config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
    };
    spec.validate()?;
    if size("head_dim", Some(spec.head_size() as u32))? as usize != spec.head_size() {
        return Err(refuse("head_dim", "only hidden_size / num_attention_heads is handled"));
    }
    Ok(spec)
}

/// The flat vector from a safetensors file.
pub fn weights_from_safetensors(spec: &ModelSpec, bytes: &[u8]) -> Result<Vec<f32>, FolderError> {
    let file = SafeTensors::deserialize(bytes)?;
    let tensors = spec.tensors();
    let known =
        |name: &str| tensors.iter().any(|t| t.name == name) || name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight";
    if let Some(name) = file.names().into_iter().find(|name| !known(name)) {
        return Err(FolderError::UnknownTensor(name.into()));
    }
    let mut flat = Vec::new();
    for t in &tensors {
        flat.extend(values(&file, t)?);
    }
    Ok(flat)
}

fn values(file: &SafeTensors<'_>, t: &TensorSpec) -> Result<Vec<f32>, FolderError> {
    let view = file.tensor(&t.name).map_err(|_| FolderError::MissingTensor(t.name.clone()))?;
    if view.shape() != t.shape {
        return Err(FolderError::WrongShape { name: t.name.clone(), got: view.shape().to_vec(), want: t.shape.clone() });
    }
    let pairs = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match view.dtype() {
        Dtype::F32 => Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::BF16 => Ok(pairs().map(|x| f32::from_bits(u32::from(x) << 16)).collect()),
        Dtype::F16 => Ok(pairs().map(from_f16).collect()),
        dtype => Err(FolderError::WrongType { name: t.name.clone(), dtype }),
    }
}

/// IEEE half precision, exactly.
fn from_f16(x: u16) -> f32 {
    let sign = if x >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(x >> 10 & 31), f32::from(x & 1023));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

impl Folder {
    /// The model, on a device.
    pub fn model(&self, device: &Device) -> Result<Model, ModelError> {
        Model::new(&self.spec, &self.weights, device)
    }

    /// The loss on a text, in windows of at most `context` tokens that do not overlap (at most the model's context).
    /// Every token but the first is predicted. A character that is cut at either end of `text` is left out.
    pub fn evaluate_text(&self, model: &Model, text: &[u8], context: usize) -> Result<TextLoss, FolderError> {
        let (tokens, bytes_after_first) = self.tokens_of(text)?;
        if tokens.len() < 2 {
            return Err(FolderError::TooShort(tokens.len()));
        }
        let context = context.clamp(1, self.spec.max_position_embeddings as usize);
        let whole = (tokens.len() - 1) / context * context;
        let (mut nats, mut count) = evaluate(model, &Batch::windows(&tokens[..=whole], context), 16)?;
        if tokens.len() - 1 > whole {
            let (more, last) = evaluate(model, &Batch::windows(&tokens[whole..], tokens.len() - 1 - whole), 1)?;
            (nats, count) = (nats + more, count + last);
        }
        Ok(TextLoss { nats, tokens: count, bytes: bytes_after_first })
    }

    /// A text's tokens, and how many of its bytes come after the first.
    fn tokens_of(&self, text: &[u8]) -> Result<(Vec<u32>, u64), FolderError> {
        let tokenizer = match &self.vocabulary {
            Vocabulary::Bytes => return Ok((text.iter().map(|b| u32::from(*b)).collect(), text.len().saturating_sub(1) as u64)),
            Vocabulary::Tokenizer(tokenizer) => tokenizer,
        };
        let cut_at_start = text.iter().take(3).take_while(|b| **b & 0xC0 == 0x80).count();
        let text = &text[cut_at_start..];
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(e) if e.error_len().is_none() => std::str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
            Err(e) => {
                return Err(FolderError::Tokenizer(format!("the text is not UTF-8 at byte {}", cut_at_start + e.valid_up_to())));
            }
        };
        let encoding = tokenizer.encode(text, false).map_err(|e| FolderError::Tokenizer(e.to_string()))?;
        let first = encoding.get_offsets().first().map_or(0, |(start, end)| end - start);
        Ok((encoding.get_ids().to_vec(), (text.len() - first) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_exact() {
        for (bits, want) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7BFF, 65504.0),
            (0x0400, 6.103_515_6e-5),
        ] {
            assert_eq!(from_f16(bits), want, "{bits:#x}");
        }
        assert_eq!(from_f16(0x7C00), f32::INFINITY);
        assert!(from_f16(0x7C01).is_nan());
    }
}
