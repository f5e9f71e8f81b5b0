//! The way from the owner's hand to the page: a browser, sent there with a ticket.

use super::ControlFile;
use crate::home::Home;
#[cfg(not(any(target_os = "macos", windows)))]
use crate::service::SERVICE_VARIABLE;
use std::{ffi::OsStr, io, process::Command};

/// The command that shows an address, or a file, in the owner's browser.
fn opener(what: &OsStr) -> Command {
    #[cfg(target_os = "macos")]
    let mut command = Command::new("open");
    #[cfg(windows)]
    let mut command = {
        let mut command = Command::new("rundll32");
        command.arg("url.dll,FileProtocolHandler");
        command
    };
    #[cfg(not(any(target_os = "macos", windows)))]
    let mut command = {
        // A browser that we start under systemd would be as confined as we are, and end with us.
        let mut command =
            Command::new(if std::env::var_os(SERVICE_VARIABLE).is_some() { "systemd-run" } else { "xdg-open" });
        if std::env::var_os(SERVICE_VARIABLE).is_some() {
            command.args(["--user", "--collect", "--quiet", "xdg-open"]);
        }
        command
    };
    command.arg(what);
    command
}

/// The command that shows the page of the agent that uses this home; `None` where none does. Where the other end of a
/// connection can be looked at, the agent has issued a ticket for it; elsewhere the token is in a file that only this
/// user can read.
pub fn open_page(home: &Home, ticket: impl FnOnce() -> io::Result<String>) -> io::Result<Option<Command>> {
    let Some(file) = ControlFile::load(home) else { return Ok(None) };
    let what = if cfg!(target_os = "linux") {
        file.link_with(&ticket()?).into()
    } else {
        file.write_open_file(home).map_err(io::Error::other)?.into_os_string()
    };
    Ok(Some(opener(&what)))
}
