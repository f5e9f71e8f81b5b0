//! `dataset prepare`: texts in, a dataset out.

use super::{Failure, say};
use clap::{Args, Subcommand};
use nightjar_coordinator::dataset::{self, DatasetError, PrepareOptions, TokenizerChoice};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Dataset {
    Prepare(Prepare),
}

/// Read texts and write shards of shuffled samples
///
/// Reads text, .jsonl and .parquet files (or folders of them) and writes a dataset: shards of shuffled samples, named by
/// their hash, part of the documents held out. Memory stays bounded whatever the size. Interrupted, the same command goes
/// on where it stopped.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator dataset prepare books/ --out data
  nightjar-coordinator dataset prepare wiki.parquet --column text --tokenizer bpe:8192 --context 512 --out data
  nightjar-coordinator dataset prepare --cargo-registry --out data")]
pub struct Prepare {
    /// Files and folders to read
    #[arg(value_name = "PATH", required_unless_present = "cargo_registry")]
    paths: Vec<PathBuf>,
    /// Read the crate sources that Cargo has downloaded: text that every Rust machine has, at most 32 MB
    #[arg(long)]
    cargo_registry: bool,
    /// The dataset's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// `bytes`, `bpe:SIZE` to train a byte-level BPE, or the path of a tokenizer.json
    #[arg(long, default_value = "bytes")]
    tokenizer: TokenizerChoice,
    /// Tokens that a sample predicts: the model's max_position_embeddings
    #[arg(long, value_name = "N", default_value_t = 128)]
    context: u32,
    /// The column of .jsonl and .parquet files that holds the text
    #[arg(long, default_value = "text")]
    column: String,
    /// Share of the documents that is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    heldout: f64,
    /// Read at most so many bytes of text
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// Decides what is held out and how samples are shuffled
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

impl Dataset {
    pub fn run(self) -> Result<(), Failure> {
        let Dataset::Prepare(Prepare { paths, cargo_registry, out, tokenizer, context, column, heldout, max_bytes, seed, quiet }) =
            self;
        let options = PrepareOptions { paths, cargo_registry, out, tokenizer, context, column, heldout, max_bytes, seed, quiet };
        let prepared = dataset::prepare(&options).map_err(|error| match error {
            DatasetError::DiskFull { .. } | DatasetError::Io { .. } | DatasetError::Damaged { .. } => Failure::midway(error),
            error => Failure::input(error),
        })?;
        let (manifest, skipped) = (&prepared.manifest, prepared.skipped);
        let samples = |shards: &[nightjar_shared::shard::ShardInfo]| shards.iter().map(|s| u64::from(s.samples)).sum::<u64>();
        say(&format!(
            "{} training samples in {} shards, {} held out; {} tokens each, vocabulary {}{}",
            samples(&manifest.train),
            manifest.train.len(),
            samples(&manifest.heldout),
            manifest.context,
            manifest.vocab_size,
            if prepared.already_done { " (prepared before)" } else { "" },
        ));
        if skipped.binary_files > 0 {
            say(&format!("left out: {} files that are no text", skipped.binary_files));
        }
        if skipped.invalid_utf8 > 0 {
            say(&format!("replaced: bytes that are not UTF-8, in {} pieces of text", skipped.invalid_utf8));
        }
        Ok(())
    }
}
