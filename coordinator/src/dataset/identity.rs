//! Whether two tokenizers make the same tokens of text: weights that were trained on one cannot go on with another.

use super::vocabulary::byte_tokenizer;
use nightjar_shared::tokenizer::load;
use serde_json::Value;
use std::collections::BTreeMap;

/// How a model's tokenizer differs from the one that the data was made with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenizerMismatch {
    /// One of the two cannot be read.
    #[error("the {whose} tokenizer.json cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        whose: &'static str,
        /// Why.
        reason: String,
    },
    /// A token means something else, or nothing.
    #[error("token {id} is `{data}` in the data and {model} in the model's tokenizer.json")]
    Token {
        /// Its number.
        id: u32,
        /// Its name in the data.
        data: String,
        /// What the model has in its place.
        model: String,
    },
    /// The tokens are the same, but not what text becomes.
    #[error("the two have the same tokens, but their `{part}` differs, so that text becomes other tokens")]
    Rule {
        /// The part of tokenizer.json.
        part: &'static str,
    },
}

/// Compares the data's tokenizer with the model's; `None` for the data means that tokens are bytes. Tokens that only
/// the model has are allowed, since the data has none of them.
pub fn check_same_tokenizer(data: Option<&[u8]>, model: &[u8]) -> Result<(), TokenizerMismatch> {
    let unreadable = |whose, reason: String| TokenizerMismatch::Unreadable { whose, reason };
    let data = match data {
        Some(json) => json.to_vec(),
        None => byte_tokenizer().map_err(|e| unreadable("data's", e.to_string()))?,
    };
    let load = |whose, json: &[u8]| load(json).map_err(|e| unreadable(whose, e.to_string()));
    let (data, model) = (load("data's", &data)?, load("model's", model)?);
    let tokens: BTreeMap<u32, String> = data.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    for (id, token) in tokens {
        if model.token_to_id(&token) != Some(id) {
            let model = model.id_to_token(id).map_or("missing".to_owned(), |token| format!("`{token}`"));
            return Err(TokenizerMismatch::Token { id, data: token, model });
        }
    }
    // Read and written anew, so that only what they say counts, not how.
    let value = |whose, json: Result<String, tokenizers::Error>| -> Result<Value, TokenizerMismatch> {
        let json = json.map_err(|e| unreadable(whose, e.to_string()))?;
        serde_json::from_str(&json).map_err(|e| unreadable(whose, e.to_string()))
    };
    let (data, model) = (value("data's", data.to_string(false))?, value("model's", model.to_string(false))?);
    for part in ["normalizer", "pre_tokenizer"] {
        if data[part] != model[part] {
            return Err(TokenizerMismatch::Rule { part });
        }
    }
    for part in ["type", "merges", "unk_token", "byte_fallback", "ignore_merges"] {
        if data["model"][part] != model["model"][part] {
            return Err(TokenizerMismatch::Rule { part });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::vocabulary::{EndOfText, TokenizerChoice, train},
        *,
    };

    fn trained(size: u32, text: &str) -> Vec<u8> {
        let end = EndOfText::choose(&TokenizerChoice::Train(size), None).unwrap();
        train(size, &end, std::iter::repeat_n(text.to_owned(), 30)).unwrap()
    }

    #[test]
    fn the_same_tokenizer_in_other_words_is_the_same() {
        let json = trained(300, "the quick brown fox jumps over the lazy dog");
        assert_eq!(check_same_tokenizer(Some(&json), &json), Ok(()));
        let mut value: Value = serde_json::from_slice(&json).unwrap();
        value["truncation"] =
            serde_json::json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
        value["post_processor"] = Value::Null;
        let merges: Vec<String> = value["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
            .collect();
        value["model"]["merges"] = merges.into();
        let pad = serde_json::json!({"id": 300, "content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        value["added_tokens"].as_array_mut().unwrap().push(pad);
        let other = serde_json::to_vec_pretty(&value).unwrap();
        assert_eq!(check_same_tokenizer(Some(&json), &other), Ok(()));
        let missing = check_same_tokenizer(Some(&other), &json);
        assert!(matches!(missing, Err(TokenizerMismatch::Token { ref data, .. }) if data == "<pad>"), "{missing:?}");
        assert_eq!(check_same_tokenizer(None, &byte_tokenizer().unwrap()), Ok(()));
    }

    #[test]
    fn another_tokenizer_is_refused_with_the_difference() {
        let json = trained(300, "the quick brown fox jumps over the lazy dog");
        let other = trained(300, "eine ganz andere Sprache mit anderen Worten als jene");
        let why = check_same_tokenizer(Some(&json), &other).unwrap_err().to_string();
        assert!(why.starts_with("token 2") && why.contains("in the data and `"), "{why}");
        assert!(
            check_same_tokenizer(None, &json).is_err()
                && check_same_tokenizer(Some(&json), &byte_tokenizer().unwrap()).is_err()
        );
        let mut value: Value = serde_json::from_slice(&json).unwrap();
        value["normalizer"] = serde_json::json!({"type": "Lowercase"});
        let lower = serde_json::to_vec(&value).unwrap();
        assert_eq!(check_same_tokenizer(Some(&json), &lower), Err(TokenizerMismatch::Rule { part: "normalizer" }));
        assert!(matches!(
            check_same_tokenizer(None, b"{"),
            Err(TokenizerMismatch::Unreadable { whose: "model's", .. })
        ));
    }
}
