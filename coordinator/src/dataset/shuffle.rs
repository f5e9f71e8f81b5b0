//! Buckets become shards: the second half of the global shuffle. A bucket that fits into memory is shuffled and cut; a
//! larger one is scattered once more, over buckets of its own.

use super::{
    error::DatasetError,
    journal::{Bucket, Journal, ShuffleState, Stage},
    prepare::Limits,
    progress::Progress,
    stream::{SHUFFLE, Scatter, predicted_text_bytes, seed_of_bucket},
    vocabulary::Vocabulary,
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    fail,
    ids::BlobHash,
    rng,
    shard::{ShardInfo, token_bytes},
};
use rayon::prelude::*;
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
};

/// Fewest samples at which shards are made smaller than they might be.
const SHARD_SAMPLES_MIN: usize = 512;
/// zstd's level: shards are compressed once and fetched often.
const ZSTD_LEVEL: i32 = 9;

/// Makes shards of buckets.
pub struct Shuffler<'a> {
    /// The output folder.
    pub disk: &'a FolderDisk,
    /// What the samples are made of.
    pub vocabulary: &'a Vocabulary,
    /// Tokens that a sample predicts.
    pub context: u32,
    /// The dataset's seed.
    pub seed: u64,
    /// Sizes.
    pub limits: &'a Limits,
    /// Counts bytes of buckets.
    pub bar: &'a Progress,
}

impl Shuffler<'_> {
    /// Works off all pending buckets; after each the journal says so.
    pub fn run(&self, journal: &mut Journal, mut state: ShuffleState) -> Result<ShuffleState, DatasetError> {
        while let Some(bucket) = state.pending.first().cloned() {
            let file = format!("work/{}", bucket.name);
            let length = self.disk.length(&file).map_err(DatasetError::io(self.disk.path(&file)))?;
            let length = length.ok_or_else(|| DatasetError::Damaged { what: format!("{file} is missing") })?;
            if length <= self.limits.bucket_bytes_max {
                let shards = self.shards_of(&bucket, &file)?;
                if bucket.heldout {
                    state.sets.resize(state.sets.len().max(bucket.set + 1), 0);
                    state.sets[bucket.set] += shards.len();
                }
                if bucket.heldout { &mut state.heldout } else { &mut state.train }.extend(shards);
                state.pending.remove(0);
                self.bar.inc(length);
            } else {
                state.pending.splice(0..1, self.scatter(&bucket, &file)?);
            }
            journal.stage = Stage::Shuffle(state.clone());
            journal.save(self.disk)?;
            fail::point("dataset.bucket");
            self.disk.remove(&file).map_err(DatasetError::io(self.disk.path(&file)))?;
        }
        Ok(state)
    }

    fn sample_bytes(&self) -> usize {
        (self.context as usize + 1) * token_bytes(self.vocabulary.size())
    }

    fn scatter(&self, bucket: &Bucket, file: &str) -> Result<Vec<Bucket>, DatasetError> {
        let path = self.disk.path(file);
        let mut input = BufReader::with_capacity(1 << 20, File::open(&path).map_err(DatasetError::io(&path))?);
        let mut scatter =
            Scatter::open(&self.disk.path("work"), &bucket.name, self.seed, 0, vec![0; self.limits.fan_out])?;
        let mut sample = Vec::with_capacity(self.sample_bytes());
        loop {
            sample.clear();
            (&mut input).take(self.sample_bytes() as u64).read_to_end(&mut sample).map_err(DatasetError::io(&path))?;
            if sample.is_empty() {
                break;
            }
            scatter.push(&sample)?;
        }
        scatter.sync()?;
        Ok(scatter.children().map(|name| Bucket { name, ..bucket.clone() }).collect())
    }

    fn shards_of(&self, bucket: &Bucket, file: &str) -> Result<Vec<ShardInfo>, DatasetError> {
        let path = self.disk.path(file);
        let bytes = fs::read(&path).map_err(DatasetError::io(&path))?;
        let mut samples: Vec<&[u8]> = bytes.chunks_exact(self.sample_bytes()).collect();
        rng::shuffle(&mut samples, seed_of_bucket(self.seed, &bucket.name), SHUFFLE);
        let most = (self.limits.shard_bytes / self.sample_bytes()).max(SHARD_SAMPLES_MIN);
        // Parts of nearly equal size, rather than a small one at the end.
        let parts = samples.len().div_ceil(most).max(1);
        let pack = |samples: &[&[u8]]| zstd::bulk::compress(&samples.concat(), ZSTD_LEVEL);
        let parts: Vec<_> = samples.chunks(samples.len().div_ceil(parts).max(1)).collect();
        let packed: Vec<_> = parts.par_iter().map(|part| pack(part)).collect();
        parts.into_iter().zip(packed).map(|(part, frame)| self.write(part, frame)).collect()
    }

    fn write(&self, samples: &[&[u8]], frame: io::Result<Vec<u8>>) -> Result<ShardInfo, DatasetError> {
        let width = token_bytes(self.vocabulary.size());
        let text_bytes = samples.iter().map(|sample| predicted_text_bytes(sample, width, self.vocabulary)).sum();
        let frame = frame.map_err(DatasetError::io(self.disk.path("blobs")))?;
        let hash = BlobHash::of(&frame);
        let blob = format!("blobs/{hash}");
        self.disk.write(&blob, &frame).map_err(DatasetError::io(self.disk.path(&blob)))?;
        fail::point("dataset.shard");
        Ok(ShardInfo { hash, bytes: frame.len() as u64, samples: samples.len() as u32, text_bytes })
    }
}
