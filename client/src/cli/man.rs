//! `man`: the manual's pages, from the same table as `--help`.

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
pub(super) struct Man {
    /// The folder to write them into, such as ~/.local/share/man/man1; pages of these names are replaced
    folder: PathBuf,
}

pub(super) fn write<C: CommandFactory>(args: &Man) -> Result<ExitCode> {
    let place = || format!("cannot write the manual's pages into {}", args.folder.display());
    clap_mangen::generate_to(C::command(), &args.folder).with_context(place)?;
    Ok(ExitCode::SUCCESS)
}
