//! Sizes by name: shapes for whoever wants a model of about so many parameters and no more to choose.

use super::{Family, ModelSpec};

/// A size by name. How many parameters a model of it has depends on the vocabulary, which is the data's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// As people ask for it: `125M`.
    pub name: &'static str,
    hidden: u32,
    intermediate: u32,
    layers: u32,
    heads: u32,
    key_value_heads: u32,
    /// Small models share the head with the embedding, which would be most of them.
    is_tied: bool,
    /// The context that goes with it, in tokens.
    pub context: u32,
    /// Tokens of a vocabulary that goes with it; `None` for bytes.
    pub vocabulary: Option<u32>,
}

const fn size(name: &'static str, shape: [u32; 5], is_tied: bool, context: u32, vocabulary: Option<u32>) -> Size {
    let [hidden, intermediate, layers, heads, key_value_heads] = shape;
    Size { name, hidden, intermediate, layers, heads, key_value_heads, is_tied, context, vocabulary }
}

/// All of them, the smallest first. Those of 125M and 350M have GPT-2's and GPT-3's widths and depths (arXiv 2005.14165,
/// table 2.1), that of 1B is TinyLlama's (arXiv 2401.02385).
pub const SIZES: &[Size] = &[
    size("1M", [128, 344, 4, 4, 4], true, 128, None),
    size("3M", [256, 688, 4, 4, 4], true, 128, None),
    size("10M", [384, 1024, 6, 6, 6], true, 256, Some(4096)),
    size("30M", [512, 1376, 9, 8, 8], true, 512, Some(8192)),
    size("125M", [768, 2048, 12, 12, 12], true, 1024, Some(32_768)),
    size("350M", [1024, 2816, 24, 16, 16], true, 1024, Some(32_768)),
    size("1B", [2048, 5632, 22, 32, 4], false, 2048, Some(32_768)),
];

impl Size {
    /// The one of this name, in whatever case.
    pub fn find(name: &str) -> Option<&'static Size> {
        SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name.trim()))
    }

    /// All names, for people.
    pub fn names() -> String {
        SIZES.iter().map(|size| size.name).collect::<Vec<_>>().join(", ")
    }

    /// The model of this size over a vocabulary, for contexts of so many tokens.
    pub fn model(&self, vocabulary: u32, context: u32) -> ModelSpec {
        ModelSpec {
            model_type: Family::Llama,
            vocab_size: vocabulary,
            hidden_size: self.hidden,
            intermediate_size: self.intermediate,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.key_value_heads,
            head_dim: None,
            max_position_embeddings: context,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: self.is_tied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_a_model_of_about_as_many_parameters_as_its_name_says() {
        for (size, wanted) in SIZES.iter().zip([1e6, 3e6, 10e6, 30e6, 125e6, 350e6, 1e9]) {
            let model = size.model(size.vocabulary.unwrap_or(256), size.context);
            model.validate().unwrap();
            let parameters = model.parameters() as f64;
            assert!((0.8..1.25).contains(&(parameters / wanted)), "{}: {parameters}", size.name);
            assert_eq!(Size::find(&size.name.to_lowercase()), Some(size));
        }
        assert_eq!(Size::find("2M"), None);
        assert_eq!(Size::names(), "1M, 3M, 10M, 30M, 125M, 350M, 1B");
        assert_eq!(Size::find("1M").unwrap().model(256, 128), ModelSpec::tiny());
        assert_eq!(Size::find("3M").unwrap().model(256, 128), ModelSpec::small());
    }
}
