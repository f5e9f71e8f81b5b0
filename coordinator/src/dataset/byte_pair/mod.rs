//! Byte-level BPE at the speed of the disk. It takes the place of the `tokenizers` library for vocabularies whose every
//! part it knows, and makes the very same tokens of any text; all others are left to the library.
//!
//! A text is cut at [added tokens](added), then to [`words`]; a word is looked up in a [`cache`], or else encoded by
//! [`merges`].

mod added;
mod cache;
mod classes;
mod merges;
mod words;

#[cfg(test)]
mod tests;

use added::Added;
use cache::Cache;
use merges::Merges;
use nightjar_shared::tokenizer::char_of;
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    pre_tokenizers::split::{Split, SplitPattern},
};
use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};
pub use words::Rule;

/// Characters before this one are the same in every normal form that composes.
const FIRST_COMPOSED: char = '\u{300}';

/// Tokens by the bytes that they stand for.
type Whole = HashMap<Box<[u8]>, u32>;

/// How a text is cut to words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordRule {
    /// Whether the text is brought to normal form C first.
    pub normalizes: bool,
    /// Whether each number is cut off before words are looked for.
    pub cuts_numbers: bool,
    /// Where words end.
    pub rule: Rule,
}

/// A byte-level BPE vocabulary.
pub struct BytePair {
    added: Added,
    words: WordRule,
    /// Tokens that are whole words, where such a word is not merged.
    whole: Whole,
    merges: Merges,
    /// Bytes of text behind each token.
    lengths: Vec<u32>,
    /// Tables that no thread uses now.
    caches: Mutex<Vec<Cache>>,
}

/// The part of a tokenizer.json that the library does not give out.
#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    merges: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Two(String, String),
    Line(String),
}

impl Pair {
    /// The two names; `None` for a line that speaks of the file's version.
    fn names(self) -> Option<(String, String)> {
        match self {
            Pair::Two(left, right) => Some((left, right)),
            Pair::Line(line) if line.starts_with("#version") => None,
            Pair::Line(line) => line.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        }
    }
}

impl BytePair {
    /// Of a tokenizer as it is used, and the file that it was read from; `None` where any part of it is not known here.
    pub fn of(tokenizer: &Tokenizer, json: &[u8]) -> Option<Self> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        if !matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return None;
        }
        let words = word_rule(tokenizer)?;
        classes::CLASSES.as_ref()?;
        let (whole, merges) = model_of(model, json)?;
        let added = Added::of(tokenizer, words.normalizes)?;
        let mut lengths = vec![];
        let mut set = |token: u32, length: usize| {
            lengths.resize(lengths.len().max(token as usize + 1), 0);
            lengths[token as usize] = length as u32;
        };
        model.get_vocab().iter().for_each(|(name, token)| set(*token, name.chars().count()));
        tokenizer.get_added_tokens_decoder().iter().for_each(|(id, token)| set(*id, token.content.len()));
        let caches = Mutex::default();
        Some(BytePair { added, words, whole, merges, lengths, caches })
    }

    /// Bytes of text that a token stands for.
    pub fn length(&self, token: u32) -> usize {
        self.lengths.get(token as usize).map_or(0, |length| *length as usize)
    }

    /// A text's tokens; `None` where the library has to be asked, since the text would be normalized.
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        if self.words.normalizes && !is_normal(text) {
            return None;
        }
        let caches = || self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cache = caches().pop().unwrap_or_default();
        let mut tokens = Vec::with_capacity(text.len() / 3);
        self.added.split(text, |text, token| match token {
            Some(token) => tokens.push(token),
            None if self.words.cuts_numbers => {
                for part in text.split_inclusive(char::is_numeric) {
                    let number = part.char_indices().next_back().filter(|(_, c)| c.is_numeric());
                    let (before, number) = part.split_at(number.map_or(part.len(), |(at, _)| at));
                    self.words(before, &mut cache, &mut tokens);
                    self.words(number, &mut cache, &mut tokens);
                }
            }
            None => self.words(text, &mut cache, &mut tokens),
        });
        caches().push(cache);
        Some(tokens)
    }

    fn words(&self, text: &str, cache: &mut Cache, tokens: &mut Vec<u32>) {
        self.words.rule.words(text, |word| {
            cache.get(word, tokens, |scratch, tokens| match self.whole.get(word) {
                Some(token) => tokens.push(*token),
                None => self.merges.encode(word, scratch, tokens),
            });
        });
    }
}

