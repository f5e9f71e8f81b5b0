//! The entry under `Run` in the user's registry, which Windows starts at login. It is written by `reg`, a part of Windows; its
//! text is tested everywhere, and it has not been run on Windows.

use super::{Manager, Service, ServiceError, Standing, run};

const KEY: &str = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Run";
const NAME: &str = "Nightjar";

pub(super) const MANAGER: Manager = Manager { install, remove, standing };

/// The command line that is written.
pub(super) fn command_line(service: &Service) -> String {
    let words: Vec<String> = service.words().iter().map(|word| format!("\"{word}\"")).collect();
    words.join(" ")
}

fn install(service: &Service) -> Result<(), ServiceError> {
    run("reg", &["add", KEY, "/v", NAME, "/t", "REG_SZ", "/d", &command_line(service), "/f"]).map(drop)
}

fn remove() -> Result<(), ServiceError> {
    if standing()?.installed { run("reg", &["delete", KEY, "/v", NAME, "/f"]).map(drop) } else { Ok(()) }
}

fn standing() -> Result<Standing, ServiceError> {
    let installed = run("reg", &["query", KEY, "/v", NAME]).is_ok();
    // Windows starts it and forgets it; whether it runs `nightjar status` tells.
    Ok(Standing { installed, running: false, place: format!(r"{KEY}\{NAME}") })
}
