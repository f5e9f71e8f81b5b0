//! `log`: what the agent has told, from its file. It needs no agent that runs.

use super::{Misunderstood, format::Format};
use anyhow::Result;
use clap::Args;
use nightjar_agent::{
    history::{LOG_FILE, OLD_LOG_FILE, log_tail},
    home::Home,
};
use nightjar_shared::disk::{Disk, FolderDisk};
use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

/// The file is looked at this often.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Args)]
pub(super) struct Log {
    /// How many of the last lines
    #[arg(long, default_value_t = 50)]
    lines: usize,
    /// Go on as more are written, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

pub(super) fn log(home: &Home, args: &Log, format: Format) -> Result<ExitCode> {
    let disk = home.disk();
    let (lines, mut at) = log_tail(&*disk, args.lines);
    if !args.follow {
        let words = if lines.is_empty() { "nothing has been told yet".to_owned() } else { lines.join("\n") };
        return format.say(&lines, words);
    }
    if format.json {
        return Err(Misunderstood("`--follow` prints lines as they come; `--json` goes without it".into()).into());
    }
    for line in lines {
        println!("{line}");
    }
    loop {
        std::thread::sleep(FOLLOW_EVERY);
        if disk.length(LOG_FILE)?.unwrap_or(0) < at {
            // It was put aside, and begun anew.
            copy(&disk, OLD_LOG_FILE, at)?;
            at = 0;
        }
        at = copy(&disk, LOG_FILE, at)?;
        io::stdout().flush()?;
    }
}

/// Prints a file from a byte on; says up to which.
fn copy(disk: &FolderDisk, file: &str, mut at: u64) -> io::Result<u64> {
    while at < disk.length(file)?.unwrap_or(0) {
        let bytes = disk.read_at(file, at, CHUNK_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        at += bytes.len() as u64;
        io::stdout().write_all(&bytes)?;
    }
    Ok(at)
}
