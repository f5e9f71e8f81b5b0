//! Tokens become samples, and each sample goes to a bucket drawn at random: the first half of a global shuffle that
//! needs no memory.

use super::{error::DatasetError, vocabulary::Vocabulary};
use nightjar_shared::{ids::BlobHash, rng};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Streams of the dataset's randomness, after the one that [`super::split`] draws from. Each is used under a seed of
/// the bucket's own.
const SEED_OF_BUCKET: u64 = rng::stream::DATASET + 1;
const CHILD: u64 = rng::stream::DATASET + 2;
/// The stream that a bucket is shuffled with.
pub const SHUFFLE: u64 = rng::stream::DATASET + 3;

/// The seed for all that is drawn within a bucket.
pub fn seed_of_bucket(seed: u64, name: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = BlobHash::of(name.as_bytes()).0;
    rng::draw(seed, SEED_OF_BUCKET, u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// Appends a token as a shard stores it.
pub fn push_token(bytes: &mut Vec<u8>, token: u32, token_bytes: usize) {
    bytes.extend_from_slice(&token.to_le_bytes()[..token_bytes]);
}

/// The tokens in a shard's bytes.
pub fn tokens_in(bytes: &[u8], token_bytes: usize) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(token_bytes).map(|token| token.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

/// Distributes samples, as bytes, over the files of a bucket's children.
pub struct Scatter {
    names: Vec<String>,
    paths: Vec<PathBuf>,
    files: Vec<BufWriter<File>>,
    lengths: Vec<u64>,
    seed: u64,
    samples: u64,
}

impl Scatter {
    /// Opens the children of the bucket `name`, cutting each to the length that is known to be good.
    pub fn open(folder: &Path, name: &str, seed: u64, samples: u64, lengths: Vec<u64>) -> Result<Self, DatasetError> {
        let names: Vec<String> = (0..lengths.len()).map(|child| format!("{name}-{child}")).collect();
        let paths: Vec<PathBuf> = names.iter().map(|n| folder.join(n)).collect();
        let open = |(path, length): (&PathBuf, &u64)| -> io::Result<BufWriter<File>> {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.set_len(*length)?;
            file.seek(SeekFrom::Start(*length))?;
            Ok(BufWriter::with_capacity(64 << 10, file))
        };
        let files = paths.iter().zip(&lengths).map(|pair| open(pair).map_err(DatasetError::io(pair.0)));
        let files = files.collect::<Result<_, _>>()?;
        Ok(Scatter { names, paths, files, lengths, seed: seed_of_bucket(seed, name), samples })
    }

    /// Adds a sample.
    pub fn push(&mut self, sample: &[u8]) -> Result<(), DatasetError> {
        let child = rng::below(self.seed, CHILD, self.samples, self.files.len() as u64) as usize;
        self.samples += 1;
        self.lengths[child] += sample.len() as u64;
        self.files[child].write_all(sample).map_err(DatasetError::io(&self.paths[child]))
    }

    /// Makes all that was added durable.
    pub fn sync(&mut self) -> Result<(), DatasetError> {
        for (file, path) in self.files.iter_mut().zip(&self.paths) {
            file.flush().and_then(|()| file.get_ref().sync_data()).map_err(DatasetError::io(path))?;
        }
        Ok(())
    }

    /// The children that hold something.
    pub fn children(self) -> impl Iterator<Item = String> {
        self.names.into_iter().zip(self.lengths).filter(|(_, length)| *length > 0).map(|(name, _)| name)
    }
}

/// How far a stream is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamState {
    /// Samples cut so far.
    pub samples: u64,
    /// Tokens read so far.
    pub tokens: u64,
    /// Tokens of the sample being filled.
    pub carry: Vec<u32>,
    /// Lengths of the buckets' files.
    pub lengths: Vec<u64>,
}

impl StreamState {
    /// Of a stream into so many buckets.
    pub fn new(buckets: usize) -> Self {
        StreamState { samples: 0, tokens: 0, carry: vec![], lengths: vec![0; buckets] }
    }
}

/// One stream of tokens on its way into buckets.
pub struct Stream {
    scatter: Scatter,
    carry: Vec<u32>,
    tokens: u64,
    sample: Vec<u8>,
    sample_tokens: usize,
    token_bytes: usize,
}

impl Stream {
    /// Opens the stream `name` as it was at a checkpoint.
    pub fn open(
        folder: &Path,
        name: &str,
        seed: u64,
        context: u32,
        token_bytes: usize,
        state: StreamState,
    ) -> Result<Self, DatasetError> {
        let scatter = Scatter::open(folder, name, seed, state.samples, state.lengths)?;
        let sample_tokens = context as usize + 1;
        Ok(Stream { scatter, carry: state.carry, tokens: state.tokens, sample: vec![], sample_tokens, token_bytes })
    }

    /// Adds tokens. Each sample begins with the last token of the one before, so that every token is predicted once.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), DatasetError> {
        self.tokens += tokens.len() as u64;
        for token in tokens {
            self.carry.push(*token);
            if self.carry.len() == self.sample_tokens {
                self.sample.clear();
                self.carry.iter().for_each(|t| push_token(&mut self.sample, *t, self.token_bytes));
                self.scatter.push(&self.sample)?;
                self.carry.clear();
                self.carry.push(*token);
            }
        }
        Ok(())
    }

    /// Makes the samples durable, and says where to go on.
    pub fn checkpoint(&mut self) -> Result<StreamState, DatasetError> {
        self.scatter.sync()?;
        let Scatter { samples, lengths, .. } = &self.scatter;
        Ok(StreamState { samples: *samples, tokens: self.tokens, carry: self.carry.clone(), lengths: lengths.clone() })
    }

    /// The buckets that hold something.
    pub fn buckets(self) -> impl Iterator<Item = String> {
        self.scatter.children()
    }
}

/// Bytes of text behind the tokens that a sample predicts.
pub fn predicted_text_bytes(sample: &[u8], token_bytes: usize, vocabulary: &Vocabulary) -> u64 {
    tokens_in(sample, token_bytes).skip(1).map(|token| vocabulary.text_bytes(token)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_after_a_checkpoint_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let open = |state| Stream::open(folder.path(), "s", 1, 2, 2, state).unwrap();
        let bytes = || std::fs::read(folder.path().join("s-0")).unwrap();
        let mut stream = open(StreamState::new(1));
        stream.push(&[1, 2, 3, 4]).unwrap();
        let state = stream.checkpoint().unwrap();
        assert_eq!((state.samples, state.carry.as_slice(), bytes()), (1, [3, 4].as_slice(), vec![1, 0, 2, 0, 3, 0]));
        stream.push(&[5, 6, 7, 8]).unwrap();
        stream.checkpoint().unwrap();
        assert_eq!(bytes().len(), 18);
        let mut stream = open(state);
        stream.push(&[9]).unwrap();
        stream.checkpoint().unwrap();
        assert_eq!(bytes(), [1, 0, 2, 0, 3, 0, 3, 0, 4, 0, 9, 0]);
    }
}
