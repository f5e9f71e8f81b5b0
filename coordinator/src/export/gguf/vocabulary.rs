//! A tokenizer.json as llama.cpp has it: tokens by number, what each of them is, merges, and the name of the rule by
//! which text is cut to words. A rule that llama.cpp has no name for would make other tokens there: it is refused.

use crate::dataset::{Rule, WordRule, merges_of, word_rule};
use tokenizers::{DecoderWrapper, ModelWrapper, PreTokenizerWrapper, Tokenizer};

/// Kinds of tokens, by llama.cpp's numbers.
pub const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
pub const UNUSED: i32 = 5;

/// See the module.
pub struct Vocabulary {
    /// The name of the rule for words.
    pub words: &'static str,
    /// All tokens, as many as the model has.
    pub tokens: Vec<String>,
    /// What each of them is.
    pub kinds: Vec<i32>,
    /// Each as its two parts with a space between.
    pub merges: Vec<String>,
}

/// A tokenizer that llama.cpp would read otherwise.
#[derive(Debug, thiserror::Error)]
#[error(
    "llama.cpp has no name for this tokenizer: {0}. Export without --format gguf, and convert that folder with llama.cpp's \
     own convert_hf_to_gguf.py"
)]
pub struct NotKnown(&'static str);

impl Vocabulary {
    /// Of a tokenizer.json, for a model of so many tokens.
    pub fn of(json: &[u8], size: u32) -> Result<Self, NotKnown> {
        let tokenizer = Tokenizer::from_bytes(json).map_err(|_| NotKnown("it cannot be read"))?;
        let (ModelWrapper::BPE(model), Some(DecoderWrapper::ByteLevel(_))) =
            (tokenizer.get_model(), tokenizer.get_decoder())
        else {
            return Err(NotKnown("it is no byte-level BPE"));
        };
        let merges = merges_of(json).ok_or(NotKnown("its merges cannot be read"))?;
        let words = match word_rule(&tokenizer) {
            // Without merges every byte is a token, however words are cut.
            None if merges.is_empty() && is_byte_level(&tokenizer) => "gpt-2",
            None => return Err(NotKnown("its rule for words is none that is known")),
            Some(rule) => name(rule, model.ignore_merges).ok_or(NotKnown("its rule for words is known otherwise"))?,
        };
        let mut tokens: Vec<String> = (0..size).map(|id| format!("[UNUSED{id}]")).collect();
        let mut kinds = vec![UNUSED; size as usize];
        let added = tokenizer.get_added_tokens_decoder();
        for (token, id) in tokenizer.get_vocab(true) {
            let (Some(place), Some(kind)) = (tokens.get_mut(id as usize), kinds.get_mut(id as usize)) else { continue };
            *place = token;
            *kind = match added.get(&id) {
                None => NORMAL,
                Some(added) if added.special => CONTROL,
                Some(_) => USER_DEFINED,
            };
        }
        let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        Ok(Vocabulary { words, tokens, kinds, merges })
    }
}

fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(step)) if !step.add_prefix_space)
        && tokenizer.get_normalizer().is_none()
}

/// llama.cpp's name of a rule. Its rule of Llama 3 takes whole words that are tokens before any merge, as `ignore_merges`
/// says; Smaug's is the same without that. It does not bring text to a normal form, which Qwen's would.
fn name(rule: WordRule, ignores_merges: bool) -> Option<&'static str> {
    let WordRule { normalizes, cuts_numbers, rule } = rule;
    match (rule, cuts_numbers, ignores_merges) {
        (Rule::Gpt2, false, false) if !normalizes => Some("gpt-2"),
        (Rule::Gpt2, true, false) if !normalizes => Some("smollm"),
        (Rule::Cl100k { numbers: 3 }, false, true) if !normalizes => Some("llama-bpe"),
        (Rule::Cl100k { numbers: 3 }, false, false) if !normalizes => Some("smaug-bpe"),
        (Rule::Cl100k { numbers: 1 }, false, false) => Some("qwen2"),
        _ => None,
    }
}
