//! `open`: the page, in the owner's browser.

use super::{
    control::{NOT_RUNNING, not_running},
    format::Format,
    running::Running,
};
use anyhow::Result;
use clap::Args;
use nightjar_agent::{control, home::Home};
use std::{
    io,
    process::{ExitCode, Stdio},
};

#[derive(Args)]
pub(super) struct Open {
    /// Print the page's address instead: whoever has it can do what you can
    #[arg(long)]
    print: bool,
}

pub(super) fn open(home: &Home, args: &Open, format: Format) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format) };
    let link = running.link();
    if args.print {
        return format.say(&serde_json::json!({ "address": link }), &link);
    }
    let Some(mut browser) = control::open_page(home, || running.ticket().map_err(io::Error::other))? else {
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    let opened = browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_open = opened.is_ok_and(|status| status.success());
    let words = if is_open { "the page opens in your browser; if it does not" } else { "no browser could be started here" };
    let answer = serde_json::json!({ "opened": is_open, "address": link });
    format.say(&answer, format_args!("{words}, open this address on this computer:\n{link}"))
}
