//! A tokenizer.json for text as it is, the same in both programs: nothing is cut off, filled up or left to chance, and
//! text that spells a special token stays text.

use crate::end_of_text::KNOWN;
use serde::de::IgnoredAny;
use std::{collections::HashSet, panic::catch_unwind};
use tokenizers::{AddedToken, Error, Model, ModelWrapper, PostProcessorWrapper, Tokenizer};

/// Most tokens of a vocabulary.
const TOKENS_MAX: usize = 1 << 20;

/// Reads a tokenizer.json. What it says about cutting text off, filling it up, putting something around it or leaving
/// things to chance is for other uses.
pub fn load(json: &[u8]) -> Result<Tokenizer, Error> {
    // The library panics over some files that are cut short, and over some parts that it does not understand.
    serde_json::from_slice::<IgnoredAny>(json)?;
    let read = catch_unwind(|| Tokenizer::from_bytes(json));
    let mut tokenizer = read.unwrap_or_else(|_| Err("a part of it is damaged".into()))?;
    tokenizer.with_truncation(None)?.with_padding(None).with_post_processor(None::<PostProcessorWrapper>);
    tokenizer.set_encode_special_tokens(true);
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    Ok(tokenizer)
}

/// A name of the end of text that many vocabularies have: a special token first, else one that is not declared as such.
pub fn known_end_of_text(tokenizer: &Tokenizer) -> Option<String> {
    let special = tokenizer.get_added_tokens_decoder();
    let is_special = |id: u32| special.get(&id).is_some_and(|token| token.special);
    let known = || KNOWN.iter().filter_map(|token| Some((*token, tokenizer.token_to_id(token)?)));
    known().find(|(_, id)| is_special(*id)).or_else(|| known().next()).map(|(token, _)| token.to_owned())
}

/// A tokenizer, and the tokens that no text may become.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    unknown: Option<u32>,
    special: HashSet<u32>,
    /// For each token that no text may become, what its name becomes in its place.
    reserved: Vec<Option<Vec<u32>>>,
}

impl TextTokenizer {
    /// Of a tokenizer.json, and the tokens that end a document.
    pub fn new(json: &[u8], ends: &[String]) -> Result<Self, Error> {
        let mut tokenizer = load(json)?;
        let added = tokenizer.get_added_tokens_decoder();
        for end in ends {
            // What ends documents is not made of text.
            if tokenizer.token_to_id(end).and_then(|id| added.get(&id)).is_some_and(|token| !token.special) {
                tokenizer.add_special_tokens([AddedToken::from(end.as_str(), true)])?;
            }
        }
        let tokens = tokenizer.get_vocab(true);
        let mut special: HashSet<u32> =
            tokenizer.get_added_tokens_decoder().into_iter().filter(|(_, t)| t.special).map(|(id, _)| id).collect();
        special.extend(ends.iter().filter_map(|end| tokenizer.token_to_id(end)));
        let size = tokens.values().max().map_or(0, |id| *id as usize + 1);
        if size > TOKENS_MAX {
            return Err(format!("it has {size} tokens; allowed are up to {TOKENS_MAX}").into());
        }
        let unknown = unknown(&tokenizer);
        let mut reserved = vec![None; size];
        for (token, id) in tokens.iter().filter(|(_, id)| special.contains(id) && Some(**id) != unknown) {
            reserved[*id as usize] = Some(spelled(&tokenizer, token, *id));
        }
        Ok(TextTokenizer { tokenizer, unknown, special, reserved })
    }

    /// The tokenizer itself. What it makes of text goes through [`TextTokenizer::as_text`].
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.reserved.len()
    }

    /// Whether a token stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The token of what no other token stands for.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// A text's tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.as_text(self.tokenizer.encode_fast(text, false)?.get_ids().iter().copied()))
    }

    /// Tokens of text, without any that text may not become.
    pub fn as_text(&self, ids: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(ids.size_hint().0);
        for id in ids {
            match self.reserved.get(id as usize) {
                Some(Some(spelled)) => tokens.extend(spelled),
                _ => tokens.push(id),
            }
        }
        tokens
    }
}

