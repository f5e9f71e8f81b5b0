//! One file as llama.cpp reads it: GGUF, version 3, little-endian. First come keys with values, then what each tensor is
//! and where it begins, then the tensors, each on a multiple of 32 bytes. Norms stay f32, as llama.cpp computes them.

mod keys;
mod vocabulary;

pub use vocabulary::NotKnown;

use super::{Companions, Dtype, ExportError, Weights, config::Specials};
use keys::{Keys, string};
use nightjar_shared::model_spec::{Family, ModelSpec, Role, TensorSpec};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};
use vocabulary::Vocabulary;

/// The one file.
pub const FILE: &str = "model.gguf";
/// Tensors begin at multiples of so many bytes.
const ALIGNMENT: u64 = 32;
const VERSION: u32 = 3;

/// What a model is called, and what is known of its text.
pub struct About<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its tokenizer.json.
    pub tokenizer: &'a [u8],
    /// Its special tokens.
    pub specials: &'a Specials,
    /// What goes with the model that it started from.
    pub companions: &'a Companions,
}

/// A tensor's place in the file.
struct Entry<'a> {
    at: usize,
    tensor: &'a TensorSpec,
    dtype: Dtype,
    offset: u64,
}

impl Entry<'_> {
    fn bytes(&self) -> u64 {
        (self.tensor.len() * self.dtype.bytes()) as u64
    }
}

/// Writes the file, and syncs it.
pub fn write(
    path: &Path,
    spec: &ModelSpec,
    weights: &Weights<'_>,
    dtype: Dtype,
    about: &About<'_>,
) -> Result<(), ExportError> {
    let vocabulary = Vocabulary::of(about.tokenizer, spec.vocab_size)?;
    let keys = keys_of(spec, dtype, about, &vocabulary);
    let tensors = spec.tensors();
    let mut offset = 0;
    let entries = tensors.iter().enumerate().map(|(at, tensor)| {
        let dtype = if tensor.role.is_gain() { Dtype::F32 } else { dtype };
        let entry = Entry { at, tensor, dtype, offset };
        offset += entry.bytes().next_multiple_of(ALIGNMENT);
        entry
    });
    let entries: Vec<Entry<'_>> = entries.collect();
    write_file(path, spec, weights, &keys, &entries).map_err(ExportError::io(path))
}

fn write_file(
    path: &Path,
    spec: &ModelSpec,
    weights: &Weights<'_>,
    keys: &Keys,
    entries: &[Entry<'_>],
) -> io::Result<()> {
    let mut head = b"GGUF".to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend((entries.len() as u64).to_le_bytes());
    keys.write(&mut head);
    for Entry { tensor, dtype, offset, .. } in entries {
        string(&mut head, &name(tensor));
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        // The dimension that is next to each other in memory comes first.
        tensor.shape.iter().rev().for_each(|length| head.extend((*length as u64).to_le_bytes()));
        head.extend(number_of(*dtype).to_le_bytes());
        head.extend(offset.to_le_bytes());
    }
    pad(&mut head);
    let mut file = BufWriter::new(File::create_new(path)?);
    file.write_all(&head)?;
    let mut bytes = vec![];
    for Entry { at, tensor, dtype, .. } in entries {
        bytes.clear();
        dtype.write(&arranged(spec, tensor, weights.tensor(*at, tensor)), &mut bytes);
        pad(&mut bytes);
        file.write_all(&bytes)?;
    }
    file.into_inner()?.sync_all()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize((bytes.len() as u64).next_multiple_of(ALIGNMENT) as usize, 0);
}

/// The number that ggml has for a type.
fn number_of(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 30,
    }
}

/// The number that llama.cpp has for a file whose matrices are of a type.
fn file_type(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 32,
    }
}

fn architecture(family: Family) -> &'static str {
    match family {
        Family::Llama => "llama",
        Family::Qwen3 => "qwen3",
    }
}

