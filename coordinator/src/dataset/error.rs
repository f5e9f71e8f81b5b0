//! What can go wrong with a dataset, said with what to do next.

use std::{io, path::PathBuf};

/// A dataset that cannot be prepared or opened.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// Neither a path nor the registry was named.
    #[error("nothing to read: name files or folders, or pass --cargo-registry")]
    NoInput,
    /// An input path does not exist.
    #[error("{path} does not exist: check the path")]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A folder without a readable file in it, or inputs without text.
    #[error("there is no text in {what}: name text files, .jsonl or .parquet files, or folders that hold them")]
    Empty {
        /// Where it was looked for.
        what: String,
    },
    /// Cargo has not downloaded any sources.
    #[error("no crate sources under {path}: run `cargo fetch` in any Rust project first, or name text files instead")]
    NoRegistry {
        /// Where they would be.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No space is left.
    #[error(
        "the disk that holds {path} is full: free some space and run the same command again, it continues where it \
        stopped"
    )]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// Records that cannot be read, more than may be left out.
    #[error("{}", bad_records(*.count, *.whole, *.all, .named))]
    BadRecords {
        /// How many there are.
        count: u64,
        /// Whether all the input was looked through.
        whole: bool,
        /// Whether no record at all could be read.
        all: bool,
        /// The first of them, each in words that name it.
        named: Vec<String>,
    },
    /// A pattern that is none.
    #[error("`{pattern}` is no pattern for file names: {reason}")]
    Pattern {
        /// As written.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A parquet file that cannot be read.
    #[error("{path} is not a parquet file that can be read: {reason}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An Arrow file that cannot be read.
    #[error("{path} is not an Arrow file that can be read: {reason}")]
    Arrow {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A parquet or Arrow file without the named text column.
    #[error("{path} has no text column `{column}`: pass --column with one of: {available}")]
    Column {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The text columns that there are.
        available: String,
    },
    /// A parquet or Arrow file without any text column.
    #[error("{path} has no column of text, and so none `{column}`; its columns are: {columns}")]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// All columns.
        columns: String,
    },
    /// Ids come without the tokenizer that made them.
    #[error("--token-ids needs the tokenizer that made the ids: pass its tokenizer.json with --tokenizer")]
    IdsWithoutTokenizer,
    /// The tokenizer cannot be read, trained or used.
    #[error("the tokenizer {name} cannot be used: {reason}")]
    Tokenizer {
        /// As it was named.
        name: String,
        /// Why.
        reason: String,
    },
    /// The tokenizer cannot spell the text.
    #[error(
        "the tokenizer {name} cannot spell {percent:.0} % of the text, which would be lost: pass a --tokenizer that was made for \
         text like this, such as bytes or bpe:SIZE"
    )]
    Unspelled {
        /// As it was named.
        name: String,
        /// The share of the text.
        percent: f64,
    },
    /// The text is in another encoding.
    #[error(
        "{percent:.1} % of the characters are not UTF-8, in {}: that looks like latin-1 or another old encoding; convert it \
         (iconv -f latin1 -t utf-8), or leave it out with --exclude",
        .named.join(", ")
    )]
    NotUtf8 {
        /// The share of the characters.
        percent: f64,
        /// The files.
        named: Vec<String>,
    },
    /// An option is outside what is allowed.
    #[error("{option} is {value}; allowed is {allowed}")]
    OutOfRange {
        /// The option.
        option: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        allowed: &'static str,
    },
    /// The output folder cannot be made or opened.
    #[error("{out} cannot be used as a folder ({source}): pass another --out")]
    Out {
        /// As given.
        out: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output folder holds a dataset whose plan is gone.
    #[error(
        "{out} holds a dataset without its prepare.json, which says what it was made of: pass another --out; to make it anew \
         there, remove that folder first. `serve` needs no prepare.json"
    )]
    NoPlan {
        /// As given.
        out: PathBuf,
    },
    /// The output folder holds a dataset of other options or inputs.
    #[error(
        "{out} was prepared, or begun, with other options or inputs: pass another --out, or remove that folder to \
        start over"
    )]
    Changed {
        /// The folder.
        out: PathBuf,
    },
    /// The output folder holds something else.
    #[error("{out} holds {entry}, which no `dataset prepare` wrote: pass another --out, or move it away")]
    Foreign {
        /// The folder.
        out: PathBuf,
        /// What is not ours.
        entry: String,
    },
    /// The output folder was made by another command.
    #[error("{out} is {kind}, no dataset: pass another --out")]
    OtherKind {
        /// The folder.
        out: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The output folder's mark.
    #[error(transparent)]
    Mark(#[from] nightjar_shared::mark::MarkError),
    /// Another process prepares into the same folder.
    #[error("another `dataset prepare` is at work in {out}: wait for it, or pass another --out")]
    Busy {
        /// The folder.
        out: PathBuf,
    },
    /// Too little text to fill one sample.
    #[error("{split} has {tokens} tokens, fewer than one sample of {needed}: {advice}")]
    TooLittle {
        /// Which part of the dataset.
        split: String,
        /// What it has.
        tokens: u64,
        /// What a sample takes.
        needed: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A folder without a dataset.
    #[error(
        "{path} holds no prepared dataset (no manifest.json): run `nightjar-coordinator dataset prepare … --out {path}`"
    )]
    NotPrepared {
        /// The folder.
        path: PathBuf,
    },
    /// A manifest or shard that does not hold what it should.
    #[error("the dataset is damaged: {what}: prepare it again into an empty folder")]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

fn bad_records(count: u64, whole: bool, all: bool, named: &[String]) -> String {
    let at_least = if whole { "" } else { "at least " };
    let (records, them) = if count == 1 { ("record", "it") } else { ("records", "them") };
    let mut text = format!("{at_least}{count} {records} cannot be read");
    for name in named {
        text += &format!("\n  {name}");
    }
    let more = count.saturating_sub(named.len() as u64);
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    text + &match all {
        true => "\nand no record before could be".to_owned(),
        false => format!("\ncorrect {them}, or pass --skip-bad {count} to leave {them} out"),
    }
}

impl DatasetError {
    /// Wraps a failed read or write of `path`; a full disk gets its own words.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DatasetError {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DatasetError::DiskFull { path },
            io::ErrorKind::NotFound => DatasetError::NotFound { path },
            _ => DatasetError::Io { path, source },
        }
    }
}