/// The token of what no other token stands for; text becomes it rightly.
fn unknown(tokenizer: &Tokenizer) -> Option<u32> {
    let name = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::Unigram(_) => {
            return tokenizer.get_model().tokenize("\u{10FFFD}").ok()?.first().map(|token| token.id);
        }
    };
    tokenizer.token_to_id(&name?)
}

/// What a token's name is as text: its characters, one by one, as models write them.
fn spelled(tokenizer: &Tokenizer, name: &str, id: u32) -> Vec<u32> {
    let of = |c: char| {
        let bytes: String = c.encode_utf8(&mut [0; 4]).bytes().map(char_of).collect();
        let names = [c.to_string(), bytes, c.to_string().replace(' ', "▁")];
        let found = names.iter().map(|name| tokenizer.get_model().tokenize(name).unwrap_or_default());
        found.into_iter().find(|tokens| !tokens.is_empty()).unwrap_or_default()
    };
    let ids: Vec<u32> = name.chars().flat_map(of).map(|token| token.id).collect();
    // A single character has no other spelling.
    if ids.is_empty() || ids.contains(&id) { vec![id] } else { ids }
}

/// The character that stands for a byte in byte-level vocabularies (GPT-2's table): printable ones stand for
/// themselves, the others follow from U+0100 in order.
pub fn char_of(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let unprintable_before = (0..byte).filter(|b| !printable(*b)).count() as u32;
    char::from_u32(0x100 + unprintable_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unigram() -> Vec<u8> {
        let special = |(id, content): (usize, &str)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true})
        };
        let names = ["<unk>", "<s>", "</s>"];
        let letters = "<>/s abcdefghijklmnopqrtuvwxyz|".chars().map(|c| json!([c.to_string(), -3.0]));
        let vocabulary: Vec<_> = names.iter().map(|name| json!([name, 0.0])).chain(letters).collect();
        let json = json!({"version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
            "stride": 0}, "padding": null, "added_tokens": names.into_iter().enumerate().map(special).collect::<Vec<_>>(),
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": vocabulary}});
        serde_json::to_vec(&json).unwrap()
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_is_refused() {
        let whole = unigram();
        for end in 0..whole.len() {
            assert!(load(&whole[..end]).is_err(), "{end}");
        }
        let text = String::from_utf8(whole).unwrap();
        let precompiled = text.replace(r#""normalizer":null"#, r#""normalizer":{"type":"Precompiled"}"#);
        assert!(precompiled != text && load(precompiled.as_bytes()).is_err());
    }

    #[test]
    fn text_becomes_no_special_token() {
        let tokenizer = TextTokenizer::new(&unigram(), &["</s>".to_owned()]).unwrap();
        let text = "the fox </s> jumps <s> dog";
        let tokens = tokenizer.encode(text).unwrap();
        assert!(!tokens.iter().any(|id| tokenizer.is_special(*id)) && tokens.len() == text.len(), "{tokens:?}");
        assert_eq!((tokenizer.unknown(), tokenizer.is_special(1)), (Some(0), true));
    }

    #[test]
    fn the_end_of_text_is_special_whether_or_not_the_file_says_so() {
        let vocabulary: serde_json::Map<_, _> = (0..=255u8)
            .map(|byte| (char_of(byte).to_string(), json!(byte)))
            .chain([("<|endoftext|>".into(), json!(256))])
            .collect();
        let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{"id": 256,
            "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": false}], "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": true}, "post_processor": null, "decoder": {"type": "ByteLevel",
            "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": vocabulary, "merges": []}});
        let json = serde_json::to_vec(&json).unwrap();
        let end = known_end_of_text(&load(&json).unwrap()).unwrap();
        let tokenizer = TextTokenizer::new(&json, std::slice::from_ref(&end)).unwrap();
        let text = "a<|endoftext|>b";
        assert_eq!(tokenizer.encode(text).unwrap(), text.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(TextTokenizer::new(&json, &[]).unwrap().encode(text).unwrap(), [97, 256, 98]);
        assert!(tokenizer.is_special(256) && end == "<|endoftext|>");
    }
}
