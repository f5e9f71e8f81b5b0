//! `completions` and `man`: what a shell completes, and the manual's pages, from the same table as `--help`.

use super::{Cli, Failure};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::{io, path::PathBuf};

/// Print completions for a shell
#[derive(Args)]
pub struct Completions {
    /// Which shell: put what is printed where it looks for completions, e.g. into
    /// ~/.local/share/bash-completion/completions/nightjar-coordinator
    shell: Shell,
}

/// Write the manual's pages, one a command: for packages
#[derive(Args)]
pub struct Man {
    /// The folder to write them into, such as ~/.local/share/man/man1; pages of these names are replaced
    folder: PathBuf,
}

impl Completions {
    pub fn run(&self) -> Result<(), Failure> {
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut io::stdout());
        Ok(())
    }
}

impl Man {
    pub fn run(&self) -> Result<(), Failure> {
        let failed = |e| Failure::input(format_args!("cannot write into {}: {e}", self.folder.display()));
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(failed)
    }
}
