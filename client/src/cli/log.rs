//! `log`: what the agent has told, from its file. It needs no agent that runs.

use super::format::Format;
use anyhow::Result;
use clap::Args;
use nightjar_agent::{
    history::{LOG_FILE, log_lines},
    home::Home,
};
use nightjar_shared::disk::Disk;
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
    #[arg(long, conflicts_with = "json")]
    follow: bool,
}

pub(super) fn log(home: &Home, args: &Log, format: Format) -> Result<ExitCode> {
    let disk = home.disk();
    let mut at = disk.length(LOG_FILE)?.unwrap_or(0);
    let lines = log_lines(&*disk, args.lines);
    if !args.follow {
        let words = if lines.is_empty() { "nothing has been told yet".to_owned() } else { lines.join("\n") };
        return format.say(&lines, words);
    }
    for line in lines {
        println!("{line}");
    }
    loop {
        std::thread::sleep(FOLLOW_EVERY);
        let length = disk.length(LOG_FILE)?.unwrap_or(0);
        if length < at {
            // It was put aside, and begun anew.
            at = 0;
        }
        while at < length {
            let bytes = disk.read_at(LOG_FILE, at, CHUNK_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
            io::stdout().write_all(&bytes)?;
        }
        io::stdout().flush()?;
    }
}
