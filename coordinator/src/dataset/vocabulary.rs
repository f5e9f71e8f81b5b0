//! From text to tokens: bytes as they are, a byte-level BPE trained on a sample of the input, or a given tokenizer.json.

use super::error::DatasetError;
use nightjar_shared::ids::BlobHash;
use std::{collections::HashSet, fmt, fs, path::PathBuf, str::FromStr};
use tokenizers::{
    AddedToken, DecoderWrapper, Tokenizer,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

/// Tokens that end a document; the first that a vocabulary has is taken.
pub const END_OF_TEXT: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];
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
            None => Ok(TokenizerChoice::File(text.into())),
            Some(size) => match size.parse() {
                Ok(size @ TRAINED_SIZE_MIN..=1_048_576) => Ok(TokenizerChoice::Train(size)),
                _ => Err(format!("`{size}` is no vocabulary size: allowed is {TRAINED_SIZE_MIN} to 1048576, as in bpe:4096")),
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
            TokenizerChoice::File(path) => Ok(BlobHash::of(&fs::read(path).map_err(DatasetError::io(path))?).to_string()),
            other => Ok(other.to_string()),
        }
    }
}

/// Makes tokens.
pub enum Vocabulary {
    /// A token is a byte.
    Bytes,
    /// A tokenizer.json.
    Tokenizer(Box<Encoder>),
}

/// A tokenizer, with what shards need to know about its tokens.
pub struct Encoder {
    name: String,
    tokenizer: Tokenizer,
    end_of_text: Option<u32>,
    /// Bytes of text behind each token; 0 for special ones.
    text_bytes: Vec<u32>,
}

impl Vocabulary {
    /// From a tokenizer.json; `name` is for messages.
    pub fn from_json(name: &str, json: &[u8]) -> Result<Self, DatasetError> {
        let tokenizer = Tokenizer::from_bytes(json).map_err(unusable(name))?;
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let tokens = tokenizer.get_vocab(true);
        let special: HashSet<u32> =
            tokenizer.get_added_tokens_decoder().into_iter().filter(|(_, t)| t.special).map(|(id, _)| id).collect();
        let size = tokens.values().max().map_or(0, |id| *id as usize + 1);
        if size > 1 << 20 {
            return Err(unusable(name)(format!("it has {size} tokens; allowed are up to 1048576").into()));
        }
        let mut text_bytes = vec![0; size];
        for (token, id) in tokens.iter().filter(|(_, id)| !special.contains(id)) {
            text_bytes[*id as usize] = text_length(token, byte_level) as u32;
        }
        let end_of_text = END_OF_TEXT.iter().find_map(|t| tokenizer.token_to_id(t));
        Ok(Vocabulary::Tokenizer(Box::new(Encoder { name: name.to_owned(), tokenizer, end_of_text, text_bytes })))
    }

    /// Number of tokens.
    pub fn size(&self) -> u32 {
        match self {
            Vocabulary::Bytes => 256,
            Vocabulary::Tokenizer(encoder) => encoder.text_bytes.len() as u32,
        }
    }

    /// Bytes of text behind a token.
    pub fn text_bytes(&self, token: u32) -> u64 {
        match self {
            Vocabulary::Bytes => 1,
            Vocabulary::Tokenizer(encoder) => encoder.text_bytes.get(token as usize).map_or(0, |n| u64::from(*n)),
        }
    }

    /// The tokens of each text, on all cores.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, DatasetError> {
        match self {
            Vocabulary::Bytes => Ok(texts.iter().map(|t| t.bytes().map(u32::from).collect()).collect()),
            Vocabulary::Tokenizer(encoder) => {
                let encodings = encoder.tokenizer.encode_batch_fast(texts.to_vec(), false).map_err(unusable(&encoder.name))?;
                Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
            }
        }
    }

    /// What stands between a document that ends with `last` and the next: the vocabulary's end of text, or else a line
    /// end where the document has none.
    pub fn end_of_document(&self, last: &str) -> Option<u32> {
        match self {
            Vocabulary::Bytes => (!last.ends_with('\n')).then_some(u32::from(b'\n')),
            Vocabulary::Tokenizer(encoder) => encoder.end_of_text,
        }
    }
}

/// Bytes that a token's name in a vocabulary stands for.
fn text_length(token: &str, byte_level: bool) -> usize {
    if byte_level {
        // Each byte is written as one character.
        return token.chars().count();
    }
    let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
    if is_byte { 1 } else { token.replace('▁', " ").len() }
}

fn unusable(name: &str) -> impl FnOnce(tokenizers::Error) -> DatasetError {
    let name = name.to_owned();
    move |e| DatasetError::Tokenizer { name, reason: e.to_string() }
}

/// Trains a byte-level BPE with GPT-2's rule for words, and returns its tokenizer.json. The same texts in the same
/// order give the same bytes.
pub fn train(size: u32, texts: impl Iterator<Item = String> + Send) -> Result<Vec<u8>, DatasetError> {
    let name = format!("bpe:{size}");
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level)).with_post_processor(Some(byte_level));
    let trainer = BpeTrainer::builder()
        .vocab_size(size as usize)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT[0], true)])
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

/// The character that stands for a byte in byte-level vocabularies (GPT-2's table): printable ones stand for
/// themselves, the others follow from U+0100 in order.
fn char_of(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let unprintable_before = (0..byte).filter(|b| !printable(*b)).count() as u32;
    char::from_u32(0x100 + unprintable_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let texts = || (0..300).map(|i| format!("the {} quick brown foxes number {i}\n{TEXT}", i % 7));
        let json = train(400, texts()).unwrap();
        assert_eq!(json, train(400, texts()).unwrap());
        let vocabulary = Vocabulary::from_json("t", &json).unwrap();
        assert_eq!(vocabulary.size(), 400);
        let tokens = &vocabulary.encode(&[TEXT]).unwrap()[0];
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
        assert!("bpe:10".parse::<TokenizerChoice>().is_err());
    }
}
