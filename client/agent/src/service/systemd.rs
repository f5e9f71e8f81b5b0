//! The systemd user unit. The text is that of `installers/linux/nightjar.service`, with this program's path. A package
//! brings that very file: then it is enabled as it is, so that an upgrade changes it too.

use super::{Manager, Service, ServiceError, ServiceState, run, unit_file};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const UNIT: &str = "nightjar.service";
const TEMPLATE: &str = include_str!("../../../../installers/linux/nightjar.service");
/// Where a package puts it.
const PACKAGED: &str = "/usr/lib/systemd/user/nightjar.service";
/// In every unit that this program has written.
const FIRST_LINE: &str = "# Runs Nightjar in the user's session.";
const TEMPLATE_COMMAND: &str = "ExecStart=/usr/bin/nightjar run\n";

pub(super) const MANAGER: Manager = Manager { install, remove, state };

/// The unit's text.
pub(super) fn unit(service: &Service) -> String {
    let words: Vec<String> = service.words().iter().map(|word| quoted(word)).collect();
    TEMPLATE.replace(TEMPLATE_COMMAND, &format!("ExecStart={}\n", words.join(" ")))
}

/// A word of a command line as systemd reads it: `%` begins a specifier, `$` a variable.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

fn file() -> Result<PathBuf, ServiceError> {
    let folders = directories::BaseDirs::new().ok_or(ServiceError::Nowhere)?;
    Ok(folders.config_dir().join("systemd/user").join(UNIT))
}

fn manager_answers() -> Result<(), ServiceError> {
    let answer = run("systemctl", &["--user", "show-environment"]).map(drop);
    answer.map_err(|e| if let ServiceError::Manager { why, .. } = e { ServiceError::NoManager(why) } else { e })
}

/// Whether the unit of a package starts just this.
pub(super) fn is_packaged(service: &Service, packaged: &Path) -> bool {
    let is_this = |text: String| text.contains(&format!("ExecStart={} run\n", service.program.display()));
    service.home.is_none() && fs::read_to_string(packaged).is_ok_and(is_this)
}

fn install(service: &Service) -> Result<(), ServiceError> {
    let file = file()?;
    let was_written = unit_file::is_ours(&file, FIRST_LINE)?;
    manager_answers()?;
    if !is_packaged(service, Path::new(PACKAGED)) {
        unit_file::write(&file, &unit(service), FIRST_LINE)?;
    } else if was_written {
        // It would hide the package's.
        fs::remove_file(&file).map_err(|source| ServiceError::File { place: file.display().to_string(), source })?;
    }
    run("systemctl", &["--user", "daemon-reload"])?;
    run("systemctl", &["--user", "enable", UNIT])?;
    // One that has failed too often is not started before that is forgotten; of one that never ran there is nothing to
    // forget.
    let _ = run("systemctl", &["--user", "reset-failed", UNIT]);
    run("systemctl", &["--user", "restart", UNIT]).map(drop)
}

fn remove() -> Result<(), ServiceError> {
    let file = file()?;
    let was_written = unit_file::is_ours(&file, FIRST_LINE)?;
    if !was_written && !is_wanted(&file) {
        return Ok(());
    }
    let error = |place: &Path, source| ServiceError::File { place: place.display().to_string(), source };
    let is_managed = manager_answers().is_ok();
    let stopped = if is_managed { run("systemctl", &["--user", "disable", "--now", UNIT]).map(drop) } else { Ok(()) };
    if was_written {
        fs::remove_file(&file).map_err(|source| error(&file, source))?;
    }
    stopped?;
    if is_managed {
        return run("systemctl", &["--user", "daemon-reload"]).map(drop);
    }
    // Where no manager answers, nothing runs either; all there is of it is what its next start would find.
    if !is_wanted(&file) {
        return Ok(());
    }
    let wanted = wanted(&file);
    match fs::remove_file(&wanted) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(&wanted, source)),
        _ => Ok(()),
    }
}

fn state() -> Result<ServiceState, ServiceError> {
    let file = file()?;
    let says = |question| run("systemctl", &["--user", question, UNIT]).is_ok();
    let (was_written, packaged) = (file.exists(), Path::new(PACKAGED));
    let place = if !was_written && packaged.exists() { packaged } else { &file };
    let installed = was_written || is_wanted(&file);
    Ok(ServiceState { installed, running: says("is-active"), place: place.display().to_string() })
}

/// Where systemd notes that a unit is started at every login.
fn wanted(file: &Path) -> PathBuf {
    file.with_file_name("default.target.wants").join(UNIT)
}

/// Whether it is noted: systemd's own way is a link to the unit.
fn is_wanted(file: &Path) -> bool {
    wanted(file).is_symlink()
}
