//! Signals to `serve`, as wishes: SIGTERM and SIGINT end it, SIGHUP has it read run.toml again.

use super::{Failure, run_file};
use nightjar_coordinator::{
    dataset::Dataset,
    engine,
    run_file::{Known, RunFile},
    server::{Say, Wish},
};
use nightjar_shared::run_spec::RunSpec;
use std::{io, path::PathBuf};
use tokio::sync::mpsc;

/// The run file, to be read again.
pub struct Reread {
    /// Where it is.
    pub file: PathBuf,
    /// What is known of the model.
    pub known: Known,
    /// What it is to fit.
    pub dataset: Dataset,
    /// Where faults are told.
    pub say: Say,
}

impl Reread {
    fn read(&self) -> Result<RunSpec, Failure> {
        let RunFile { spec, .. } = run_file::read(&self.file, &self.known)?;
        engine::check(&spec, self.dataset.manifest()).map_err(Failure::input)?;
        Ok(spec)
    }

    /// What it says now; where it cannot be used, the person is told.
    fn wish(&self) -> Option<Wish> {
        match self.read() {
            Ok(spec) => Some(Wish::Reload(Box::new(spec))),
            Err(failure) => {
                (self.say)(&format!("refused   {}. Nothing was changed", failure.why()));
                None
            }
        }
    }
}

/// Hears signals from here on, as long as the process lives.
#[cfg(unix)]
pub fn hear(wishes: mpsc::Sender<Wish>, reread: Reread) -> io::Result<()> {
    use std::io::IsTerminal;
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let has_terminal = io::stdout().is_terminal();
    tokio::spawn(async move {
        loop {
            let wish = tokio::select! {
                _ = interrupt.recv() => Some(Wish::End),
                _ = terminate.recv() => Some(Wish::End),
                // The same signal says that the terminal was closed: then whoever started this has left.
                _ = hangup.recv() => if has_terminal && !io::stdout().is_terminal() {
                    Some(Wish::End)
                } else {
                    reread.wish()
                },
            };
            if let Some(wish) = wish
                && wishes.send(wish).await.is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

/// Hears the person from here on, as long as the process lives.
#[cfg(not(unix))]
pub fn hear(wishes: mpsc::Sender<Wish>, _reread: Reread) -> io::Result<()> {
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() && wishes.send(Wish::End).await.is_ok() {}
        // Where nobody can be heard, it is not to end for that.
        std::future::pending::<()>().await
    });
    Ok(())
}
