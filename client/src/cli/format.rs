//! How commands answer: in words for people, or as JSON for scripts. One flag, the same on all of them.

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// Who reads the answer.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Format {
    /// Print the answer as JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
}

impl Format {
    /// Prints an answer, after which all is well.
    pub fn say(self, answer: &impl Serialize, words: impl Display) -> Result<ExitCode> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(answer)?)?;
        } else {
            writeln!(out, "{words}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
