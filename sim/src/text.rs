//! A dataset from text, in memory: bytes as tokens, windows in shards as `nightjar-coordinator dataset prepare` makes
//! them, shuffled over all of the text or within each domain.

use crate::dataset::Dataset;
use nightjar_shared::{
    ids::BlobHash,
    rng,
    shard::{Manifest, ShardInfo},
};
use std::io;

/// The stream that windows are shuffled with, within the simulation's.
const SHUFFLE: u64 = rng::stream::SIM + 70;
/// Fast: shards are compressed once a run, and read from memory.
const ZSTD_LEVEL: i32 = 1;

/// How windows are dealt out to shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partition {
    /// Every shard is a fair slice of all domains.
    #[default]
    Iid,
    /// A shard holds one domain only.
    ByDomain,
}

/// What a dataset is made of.
#[derive(Clone, Copy, Debug)]
pub struct TextSettings {
    /// Tokens that a sample predicts.
    pub context: u32,
    /// Most samples in a shard.
    pub shard_samples: u32,
    /// How windows are dealt out.
    pub partition: Partition,
    /// What the shuffle is drawn from.
    pub seed: u64,
}

/// A manifest and its shards.
#[derive(Clone, Debug, PartialEq)]
pub struct TextDataset {
    /// What the coordinator opens.
    pub manifest: Manifest,
    /// All shards, by name.
    pub blobs: Vec<(BlobHash, Vec<u8>)>,
}

/// Text that makes no dataset.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Not one window.
    #[error("{what} has {bytes} bytes; a sample of {context} tokens needs {context} + 1")]
    TooShort {
        /// Which text.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// Tokens that a sample predicts.
        context: u32,
    },
    /// A shard cannot be compressed.
    #[error("compressing a shard failed: {0}")]
    Compress(#[from] io::Error),
}

impl From<TextDataset> for Dataset {
    fn from(text: TextDataset) -> Self {
        Dataset::new(text.manifest, text.blobs.into_iter().map(|(_, bytes)| bytes))
    }
}

/// A text as tokens of the byte vocabulary.
pub fn tokens(text: &[u8]) -> Vec<u32> {
    text.iter().map(|byte| u32::from(*byte)).collect()
}

impl TextDataset {
    /// Makes shards of `domains`, which are trained on, and of `heldout`, on which anchors measure.
    pub fn new(domains: &[&[u8]], heldout: &[u8], settings: &TextSettings) -> Result<Self, TextError> {
        let context = settings.context as usize;
        let piles: Vec<Vec<&[u8]>> = match settings.partition {
            Partition::Iid => vec![domains.iter().flat_map(|text| windows(text, context)).collect()],
            Partition::ByDomain => domains.iter().map(|text| windows(text, context)).collect(),
        };
        let too_short = |what, bytes| TextError::TooShort { what, bytes, context: settings.context };
        let mut dataset = TextDataset {
            manifest: Manifest {
                format: 1,
                context: settings.context,
                vocab_size: 256,
                tokenizer: None,
                end_of_text: None,
                train: vec![],
                heldout: vec![],
            },
            blobs: vec![],
        };
        for (number, mut pile) in piles.into_iter().enumerate() {
            rng::shuffle(&mut pile, settings.seed, SHUFFLE + number as u64);
            let shards = dataset.shards(&pile, settings.shard_samples)?;
            dataset.manifest.train.extend(shards);
        }
        if dataset.manifest.train.is_empty() {
            return Err(too_short("the text to train on", domains.iter().map(|text| text.len()).sum()));
        }
        // An evaluate lease takes a range of it, which stands for all only if it is mixed.
        let mut pile = windows(heldout, context);
        rng::shuffle(&mut pile, settings.seed, SHUFFLE - 1);
        dataset.manifest.heldout = dataset.shards(&pile, settings.shard_samples)?;
        if dataset.manifest.heldout.is_empty() {
            return Err(too_short("the held-out text", heldout.len()));
        }
        Ok(dataset)
    }

