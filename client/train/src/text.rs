//! A tokenizer.json for text as it is, and the tokens that end one.

use crate::folder::{FolderError, Vocabulary};
use nightjar_shared::{
    end_of_text::{KNOWN, Stated, stated},
    tokenizer::{TextTokenizer, known_end_of_text, load},
};
use std::{fs, path::Path};
use tokenizers::Tokenizer;

/// Reads a folder's tokenizer.json, for the same tokens as `dataset prepare` makes: text that spells a special token,
/// or the end of text, stays text.
pub fn load_tokenizer(folder: &Path, json: &[u8]) -> Result<TextTokenizer, FolderError> {
    let wrong = |e: tokenizers::Error| FolderError::Tokenizer(e.to_string());
    let tokenizer = load(json).map_err(wrong)?;
    let ends = ends(folder, &tokenizer).map_err(FolderError::Tokenizer)?;
    let ends: Vec<String> = ends.into_iter().filter_map(|id| tokenizer.id_to_token(id)).collect();
    TextTokenizer::new(json, &ends).map_err(wrong)
}

/// The tokens that end a text: those that the folder's files state, else those that are known by name.
pub fn end_of_text(folder: &Path, vocabulary: &Vocabulary) -> Vec<u32> {
    match vocabulary {
        Vocabulary::Bytes => vec![],
        // Files that cannot be read were told when the folder was opened.
        Vocabulary::Tokenizer(tokenizer) => ends(folder, tokenizer.tokenizer()).unwrap_or_default(),
    }
}

fn ends(folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>, String> {
    let of = |stated| match stated {
        Stated::Token(name) => tokenizer.token_to_id(&name),
        Stated::Id(id) => Some(id),
    };
    let mut tokens: Vec<u32> = stated(|file| fs::read(folder.join(file)).ok())?.into_iter().filter_map(of).collect();
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
