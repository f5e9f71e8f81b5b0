//! A model as a folder that `transformers` writes and loads: config.json and safetensors, in one file or in several.
//! The one reader that both programs use, so that the same folder is the same model to both.
//!
//! What config.json asks for and Nightjar does not compute is refused by its key; what is there and not used is said in
//! [`ModelFolder::notes`]. Weights are read a tensor at a time into memory that the caller has: a folder needs no more
//! memory than the model.

mod config;
mod tensors;
mod widen;

use crate::model_spec::{ModelSpec, TensorSpec};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};
use tensors::Shelf;

/// Longest config.json or index that is read, in bytes.
const JSON_BYTES_MAX: u64 = 64 << 20;
/// How a file of Git LFS begins that was not downloaded.
const LFS_POINTER: &[u8] = b"version https://git-lfs";
/// What some editors write before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Said of a head that config.json ties to the embedding.
const HEAD_KEPT: &str = "tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight: they are kept \
                         apart, as transformers 5 does";
/// Said where it is tied all the same.
const HEAD_DROPPED: &str =
    "tie_word_embeddings is true, so lm_head.weight, which differs from model.embed_tokens.weight, is not used";

/// A folder that is no model of ours. Each says which file, what is there, and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ModelFolderError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds what cannot be used.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it holds, and what is allowed.
        reason: String,
    },
}

impl ModelFolderError {
    fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| match source.kind() {
            io::ErrorKind::NotFound => ModelFolderError::refused(path, "there is no such file"),
            _ => ModelFolderError::Read { path, source },
        }
    }

    fn refused(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        ModelFolderError::Refused { path: path.into(), reason: reason.into() }
    }
}

/// An open folder: its config is read, and every tensor that the model needs is there in the right shape.
pub struct ModelFolder {
    spec: ModelSpec,
    notes: Vec<String>,
    shelf: Shelf,
    /// config.json ties the head to the embedding, and the folder has another head.
    has_other_head: bool,
}

impl ModelFolder {
    /// Reads everything but the weights, and refuses what cannot be trained.
    pub fn open(folder: &Path) -> Result<Self, ModelFolderError> {
        let path = folder.join("config.json");
        let (mut spec, mut notes) = read_config(&path)?;
        let shelf = Shelf::open(folder)?;
        let has_other_head = spec.tie_word_embeddings && shelf.has_other_head(&spec)?;
        if has_other_head {
            // As transformers 5 does. Its version 4 tied them, and dropped the head without a word.
            spec.tie_word_embeddings = false;
            notes.push(HEAD_KEPT.to_owned());
        }
        notes.extend(shelf.check(&spec)?);
        Ok(ModelFolder { spec, notes, shelf, has_other_head })
    }

    /// The model's shape.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What the person should know: what is there and is not used, and what is not there and was supposed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ties the head to the embedding as config.json says, although the folder has another head, which is then not
    /// used. Changes nothing where there is no such choice.
    pub fn tie_head(&mut self) {
        if self.has_other_head {
            self.spec.tie_word_embeddings = true;
            self.notes.iter_mut().filter(|note| *note == HEAD_KEPT).for_each(|note| *note = HEAD_DROPPED.to_owned());
        }
    }

    /// Reads one tensor of the model, row-major, as f32. `into` is as long as the tensor.
    pub fn read(&self, tensor: &TensorSpec, into: &mut [f32]) -> Result<(), ModelFolderError> {
        self.shelf.read(&tensor.name, into)
    }

    /// Reads all weights as one flat vector.
    pub fn weights(&self) -> Result<Vec<f32>, ModelFolderError> {
        let mut weights = vec![0.0; self.spec.parameters()];
        self.spec.tensors().iter().try_for_each(|tensor| self.read(tensor, &mut weights[tensor.range()]))?;
        Ok(weights)
    }
}

/// The shape that a config.json describes, without the weights that may lie beside it, and what the person should know.
pub fn read_config(path: &Path) -> Result<(ModelSpec, Vec<String>), ModelFolderError> {
    let config::Config { spec, notes } =
        config::read(&small_file(path)?).map_err(|error| ModelFolderError::refused(path, error.to_string()))?;
    Ok((spec, notes))
}

/// Opens a file, or the file that a link leads to: Hugging Face's cache is all links. Nothing else is opened, since a
/// pipe would be waited for.
fn open_file(path: &Path) -> Result<(File, u64), ModelFolderError> {
    let found = fs::metadata(path).map_err(ModelFolderError::read(path))?;
    if !found.is_file() {
        return Err(ModelFolderError::refused(path, "it is no file"));
    }
    Ok((File::open(path).map_err(ModelFolderError::read(path))?, found.len()))
}

/// A file that is read at once.
fn small_file(path: &Path) -> Result<Vec<u8>, ModelFolderError> {
    let (file, bytes) = open_file(path)?;
    if bytes > JSON_BYTES_MAX {
        return Err(ModelFolderError::refused(
            path,
            format!("it has {bytes} bytes; at most {JSON_BYTES_MAX} are read"),
        ));
    }
    let mut content = vec![];
    file.take(JSON_BYTES_MAX).read_to_end(&mut content).map_err(ModelFolderError::read(path))?;
    refuse_pointer(path, &content)?;
    if content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

fn refuse_pointer(path: &Path, begin: &[u8]) -> Result<(), ModelFolderError> {
    match begin.starts_with(LFS_POINTER) {
        true => Err(ModelFolderError::refused(
            path,
            "it is a pointer of Git LFS, not the file itself: run `git lfs pull` there",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
