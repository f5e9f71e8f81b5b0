//! What a tensor is for. Everything that treats tensors differently goes by this: a file's names, shapes, initial
//! weights, weight decay, and which matrices are one product.

use super::ModelSpec;

/// The part that a tensor plays in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A row a token: what enters the first layer.
    Embedding,
    /// Gain of the norm before attention.
    AttentionNorm,
    /// Makes the queries of all heads.
    Query,
    /// Makes the keys of all key-value heads.
    Key,
    /// Makes the values of all key-value heads.
    Value,
    /// Gain of the norm of each query, shared by all heads.
    QueryNorm,
    /// Gain of the norm of each key, shared by all heads.
    KeyNorm,
    /// Brings what the heads attended to back into the residual stream.
    AttentionOutput,
    /// Gain of the norm before the feed-forward block.
    FeedForwardNorm,
    /// The half of the feed-forward block's input that goes through the activation.
    Gate,
    /// The other half.
    Up,
    /// Brings what the feed-forward block made back into the residual stream.
    Down,
    /// Gain of the norm after the last layer.
    FinalNorm,
    /// Makes logits, a row a token. A model whose head is tied to the embedding has none.
    Head,
}

/// What the names of all tensors but the head's begin with.
const BODY: &str = "model.";
/// What the names of a layer's tensors begin with.
const LAYERS: &str = "model.layers.";
/// What all names end with.
const WEIGHT: &str = ".weight";

impl Role {
    /// Hugging Face's name, as in `model.safetensors`. `layer` is the decoder layer of a tensor that is in one.
    pub fn name(self, layer: Option<u32>) -> String {
        let part = match self {
            Role::Embedding => "embed_tokens",
            Role::AttentionNorm => "input_layernorm",
            Role::Query => "self_attn.q_proj",
            Role::Key => "self_attn.k_proj",
            Role::Value => "self_attn.v_proj",
            Role::QueryNorm => "self_attn.q_norm",
            Role::KeyNorm => "self_attn.k_norm",
            Role::AttentionOutput => "self_attn.o_proj",
            Role::FeedForwardNorm => "post_attention_layernorm",
            Role::Gate => "mlp.gate_proj",
            Role::Up => "mlp.up_proj",
            Role::Down => "mlp.down_proj",
            Role::FinalNorm => "norm",
            Role::Head => return format!("lm_head{WEIGHT}"),
        };
        match layer {
            Some(layer) => format!("{LAYERS}{layer}.{part}{WEIGHT}"),
            None => format!("{BODY}{part}{WEIGHT}"),
        }
    }

    /// One dimension for gains, two (`[out, in]`) for matrices.
    pub fn shape(self, spec: &ModelSpec) -> Vec<usize> {
        let [vocabulary, hidden, intermediate] =
            [spec.vocab_size, spec.hidden_size, spec.intermediate_size].map(|n| n as usize);
        let [queries, keys] =
            [spec.num_attention_heads, spec.num_key_value_heads].map(|heads| heads as usize * spec.head_size());
        match self {
            Role::Embedding | Role::Head => vec![vocabulary, hidden],
            Role::AttentionNorm | Role::FeedForwardNorm | Role::FinalNorm => vec![hidden],
            Role::Query => vec![queries, hidden],
            Role::Key | Role::Value => vec![keys, hidden],
            Role::QueryNorm | Role::KeyNorm => vec![spec.head_size()],
            Role::AttentionOutput => vec![hidden, queries],
            Role::Gate | Role::Up => vec![intermediate, hidden],
            Role::Down => vec![hidden, intermediate],
        }
    }

    /// Whether it is a norm's gain: a vector, which no matrix product takes.
    pub fn is_gain(self) -> bool {
        matches!(self, Role::AttentionNorm | Role::QueryNorm | Role::KeyNorm | Role::FeedForwardNorm | Role::FinalNorm)
    }

    /// Whether weight decay applies: to matrices only.
    pub fn decays(self) -> bool {
        !self.is_gain()
    }

    /// Whether its rows continue the tensor before it to one wide matrix: queries, keys and values come of one product,
    /// gate and up of another.
    pub fn is_joined(self) -> bool {
        matches!(self, Role::Key | Role::Value | Role::Up)
    }

    /// Standard deviation of its initial values around 0. Gains have none; they start at 1.
    pub fn initial_std(self, spec: &ModelSpec) -> Option<f64> {
        match self {
            // GPT-2's rule: what writes into the residual stream starts smaller, by the number of writers.
            Role::AttentionOutput | Role::Down => Some(0.02 / libm::sqrt(2.0 * f64::from(spec.num_hidden_layers))),
            role if role.is_gain() => None,
            _ => Some(0.02),
        }
    }
}

/// The decoder layer in a tensor's name; `None` if it is in no layer.
pub fn layer_of(name: &str) -> Option<u64> {
    let (number, _) = name.strip_prefix(LAYERS)?.split_once('.')?;
    number.parse().ok()
}

/// A tensor's name as `LlamaModel`, the model without a head, has it; `None` for the head.
pub fn bare_name(name: &str) -> Option<&str> {
    name.strip_prefix(BODY)
}
