//! From text to tokens: bytes as they are, a byte-level BPE trained on a sample of the input, or a given
//! tokenizer.json.

use super::{
    encoder::{Encoded, Encoder, Seam},
    error::DatasetError,
    piece::Piece,
};
use nightjar_shared::{
    end_of_text::{KNOWN, Stated, stated},
    ids::BlobHash,
    tokenizer::{char_of, known_end_of_text, load},
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};
use tokenizers::{
    AddedToken, Tokenizer,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

/// Fewest tokens of a trained vocabulary: all bytes, the end of text, and one merge.
const TRAINED_SIZE_MIN: u32 = 258;

/// Which tokens a dataset is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// A token is a byte.
    Bytes,
    /// Train a byte-level BPE with so many tokens.
    Train(u32),
    /// A tokenizer.json.
    File(PathBuf),
}

impl FromStr for TokenizerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("bpe:") {
            None if text == "bytes" => Ok(TokenizerChoice::Bytes),
            // As Hugging Face's tools take it: a folder that holds one.
            None if Path::new(text).is_dir() => Ok(TokenizerChoice::File(Path::new(text).join("tokenizer.json"))),
            None => Ok(TokenizerChoice::File(text.into())),
            Some(size) => match size.parse() {
                Ok(size @ TRAINED_SIZE_MIN..=1_048_576) => Ok(TokenizerChoice::Train(size)),
                _ => Err(format!(
                    "`{size}` is no vocabulary size: allowed is {TRAINED_SIZE_MIN} to 1048576, as in bpe:4096"
                )),
            },
        }
    }
}

impl fmt::Display for TokenizerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerChoice::Bytes => f.write_str("bytes"),
            TokenizerChoice::Train(size) => write!(f, "bpe:{size}"),
            TokenizerChoice::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl TokenizerChoice {
    /// What the plan remembers: a file counts by its content.
    pub fn fingerprint(&self) -> Result<String, DatasetError> {
        match self {
            TokenizerChoice::File(path) => {
                Ok(BlobHash::of(&fs::read(path).map_err(DatasetError::io(path))?).to_string())
            }
            other => Ok(other.to_string()),
        }
    }
}

/// What ends a document, where a tokenizer has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndOfText {
    /// The token's name.
    pub token: Option<String>,
    /// Whether it was named, or found beside the tokenizer.json: then the dataset has to remember it.
    pub is_stated: bool,
}

impl EndOfText {
    /// The token that was asked for; else what the files beside the tokenizer.json say, a known name first; else a
    /// known name.
    pub fn choose(tokenizer: &TokenizerChoice, asked: Option<&str>) -> Result<Self, DatasetError> {
        if asked == Some("") {
            let allowed = "the name of a token; without the option it is looked for";
            return Err(DatasetError::OutOfRange { option: "--end-of-text", value: "empty".into(), allowed });
        }
        let path = match (tokenizer, asked) {
            (TokenizerChoice::Bytes, None) => return Ok(EndOfText::default()),
            (TokenizerChoice::Bytes, Some(_)) => {
                return Err(unusable("bytes")("a token is a byte, so none can be named with --end-of-text".into()));
            }
            (TokenizerChoice::Train(_), asked) => {
                let token = Some(asked.unwrap_or(KNOWN[0]).to_owned());
                return Ok(EndOfText { token, is_stated: asked.is_some_and(|asked| asked != KNOWN[0]) });
            }
            (TokenizerChoice::File(path), _) => path,
        };
        let name = tokenizer.to_string();
        let loaded = load(&fs::read(path).map_err(DatasetError::io(path))?).map_err(unusable(&name))?;
        let first_known = KNOWN.into_iter().find(|token| loaded.token_to_id(token).is_some());
        let token = match asked {
            Some(asked) if loaded.token_to_id(asked).is_none() => {
                let mut special: Vec<_> = loaded.get_added_tokens_decoder().into_iter().collect();
                special.sort_unstable_by_key(|(id, _)| *id);
                let special: Vec<String> = special.into_iter().take(20).map(|(_, token)| token.content).collect();
                let reason = format!(
                    "it has no token `{asked}` for --end-of-text; its special ones are: {}",
                    special.join(", ")
                );
                return Err(unusable(&name)(reason.into()));
            }
            Some(asked) => Some(asked.to_owned()),
            None => {
                let stated = stated(|file| fs::read(path.with_file_name(file)).ok())
                    .map_err(|why| unusable(&name)(why.into()))?;
                let of = |stated: Stated| match stated {
                    Stated::Token(token) => Some(token).filter(|token| loaded.token_to_id(token).is_some()),
                    Stated::Id(id) => loaded.id_to_token(id),
                };
                let stated: Vec<String> = stated.into_iter().filter_map(of).collect();
                let known =
                    KNOWN.into_iter().find(|known| stated.iter().any(|token| token == known)).map(str::to_owned);
                known.or_else(|| stated.into_iter().next()).or_else(|| known_end_of_text(&loaded))
            }
        };
        let is_stated = token.as_deref() != first_known;
        Ok(EndOfText { token, is_stated })
    }
}

