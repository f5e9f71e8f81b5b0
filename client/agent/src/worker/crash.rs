//! How a worker comes to a bad end: by itself, or because of what it said or did.

use crate::{quota::Overgrown, session::Untrue};
use nightjar_shared::wire::frame::FrameError;
use std::{fmt, io, process::ExitStatus};

/// A worker that has failed; its words are shown, and kept where it computed on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum Crash {
    /// Its process is gone.
    #[error("{end}{}", said(.last_words))]
    Exited {
        /// How it ended.
        end: End,
        /// The last line of its errors; empty if there is none.
        last_words: String,
    },
    /// What it sent is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nor is this.
    #[error("it sent an empty message")]
    Empty,
    /// What it said cannot be.
    #[error(transparent)]
    Untrue(#[from] Untrue),
    /// Its delta is not what it said.
    #[error("{0}")]
    Delta(String),
    /// It says that its device has failed.
    #[error("{0}")]
    Device(String),
    /// It hangs.
    #[error("it said nothing for {hours} hours")]
    Silent {
        /// That long.
        hours: u64,
    },
    /// It fills the owner's disk.
    #[error(transparent)]
    Overgrown(#[from] Overgrown),
}

/// How a process ended.
#[derive(Debug)]
pub enum End {
    /// With this status.
    Status(ExitStatus),
    /// Nobody can tell: the system's words.
    Unknown(io::Error),
    /// Only its pipe did.
    PipeOnly,
}

impl Crash {
    /// Whether it was killed from outside, most likely for memory: that says nothing of its device.
    pub fn is_kill(&self) -> bool {
        match self {
            Crash::Exited { end: End::Status(status), .. } => is_killed(*status),
            _ => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            End::Status(status) => status.fmt(f),
            End::Unknown(e) => e.fmt(f),
            End::PipeOnly => f.write_str("it closed its pipe and did not end"),
        }
    }
}

fn said(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!("; its last words: {last_words}") }
}

#[cfg(unix)]
fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGKILL: i32 = 9;
    status.signal() == Some(SIGKILL)
}

/// Here a status does not tell.
#[cfg(not(unix))]
fn is_killed(_: ExitStatus) -> bool {
    false
}
