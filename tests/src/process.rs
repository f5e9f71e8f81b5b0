//! Child processes of a test. They stay in the test's process group and are killed when dropped.

use crate::{PATIENCE, until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// A program of this workspace, where `cargo build --workspace` put it.
///
/// # Panics
/// If it was not built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let built = test.parent().and_then(Path::parent).expect("a test lies in the target folder's deps").join(name);
    assert!(built.exists(), "{} is missing; build it first: cargo build --workspace", built.display());
    built
}

/// A process that runs beside the test. Dropping it kills it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output; empty for one that ran beside the test.
    pub stdout: String,
    /// Its standard error; both streams for one that ran beside the test.
    pub stderr: String,
}

impl Running {
    /// Starts a process that writes to the end of `log`.
    pub fn start(mut command: Command, log: &Path) -> Running {
        let file = File::options().create(true).append(true).open(log).expect("a log can be written");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file can be cloned")).stderr(file);
        Running { child: command.spawn().expect("a program of this workspace starts"), log: log.to_owned() }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, to this process alone: what it started must notice by itself.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(mut self) -> Ended {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process has a number");
        let _ = kill_process(pid, Signal::TERM);
        let status = until(&format!("the end after SIGTERM; see {}", self.log.display()), || {
            self.child.try_wait().ok().flatten()
        });
        Ended { status, stdout: String::new(), stderr: self.said() }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(Ended { status, stdout: String::new(), stderr: self.said() })
    }

    /// All that it has written.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a process to its end.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
pub fn run(mut command: Command) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |path: &Path| File::create(path).expect("a log can be written");
    command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let mut child = Running { child: command.spawn().expect("a program of this workspace starts"), log: err.clone() };
    let words = format!("the end of {command:?} ({} s)", PATIENCE.as_secs());
    let mut ended = until(&words, || child.ended());
    ended.stdout = std::fs::read_to_string(&out).unwrap_or_default();
    ended
}

/// The processes that a process has started, they in turn, and so on.
pub fn descendants(of: u32) -> Vec<u32> {
    let everyone: Vec<u32> = std::fs::read_dir("/proc")
        .expect("a Linux system")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(everyone.iter().filter(|id| stat(**id).is_some_and(|(_, its_parent)| its_parent == parent)));
        next += 1;
    }
    found.split_off(1)
}

/// SIGKILL, to one that this process did not start itself. One that is gone already is fine.
pub fn kill(id: u32) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process has a number");
    let _ = kill_process(pid, Signal::KILL);
}

/// Whether a process still does something; one that has ended and was not waited for does not.
pub fn is_alive(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// A process's state and parent. The name before them stands in brackets and may hold anything.
fn stat(id: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

impl Ended {
    /// Asserts that it went well.
    ///
    /// # Panics
    /// If it did not.
    pub fn good(self) -> Ended {
        assert!(self.status.success(), "{}: {}{}", self.status, self.stdout, self.stderr);
        self
    }

    /// Asserts that it failed as a program should: with an exit code, and one clear message that holds all of `words`.
    ///
    /// # Panics
    /// If it did not.
    pub fn refused(self, words: &[&str]) -> Ended {
        assert!(self.status.signal().is_none(), "ended by a signal: {self:?}");
        assert!(!self.status.success(), "it should have failed: {self:?}");
        let message = self.stderr.trim();
        assert!(
            !message.contains("panicked") && !message.contains("RUST_BACKTRACE"),
            "a panic is no message: {message}"
        );
        let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "one clear message, please: {message}");
        for word in words {
            assert!(message.contains(word), "the message does not say {word:?}: {message}");
        }
        self
    }
}
