//! Families of models: what their layers are made of, and what Hugging Face calls them.

use super::Role;
use serde::{Deserialize, Serialize};

/// A family, under the name that `model_type` has in config.json.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// RMSNorm, rotary embedding, grouped-query attention, SwiGLU.
    #[default]
    Llama,
    /// The same with a norm of each query and key. It has a layout here and is not computed yet.
    Qwen3,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 2] = [Family::Llama, Family::Qwen3];

    /// As `model_type` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen3 => "qwen3",
        }
    }

    /// The names of those that can be trained, quoted.
    pub fn computed() -> String {
        let computed = Family::ALL.into_iter().filter(|family| family.is_computed());
        computed.map(|family| format!("{:?}", family.name())).collect::<Vec<_>>().join(" or ")
    }

    /// The tensors of one decoder layer, in flat order.
    pub fn layer(self) -> &'static [Role] {
        match self {
            Family::Llama => &[
                Role::AttentionNorm,
                Role::Query,
                Role::Key,
                Role::Value,
                Role::AttentionOutput,
                Role::FeedForwardNorm,
                Role::Gate,
                Role::Up,
                Role::Down,
            ],
            Family::Qwen3 => &[
                Role::AttentionNorm,
                Role::Query,
                Role::Key,
                Role::Value,
                Role::QueryNorm,
                Role::KeyNorm,
                Role::AttentionOutput,
                Role::FeedForwardNorm,
                Role::Gate,
                Role::Up,
                Role::Down,
            ],
        }
    }

    /// The only entry of config.json's `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Whether `client/train` has its formulas.
    pub fn is_computed(self) -> bool {
        self == Family::Llama
    }

    /// Runs of Llamas leave the key out, as they did before there were families.
    pub(super) fn is_default(&self) -> bool {
        *self == Family::default()
    }
}
