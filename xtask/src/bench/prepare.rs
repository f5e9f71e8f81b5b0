//! `cargo xtask bench prepare`: how fast `dataset prepare` reads and encodes text, and how much memory it takes at its
//! peak, for inputs of several sizes. The text is made here, from a seed: words as rare as words are, in documents.

use super::report::{PreparedRow, Preparing};
use crate::{cargo, children::Children, root, setup::target_folder};
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_shared::rng;
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::Command,
    time::Instant,
};

/// Different words.
const WORDS: usize = 60_000;
/// Words of a document, and of a line.
const DOCUMENT: u64 = 600;
const LINE: u64 = 12;
/// Tokens of the vocabulary that is trained first and not timed.
const VOCABULARY: u32 = 32_768;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes of text, once for each row.
    #[arg(long, value_delimiter = ',', default_value = "32,256")]
    megabytes: Vec<u64>,
    /// Put the figures into docs/performance.md, in place of older ones of the same processor.
    #[arg(long)]
    pub docs: bool,
}

/// Measures each size in a process of its own.
pub fn measure(options: &Options, processor: String, children: &Children) -> Result<Preparing> {
    let built =
        children.run("cargo", cargo().args(["build", "--package", "nightjar-coordinator"]).current_dir(root()?))?;
    if !built.success() {
        bail!("the coordinator was not built; see above");
    }
    let program = target_folder()?.join("debug/nightjar-coordinator");
    let folder = std::env::temp_dir().join(format!("nightjar-prepare-{}", std::process::id()));
    // Made here, or it is not ours to remove.
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let rows = rows(options, &program, &folder, children);
    let _ = fs::remove_dir_all(&folder);
    let cores = std::thread::available_parallelism()?.get();
    Ok(Preparing { processor, cores, rows: rows? })
}

fn rows(options: &Options, program: &Path, folder: &Path, children: &Children) -> Result<Vec<PreparedRow>> {
    let words: Vec<String> = (0..WORDS as u64).map(word).collect();
    let (sample, tokenizer) = (folder.join("sample.txt"), folder.join("vocabulary"));
    write_text(&sample, 8_000_000, &words, 1)?;
    let prepare = |text: &Path, tokenizer: &str, out: &Path| {
        let mut command = Command::new(program);
        command.args(["dataset", "prepare", "--quiet", "--context", "1024", "--tokenizer", tokenizer, "--out"]);
        command.arg(out).arg(text);
        command
    };
    peak_of(&mut prepare(&sample, &format!("bpe:{VOCABULARY}"), &tokenizer), children)?;
    let trained = tokenizer.join("tokenizer.json").display().to_string();
    let mut rows = vec![];
    for megabytes in &options.megabytes {
        let (text, out) = (folder.join("text.txt"), folder.join("data"));
        write_text(&text, megabytes * 1_000_000, &words, 2)?;
        let (seconds, peak_bytes) = peak_of(&mut prepare(&text, &trained, &out), children)?;
        fs::remove_dir_all(&out)?;
        rows.push(PreparedRow { megabytes: *megabytes, seconds, peak_bytes });
    }
    Ok(rows)
}

/// Runs a program to its end: the seconds that it took, and the most memory that it had.
fn peak_of(command: &mut Command, children: &Children) -> Result<(f64, u64)> {
    let begun = Instant::now();
    let mut process = children.spawn("nightjar-coordinator", command)?;
    let mut peak_bytes = 0;
    loop {
        peak_bytes = peak_bytes.max(process.peak_bytes().unwrap_or(0));
        match process.wait(children, Some(std::time::Duration::from_millis(50)))? {
            Some(status) if status.success() => return Ok((begun.elapsed().as_secs_f64(), peak_bytes)),
            Some(_) => bail!("dataset prepare failed; see above"),
            None => {}
        }
    }
}

/// A word: letters, by its number.
fn word(number: u64) -> String {
    let length = 2 + rng::draw(7, 0, number) % 9;
    (0..length).map(|at| char::from(b'a' + (rng::draw(7, 1 + at, number) % 26) as u8)).collect()
}

/// Words as rare as words are (Zipf's law): of two ranks, the one twice as far down comes half as often.
fn write_text(path: &Path, bytes: u64, words: &[String], seed: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create_new(path).or_else(|_| File::create(path))?);
    let (mut written, mut at) = (0, 0);
    while written < bytes {
        let rank = (words.len() as f64).powf(rng::unit(seed, 0, at)) as usize - 1;
        let end = match at {
            at if at % DOCUMENT == DOCUMENT - 1 => "\n\n",
            at if at % LINE == LINE - 1 => ".\n",
            _ => " ",
        };
        file.write_all(words[rank].as_bytes())?;
        file.write_all(end.as_bytes())?;
        written += (words[rank].len() + end.len()) as u64;
        at += 1;
    }
    Ok(file.flush()?)
}
