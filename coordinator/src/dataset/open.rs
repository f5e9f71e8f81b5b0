//! A prepared dataset, opened: the manifest is checked at once, a shard when it is read.

use super::{error::DatasetError, stream::tokens_in};
use nightjar_shared::{
    blob::BlobRef,
    ids::BlobHash,
    shard::{Manifest, ShardInfo},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Longest token stream that a shard may hold: bounds what reading one allocates.
const SHARD_BYTES_MAX: u64 = 1 << 30;

/// A folder that `dataset prepare` has filled.
#[derive(Clone, Debug)]
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
}

impl Dataset {
    /// Reads and checks the manifest.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, DatasetError> {
        let folder = folder.into();
        let path = folder.join("manifest.json");
        let json = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => DatasetError::NotPrepared { path: folder.clone() },
            _ => DatasetError::io(&path)(e),
        })?;
        let damaged = |what: String| DatasetError::Damaged { what: format!("{}: {what}", path.display()) };
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
        check(&manifest).map_err(damaged)?;
        Ok(Dataset { folder, manifest })
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where a blob of it lies.
    pub fn blob_path(&self, hash: BlobHash) -> PathBuf {
        self.folder.join("blobs").join(hash.to_string())
    }

    /// Where its tokenizer.json lies; `None` where tokens are bytes.
    pub fn tokenizer_path(&self) -> Option<PathBuf> {
        self.manifest.tokenizer.map(|hash| self.blob_path(hash))
    }

    /// All blobs that devices may ask for.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        self.manifest.train.iter().chain(&self.manifest.heldout).map(ShardInfo::blob)
    }

    /// Blobs that are missing, or have another length than the manifest says, each in words.
    pub fn unfit(&self) -> Vec<String> {
        let length = |hash| {
            fs::symlink_metadata(self.blob_path(hash)).ok().filter(fs::Metadata::is_file).map(|about| about.len())
        };
        let shards = self.blobs().filter_map(|BlobRef { hash, bytes }| match length(hash) {
            Some(has) if has == bytes => None,
            Some(has) => Some(format!("shard {hash} has {has} bytes instead of {bytes}")),
            None => Some(format!("shard {hash} is missing")),
        });
        let tokenizer = self.manifest.tokenizer.filter(|hash| length(*hash).is_none());
        shards.chain(tokenizer.map(|hash| format!("the tokenizer {hash} is missing"))).collect()
    }

    /// The tokens of training shard `i`, sample after sample.
    pub fn read_shard(&self, i: usize) -> Result<Vec<u32>, DatasetError> {
        self.read_from(&self.manifest.train, i)
    }

    /// The tokens of held-out shard `i`.
    pub fn read_heldout(&self, i: usize) -> Result<Vec<u32>, DatasetError> {
        self.read_from(&self.manifest.heldout, i)
    }

    fn read_from(&self, shards: &[ShardInfo], i: usize) -> Result<Vec<u32>, DatasetError> {
        let shard = shards.get(i).ok_or_else(|| DatasetError::Damaged { what: format!("there is no shard {i}") })?;
        let path = self.blob_path(shard.hash);
        let frame = fs::read(&path).map_err(DatasetError::io(&path))?;
        let damaged = |what: &str| DatasetError::Damaged { what: format!("{}: {what}", path.display()) };
        if BlobHash::of(&frame) != shard.hash {
            return Err(damaged("its bytes do not match its name"));
        }
        let length = stream_bytes(&self.manifest, shard) as usize;
        let bytes = zstd::bulk::decompress(&frame, length).map_err(|e| damaged(&e.to_string()))?;
        if bytes.len() != length {
            return Err(damaged("it holds fewer samples than the manifest says"));
        }
        let tokens: Vec<u32> = tokens_in(&bytes, self.manifest.token_bytes()).collect();
        if tokens.iter().any(|token| *token >= self.manifest.vocab_size) {
            return Err(damaged("it holds tokens beyond the vocabulary"));
        }
        Ok(tokens)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Length of a shard's tokens before compression.
fn stream_bytes(manifest: &Manifest, shard: &ShardInfo) -> u64 {
    u64::from(shard.samples) * (u64::from(manifest.context) + 1) * manifest.token_bytes() as u64
}

fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.format != 1 {
        return Err(format!("its format is {}; this version reads 1", manifest.format));
    }
    for (key, value) in [("context", manifest.context), ("vocab_size", manifest.vocab_size)] {
        if !(1..=1 << 20).contains(&value) {
            return Err(format!("{key} is {value}; allowed is 1 to 1048576"));
        }
    }
    for (key, shards) in [("train", &manifest.train), ("heldout", &manifest.heldout)] {
        if shards.is_empty() {
            return Err(format!("there is no shard under {key}"));
        }
        for shard in shards {
            if shard.samples == 0 || shard.bytes == 0 || stream_bytes(manifest, shard) > SHARD_BYTES_MAX {
                return Err(format!("the size of shard {} is not allowed", shard.hash.short()));
            }
        }
    }
    Ok(())
}
