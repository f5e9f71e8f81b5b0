//! A model as a folder that Hugging Face's `transformers` loads as it is, written. What is written needs no code of
//! ours: config.json, safetensors, tokenizer.json, tokenizer_config.json, generation_config.json. The way back is
//! `nightjar_shared::model_folder`. Or as one file for llama.cpp ([`gguf`]).

mod card;
mod companions;
mod config;
mod dtype;
mod gguf;
mod target;
mod tensors;

pub use card::{Kind, Provenance, Watts};
pub use companions::{Companions, CompanionsError, KEPT as COMPANIONS};
pub use dtype::Dtype;
pub use gguf::NotKnown;

use crate::dataset::{ByteVocabularyError, byte_tokenizer};
use clap::ValueEnum;
use config::Specials;
use nightjar_shared::{
    mark::{MARK_FILE, MarkError},
    model_spec::{ModelSpec, TensorSpec},
    version,
};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};
use target::Target;

/// All that an export may be made of, besides its mark and the parts of large weights.
const FILES: [&str; 9] = [
    card::FILE,
    card::PICTURE,
    "config.json",
    "generation_config.json",
    gguf::FILE,
    tensors::FILE,
    tensors::INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Whether a file of this name may be part of an export.
fn is_of_export(name: &str) -> bool {
    FILES.contains(&name) || tensors::is_shard(name)
}

/// Bytes of a file of weights where nobody says how many: as `transformers` has long cut them.
pub const FILE_BYTES_MAX: u64 = 5_000_000_000;

/// For whom a model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A folder that `transformers` loads, and `serve --init`
    #[default]
    Hf,
    /// One file that llama.cpp loads
    Gguf,
}

/// A model to be written.
pub struct Model<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its shape.
    pub spec: &'a ModelSpec,
    /// Its weights.
    pub weights: Weights<'a>,
    /// What its tokens mean; without it they are bytes.
    pub vocabulary: Option<Vocabulary>,
    /// What the model that it started from says of tokens and conversations.
    pub companions: Companions,
    /// What its card says; without it there is none.
    pub provenance: Option<Provenance>,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// For whom.
    pub format: Format,
    /// As which numbers.
    pub dtype: Dtype,
    /// A file of weights is cut before it gets longer.
    pub file_bytes_max: u64,
}

impl Default for Form {
    fn default() -> Self {
        Form { format: Format::default(), dtype: Dtype::default(), file_bytes_max: FILE_BYTES_MAX }
    }
}

/// Weights, looked at a tensor at a time.
pub enum Weights<'a> {
    /// Of a version.
    Version(&'a version::Weights),
    /// As one flat vector.
    Flat(&'a [f32]),
}

impl Weights<'_> {
    fn parameters(&self) -> usize {
        match self {
            Weights::Version(weights) => weights.tensors.iter().map(|tensor| tensor.integers.len()).sum(),
            Weights::Flat(values) => values.len(),
        }
    }

    /// The values of a tensor, `at` its place in flat order.
    fn tensor(&self, at: usize, tensor: &TensorSpec) -> Cow<'_, [f32]> {
        match self {
            Weights::Version(weights) => weights.tensors[at].values().collect(),
            Weights::Flat(values) => values[tensor.range()].into(),
        }
    }
}

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
    /// A number that the type has no place for.
    #[error("{tensor} holds {value:e}, and {dtype} has no place for it: choose another --dtype")]
    TooLarge {
        /// The tensor's name.
        tensor: String,
        /// The number.
        value: f32,
        /// The type.
        dtype: &'static str,
    },
    /// llama.cpp would make other tokens.
    #[error(transparent)]
    NotKnown(#[from] NotKnown),
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
/// An earlier export is replaced; anything else is left alone.
pub fn export(folder: &Path, model: Model<'_>, form: Form) -> Result<(), ExportError> {
    let Model { name, spec, weights, vocabulary, companions, provenance } = model;
    let (expected, found) = (spec.parameters(), weights.parameters());
    if found != expected {
        return Err(ExportError::Length { expected, found });
    }
    for (at, tensor) in spec.tensors().iter().enumerate().filter(|_| form.dtype != Dtype::F32) {
        if let Some(value) = form.dtype.too_large(&weights.tensor(at, tensor)) {
            return Err(ExportError::TooLarge { tensor: tensor.name.clone(), value, dtype: form.dtype.name() });
        }
    }
    let target = Target::find(folder)?;
    let Vocabulary { json, end_of_text } = match vocabulary {
        Some(vocabulary) => vocabulary,
        None => Vocabulary { json: byte_tokenizer()?, end_of_text: None },
    };
    let specials = Specials::find(&json, end_of_text, &companions, spec)?;
    let draft = target.draft()?;
    let new = draft.folder();
    let write = |name: &str, bytes: &[u8]| write_new(&new.join(name), bytes);
    if let Some(provenance) = provenance {
        write(card::FILE, provenance.card(spec, form.format).as_bytes())?;
        provenance.picture().map_or(Ok(()), |picture| write(card::PICTURE, picture.as_bytes()))?;
    }
    match form.format {
        Format::Hf => {
            write("config.json", &pretty(&config::model_config(spec, form.dtype, &specials)))?;
            write("generation_config.json", &pretty(&config::generation_config(&companions, &specials)))?;
            write("tokenizer_config.json", &pretty(&config::tokenizer_config(spec, &companions, &specials)))?;
            write("tokenizer.json", &config::plain_tokenizer(json)?)?;
            tensors::write(&new, spec, &weights, form)?;
        }
        Format::Gguf => {
            let about = gguf::About { name, tokenizer: &json, specials: &specials, companions: &companions };
            gguf::write(&new.join(gguf::FILE), spec, &weights, form.dtype, &about)?;
        }
    }
    draft.put_in_place()
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(ExportError::io(path))
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests;
