//! A model as a folder that Hugging Face's `transformers` loads as it is, written and read. What is written needs no
//! code of ours: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, generation_config.json.

mod config;
mod tensors;

use crate::dataset::{ByteVocabularyError, byte_tokenizer};
use nightjar_shared::model_spec::{ModelSpec, ModelSpecError};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A model that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The target holds something else.
    #[error("{folder} is not empty and holds no exported model: name another folder")]
    Foreign {
        /// The target.
        folder: PathBuf,
    },
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
    /// config.json describes a model that this version does not train.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, what it holds, and what is allowed.
        reason: String,
    },
    /// The config's sizes make no model.
    #[error(transparent)]
    Model(#[from] ModelSpecError),
    /// The weights' file is no safetensors file, or lacks a tensor.
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
    #[error("the tokenizer has {tokenizer} tokens, but the model's vocab_size is {model}: export with the run's own dataset")]
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

/// Writes the model into `folder`: made anew beside it and renamed, so that a half-written model is never found there. An
/// earlier export is replaced; anything else is left alone. `tokenizer` is a tokenizer.json; without one, tokens are bytes.
pub fn export(folder: &Path, model: &ModelSpec, weights: &[f32], tokenizer: Option<&[u8]>) -> Result<(), ExportError> {
    let expected = model.parameters();
    if weights.len() != expected {
        return Err(ExportError::Length { expected, found: weights.len() });
    }
    refuse_foreign(folder)?;
    let tokenizer = match tokenizer {
        Some(json) => json.to_vec(),
        None => byte_tokenizer()?,
    };
    let end_of_text = config::end_of_text(&tokenizer, model)?;
    let new = beside(folder, "new");
    remove(&new)?;
    fs::create_dir_all(&new).map_err(ExportError::io(&new))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = new.join(name);
        let written = File::create(&path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
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

    // A folder cannot be replaced in one step: the earlier export steps aside first.
    let old = beside(folder, "old");
    remove(&old)?;
    match fs::rename(folder, &old) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(ExportError::io(folder)(e)),
        _ => {}
    }
    fs::rename(&new, folder).map_err(ExportError::io(folder))?;
    remove(&old)
}

/// Reads a folder that `transformers` could load: the model's shape and its weights as one flat vector.
pub fn import(folder: &Path) -> Result<(ModelSpec, Vec<f32>), ExportError> {
    let path = folder.join("config.json");
    let json = fs::read(&path).map_err(ExportError::io(&path))?;
    let model = config::model_of(&json).map_err(|reason| ExportError::Config { path, reason })?;
    model.validate()?;
    let weights = tensors::read(folder, &model)?;
    Ok((model, weights))
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// `FOLDER.suffix`, in the same parent, so that renaming it is one step.
fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    folder.with_file_name(name)
}

fn refuse_foreign(folder: &Path) -> Result<(), ExportError> {
    let mut entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(ExportError::io(folder))?,
    };
    let is_export = ["config.json", "model.safetensors"].iter().all(|name| folder.join(name).is_file());
    let is_empty = entries.next().is_none();
    if is_empty || is_export { Ok(()) } else { Err(ExportError::Foreign { folder: folder.to_owned() }) }
}

fn remove(folder: &Path) -> Result<(), ExportError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ExportError::io(folder)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
