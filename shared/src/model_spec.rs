//! The model's shape: a Llama-family decoder as Hugging Face's `LlamaForCausalLM` lays it out. Both ends derive from it
//! the same list of tensors, in the same order, and the coordinator draws version 0 from it.
//!
//! The *flat order* is the order of [`ModelSpec::tensors`]: the embedding; for each layer the input norm, q, k, v, o,
//! the second norm, gate, up, down; the last norm; the head where it is not tied. A *flat vector* holds all weights in
//! that order, each tensor row-major, `[out, in]` for matrices.

use crate::rng;
use serde::{Deserialize, Serialize};

/// The configuration keys of a `LlamaForCausalLM`, under Hugging Face's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Number of tokens in the vocabulary.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width inside the feed-forward block.
    pub intermediate_size: u32,
    /// Number of decoder layers.
    pub num_hidden_layers: u32,
    /// Query heads; `hidden_size` is a multiple of it.
    pub num_attention_heads: u32,
    /// Key and value heads; `num_attention_heads` is a multiple of it (grouped-query attention).
    pub num_key_value_heads: u32,
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
    /// Hugging Face's name, as in `model.safetensors`.
    pub name: String,
    /// One dimension (norms) or two (`[out, in]`).
    pub shape: Vec<usize>,
    /// Index of its first element in the flat vector.
    pub offset: usize,
    /// Whether weight decay applies: matrices only.
    pub decays: bool,
    init: Init,
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

/// How a tensor starts. q, k and v share one stream (as one fused matrix would), and so do gate and up.
#[derive(Clone, Debug, PartialEq)]
enum Init {
    Ones,
    Normal { std: f64, stream: u64, first: u64 },
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
        allowed: &'static str,
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
    /// A number that no model computes with.
    #[error("model.{key} is {value:?}; allowed is {allowed}")]
    NumberOutOfRange {
        /// The key in the `[model]` section.
        key: &'static str,
        /// What it holds.
        value: f64,
        /// What it may hold.
        allowed: &'static str,
    },
}

impl ModelSpecError {
    /// The key that it is about, where it is about one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            ModelSpecError::OutOfRange { key, .. } | ModelSpecError::NumberOutOfRange { key, .. } => Some(key),
            ModelSpecError::NotDivisible { whole, .. } => Some(whole),
            ModelSpecError::OddHead { .. } => Some("hidden_size"),
        }
    }
}

/// What the program, Burn and a driver take before there is a model.
const RUNTIME_BYTES: u64 = 192 << 20;
/// Numbers kept for each parameter at the worst moment, a checkpoint in the middle of a step: weights, two moments, a
/// gradient, the base and a flat copy of the weights while it trains, and what is saved: weights, moments, the sum of
/// the step's gradients, and the file's bytes of one of them at a time. At the lease's ends it is about as many.
/// Measured on the processor, with 4 × 128 tokens at once: 2225 MiB at the peak of 2278 reckoned for 40 M parameters,
/// 597 of 793 for 10 M.
const STATE_FLOATS: u64 = 12;
/// Queries that attention takes at once on a processor: their scores stay in the cache, and the half above the diagonal
/// is left out.
pub const HOST_BLOCK: usize = 256;
/// Logits held at once on a processor: 32 MiB. With half of that a step with a vocabulary of 32k takes a twentieth
/// longer, since the head's gradient passes through memory once a chunk.
pub const HOST_LOGITS: usize = 1 << 23;
/// Fewest tokens of a chunk of logits, whatever the vocabulary: below, the matrix products lose more than memory gains.
const CHUNK_MIN: usize = 64;

/// Tokens of a chunk where so many logits are held at once.
pub fn chunk_tokens(vocabulary: usize, logits: usize) -> usize {
    (logits / vocabulary.max(1)).max(CHUNK_MIN)
}

impl ModelSpec {
    /// 0.8 M parameters over bytes: the demo's model, and the reference's size `s`.
    pub fn tiny() -> Self {
        ModelSpec {
            vocab_size: 256,
            hidden_size: 128,
            intermediate_size: 344,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 4,
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

    /// Width of one head.
    pub fn head_size(&self) -> usize {
        (self.hidden_size / self.num_attention_heads) as usize
    }

    /// Refuses what no model can be built from.
    pub fn validate(&self) -> Result<(), ModelSpecError> {
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.max_position_embeddings,
        ];
        for ((key, most, allowed), value) in Self::SIZES.into_iter().zip(sizes) {
            if value == 0 || value > most {
                return Err(ModelSpecError::OutOfRange { key, value: u64::from(value), allowed });
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
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
            return Err(ModelSpecError::OddHead { hidden, heads, size });
        }
        // Models compute in f32, where less is zero, and more leaves nothing of what it is added to.
        let numbers = [
            ("rope_theta", self.rope_theta, 1e-3, 1e30, "1e-3 to 1e30"),
            ("rms_norm_eps", self.rms_norm_eps, 1e-30, 1.0, "1e-30 to 1"),
        ];
        for (key, value, least, most, allowed) in numbers {
            if !(least..=most).contains(&value) {
                return Err(ModelSpecError::NumberOutOfRange { key, value, allowed });
            }
        }
        Ok(())
    }

    /// What each number of the `[model]` section may be: its key, the most, and the same in words. The least is 1.
    pub const SIZES: [(&str, u32, &str); 7] = [
        ("vocab_size", 1 << 20, "1 to 1048576"),
        ("hidden_size", 1 << 16, "1 to 65536"),
        ("intermediate_size", 1 << 18, "1 to 262144"),
        ("num_hidden_layers", 512, "1 to 512"),
        ("num_attention_heads", 1024, "1 to 1024"),
        ("num_key_value_heads", 1024, "1 to 1024"),
        ("max_position_embeddings", 1 << 20, "1 to 1048576"),
    ];

    /// All tensors, in flat order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let (d, hidden) = (self.hidden_size as usize, self.intermediate_size as usize);
        let kv = self.num_key_value_heads as usize * self.head_size();
        let std = 0.02;
        // GPT-2's rule: what writes into the residual stream starts smaller, by the number of writers.
        let std_residual = 0.02 / libm::sqrt(2.0 * f64::from(self.num_hidden_layers));
        let mut list = Listing::default();
        list.group(std, &[("model.embed_tokens.weight".into(), [self.vocab_size as usize, d])]);
        for l in 0..self.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{l}.{part}.weight");
            list.norm(name("input_layernorm"), d);
            list.group(
                std,
                &[
                    (name("self_attn.q_proj"), [d, d]),
                    (name("self_attn.k_proj"), [kv, d]),
                    (name("self_attn.v_proj"), [kv, d]),
                ],
            );
            list.group(std_residual, &[(name("self_attn.o_proj"), [d, d])]);
            list.norm(name("post_attention_layernorm"), d);
            list.group(std, &[(name("mlp.gate_proj"), [hidden, d]), (name("mlp.up_proj"), [hidden, d])]);
            list.group(std_residual, &[(name("mlp.down_proj"), [d, hidden])]);
        }
        list.norm("model.norm.weight".into(), d);
        if !self.tie_word_embeddings {
            list.group(std, &[("lm_head.weight".into(), [self.vocab_size as usize, d])]);
        }
        list.tensors
    }

