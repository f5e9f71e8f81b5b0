//! The model's shape: a decoder as Hugging Face's `LlamaForCausalLM` and its relatives have it. Both ends derive from
//! it the same list of tensors, in the same order, and the coordinator draws version 0 from it.
//!
//! The *flat order* is the order of [`ModelSpec::tensors`]: the embedding; each layer's tensors in the order of
//! [`Family::layer`]; the last norm; the head where it is not tied. A *flat vector* holds all weights in that order,
//! each tensor row-major, `[out, in]` for matrices. What is done with a tensor follows from its [`Role`].

mod family;
mod layout;
mod memory;
mod role;
mod sizes;

pub use family::Family;
pub use layout::{Block, Layout};
pub use memory::{HOST_BLOCK, HOST_LOGITS, chunk_tokens};
pub use role::Role;
pub(crate) use role::{bare_name, layer_of};
pub use sizes::{SIZES, Size};

use crate::{range::Range, rng};
use serde::{Deserialize, Serialize};

/// A model's configuration, under the keys of Hugging Face's config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Its family; Llama where it is left out.
    #[serde(default, skip_serializing_if = "Family::is_default")]
    pub model_type: Family,
    /// Number of tokens in the vocabulary.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width inside the feed-forward block.
    pub intermediate_size: u32,
    /// Number of decoder layers.
    pub num_hidden_layers: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads; `num_attention_heads` is a multiple of it (grouped-query attention).
    pub num_key_value_heads: u32,
    /// Width of one head, an even number. Where it is left out, it is `hidden_size / num_attention_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<u32>,
    /// Longest context, in tokens.
    pub max_position_embeddings: u32,
    /// Base of the rotary embedding's wavelengths.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the output head is the embedding's transpose.
    pub tie_word_embeddings: bool,
}

/// One tensor of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// What it is for.
    pub role: Role,
    /// Its decoder layer; `None` before and behind the layers.
    pub layer: Option<u32>,
    /// Hugging Face's name, as in `model.safetensors`.
    pub name: String,
    /// One dimension (norms) or two (`[out, in]`).
    pub shape: Vec<usize>,
    /// Index of its first element in the flat vector.
    pub offset: usize,
    /// Number of its group, in flat order. A group is one wide matrix, of which each tensor has some rows
    /// ([`Role::is_joined`]); most tensors are a group by themselves.
    pub group: usize,
    /// Index of its first element in its group.
    first: usize,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements; never true for a valid spec.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its range in the flat vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// What each number of a model may be.
pub mod range {
    use super::Range;

    /// Of `vocab_size`.
    pub const VOCAB_SIZE: Range = Range::new(1.0, 1_048_576.0);
    /// Of `hidden_size`.
    pub const HIDDEN_SIZE: Range = Range::new(1.0, 65_536.0);
    /// Of `intermediate_size`.
    pub const INTERMEDIATE_SIZE: Range = Range::new(1.0, 262_144.0);
    /// Of `num_hidden_layers`.
    pub const NUM_HIDDEN_LAYERS: Range = Range::new(1.0, 512.0);
    /// Of `num_attention_heads`.
    pub const NUM_ATTENTION_HEADS: Range = Range::new(1.0, 1024.0);
    /// Of `num_key_value_heads`.
    pub const NUM_KEY_VALUE_HEADS: Range = Range::new(1.0, 1024.0);
    /// Of `head_dim`.
    pub const HEAD_DIM: Range = Range::new(1.0, 65_536.0);
    /// Of `max_position_embeddings`.
    pub const MAX_POSITION_EMBEDDINGS: Range = Range::new(1.0, 1_048_576.0);
    /// Of `rope_theta`. Models compute in f32, where less is zero, and more leaves nothing of what it is added to.
    pub const ROPE_THETA: Range = Range::new(1e-3, 1e30).said("1e-3 to 1e30");
    /// Of `rms_norm_eps`, likewise.
    pub const RMS_NORM_EPS: Range = Range::new(1e-30, 1.0).said("1e-30 to 1");
}

