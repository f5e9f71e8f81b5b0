//! The launchd agent of macOS. Its text is tested everywhere; it has not been run on a Mac.

use super::{Manager, Service, ServiceError, ServiceState, run, unit_file, xml};
use std::{fs, path::PathBuf};

const LABEL: &str = "org.nightjar.agent";
/// In every agent that this program has written.
const MADE_BY: &str = "<string>org.nightjar.agent</string>";

pub(super) const MANAGER: Manager = Manager { install, remove, state };

/// The agent's property list.
pub(super) fn plist(service: &Service) -> String {
    let words: String =
        service.words().iter().map(|word| format!("    <string>{}</string>\n", xml::escaped(word))).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n  <key>Label</key>\n  <string>{LABEL}</string>\n  <key>ProgramArguments</key>\n  \
         <array>\n{words}  </array>\n  <key>EnvironmentVariables</key>\n  <dict>\n    <key>{variable}</key>\n    \
         <string>launchd</string>\n  </dict>\n  <key>RunAtLoad</key>\n  <true/>\n  <key>KeepAlive</key>\n  <dict>\n    \
         <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n  <key>ThrottleInterval</key>\n  <integer>30</integer>\n  \
         <key>ProcessType</key>\n  <string>Background</string>\n  <key>LowPriorityIO</key>\n  <true/>\n</dict>\n</plist>\n",
        variable = super::SERVICE_VARIABLE,
    )
}

fn file() -> Result<PathBuf, ServiceError> {
    let folders = directories::BaseDirs::new().ok_or(ServiceError::Nowhere)?;
    Ok(folders.home_dir().join("Library/LaunchAgents").join(format!("{LABEL}.plist")))
}

fn install(service: &Service) -> Result<(), ServiceError> {
    remove()?;
    let file = file()?;
    unit_file::write(&file, &plist(service), MADE_BY)?;
    run("launchctl", &["bootstrap", &domain()?, &file.display().to_string()]).map(drop)
}

fn remove() -> Result<(), ServiceError> {
    let file = file()?;
    if !unit_file::is_ours(&file, MADE_BY)? {
        return Ok(());
    }
    // It fails where the agent is not loaded, which is what is wanted.
    let _ = run("launchctl", &["bootout", &format!("{}/{LABEL}", domain()?)]);
    fs::remove_file(&file).map_err(|source| ServiceError::File { place: file.display().to_string(), source })
}

fn state() -> Result<ServiceState, ServiceError> {
    let file = file()?;
    let running =
        run("launchctl", &["print", &format!("{}/{LABEL}", domain()?)]).is_ok_and(|said| said.contains("pid ="));
    Ok(ServiceState { installed: file.exists(), running, place: file.display().to_string() })
}

/// The user's own graphical session.
fn domain() -> Result<String, ServiceError> {
    Ok(format!("gui/{}", run("id", &["-u"])?))
}
