//! `dataset prepare`: texts in, a dataset out. `dataset info` says what one holds.

use super::{Failure, say};
use clap::{Args, Subcommand};
use nightjar_coordinator::dataset::{
    self, DatasetError, HeldoutPath, IdWidth, Notes, PrepareOptions, Prepared, Report, TokenizerChoice,
};
use nightjar_coordinator::store::bucket::open_inputs;
use nightjar_shared::shard::{Manifest, ShardInfo};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Dataset {
    Prepare(Box<Prepare>),
    Info(Info),
}

/// Say what a prepared dataset holds, and whether all of it is there
#[derive(Args)]
pub struct Info {
    /// The dataset's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Read texts and write shards of shuffled samples
///
/// Reads text, .jsonl, .json, .parquet and .arrow files (or folders of them, or patterns in quotes), also packed as .gz or
/// .zst, and writes a dataset:
/// shards of shuffled samples, named by their hash, part of the documents held out. Memory stays bounded whatever the
/// size. Interrupted, the same command goes on where it stopped. Whatever is left out or changed is told.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator dataset prepare books/ --out data
  nightjar-coordinator dataset prepare wiki.parquet --column text --tokenizer bpe:8192 --context 512 --out data
  nightjar-coordinator dataset prepare corpus/ --include '*.jsonl.gz' --exclude test --skip-bad 10 --out data
  nightjar-coordinator dataset prepare --cargo-registry --out data")]
pub struct Prepare {
    /// Files, folders and s3://BUCKET/PREFIX to read
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
    /// The token that ends a document, where the tokenizer has one that neither its files nor its name tells
    #[arg(long, value_name = "TOKEN")]
    end_of_text: Option<String>,
    /// The column of .jsonl, .json and .parquet files that holds the text; dots lead into objects, as in doc.text
    #[arg(long, default_value = "text")]
    column: String,
    /// Read only files that match, by name ('*.txt') or place ('books/**/*.txt'); may be given several times
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out files and folders that match, by name or place; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out up to so many records that cannot be read
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_bad: u64,
    /// Share of the documents that is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    heldout: f64,
    /// Hold this file, folder or pattern out instead, as a set with a name; may be given several times
    #[arg(long, value_name = "NAME=PATH", conflicts_with = "heldout")]
    heldout_path: Vec<HeldoutPath>,
    /// Keep exact copies of documents; else the first is kept
    #[arg(long)]
    keep_duplicates: bool,
    /// Read at most so many bytes of text, as in 5000000, 5e6, 5M or 2G
    #[arg(long, value_name = "N", value_parser = bytes)]
    max_bytes: Option<u64>,
    /// Take the .bin files for ids of tokens, as nanoGPT writes them: `uint16` or `uint32`; --tokenizer names what made them
    #[arg(long, value_name = "WIDTH")]
    token_ids: Option<IdWidth>,
    /// Decides what is held out and how samples are shuffled
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only look, and say what would be read and what would come of it
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// A number of bytes as people write it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let small = text.trim().to_lowercase().replace('_', "");
    let digits = small.trim_end_matches(|c: char| c.is_ascii_alphabetic() && c != 'e').trim_end();
    let unit = match small[digits.len()..].trim().trim_end_matches('b') {
        "" => Some(1.0),
        "k" => Some(1e3),
        "m" => Some(1e6),
        "g" => Some(1e9),
        "t" => Some(1e12),
        "ki" => Some(1024.0),
        "mi" => Some(f64::from(1 << 20)),
        "gi" => Some(f64::from(1 << 30)),
        "ti" => Some(1024.0 * f64::from(1 << 30)),
        _ => None,
    };
    let whole = digits.parse::<u64>().ok().filter(|_| unit == Some(1.0));
    let scaled = || digits.parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
    let is_right = |number: &f64| number.fract() == 0.0 && (0.0..1.8e19).contains(number);
    let found = whole.or_else(|| scaled().filter(is_right).map(|number| number as u64));
    found.ok_or_else(|| "a number of bytes is needed, as in 5000000, 5e6, 5M, 2G or 64MiB".to_owned())
}

impl Dataset {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Dataset::Prepare(prepare) => prepare.run(),
            Dataset::Info(info) => info.run(),
        }
    }
}