/// A spec that no model can be built from.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ModelSpecError {
    /// A size is zero or beyond what this version handles.
    #[error("model.{key} is {value}; allowed is {allowed}")]
    OutOfRange {
        /// The key in the `[model]` section.
        key: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        allowed: String,
    },
    /// A size must divide another.
    #[error("model.{whole} must be a multiple of model.{part}; {whole_is} is no multiple of {part_is}")]
    NotDivisible {
        /// The key that must be the multiple.
        whole: &'static str,
        /// What it holds.
        whole_is: u32,
        /// The key that must divide it.
        part: &'static str,
        /// What it holds.
        part_is: u32,
    },
    /// A rotary embedding turns pairs of a head's numbers.
    #[error(
        "the head size, model.hidden_size / model.num_attention_heads, is {hidden} / {heads} = {size}, which is odd; \
        it must be even"
    )]
    OddHead {
        /// `hidden_size`.
        hidden: u32,
        /// `num_attention_heads`.
        heads: u32,
        /// The one by the other.
        size: usize,
    },
    /// The same, where the head's size is written down.
    #[error("model.head_dim is {0}, which is odd; it must be even")]
    OddHeadDim(u32),
    /// Heads that are wider or narrower than their share of the residual stream.
    #[error("model.head_dim is {head_dim}; only hidden_size / num_attention_heads = {share} can be trained")]
    HeadDim {
        /// `head_dim`.
        head_dim: u32,
        /// `hidden_size / num_attention_heads`.
        share: f64,
    },
    /// A family whose layout is known, and whose formulas are not.
    #[error("model.model_type is {:?}; only {} can be trained", .0.name(), Family::computed())]
    NotComputed(Family),
    /// A number that no model computes with.
    #[error("model.{key} is {value:?}; allowed is {allowed}")]
    NumberOutOfRange {
        /// The key in the `[model]` section.
        key: &'static str,
        /// What it holds.
        value: f64,
        /// What it may hold.
        allowed: String,
    },
}

impl ModelSpecError {
    /// The key that it is about, where it is about one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            ModelSpecError::OutOfRange { key, .. } | ModelSpecError::NumberOutOfRange { key, .. } => Some(key),
            ModelSpecError::NotDivisible { whole, .. } => Some(whole),
            ModelSpecError::OddHead { .. } => Some("hidden_size"),
            ModelSpecError::OddHeadDim(_) | ModelSpecError::HeadDim { .. } => Some("head_dim"),
            ModelSpecError::NotComputed(_) => Some("model_type"),
        }
    }
}

impl ModelSpec {
    /// 0.8 M parameters over bytes: the demo's model, and the reference's size `s`.
    pub fn tiny() -> Self {
        ModelSpec {
            model_type: Family::Llama,
            vocab_size: 256,
            hidden_size: 128,
            intermediate_size: 344,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: None,
            max_position_embeddings: 128,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
        }
    }

    /// 3.2 M parameters over bytes: the reference's size `m`.
    pub fn small() -> Self {
        ModelSpec { hidden_size: 256, intermediate_size: 688, ..Self::tiny() }
    }

