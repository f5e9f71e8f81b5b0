//! `completions`: what a shell needs to complete this program's commands and flags.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::{io, process::ExitCode};

#[derive(Args)]
pub(super) struct Completions {
    /// Which shell: put what is printed where it looks for completions, e.g. into
    /// ~/.local/share/bash-completion/completions/nightjar
    shell: Shell,
}

pub(super) fn print<C: CommandFactory>(args: &Completions) -> Result<ExitCode> {
    clap_complete::generate(args.shell, &mut C::command(), "nightjar", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
