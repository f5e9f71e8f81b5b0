//! A folder as `transformers` writes and reads it, put on a device: config.json and the weights, which
//! `nightjar_shared::model_folder` reads, and tokenizer.json.

use crate::{
    batches::Batch,
    model::{Model, ModelError},
    trainer::{TrainError, evaluate},
    vocabulary::{TokenizerError, Vocabulary, load_tokenizer},
};
use burn::tensor::Device;
use nightjar_shared::{
    model_folder::{ModelFolder, ModelFolderError},
    model_spec::ModelSpec,
};
use std::{
    borrow::Cow,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file is missing or unreadable.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// config.json or the weights.
    #[error(transparent)]
    Source(#[from] ModelFolderError),
    /// There is no tokenizer.json, and tokens are no bytes.
    #[error("there is no {}, and a vocabulary of {vocab_size} tokens is none of bytes: put the model's tokenizer.json there", path.display())]
    NoTokenizer {
        /// Where it would be.
        path: PathBuf,
        /// The model's tokens.
        vocab_size: u32,
    },
    /// tokenizer.json is damaged, or the text cannot be encoded or decoded by it.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The text is in another encoding.
    #[error("the text is not UTF-8 at byte {0}: convert it, as with iconv -f latin1 -t utf-8")]
    Text(usize),
    /// The text has too few tokens to measure anything on.
    #[error("the text has {0} tokens; at least 2 are needed")]
    TooShort(usize),
    /// All of the text is in the first character.
    #[error("the text is a single character; at least 2 are needed")]
    OneCharacter,
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model failed on a batch.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// An open folder. Its weights stay where they are until they are wanted.
pub struct Folder {
    /// The model's shape.
    pub spec: ModelSpec,
    /// Its vocabulary.
    pub vocabulary: Vocabulary,
    source: ModelFolder,
}

/// What [`Folder::evaluate_text`] measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextLoss {
    /// Sum over all predicted tokens.
    pub nats: f64,
    /// Tokens predicted: all but the first.
    pub tokens: u64,
    /// Bytes of text that they stand for.
    pub bytes: u64,
}

impl TextLoss {
    /// Nats a byte.
    pub fn nats_per_byte(&self) -> f64 {
        self.nats / self.bytes as f64
    }
}

/// Opens a folder. Without tokenizer.json a vocabulary of 256 is taken for bytes.
pub fn load_folder(folder: &Path) -> Result<Folder, FolderError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| FolderError::Read { path, source })
    };
    let source = ModelFolder::open(folder)?;
    let spec = source.spec().clone();
    let vocabulary = match read("tokenizer.json") {
        Ok(bytes) => Vocabulary::Tokenizer(Box::new(load_tokenizer(folder, &bytes)?)),
        Err(FolderError::Read { source, path }) if source.kind() == io::ErrorKind::NotFound => match spec.vocab_size {
            256 => Vocabulary::Bytes,
            vocab_size => return Err(FolderError::NoTokenizer { path, vocab_size }),
        },
        Err(e) => return Err(e),
    };
    Ok(Folder { spec, vocabulary, source })
}

impl Folder {
    /// What the person should know of the folder: what in it is not used, and what was supposed.
    pub fn notes(&self) -> &[String] {
        self.source.notes()
    }

    /// All weights as one flat vector.
    pub fn weights(&self) -> Result<Vec<f32>, FolderError> {
        Ok(self.source.weights()?)
    }

    /// The model, on a device. Beside it no more than one block of its weights is held.
    pub fn model(&self, device: &Device) -> Result<Model, FolderError> {
        let tensors = self.spec.tensors();
        Model::from_blocks(&self.spec, device, |range: Range<usize>| -> Result<Vec<f32>, FolderError> {
            let mut values = vec![0.0; range.len()];
            for tensor in tensors.iter().filter(|tensor| range.contains(&tensor.offset)) {
                let from = tensor.offset - range.start;
                self.source.read(tensor, &mut values[from..from + tensor.len()])?;
            }
            Ok(values)
        })
    }

    /// The loss on a text, in windows of at most `context` tokens that do not overlap (at most the model's context).
    /// Every token but the first is predicted. A character that is cut at either end of `text` is left out.
    pub fn evaluate_text(&self, model: &Model, text: &[u8], context: usize) -> Result<TextLoss, FolderError> {
        let (tokens, bytes_after_first) = self.tokens_of(&as_utf8(text))?;
        if tokens.len() < 2 {
            return Err(FolderError::TooShort(tokens.len()));
        }
        if bytes_after_first == 0 {
            return Err(FolderError::OneCharacter);
        }
        let context = context.clamp(1, self.spec.max_position_embeddings as usize);
        let whole = (tokens.len() - 1) / context * context;
        let (mut nats, mut count) = evaluate(model, &Batch::windows(&tokens[..=whole], context), 16)?;
        if tokens.len() - 1 > whole {
            let (more, last) = evaluate(model, &Batch::windows(&tokens[whole..], tokens.len() - 1 - whole), 1)?;
            (nats, count) = (nats + more, count + last);
        }
        Ok(TextLoss { nats, tokens: count, bytes: bytes_after_first })
    }

    /// A text's tokens, and how many of its bytes come after the first.
    fn tokens_of(&self, text: &[u8]) -> Result<(Vec<u32>, u64), FolderError> {
        let tokenizer = match &self.vocabulary {
            Vocabulary::Bytes => {
                return Ok((text.iter().map(|b| u32::from(*b)).collect(), text.len().saturating_sub(1) as u64));
            }
            Vocabulary::Tokenizer(tokenizer) => tokenizer,
        };
        let cut_at_start = text.iter().take(3).take_while(|b| **b & 0xC0 == 0x80).count();
        let text = &text[cut_at_start..];
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(e) if e.error_len().is_none() => std::str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
            Err(e) => {
                return Err(FolderError::Text(cut_at_start + e.valid_up_to()));
            }
        };
        let encoding = tokenizer.tokenizer().encode(text, false).map_err(TokenizerError::of)?;
        let first = encoding.get_offsets().first().map_or(0, |(start, end)| end - start);
        Ok((tokenizer.as_text(encoding.get_ids().iter().copied()), (text.len() - first) as u64))
    }
}

/// A text's bytes as UTF-8, without a byte order mark, as `dataset prepare` reads them.
fn as_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    let of_utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = text[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let decoded: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(decoded.into_bytes())
    };
    match text {
        [0xEF, 0xBB, 0xBF, rest @ ..] => Cow::Borrowed(rest),
        [0xFF, 0xFE, ..] => of_utf16(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => of_utf16(u16::from_be_bytes),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_in_the_ways_that_a_dataset_is() {
        let wanted = "Zwölf 🥊\n";
        let little =
            [&[0xFF, 0xFE][..], &wanted.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat();
        let big = [&[0xFE, 0xFF][..], &wanted.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()].concat();
        let marked = [&[0xEF, 0xBB, 0xBF][..], wanted.as_bytes()].concat();
        for text in [little, big, marked, wanted.as_bytes().to_vec()] {
            assert_eq!(&*as_utf8(&text), wanted.as_bytes());
        }
    }
}