impl Info {
    fn run(self) -> Result<(), Failure> {
        let dataset = dataset::Dataset::open(&self.folder).map_err(Failure::input)?;
        say(&shards(dataset.manifest()));
        if let Some(report) = Report::read(&self.folder).map_err(Failure::midway)? {
            report.lines(dataset.manifest()).iter().for_each(|line| say(line));
            report.notes.iter().for_each(|line| say(line));
        }
        match dataset.unfit().as_slice() {
            [] => Ok(()),
            [first, ..] => Err(Failure::midway(format!("{first}: run the command again that prepared it"))),
        }
    }
}

/// What a dataset is made of, in one line.
fn shards(manifest: &Manifest) -> String {
    let samples = |shards: &[ShardInfo]| shards.iter().map(|shard| u64::from(shard.samples)).sum::<u64>();
    format!(
        "{} training samples in {} shards, {} held out; {} tokens each, vocabulary {}",
        samples(&manifest.train),
        manifest.train.len(),
        samples(&manifest.heldout),
        manifest.context,
        manifest.vocab_size,
    )
}

/// What was wrong with the input, and what went wrong on the way.
pub(super) fn failure(error: DatasetError) -> Failure {
    match error {
        DatasetError::DiskFull { .. } | DatasetError::Io { .. } | DatasetError::Damaged { .. } => {
            Failure::midway(error)
        }
        error => Failure::input(error),
    }
}

impl Prepare {
    fn run(self) -> Result<(), Failure> {
        let is_dry = self.is_dry();
        let options = self.options();
        let mut notes = Notes::default();
        let said = match is_dry {
            true => dataset::preview(&options, &mut notes),
            false => dataset::prepare(&options, &mut notes).and_then(|prepared| told(&options, &prepared)),
        };
        let said = said.map_err(|error| {
            // Why it failed may be among what was left out.
            notes.lines().iter().for_each(|line| eprintln!("{line}"));
            failure(error)
        })?;
        let (first, rest) = said.split_at(said.len().min(1));
        first.iter().for_each(|line| say(line));
        notes.lines().iter().for_each(|line| say(line));
        rest.iter().for_each(|line| say(line));
        Ok(())
    }
}

/// What came of a preparation, and what to do next.
fn told(options: &PrepareOptions, prepared: &Prepared) -> Result<Vec<String>, DatasetError> {
    let manifest = &prepared.manifest;
    let before = if prepared.already_done { " (prepared before)" } else { "" };
    let mut lines = vec![format!("{}{before}", shards(manifest))];
    let out = options.out.display();
    if let Some(report) = Report::read(&options.out)? {
        lines.extend(report.lines(manifest));
        lines.push(format!("the report is a page: {out}/report.html"));
    }
    lines.push(format!("next: nightjar-coordinator serve --run run.toml --data {out} --state state"));
    Ok(lines)
}

impl Prepare {
    /// Whether it is only to look.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }

    pub(super) fn options(self) -> PrepareOptions {
        PrepareOptions {
            paths: self.paths,
            cargo_registry: self.cargo_registry,
            out: self.out,
            tokenizer: self.tokenizer,
            context: self.context,
            end_of_text: self.end_of_text,
            column: self.column,
            include: self.include,
            exclude: self.exclude,
            skip_bad: self.skip_bad,
            heldout: self.heldout,
            heldout_paths: self.heldout_path,
            keep_duplicates: self.keep_duplicates,
            max_bytes: self.max_bytes,
            token_ids: self.token_ids,
            open_objects: Some(open_inputs),
            seed: self.seed,
            quiet: self.quiet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_people_write_them() {
        for (text, wanted) in [
            ("5000000", 5_000_000),
            ("1e6", 1_000_000),
            ("1M", 1_000_000),
            ("1.5GB", 1_500_000_000),
            ("64MiB", 64 << 20),
            ("2 kB", 2000),
            ("7b", 7),
            ("5_000", 5000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(wanted), "{text}");
        }
        for text in ["", "M", "-1", "1.5", "1X", "1e30", "many", "nan"] {
            assert!(bytes(text).unwrap_err().contains("5M"), "{text}");
        }
    }
}