/// Makes tokens.
pub enum Vocabulary {
    /// A token is a byte.
    Bytes,
    /// A tokenizer.json, by the name that messages use.
    Tokenizer(String, Box<Encoder>),
}

impl Vocabulary {
    /// From a tokenizer.json; `name` is for messages.
    pub fn from_json(name: &str, json: &[u8], end: &EndOfText) -> Result<Self, DatasetError> {
        let encoder = Encoder::new(json, end.token.as_deref()).map_err(unusable(name))?;
        Ok(Vocabulary::Tokenizer(name.to_owned(), Box::new(encoder)))
    }

    /// Number of tokens.
    pub fn size(&self) -> u32 {
        match self {
            Vocabulary::Bytes => 256,
            Vocabulary::Tokenizer(_, encoder) => encoder.size(),
        }
    }

    /// Bytes of text behind a token.
    pub fn text_bytes(&self, token: u32) -> u64 {
        match self {
            Vocabulary::Bytes => 1,
            Vocabulary::Tokenizer(_, encoder) => encoder.text_bytes(token),
        }
    }

    /// Bytes of text behind tokens.
    pub fn bytes_of(&self, tokens: &[u32]) -> u64 {
        tokens.iter().map(|token| self.text_bytes(*token)).sum()
    }

    /// The tokens of each piece, on all cores.
    pub fn encode(&self, pieces: &[&Piece]) -> Result<Vec<Encoded>, DatasetError> {
        match self {
            Vocabulary::Bytes => {
                let of = |piece: &&Piece| Encoded::new(piece.text.bytes().map(u32::from).collect());
                Ok(pieces.iter().map(of).collect())
            }
            Vocabulary::Tokenizer(name, encoder) => {
                let texts: Vec<&Piece> = pieces.iter().copied().filter(|piece| piece.ids.is_empty()).collect();
                let mut encoded = encoder.encode(&texts).map_err(unusable(name))?.into_iter();
                let of = |piece: &&Piece| match piece.ids.is_empty() {
                    true => encoded.next().unwrap_or_default(),
                    false => Encoded::new(piece.ids.clone()),
                };
                Ok(pieces.iter().map(of).collect())
            }
        }
    }

    /// A piece's tokens as they go on from those of the piece before.
    pub fn join(&self, seam: &Seam, piece: &Piece, encoded: Encoded) -> Result<Encoded, DatasetError> {
        match self {
            Vocabulary::Bytes => Ok(encoded),
            Vocabulary::Tokenizer(name, encoder) => encoder.join(seam, piece, encoded).map_err(unusable(name)),
        }
    }

    /// The token that ends a document, where tokens are no bytes.
    pub fn end_of_text(&self) -> Option<u32> {
        match self {
            Vocabulary::Bytes => None,
            Vocabulary::Tokenizer(_, encoder) => encoder.end_of_text(),
        }
    }

    /// What stands between a document that ends with `last` and the next: the vocabulary's end of text, or else a line
    /// end where the document has none.
    pub fn end_of_document(&self, last: &str) -> Option<u32> {
        match self {
            Vocabulary::Bytes => (!last.ends_with('\n')).then_some(u32::from(b'\n')),
            Vocabulary::Tokenizer(..) => self.end_of_text(),
        }
    }
}