    /// Number of parameters: the length of the flat vector.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(TensorSpec::len).sum()
    }

    /// Bytes of memory that a device needs to train it at all: its state, and one sample of which each layer keeps its
    /// input only, as a processor computes it. More samples come on top, as many as there is room for.
    pub fn training_bytes(&self) -> u64 {
        let context = u64::from(self.max_position_embeddings);
        let vocabulary = self.vocab_size as usize;
        let logits = 2 * 4 * context.min(chunk_tokens(vocabulary, HOST_LOGITS) as u64) * vocabulary as u64;
        // Those of the only block are kept.
        let at_once = context.min(HOST_BLOCK as u64);
        let kept = if at_once == context { context } else { 0 };
        self.state_bytes() + self.sample_bytes(context, true, [kept, at_once]) + logits
    }

    /// Bytes before the first sample: the program, and at the worst moment a dozen numbers for each parameter.
    pub fn state_bytes(&self) -> u64 {
        RUNTIME_BYTES + 4 * STATE_FLOATS * self.parameters() as u64
    }

    /// Bytes that one sample's activations take between forward and backward pass, in f32; `recompute`: layers keep
    /// their input only. For each query of a head there are so many `scores`, kept and at once.
    pub fn sample_bytes(&self, context: u64, recompute: bool, scores: [u64; 2]) -> u64 {
        let [hidden, intermediate, layers, heads, kv] = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
        ]
        .map(u64::from);
        // Per token, a layer keeps its input, what is attended and what flows past the middle, the packed rows, gate
        // and up, and what attention keeps; beside them it works with two gradients, that of the packed rows, what gate
        // and up make, and some of the scores. At the end of the layers there are rows normed and not, and their
        // gradients.
        let packed = (heads + 2 * kv) * self.head_size() as u64;
        let [kept, at_once] = scores.map(|scores| heads * scores);
        let tape = 3 * hidden + packed + 2 * intermediate + kept;
        let work = 2 * hidden + packed + intermediate + 3 * at_once;
        let kept = if recompute { (layers - 1) * hidden + tape } else { layers * tape };
        4 * context * (kept + work + 4 * hidden)
    }

    /// The initial weights of one tensor, row-major.
    pub fn draw(&self, tensor: &TensorSpec, seed: u64) -> Vec<f32> {
        match tensor.init {
            Init::Ones => vec![1.0; tensor.len()],
            Init::Normal { std, stream, first } => {
                (0..tensor.len() as u64).map(|i| (rng::normal(seed, stream, first + i) * std) as f32).collect()
            }
        }
    }

    /// The initial weights as one flat vector.
    pub fn draw_all(&self, seed: u64) -> Vec<f32> {
        self.tensors().iter().flat_map(|t| self.draw(t, seed)).collect()
    }
}

/// Collects tensors in order; a group shares one random stream.
#[derive(Default)]
struct Listing {
    tensors: Vec<TensorSpec>,
    next_offset: usize,
    next_stream: u64,
}

impl Listing {
    fn norm(&mut self, name: String, width: usize) {
        self.push(name, vec![width], false, Init::Ones);
        self.next_stream += 1;
    }

    fn group(&mut self, std: f64, matrices: &[(String, [usize; 2])]) {
        let mut first = 0;
        for (name, [rows, columns]) in matrices {
            let init = Init::Normal { std, stream: rng::stream::TENSOR + self.next_stream, first };
            self.push(name.clone(), vec![*rows, *columns], true, init);
            first += (rows * columns) as u64;
        }
        self.next_stream += 1;
    }

    fn push(&mut self, name: String, shape: Vec<usize>, decays: bool, init: Init) {
        let tensor = TensorSpec { name, shape, offset: self.next_offset, decays, init };
        self.next_offset += tensor.len();
        self.tensors.push(tensor);
    }
}

#[cfg(test)]
mod tests;
