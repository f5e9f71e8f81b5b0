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
    process::{Child, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long the program that opens a page is waited for.
const OPENING_MAX: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct Open {
    /// Print the page's address instead: whoever has it can do what you can
    #[arg(long)]
    print: bool,
}

/// A browser that could not be started ends at once; what still runs after a moment may be the browser itself.
fn has_begun(mut opener: Child) -> bool {
    let end = Instant::now() + OPENING_MAX;
    while Instant::now() < end {
        match opener.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(_) => return false,
        }
    }
    true
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
    let opened = browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let is_open = opened.is_ok_and(has_begun);
    let words =
        if is_open { "the page opens in your browser; if it does not" } else { "no browser could be started here" };
    let answer = serde_json::json!({ "opened": is_open, "address": link });
    format.say(&answer, format_args!("{words}, open this address on this computer:\n{link}"))
}