fn unusable(name: &str) -> impl FnOnce(tokenizers::Error) -> DatasetError {
    let name = name.to_owned();
    move |e| DatasetError::Tokenizer { name, reason: e.to_string() }
}

/// Trains a byte-level BPE with GPT-2's rule for words, and returns its tokenizer.json. The same texts in the same
/// order give the same bytes.
pub fn train(size: u32, end: &EndOfText, texts: impl Iterator<Item = String> + Send) -> Result<Vec<u8>, DatasetError> {
    let name = format!("bpe:{size}");
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level)).with_post_processor(Some(byte_level));
    let trainer = BpeTrainer::builder()
        .vocab_size(size as usize)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(end.token.iter().map(|token| AddedToken::from(token.as_str(), true)).collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts).map_err(unusable(&name))?;
    Ok(tokenizer.to_string(false).map_err(unusable(&name))?.into_bytes())
}

/// The byte tokenizer could not be built; it is built of constants, so this is a defect of the program.
#[derive(Debug, thiserror::Error)]
#[error("the byte tokenizer cannot be built: {0}")]
pub struct ByteVocabularyError(String);

/// A tokenizer.json whose 256 token ids are the byte values, so that other tools read a byte model's output.
pub fn byte_tokenizer() -> Result<Vec<u8>, ByteVocabularyError> {
    let failed = |e: tokenizers::Error| ByteVocabularyError(e.to_string());
    let vocabulary: [(String, u32); 256] = std::array::from_fn(|byte| (char_of(byte as u8).to_string(), byte as u32));
    let model = BPE::builder().vocab_and_merges(vocabulary, vec![]).build();
    let byte_level = ByteLevel::new(false, true, false);
    let mut tokenizer = Tokenizer::new(model.map_err(failed)?);
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level)).with_post_processor(Some(byte_level));
    Ok(tokenizer.to_string(false).map_err(failed)?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::{super::piece::pieces_of, *};

    const TEXT: &str = "Zwölf Boxkämpfer\tjagen  Viktor 🥊\r\n\u{0}über den\u{7f}\u{a0}\u{ad} großen Sylter Deich.\n";

    #[test]
    fn byte_tokens_are_byte_values_and_come_back() {
        let tokenizer = Tokenizer::from_bytes(byte_tokenizer().unwrap()).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), 256);
        let ids = tokenizer.encode(TEXT, true).unwrap().get_ids().to_vec();
        assert_eq!(ids, TEXT.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), TEXT);
    }

    #[test]
    fn a_trained_vocabulary_is_reproducible_and_loses_nothing() {
        let end = EndOfText::choose(&TokenizerChoice::Train(400), None).unwrap();
        let texts = || (0..300).map(|i| format!("the {} quick brown foxes number {i}\n{TEXT}", i % 7));
        let json = train(400, &end, texts()).unwrap();
        assert_eq!(json, train(400, &end, texts()).unwrap());
        let vocabulary = Vocabulary::from_json("t", &json, &end).unwrap();
        assert_eq!(vocabulary.size(), 400);
        let tokens = &vocabulary.encode(&[&pieces_of(TEXT, 1 << 16)[0]]).unwrap()[0].tokens;
        assert_eq!(tokens.iter().map(|t| vocabulary.text_bytes(*t)).sum::<u64>(), TEXT.len() as u64);
        assert!(tokens.len() < TEXT.len());
        assert_eq!(vocabulary.end_of_document("x"), Some(0));
        assert_eq!(vocabulary.text_bytes(0), 0);
    }

    #[test]
    fn choices_are_parsed() {
        assert_eq!("bytes".parse(), Ok(TokenizerChoice::Bytes));
        assert_eq!("bpe:4096".parse(), Ok(TokenizerChoice::Train(4096)));
        assert_eq!("t.json".parse(), Ok(TokenizerChoice::File("t.json".into())));
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("tokenizer.json");
        assert_eq!(folder.path().to_str().unwrap().parse(), Ok(TokenizerChoice::File(inside)));
        let empty = EndOfText::choose(&TokenizerChoice::Train(400), Some("")).unwrap_err().to_string();
        assert!(empty.starts_with("--end-of-text is empty; allowed is the name of a token"), "{empty}");
        assert!("bpe:10".parse::<TokenizerChoice>().is_err());
    }
}
