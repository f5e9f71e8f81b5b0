//! The agent's log: what it told its owner, a line each with its time, in two files of bounded size.

use nightjar_shared::{disk::Disk, plain};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

/// The log's file in the home folder; before it came `agent.log.old`.
pub const LOG_FILE: &str = "agent.log";
/// The file before it.
pub const OLD_LOG_FILE: &str = "agent.log.old";
/// A file of this size is put aside.
const BYTES_MAX: u64 = 256 << 10;

/// Where lines are written.
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log of a home.
    pub fn of(disk: &dyn Disk) -> Self {
        Log { path: disk.path(LOG_FILE) }
    }

    /// Writes a line. One that cannot be written is lost: there is nowhere else to say so.
    pub fn write(&self, at: &str, line: &str) {
        let _ = self.append(&format!("{at} {}\n", line.replace(['\n', '\r'], " ")));
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let open = || plain::open(&self.path, File::options().create(true).append(true));
        let mut file = open()?;
        if file.metadata()?.len() + line.len() as u64 > BYTES_MAX {
            fs::rename(&self.path, self.path.with_file_name(OLD_LOG_FILE))?;
            file = open()?;
        }
        file.write_all(line.as_bytes())
    }
}

/// The last lines of the log.
pub fn log_lines(disk: &dyn Disk, count: usize) -> Vec<String> {
    log_tail(disk, count).0
}

/// The last lines of the log, and up to which byte of its newer file they go.
pub fn log_tail(disk: &dyn Disk, count: usize) -> (Vec<String>, u64) {
    let text = |file| {
        let bytes = disk.read_at(file, 0, 2 * BYTES_MAX as usize).unwrap_or_default();
        (String::from_utf8_lossy(&bytes).into_owned(), bytes.len() as u64)
    };
    let ((old, _), (new, end)) = (text(OLD_LOG_FILE), text(LOG_FILE));
    let lines: Vec<&str> = old.lines().chain(new.lines()).collect();
    (lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect(), end)
}