    /// Packs samples into shards of nearly equal size.
    fn shards(&mut self, samples: &[&[u8]], most: u32) -> Result<Vec<ShardInfo>, TextError> {
        let parts = samples.len().div_ceil(most.max(1) as usize).max(1);
        let pack = |part: &[&[u8]]| {
            // Two bytes a token, as the byte vocabulary's shards have it.
            let raw: Vec<u8> = part.iter().flat_map(|s| s.iter()).flat_map(|token| [*token, 0]).collect();
            let frame = zstd::bulk::compress(&raw, ZSTD_LEVEL)?;
            let info = ShardInfo {
                hash: BlobHash::of(&frame),
                bytes: frame.len() as u64,
                samples: part.len() as u32,
                text_bytes: part.iter().map(|s| s.len() as u64 - 1).sum(),
            };
            self.blobs.push((info.hash, frame));
            Ok(info)
        };
        samples.chunks(samples.len().div_ceil(parts).max(1)).map(pack).collect()
    }
}

/// Windows of `context + 1` bytes, each beginning with the last of the one before, so that every byte is predicted
/// once.
fn windows(text: &[u8], context: usize) -> Vec<&[u8]> {
    let count = text.len().saturating_sub(1) / context.max(1);
    (0..count).map(|i| &text[i * context..(i + 1) * context + 1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn settings(partition: Partition) -> TextSettings {
        TextSettings { context: 4, shard_samples: 10, partition, seed: 1 }
    }

    /// The samples of a shard, as a device would decompress it.
    fn samples(dataset: &TextDataset, info: &ShardInfo) -> Vec<Vec<u8>> {
        let (_, frame) = dataset.blobs.iter().find(|(hash, _)| *hash == info.hash).unwrap();
        let raw = zstd::bulk::decompress(frame, 1 << 20).unwrap();
        assert_eq!(raw.len(), info.samples as usize * 10);
        raw.chunks(10).map(|s| s.iter().step_by(2).copied().collect()).collect()
    }

    #[test]
    fn every_byte_is_predicted_once() {
        let text: Vec<u8> = (0..=200).collect();
        let dataset = TextDataset::new(&[&text], &text[..41], &settings(Partition::Iid)).unwrap();
        assert_eq!(dataset.manifest.train.len(), 5);
        assert_eq!(dataset.manifest.heldout.len(), 1);
        assert_eq!(dataset.manifest.train_samples(), 50);
        let all: Vec<Vec<u8>> = dataset.manifest.train.iter().flat_map(|info| samples(&dataset, info)).collect();
        assert!(all.iter().all(|s| s.windows(2).all(|w| w[1] == w[0] + 1)));
        let predicted: BTreeSet<u8> = all.iter().flat_map(|s| s[1..].to_vec()).collect();
        assert_eq!(predicted, (1..=200).collect());
        assert!(all.windows(2).any(|w| w[0] > w[1]), "it is not shuffled");
    }

    #[test]
    fn domains_are_mixed_or_kept_apart() {
        let (a, b) = (vec![1; 201], vec![2; 201]);
        let kinds = |partition| {
            let dataset = TextDataset::new(&[&a, &b], &a, &settings(partition)).unwrap();
            let kinds_of =
                |info: &ShardInfo| samples(&dataset, info).concat().into_iter().collect::<BTreeSet<u8>>().len();
            dataset.manifest.train.iter().map(kinds_of).collect::<Vec<_>>()
        };
        assert!(kinds(Partition::Iid).iter().all(|n| *n == 2));
        assert!(kinds(Partition::ByDomain).iter().all(|n| *n == 1));
    }

    #[test]
    fn too_little_text_is_told() {
        let refused = TextDataset::new(&[b"1234"], b"12345", &settings(Partition::Iid)).unwrap_err();
        assert!(refused.to_string().contains("has 4 bytes"), "{refused}");
        assert!(TextDataset::new(&[b"12345"], b"", &settings(Partition::ByDomain)).is_err());
    }
}