/// llama.cpp's name of a tensor.
fn name(tensor: &TensorSpec) -> String {
    let part = match tensor.role {
        Role::Embedding => "token_embd",
        Role::AttentionNorm => "attn_norm",
        Role::Query => "attn_q",
        Role::Key => "attn_k",
        Role::Value => "attn_v",
        Role::QueryNorm => "attn_q_norm",
        Role::KeyNorm => "attn_k_norm",
        Role::AttentionOutput => "attn_output",
        Role::FeedForwardNorm => "ffn_norm",
        Role::Gate => "ffn_gate",
        Role::Up => "ffn_up",
        Role::Down => "ffn_down",
        Role::FinalNorm => "output_norm",
        Role::Head => "output",
    };
    match tensor.layer {
        Some(layer) => format!("blk.{layer}.{part}.weight"),
        None => format!("{part}.weight"),
    }
}

/// A tensor's values as llama.cpp has them. Its Llama turns neighbours, where Hugging Face's turns each number with the
/// one half a head away: the rows of queries and keys are put in that order. Other families turn as Hugging Face does.
fn arranged<'a>(spec: &ModelSpec, tensor: &TensorSpec, values: Cow<'a, [f32]>) -> Cow<'a, [f32]> {
    let is_turned = matches!(tensor.role, Role::Query | Role::Key);
    let [_, columns] = tensor.shape[..] else { return values };
    match spec.model_type {
        Family::Llama if is_turned => {}
        Family::Llama | Family::Qwen3 => return values,
    }
    let head = spec.head_size();
    let mut turned = Vec::with_capacity(values.len());
    for rows in values.chunks_exact(head * columns) {
        let (first, second) = rows.split_at(rows.len() / 2);
        for (left, right) in first.chunks_exact(columns).zip(second.chunks_exact(columns)) {
            turned.extend_from_slice(left);
            turned.extend_from_slice(right);
        }
    }
    turned.into()
}

fn keys_of(spec: &ModelSpec, dtype: Dtype, about: &About<'_>, vocabulary: &Vocabulary) -> Keys {
    let architecture = architecture(spec.model_type);
    let of = |key: &str| format!("{architecture}.{key}");
    let mut keys = Keys::default();
    keys.text("general.architecture", architecture);
    keys.text("general.type", "model");
    keys.text("general.name", about.name);
    keys.count("general.file_type", file_type(dtype));
    keys.count(&of("vocab_size"), spec.vocab_size);
    keys.count(&of("context_length"), spec.max_position_embeddings);
    keys.count(&of("embedding_length"), spec.hidden_size);
    keys.count(&of("block_count"), spec.num_hidden_layers);
    keys.count(&of("feed_forward_length"), spec.intermediate_size);
    keys.count(&of("attention.head_count"), spec.num_attention_heads);
    keys.count(&of("attention.head_count_kv"), spec.num_key_value_heads);
    keys.count(&of("attention.key_length"), spec.head_size() as u32);
    keys.count(&of("attention.value_length"), spec.head_size() as u32);
    keys.count(&of("rope.dimension_count"), spec.head_size() as u32);
    keys.number(&of("rope.freq_base"), spec.rope_theta as f32);
    keys.number(&of("attention.layer_norm_rms_epsilon"), spec.rms_norm_eps as f32);
    keys.text("tokenizer.ggml.model", "gpt2");
    keys.text("tokenizer.ggml.pre", vocabulary.words);
    keys.texts("tokenizer.ggml.tokens", &vocabulary.tokens);
    keys.wholes("tokenizer.ggml.token_type", &vocabulary.kinds);
    keys.texts("tokenizer.ggml.merges", &vocabulary.merges);
    let specials = [
        ("bos", &about.specials.bos),
        ("eos", &about.specials.eos),
        ("unknown", &about.specials.unk),
        ("padding", &about.specials.pad),
    ];
    for (part, special) in specials {
        special.iter().for_each(|special| keys.count(&format!("tokenizer.ggml.{part}_token_id"), special.id));
    }
    // Training saw neither before a text or behind it.
    keys.flag("tokenizer.ggml.add_bos_token", false);
    keys.flag("tokenizer.ggml.add_eos_token", false);
    keys.flag("tokenizer.ggml.add_space_prefix", false);
    if let Some(template) = about.companions.tokenizer.get("chat_template").and_then(|template| template.as_str()) {
        keys.text("tokenizer.chat_template", template);
    }
    keys
}

#[cfg(test)]
mod tests;
