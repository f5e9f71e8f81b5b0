//! A tokenizer.json for text as it is, and the tokens that end one.

use crate::folder::{FolderError, Vocabulary};
use nightjar_shared::end_of_text::{KNOWN, Stated, stated};
use std::{fs, path::Path};
use tokenizers::{ModelWrapper, Tokenizer};

/// Reads a tokenizer.json. What it says about cutting text off, filling it up or leaving things to chance is for other
/// uses; and text that spells a special token stays text.
pub fn load_tokenizer(json: &[u8]) -> Result<Tokenizer, FolderError> {
    let wrong = |e: tokenizers::Error| FolderError::Tokenizer(e.to_string());
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(wrong)?;
    tokenizer.with_truncation(None).map_err(wrong)?.with_padding(None);
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

/// The tokens that end a text: those that the folder's files state, else those that are known by name.
pub fn end_of_text(folder: &Path, vocabulary: &Vocabulary) -> Vec<u32> {
    let Vocabulary::Tokenizer(tokenizer) = vocabulary else { return vec![] };
    let of = |stated| match stated {
        Stated::Token(name) => tokenizer.token_to_id(&name),
        Stated::Id(id) => Some(id),
    };
    let mut tokens: Vec<u32> = stated(|file| fs::read(folder.join(file)).ok()).into_iter().filter_map(of).collect();
    if tokens.is_empty() {
        let special = tokenizer.get_added_tokens_decoder();
        let is_special = |id: &u32| special.get(id).is_some_and(|token| token.special);
        tokens.extend(KNOWN.iter().filter_map(|name| tokenizer.token_to_id(name)).filter(is_special));
    }
    tokens.dedup();
    tokens
}