    /// Width of one head: `head_dim`, or what follows from the others.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or_else(|| self.hidden_size / self.num_attention_heads) as usize
    }

    /// The same model without a `head_dim` that says what follows from the others: one model, one spec.
    pub fn canonical(&self) -> Self {
        let follows =
            |size: &u32| u64::from(*size) * u64::from(self.num_attention_heads) == u64::from(self.hidden_size);
        ModelSpec { head_dim: self.head_dim.filter(|size| !follows(size)), ..self.clone() }
    }

    /// Refuses what no model can be built from.
    pub fn validate(&self) -> Result<(), ModelSpecError> {
        let sizes = [
            ("vocab_size", self.vocab_size, range::VOCAB_SIZE),
            ("hidden_size", self.hidden_size, range::HIDDEN_SIZE),
            ("intermediate_size", self.intermediate_size, range::INTERMEDIATE_SIZE),
            ("num_hidden_layers", self.num_hidden_layers, range::NUM_HIDDEN_LAYERS),
            ("num_attention_heads", self.num_attention_heads, range::NUM_ATTENTION_HEADS),
            ("num_key_value_heads", self.num_key_value_heads, range::NUM_KEY_VALUE_HEADS),
            ("max_position_embeddings", self.max_position_embeddings, range::MAX_POSITION_EMBEDDINGS),
            // Left out, it follows from the others.
            ("head_dim", self.head_dim.unwrap_or(1), range::HEAD_DIM),
        ];
        for (key, value, range) in sizes {
            if !range.holds(f64::from(value)) {
                return Err(ModelSpecError::OutOfRange { key, value: u64::from(value), allowed: range.words() });
            }
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ModelSpecError::NotDivisible {
                whole: "hidden_size",
                whole_is: self.hidden_size,
                part: "num_attention_heads",
                part_is: self.num_attention_heads,
            });
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(ModelSpecError::NotDivisible {
                whole: "num_attention_heads",
                whole_is: self.num_attention_heads,
                part: "num_key_value_heads",
                part_is: self.num_key_value_heads,
            });
        }
        if !self.head_size().is_multiple_of(2) {
            let (hidden, heads, size) = (self.hidden_size, self.num_attention_heads, self.head_size());
            return Err(match self.head_dim {
                Some(head_dim) => ModelSpecError::OddHeadDim(head_dim),
                None => ModelSpecError::OddHead { hidden, heads, size },
            });
        }
        let numbers = [
            ("rope_theta", self.rope_theta, range::ROPE_THETA),
            ("rms_norm_eps", self.rms_norm_eps, range::RMS_NORM_EPS),
        ];
        for (key, value, range) in numbers {
            if !range.holds(value) {
                return Err(ModelSpecError::NumberOutOfRange { key, value, allowed: range.words() });
            }
        }
        self.refuse_not_computed()
    }

    /// What has a layout and no formulas yet.
    fn refuse_not_computed(&self) -> Result<(), ModelSpecError> {
        if !self.model_type.is_computed() {
            return Err(ModelSpecError::NotComputed(self.model_type));
        }
        let share = f64::from(self.hidden_size) / f64::from(self.num_attention_heads);
        match self.head_dim {
            Some(head_dim) if f64::from(head_dim) != share => Err(ModelSpecError::HeadDim { head_dim, share }),
            _ => Ok(()),
        }
    }

    /// All tensors, in flat order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let layer = self.model_type.layer();
        let layers = (0..self.num_hidden_layers).flat_map(|l| layer.iter().map(move |role| (*role, Some(l))));
        let head = (!self.tie_word_embeddings).then_some((Role::Head, None));
        let first = std::iter::once((Role::Embedding, None));
        let all = first.chain(layers).chain([(Role::FinalNorm, None)]).chain(head);
        let mut tensors: Vec<TensorSpec> = vec![];
        for (role, layer) in all {
            let (offset, group, first) = match tensors.last() {
                Some(before) if role.is_joined() => (before.range().end, before.group, before.first + before.len()),
                Some(before) => (before.range().end, before.group + 1, 0),
                None => (0, 0, 0),
            };
            let (name, shape) = (role.name(layer), role.shape(self));
            tensors.push(TensorSpec { role, layer, name, shape, offset, group, first });
        }
        tensors
    }

    /// Number of parameters: the length of the flat vector.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(TensorSpec::len).sum()
    }

    /// The initial weights of one tensor, row-major. A group draws from one stream, as one wide matrix would.
    pub fn draw(&self, tensor: &TensorSpec, seed: u64) -> Vec<f32> {
        let Some(std) = tensor.role.initial_std(self) else { return vec![1.0; tensor.len()] };
        let (stream, first) = (rng::stream::TENSOR + tensor.group as u64, tensor.first as u64);
        (0..tensor.len() as u64).map(|i| (rng::normal(seed, stream, first + i) * std) as f32).collect()
    }

    /// The initial weights as one flat vector.
    pub fn draw_all(&self, seed: u64) -> Vec<f32> {
        self.tensors().iter().flat_map(|t| self.draw(t, seed)).collect()
    }
}

#[cfg(test)]
mod tests;
