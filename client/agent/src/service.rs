//! Nightjar as a part of the owner's session: started when they log in, ended when they log out. A systemd user unit on
//! Linux, a launchd agent on macOS, a task of the Task Scheduler on
//! Windows; what the system's own tools cannot do is not done.

mod launchd;
mod systemd;
mod task;
mod unit_file;
mod xml;

use crate::home::Home;
use std::{
    io,
    path::PathBuf,
    process::{Command, Stdio},
};

/// What a service manager can be asked to do.
struct Manager {
    install: fn(&Service) -> Result<(), ServiceError>,
    remove: fn() -> Result<(), ServiceError>,
    state: fn() -> Result<ServiceState, ServiceError>,
}

/// This system's.
const MANAGER: Manager = if cfg!(target_os = "macos") {
    launchd::MANAGER
} else if cfg!(windows) {
    task::MANAGER
} else {
    systemd::MANAGER
};

/// Set where the service manager has started this program.
pub const SERVICE_VARIABLE: &str = "NIGHTJAR_SERVICE";

/// What the service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The program.
    pub program: PathBuf,
    /// Its home folder, if that is not the user's own.
    pub home: Option<PathBuf>,
}

/// How the service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// Whether it is started at every login.
    pub installed: bool,
    /// Whether it runs now, as far as the service manager says.
    pub running: bool,
    /// Where it is written down.
    pub place: String,
}

/// A service that cannot be installed, removed or asked for.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The system names no folder for it.
    #[error("this system names no folder for the user's services")]
    Nowhere,
    /// A file cannot be written or removed.
    #[error("cannot write {place}: {source}")]
    File {
        /// Which.
        place: String,
        /// The disk's words.
        source: io::Error,
    },
    /// It is another's.
    #[error(
        "{place} was not written by `nightjar service install`; move it away, or give it another name. Nothing was \
        changed"
    )]
    Foreign {
        /// What.
        place: String,
    },
    /// No service manager answers for this user.
    #[error(
        "no service manager answers for this user ({0}): log in at the desktop or by SSH, or have one kept without a login by \
         `loginctl enable-linger`; nothing was installed"
    )]
    NoManager(String),
    /// The service manager refuses.
    #[error("`{command}` failed: {why}")]
    Manager {
        /// What was run.
        command: String,
        /// What it said.
        why: String,
    },
}

impl Service {
    /// This very program, with this home.
    pub fn of_this_program(home: &Home) -> io::Result<Self> {
        Ok(Service { program: std::env::current_exe()?, home: home.named().map(PathBuf::from) })
    }

    /// Installs and starts it; what was installed before is replaced.
    pub fn install(&self) -> Result<ServiceState, ServiceError> {
        (MANAGER.install)(self)?;
        state()
    }

    /// The command line that the service runs.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.program.display().to_string()];
        if let Some(home) = &self.home {
            words.extend(["--home".to_owned(), home.display().to_string()]);
        }
        words.push("run".to_owned());
        words
    }
}

/// Ends and removes it; not installed is fine.
pub fn remove() -> Result<(), ServiceError> {
    (MANAGER.remove)()
}

/// How it stands.
pub fn state() -> Result<ServiceState, ServiceError> {
    (MANAGER.state)()
}

/// Runs one of the system's own tools; gives back what it says.
fn run(command: &str, arguments: &[&str]) -> Result<String, ServiceError> {
    let line = format!("{command} {}", arguments.join(" "));
    let failed = |why: String| ServiceError::Manager { command: line.clone(), why };
    let ended =
        Command::new(command).args(arguments).stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ended.status.success() { Ok(text(&ended.stdout)) } else { Err(failed(text(&ended.stderr))) }
}

#[cfg(test)]
mod tests;
