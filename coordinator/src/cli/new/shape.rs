//! The model that a person names: a size, a config.json, or a folder that `transformers` writes.

use nightjar_shared::{
    model_folder::{self, ModelFolder},
    model_spec::{ModelSpec, Size},
};
use std::path::{Path, PathBuf};

/// A context where a config.json allows more, in tokens: long ones cost memory and few documents fill them.
const CONTEXT: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub enum Shape {
    /// By name; the vocabulary is the data's.
    Size(&'static Size),
    /// As somebody wrote it down.
    Config {
        /// What it says.
        spec: ModelSpec,
        /// What the person should know.
        notes: Vec<String>,
        /// The folder with the weights, where a run is to start from them.
        init: Option<PathBuf>,
    },
}

impl Shape {
    /// Reads what a person wrote; what is wrong with it is told.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        if let Some(size) = Size::find(text) {
            return Ok(Shape::Size(size));
        }
        if path.is_dir() {
            let found = ModelFolder::open(path).map_err(|error| error.to_string())?;
            let (spec, notes) = (found.spec().clone(), found.notes().to_vec());
            return Ok(Shape::Config { spec, notes, init: Some(path.to_owned()) });
        }
        if path.is_file() {
            let (spec, notes) = model_folder::read_config(path).map_err(|error| error.to_string())?;
            return Ok(Shape::Config { spec, notes, init: None });
        }
        let sizes = Size::names();
        Err(format!("{text} is no size and no file: name one of {sizes}, a config.json, or a Hugging Face folder"))
    }

    /// The folder with the weights that a run starts from.
    pub fn init(&self) -> Option<&Path> {
        match self {
            Shape::Config { init, .. } => init.as_deref(),
            Shape::Size(_) => None,
        }
    }

    /// What the person should know.
    pub fn notes(&self) -> &[String] {
        match self {
            Shape::Config { notes, .. } => notes,
            Shape::Size(_) => &[],
        }
    }

    /// The context that goes with it, in tokens.
    pub fn context(&self) -> u32 {
        match self {
            Shape::Size(size) => size.context,
            Shape::Config { spec, .. } => spec.max_position_embeddings.min(CONTEXT),
        }
    }

    /// The tokenizer that goes with it, as `dataset prepare` takes it.
    pub fn tokenizer(&self) -> String {
        match self {
            Shape::Size(size) => size.vocabulary.map_or_else(|| "bytes".to_owned(), |size| format!("bpe:{size}")),
            Shape::Config { init: Some(folder), .. } => folder.display().to_string(),
            // As large as it may be, or else a byte a token.
            Shape::Config { spec, init: None, .. } if spec.vocab_size <= 512 => "bytes".to_owned(),
            Shape::Config { spec, init: None, .. } => format!("bpe:{}", spec.vocab_size),
        }
    }

    /// Refuses contexts that are longer than the model's.
    pub fn takes_context(&self, context: u32) -> Result<(), String> {
        match self {
            Shape::Config { spec, .. } if context > spec.max_position_embeddings => {
                let most = spec.max_position_embeddings;
                Err(format!(
                    "the model takes contexts of up to {most} tokens, and {context} are asked for: --context {most}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The model over data with so many tokens and contexts of that length.
    pub fn model(&self, vocabulary: u32, context: u32) -> Result<ModelSpec, String> {
        self.takes_context(context)?;
        match self {
            Shape::Size(size) => Ok(size.model(vocabulary, context)),
            Shape::Config { spec, .. } if vocabulary > spec.vocab_size => Err(format!(
                "the data has a vocabulary of {vocabulary} tokens, and the model one of {}: prepare the data with the \
                 model's own --tokenizer",
                spec.vocab_size
            )),
            Shape::Config { spec, .. } => Ok(ModelSpec { max_position_embeddings: context, ..spec.clone() }),
        }
    }
}
