//! Batches: samples of `context + 1` tokens, read from a shard or drawn from a file of bytes.

use nightjar_shared::{rng, shard::token_bytes};
use std::{
    io::{self, Read},
    ops::Range,
};

/// Why a shard or a range of it is refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The shard's bytes are no zstd frame.
    #[error("the shard does not decompress: {0}")]
    Decompress(#[source] io::Error),
    /// The shard holds more or fewer tokens than its manifest says.
    #[error("the shard decompresses to {got} bytes; {samples} samples of {context} + 1 tokens are {want}")]
    WrongSize {
        /// Bytes found; one more than `want` stands for any larger number.
        got: usize,
        /// Bytes expected.
        want: usize,
        /// Samples expected.
        samples: usize,
        /// Tokens that a sample predicts.
        context: usize,
    },
    /// The size a shard is said to have cannot be counted.
    #[error("{samples} samples of {context} + 1 tokens are more than this machine can address")]
    TooLarge {
        /// Samples expected.
        samples: usize,
        /// Tokens that a sample predicts.
        context: usize,
    },
    /// A token is outside the vocabulary.
    #[error("token {token} at position {at} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Its position in the shard.
        at: usize,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// A range of samples that is not in the shard.
    #[error("samples {first} to {end} of a shard that has {samples}")]
    OutOfRange {
        /// First sample asked for.
        first: usize,
        /// First sample not asked for.
        end: usize,
        /// Samples in the shard.
        samples: usize,
    },
    /// Tokens that make no whole samples.
    #[error("{tokens} tokens make no whole samples of {context} + 1")]
    Ragged {
        /// Tokens given.
        tokens: usize,
        /// Tokens that a sample predicts.
        context: usize,
    },
}

/// Some samples, one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    values: Vec<u32>,
    context: usize,
}

impl Batch {
    /// Whole samples of `context + 1` tokens.
    pub fn new(values: Vec<u32>, context: usize) -> Result<Self, BatchError> {
        if context == 0 || !values.len().is_multiple_of(context + 1) {
            return Err(BatchError::Ragged { tokens: values.len(), context });
        }
        Ok(Batch { values, context })
    }

    /// Non-overlapping windows over a text's tokens, each predicting its successors; what is left over is dropped.
    pub fn windows(tokens: &[u32], context: usize) -> Self {
        let count = tokens.len().saturating_sub(1).checked_div(context).unwrap_or(0);
        Self::windows_at(tokens, context, (0..count).map(|i| i * context))
    }

    /// `count` of those windows, evenly spaced (all, if there are no more): the reference's validation set.
    pub fn spaced_windows(tokens: &[u32], context: usize, count: usize) -> Self {
        let all = tokens.len().saturating_sub(1).checked_div(context).unwrap_or(0);
        let count = count.min(all);
        Self::windows_at(tokens, context, (0..count).map(|i| i * all / count * context))
    }

    /// The reference's training batch: window `j` of step `step` starts at `draw(seed, worker, step·samples + j)`,
    /// modulo the number of starts. `tokens` must be longer than `context`.
    pub fn drawn(tokens: &[u32], context: usize, seed: u64, worker: u64, step: u64, samples: usize) -> Self {
        let starts = (tokens.len() - context) as u64;
        let draw = |j: u64| (rng::draw(seed, worker, step * samples as u64 + j) % starts) as usize;
        Self::windows_at(tokens, context, (0..samples as u64).map(draw))
    }

    fn windows_at(tokens: &[u32], context: usize, starts: impl Iterator<Item = usize>) -> Self {
        Batch { values: starts.flat_map(|i| tokens[i..i + context + 1].iter().copied()).collect(), context }
    }

    /// Tokens that a sample predicts.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.values.len() / (self.context + 1)
    }

    /// Tokens that it predicts.
    pub fn tokens(&self) -> usize {
        self.samples() * self.context
    }

    /// A range of its samples.
    pub fn part(&self, samples: Range<usize>) -> Result<Batch, BatchError> {
        let Range { start: first, end } = samples;
        if first > end || end > self.samples() {
            return Err(BatchError::OutOfRange { first, end, samples: self.samples() });
        }
        let width = self.context + 1;
        Ok(Batch { values: self.values[first * width..end * width].to_vec(), context: self.context })
    }

    /// The batch in order, `samples` at a time (at least one); the last part may be smaller.
    pub fn parts(&self, samples: usize) -> impl Iterator<Item = Batch> {
        self.parts_from(0, samples)
    }

    /// The same without its first samples.
    pub fn parts_from(&self, first: usize, samples: usize) -> impl Iterator<Item = Batch> {
        let width = self.context + 1;
        let rest = &self.values[(width * first).min(self.values.len())..];
        rest.chunks(width * samples.max(1)).map(|v| Batch { values: v.to_vec(), context: self.context })
    }

    /// What goes into the model: of each sample all tokens but the last.
    pub fn inputs(&self) -> Vec<u32> {
        self.values.chunks(self.context + 1).flat_map(|s| s[..self.context].iter().copied()).collect()
    }

    /// What it is to predict: of each sample all tokens but the first.
    pub fn targets(&self) -> Vec<u32> {
        self.values.chunks(self.context + 1).flat_map(|s| s[1..].iter().copied()).collect()
    }
}

