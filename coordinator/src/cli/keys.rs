//! `keys`: what may stand in run.toml, explained.

use super::{Failure, say};
use clap::Args;
use nightjar_coordinator::run_file::explain;

/// Explain what may stand in run.toml
///
/// Explains the keys of run.toml: what each does, its default, what it may be, and whether it may be changed in a run
/// that has begun. Without an argument it shows all of them in short.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator keys
  nightjar-coordinator keys merge
  nightjar-coordinator keys lease.wall_s")]
pub struct Keys {
    /// A section, as `lease`, or a key, as `wall_s` or `lease.wall_s`
    #[arg(value_name = "SECTION|KEY")]
    asked: Option<String>,
}

impl Keys {
    pub fn run(self) -> Result<(), Failure> {
        let text = match self.asked {
            Some(asked) => explain::explained(&asked).map_err(Failure::input)?,
            None => explain::overview(),
        };
        say(text.trim_end());
        Ok(())
    }
}
