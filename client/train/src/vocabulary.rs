//! How text becomes tokens and tokens text: bytes, or what a folder's tokenizer.json says. And the tokens that end one.

use nightjar_shared::{
    end_of_text::{KNOWN, Stated, stated},
    tokenizer::{TextTokenizer, known_end_of_text, load},
};
use std::{fs, path::Path};
use tokenizers::Tokenizer;

/// tokenizer.json is damaged, or a text cannot be encoded or decoded by it.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer.json: {0}")]
pub struct TokenizerError(String);

impl TokenizerError {
    pub(crate) fn of(error: impl ToString) -> Self {
        TokenizerError(error.to_string())
    }
}

/// How text becomes tokens.
pub enum Vocabulary {
    /// A token is a byte.
    Bytes,
    /// What tokenizer.json says.
    Tokenizer(Box<TextTokenizer>),
}

impl Vocabulary {
    /// The text's tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match self {
            Vocabulary::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Vocabulary::Tokenizer(t) => t.encode(text).map_err(TokenizerError::of),
        }
    }

    /// The tokens' text; what is no whole character becomes U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        match self {
            Vocabulary::Bytes => {
                let bytes: Vec<u8> = tokens.iter().map(|t| u8::try_from(*t).unwrap_or(b'?')).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Vocabulary::Tokenizer(t) => t.tokenizer().decode(tokens, false).map_err(TokenizerError::of),
        }
    }
}

/// Reads a folder's tokenizer.json, for the same tokens as `dataset prepare` makes: text that spells a special token,
/// or the end of text, stays text.
pub fn load_tokenizer(folder: &Path, json: &[u8]) -> Result<TextTokenizer, TokenizerError> {
    let tokenizer = load(json).map_err(TokenizerError::of)?;
    let ends = ends(folder, &tokenizer)?;
    let ends: Vec<String> = ends.into_iter().filter_map(|id| tokenizer.id_to_token(id)).collect();
    TextTokenizer::new(json, &ends).map_err(TokenizerError::of)
}

/// The tokens that end a text: those that the folder's files state, else those that are known by name.
pub fn end_of_text(folder: &Path, vocabulary: &Vocabulary) -> Vec<u32> {
    match vocabulary {
        Vocabulary::Bytes => vec![],
        // Files that cannot be read were told when the folder was opened.
        Vocabulary::Tokenizer(tokenizer) => ends(folder, tokenizer.tokenizer()).unwrap_or_default(),
    }
}

fn ends(folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let of = |stated| match stated {
        Stated::Token(name) => tokenizer.token_to_id(&name),
        Stated::Id(id) => Some(id),
    };
    let stated = stated(|file| fs::read(folder.join(file)).ok()).map_err(TokenizerError)?;
    let mut tokens: Vec<u32> = stated.into_iter().filter_map(of).collect();
    if tokens.is_empty() {
        let special = tokenizer.get_added_tokens_decoder();
        let is_special = |id: &u32| special.get(id).is_some_and(|token| token.special);
        tokens.extend(KNOWN.iter().filter_map(|name| tokenizer.token_to_id(name)).filter(is_special));
    }
    if tokens.is_empty() {
        tokens.extend(known_end_of_text(tokenizer).and_then(|name| tokenizer.token_to_id(&name)));
    }
    tokens.dedup();
    Ok(tokens)
}
