//! `open`: the page, in the owner's browser.

use super::{
    control::{NOT_RUNNING, not_running},
    running::Running,
};
use anyhow::Result;
use clap::Args;
use nightjar_agent::{control, home::Home};
use std::process::{ExitCode, Stdio};

#[derive(Args)]
pub(super) struct Open {
    /// Print the page's address instead: whoever has it can do what you can
    #[arg(long)]
    print: bool,
}

pub(super) fn open(home: &Home, args: &Open) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, false) };
    if args.print {
        println!("{}", running.link());
        return Ok(ExitCode::SUCCESS);
    }
    let Some(mut browser) = control::open_page(home)? else { return Ok(ExitCode::from(NOT_RUNNING)) };
    let opened = browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if opened.is_ok_and(|status| status.success()) {
        println!("the page is open in your browser");
    } else {
        println!("no browser could be started here; open this address on this computer:\n{}", running.link());
    }
    Ok(ExitCode::SUCCESS)
}
