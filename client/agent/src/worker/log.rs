//! What a worker says on its standard error: a log of bounded size, and the last line as its last words.

use nightjar_shared::wire::limits;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::ChildStderr,
};

/// The log is started over when it has grown to this.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// Longest line taken from the worker's errors.
const LINE_BYTES_MAX: usize = 4096;

/// Writes the worker's errors to a log; gives back the last line.
pub(super) async fn keep(stderr: ChildStderr, path: PathBuf) -> String {
    let mut lines = BufReader::new(stderr).take(u64::MAX);
    let mut last = String::new();
    let mut line = vec![];
    loop {
        line.clear();
        lines.set_limit(LINE_BYTES_MAX as u64);
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        // It may be read in a terminal, which control characters would command.
        let text = String::from_utf8_lossy(&line);
        let plain: String = text.trim_end_matches('\n').chars().filter(|c| !c.is_control() || *c == '\t').collect();
        // A log that cannot be written must not stop the training.
        let _ = append(&path, format!("{plain}\n").as_bytes());
        if !text.trim().is_empty() {
            last = limits::tame(text.trim());
        }
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut log = File::options().create(true).append(true).open(path)?;
    if log.metadata()?.len() + line.len() as u64 > LOG_BYTES_MAX {
        fs::rename(path, path.with_extension("log.old"))?;
        log = File::options().create(true).append(true).open(path)?;
    }
    log.write_all(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        for _ in 0..1000 {
            append(&path, &[b'x'; 1000]).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= LOG_BYTES_MAX);
        assert!(fs::metadata(path.with_extension("log.old")).unwrap().len() <= LOG_BYTES_MAX);
    }
}