/// A shard's samples in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    all: Batch,
}

impl Shard {
    /// Decompresses a shard: one zstd frame of exactly `samples · (context + 1)` little-endian tokens. Never holds more
    /// than that, whatever the frame says.
    pub fn read(compressed: &[u8], samples: usize, context: usize, vocab_size: u32) -> Result<Self, BatchError> {
        let width = token_bytes(vocab_size);
        let bytes = context.checked_add(1).and_then(|n| n.checked_mul(samples)).and_then(|n| n.checked_mul(width));
        let want = bytes.filter(|n| *n < isize::MAX as usize).ok_or(BatchError::TooLarge { samples, context })?;
        let mut raw = Vec::new();
        let frame = frame(compressed).map_err(BatchError::Decompress)?;
        frame.take(want as u64 + 1).read_to_end(&mut raw).map_err(BatchError::Decompress)?;
        if raw.len() != want {
            return Err(BatchError::WrongSize { got: raw.len(), want, samples, context });
        }
        let values: Vec<u32> = match width {
            2 => raw.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            _ => raw.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        };
        match values.iter().enumerate().find(|(_, t)| **t >= vocab_size) {
            Some((at, &token)) => Err(BatchError::UnknownToken { token, at, vocab_size }),
            None => Ok(Shard { all: Batch::new(values, context)? }),
        }
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.all.samples()
    }

    /// A range of its samples as one batch.
    pub fn range(&self, samples: Range<usize>) -> Result<Batch, BatchError> {
        self.all.part(samples)
    }

    /// The batches of inner steps over `[first, first + count)`, in order, `batch_samples` each; the last may be
    /// smaller.
    pub fn batches(&self, first: usize, count: usize, batch_samples: usize) -> Result<Vec<Batch>, BatchError> {
        let range = self.range(first..first.saturating_add(count))?;
        Ok(range.parts(batch_samples).collect())
    }
}

/// What the one zstd frame holds.
#[cfg(not(target_family = "wasm"))]
fn frame(compressed: &[u8]) -> io::Result<impl Read> {
    Ok(zstd::stream::read::Decoder::with_buffer(compressed)?.single_frame())
}

/// The same, in Rust alone.
#[cfg(target_family = "wasm")]
fn frame(compressed: &[u8]) -> io::Result<impl Read> {
    ruzstd::decoding::StreamingDecoder::new(compressed).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(tokens: &[u16]) -> Vec<u8> {
        let raw: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        zstd::encode_all(&raw[..], 3).unwrap()
    }

    #[test]
    fn a_shard_gives_its_samples_in_order() {
        let shard = Shard::read(&packed(&(0..20).collect::<Vec<_>>()), 4, 4, 256).unwrap();
        let batches = shard.batches(1, 3, 2).unwrap();
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].inputs(), [5, 6, 7, 8, 10, 11, 12, 13]);
        assert_eq!(batches[0].targets(), [6, 7, 8, 9, 11, 12, 13, 14]);
        assert_eq!(batches[1].inputs(), [15, 16, 17, 18]);
        assert!(matches!(shard.batches(2, 3, 2), Err(BatchError::OutOfRange { first: 2, end: 5, samples: 4 })));
        assert!(shard.batches(usize::MAX, usize::MAX, 2).is_err());
    }

    #[test]
    fn a_shard_of_another_size_is_refused_without_holding_it() {
        let bomb = zstd::encode_all(io::repeat(0).take(1 << 28), 3).unwrap();
        let refused = Shard::read(&bomb, 4, 4, 256);
        assert!(matches!(refused, Err(BatchError::WrongSize { got: 41, want: 40, .. })), "{refused:?}");
        assert!(matches!(Shard::read(&packed(&[1, 2, 3]), 4, 4, 256), Err(BatchError::WrongSize { got: 6, .. })));
        assert!(matches!(Shard::read(b"no zstd", 4, 4, 256), Err(BatchError::Decompress(_))));
        assert!(matches!(Shard::read(&[], usize::MAX, 4, 256), Err(BatchError::TooLarge { .. })));
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_refused() {
        let refused = Shard::read(&packed(&[1, 2, 300, 4, 5]), 1, 4, 256);
        assert!(matches!(refused, Err(BatchError::UnknownToken { token: 300, at: 2, vocab_size: 256 })), "{refused:?}");
    }

    #[test]
    fn large_vocabularies_have_wide_tokens() {
        let raw: Vec<u8> = [1u32, 70_000, 3].iter().flat_map(|t| t.to_le_bytes()).collect();
        let shard = Shard::read(&zstd::encode_all(&raw[..], 3).unwrap(), 1, 2, 100_000).unwrap();
        assert_eq!(shard.range(0..1).unwrap().targets(), [70_000, 3]);
    }
}