fn is_normal(text: &str) -> bool {
    text.is_ascii()
        || text.chars().all(|c| c < FIRST_COMPOSED)
        || matches!(is_nfc_quick(text.chars()), IsNormalized::Yes)
}

/// How a tokenizer cuts a text to words; `None` where that is not known here.
pub fn word_rule(tokenizer: &Tokenizer) -> Option<WordRule> {
    let normalizes = match tokenizer.get_normalizer() {
        None => false,
        Some(NormalizerWrapper::NFC(_)) => true,
        Some(_) => return None,
    };
    let (cuts_numbers, rule) = rule_of(tokenizer.get_pre_tokenizer()?)?;
    Some(WordRule { normalizes, cuts_numbers, rule })
}

/// Whether numbers are cut off first, and the rule.
fn rule_of(pre_tokenizer: &PreTokenizerWrapper) -> Option<(bool, Rule)> {
    let steps = match pre_tokenizer {
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref(),
        one => std::slice::from_ref(one),
    };
    let (PreTokenizerWrapper::ByteLevel(last), before) = steps.split_last()? else { return None };
    match before {
        _ if last.add_prefix_space => None,
        [] if last.use_regex => Some((false, Rule::Gpt2)),
        [PreTokenizerWrapper::Digits(digits)] if last.use_regex && digits.individual_digits => Some((true, Rule::Gpt2)),
        [PreTokenizerWrapper::Split(split)] if !last.use_regex => Some((false, rule_of_split(split)?)),
        _ => None,
    }
}

fn rule_of_split(split: &Split) -> Option<Rule> {
    let SplitPattern::Regex(pattern) = &split.pattern else { return None };
    // Every character is part of a match, so there is nothing between matches that could be removed.
    let keeps_matches = matches!(
        (&split.behavior, split.invert),
        (SplitDelimiterBehavior::Isolated, _) | (SplitDelimiterBehavior::Removed, true)
    );
    Rule::of(pattern).filter(|_| keeps_matches)
}

/// The merges of a tokenizer.json, the first to be made first; `None` where it has no list of them.
pub fn merges_of(json: &[u8]) -> Option<Vec<(String, String)>> {
    let file: File = serde_json::from_slice(json).ok()?;
    Some(file.model.merges.into_iter().filter_map(Pair::names).collect())
}

/// The words that are not merged, and the merges.
fn model_of(model: &BPE, json: &[u8]) -> Option<(Whole, Merges)> {
    let is_empty = |part: &Option<String>| part.as_deref().is_none_or(str::is_empty);
    if model.dropout.is_some() || !is_empty(&model.continuing_subword_prefix) || !is_empty(&model.end_of_word_suffix) {
        return None;
    }
    let vocabulary = model.get_vocab();
    // Two names of one token might be merged in another order than by the library.
    if vocabulary.values().collect::<HashSet<_>>().len() != vocabulary.len() {
        return None;
    }
    let characters: [char; 256] = std::array::from_fn(|byte| char_of(byte as u8));
    let mut bytes = [0; 256];
    for (character, token) in characters.iter().zip(&mut bytes) {
        *token = *vocabulary.get(character.encode_utf8(&mut [0; 4]))?;
    }
    let mut pairs = vec![];
    for (left, right) in merges_of(json)? {
        let token = |name: &str| vocabulary.get(name).copied();
        pairs.push((token(&left)?, token(&right)?, token(&[left, right].concat())?));
    }
    let byte_of: HashMap<char, u8> = characters.into_iter().zip(0..=255).collect();
    let spelled = |(name, token): (&String, &u32)| {
        Some((name.chars().map(|c| byte_of.get(&c).copied()).collect::<Option<Box<[u8]>>>()?, *token))
    };
    let whole = if model.ignore_merges { vocabulary.iter().filter_map(spelled).collect() } else { HashMap::new() };
    Some((whole, Merges::new(bytes, &pairs)))
}
