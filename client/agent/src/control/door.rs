//! The way from the owner's hand to the page: a browser, sent there with the token.

use super::ControlFile;
use crate::home::Home;
#[cfg(not(any(target_os = "macos", windows)))]
use crate::service::SERVICE_VARIABLE;
use std::{io, path::Path, process::Command};

/// The command that shows a file in the owner's browser.
fn opener(file: &Path) -> Command {
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
        let mut command = Command::new(if std::env::var_os(SERVICE_VARIABLE).is_some() { "systemd-run" } else { "xdg-open" });
        if std::env::var_os(SERVICE_VARIABLE).is_some() {
            command.args(["--user", "--collect", "--quiet", "xdg-open"]);
        }
        command
    };
    command.arg(file);
    command
}

/// The command that shows the page of the agent that uses this home; `None` where none does. The token is in a file that
/// only this user can read, not on the command line, which everybody can.
pub fn open_page(home: &Home) -> io::Result<Option<Command>> {
    let Some(file) = ControlFile::load(home) else { return Ok(None) };
    Ok(Some(opener(&file.door(home)?)))
}
