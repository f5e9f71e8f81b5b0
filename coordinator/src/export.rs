//! A model as a folder that Hugging Face's `transformers` loads as it is, written. What is written needs no code of
//! ours: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, generation_config.json. The way back is
//! `nightjar_shared::model_folder`.

mod config;
mod target;
mod tensors;

use crate::dataset::{ByteVocabularyError, byte_tokenizer};
use nightjar_shared::{
    mark::{MARK_FILE, MarkError},
    model_spec::ModelSpec,
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};
use target::Target;

/// All that an export is made of, besides its mark.
const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// What a model's tokens mean.
pub struct Vocabulary {
    /// A tokenizer.json.
    pub json: Vec<u8>,
    /// The token that ends each document of the data, where it is not one that the tokenizer is known for.
    pub end_of_text: Option<u32>,
}

/// A model that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The target holds something else.
    #[error("{folder} holds {entry}, which no export wrote: move it away, or name another folder")]
    Foreign {
        /// The target.
        folder: PathBuf,
        /// What is not ours.
        entry: String,
    },
    /// The target is a model, and nothing says that we made it.
    #[error(
        "{folder} holds a model that is not known as an export of ours (it has no {MARK_FILE}; earlier versions wrote none): \
         move it away, or name another folder"
    )]
    Unmarked {
        /// The target.
        folder: PathBuf,
    },
    /// Somebody worked on what was exported.
    #[error("{folder} holds {entry}, which was changed since it was exported: move it away, or name another folder")]
    Changed {
        /// The target.
        folder: PathBuf,
        /// The changed file.
        entry: String,
    },
    /// The target was made by another command.
    #[error("{folder} is {kind}, no exported model: name another folder")]
    OtherKind {
        /// The target.
        folder: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file, or no name at all.
    #[error("{folder} is no folder: name one to write the model to")]
    NotAFolder {
        /// The target.
        folder: PathBuf,
    },
    /// A link that leads nowhere.
    #[error("{folder} is a link to something that is not there: remove the link, or name another folder")]
    DeadLink {
        /// The target.
        folder: PathBuf,
    },
    /// The target is where the command was started, or above.
    #[error(
        "{folder} is the folder that you are in, or one above it, and an export replaces its folder: name another one"
    )]
    Here {
        /// The target.
        folder: PathBuf,
    },
    /// The target's mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The weights are not those of the model.
    #[error("the model has {expected} parameters, but {found} were given")]
    Length {
        /// By the model's shape.
        expected: usize,
        /// As given.
        found: usize,
    },
    /// The weights' file cannot be written.
    #[error("{path}: {reason}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The byte tokenizer could not be written.
    #[error(transparent)]
    Tokenizer(#[from] ByteVocabularyError),
    /// The tokenizer in use is none.
    #[error("the tokenizer is no tokenizer.json: {0}")]
    BadTokenizer(String),
    /// The tokenizer has tokens that the model does not know.
    #[error(
        "the tokenizer has {tokenizer} tokens, but the model's vocab_size is {model}: export with the run's own dataset"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the model.
        model: u32,
    },
}

impl ExportError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ExportError {
        let path = path.into();
        move |source| ExportError::Io { path, source }
    }
}

/// Whether a model may be written there; nothing is touched.
pub fn check(folder: &Path) -> Result<(), ExportError> {
    Target::find(folder).map(|_| ())
}

/// Writes the model into `folder`: made anew beside it and renamed, so that a half-written model is never found there.
/// An earlier export is replaced; anything else is left alone. Without a tokenizer, tokens are bytes.
pub fn export(
    folder: &Path,
    model: &ModelSpec,
    weights: &[f32],
    tokenizer: Option<Vocabulary>,
) -> Result<(), ExportError> {
    let expected = model.parameters();
    if weights.len() != expected {
        return Err(ExportError::Length { expected, found: weights.len() });
    }
    let target = Target::find(folder)?;
    let Vocabulary { json: tokenizer, end_of_text } = match tokenizer {
        Some(vocabulary) => vocabulary,
        None => Vocabulary { json: byte_tokenizer()?, end_of_text: None },
    };
    let end_of_text = config::end_of_text(&tokenizer, end_of_text, model)?;
    let draft = target.draft()?;
    let new = draft.folder();
    let write = |name: &str, bytes: &[u8]| {
        let path = new.join(name);
        let written = File::create_new(&path).and_then(|mut file| file.write_all(bytes));
        written.map_err(ExportError::io(path))
    };
    write("config.json", &pretty(&config::model_config(model, end_of_text.as_ref())))?;
    write("generation_config.json", &pretty(&config::generation_config(end_of_text.as_ref())))?;
    write("tokenizer_config.json", &pretty(&config::tokenizer_config(model, end_of_text.as_ref())))?;
    write("tokenizer.json", &tokenizer)?;
    tensors::write(&new.join("model.safetensors"), model, weights)?;
    // The library makes that file for its owner alone; it is to be as public as its neighbours.
    let public = fs::metadata(new.join("config.json")).map_err(ExportError::io(&new))?.permissions();
    fs::set_permissions(new.join("model.safetensors"), public).map_err(ExportError::io(&new))?;
    draft.put_in_place()
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests;
