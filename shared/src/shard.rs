//! A dataset as both ends see it. A *sample* is `context + 1` tokens: each of the first `context` is to predict its
//! successor. A *shard* is a blob of up to `samples_per_shard` samples, shuffled when the dataset was prepared, so that
//! any range of one shard is a fair slice of the whole.
//!
//! A shard's bytes are one zstd frame; inside, `samples · (context + 1)` tokens, little-endian, each of
//! [`Manifest::token_bytes`] bytes.

use crate::{blob::BlobRef, ids::BlobHash};
use serde::{Deserialize, Serialize};

/// `manifest.json`: what a prepared dataset holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this layout: 1.
    pub format: u32,
    /// Tokens that a sample predicts.
    pub context: u32,
    /// Size of the vocabulary.
    pub vocab_size: u32,
    /// Hash of tokenizer.json, a blob in the dataset's folder; `None` where tokens are bytes.
    pub tokenizer: Option<BlobHash>,
    /// The token that ends a document, where it was named or found beside tokenizer.json; else it is one of
    /// [`crate::end_of_text::KNOWN`], if the vocabulary has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_text: Option<u32>,
    /// What is trained on.
    pub train: Vec<ShardInfo>,
    /// What is only measured on: each domain or input is held out by document.
    pub heldout: Vec<ShardInfo>,
}

/// One shard of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// The blob's name.
    pub hash: BlobHash,
    /// The blob's length.
    pub bytes: u64,
    /// Samples inside.
    pub samples: u32,
    /// Bytes of text behind the tokens that its samples predict, for losses in nats a byte.
    pub text_bytes: u64,
}

impl ShardInfo {
    /// The blob that it is.
    pub fn blob(&self) -> BlobRef {
        BlobRef { hash: self.hash, bytes: self.bytes }
    }
}

impl Manifest {
    /// Bytes of one token in a shard.
    pub fn token_bytes(&self) -> usize {
        token_bytes(self.vocab_size)
    }

    /// Samples to train on.
    pub fn train_samples(&self) -> u64 {
        self.train.iter().map(|s| u64::from(s.samples)).sum()
    }
}

/// Bytes of one token: 2 up to a vocabulary of 65 536, else 4.
pub fn token_bytes(vocab_size: u32) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}
