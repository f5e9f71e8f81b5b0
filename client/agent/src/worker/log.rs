//! What a worker says on its standard error: a log of bounded size, and the last line as its last words.

use nightjar_shared::{plain, wire::limits};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::ChildStderr,
};

/// The log is started over when it has grown to this.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// Lines taken of it in a second.
const LINES_A_SECOND_MAX: u32 = 100;
/// Longest line taken from the worker's errors.
const LINE_BYTES_MAX: usize = 4096;

/// Writes the worker's errors to a log; gives back the last line.
pub(super) async fn keep(stderr: ChildStderr, path: PathBuf) -> String {
    let mut lines = BufReader::new(stderr).take(u64::MAX);
    let mut last = String::new();
    let mut line = vec![];
    let mut rate = Rate { since: Instant::now(), lines: 0 };
    loop {
        line.clear();
        lines.set_limit(LINE_BYTES_MAX as u64);
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        match rate.takes(Instant::now()) {
            Taken::Whole => {}
            Taken::Cut => {
                let cut = format!("[more than {LINES_A_SECOND_MAX} lines in a second: the others are left out]\n");
                let _ = append(&path, cut.as_bytes());
                continue;
            }
            Taken::Not => continue,
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

/// How many lines there were lately.
struct Rate {
    since: Instant,
    lines: u32,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Whole,
    /// It is left out, and that is said.
    Cut,
    Not,
}

impl Rate {
    fn takes(&mut self, now: Instant) -> Taken {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Rate { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines {
            0..=LINES_A_SECOND_MAX => Taken::Whole,
            lines if lines == LINES_A_SECOND_MAX + 1 => Taken::Cut,
            _ => Taken::Not,
        }
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let open = || plain::open(path, File::options().create(true).append(true));
    let mut log = open()?;
    if log.metadata()?.len() + line.len() as u64 > LOG_BYTES_MAX {
        fs::rename(path, path.with_extension("log.old"))?;
        log = open()?;
    }
    log.write_all(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However much a worker says, the disk is the owner's.
    #[test]
    fn more_lines_than_anybody_reads_are_left_out_and_that_is_said() {
        let start = Instant::now();
        let mut rate = Rate { since: start, lines: 0 };
        for second in 0..3 {
            let now = start + Duration::from_secs(second);
            let taken: Vec<Taken> = (0..1000).map(|_| rate.takes(now)).collect();
            let count = |what: Taken| taken.iter().filter(|taken| **taken == what).count();
            assert_eq!((count(Taken::Whole), count(Taken::Cut)), (LINES_A_SECOND_MAX as usize, 1));
        }
    }

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
