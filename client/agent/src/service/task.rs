//! The task of Windows' Task Scheduler, which starts at the owner's login. It is written by `schtasks`, a part of
//! Windows; its text is tested everywhere, and it has not been run on Windows.

use super::{Manager, Service, ServiceError, ServiceState, run, xml};
use std::{fs, io::Write};

const NAME: &str = "Nightjar";
/// In every task that this program has written.
const DESCRIPTION: &str = "Trains an AI model together with others while this computer is not in use.";
/// Gives a program of the console one that nobody sees: without, a black window would stay open from login on.
const UNSEEN: &str = "conhost.exe";

pub(super) const MANAGER: Manager = Manager { install, remove, state };

/// The task's definition, for a user as Windows names them (`DOMAIN\name`). A task for one user's own login needs no
/// administrator; priority 7 is that of background work.
pub(super) fn definition(service: &Service, user: &str) -> String {
    let words: Vec<String> = service.words().iter().map(|word| quoted(word)).collect();
    let (user, arguments) = (xml::escaped(user), xml::escaped(&format!("--headless {}", words.join(" "))));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-16\"?>\n\
         <Task version=\"1.2\" xmlns=\"http://schemas.microsoft.com/windows/2004/02/mit/task\">\n  <RegistrationInfo>\n    \
         <Description>{DESCRIPTION}</Description>\n  \
         </RegistrationInfo>\n  <Triggers>\n    <LogonTrigger>\n      <UserId>{user}</UserId>\n    </LogonTrigger>\n  \
         </Triggers>\n  <Principals>\n    <Principal id=\"Owner\">\n      <UserId>{user}</UserId>\n      \
         <LogonType>InteractiveToken</LogonType>\n      <RunLevel>LeastPrivilege</RunLevel>\n    </Principal>\n  \
         </Principals>\n  <Settings>\n    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>\n    \
         <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>\n    \
         <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>\n    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>\n    \
         <Priority>7</Priority>\n    <RestartOnFailure>\n      <Interval>PT1M</Interval>\n      <Count>10</Count>\n    \
         </RestartOnFailure>\n  </Settings>\n  <Actions Context=\"Owner\">\n    <Exec>\n      <Command>{UNSEEN}</Command>\n      \
         <Arguments>{arguments}</Arguments>\n    </Exec>\n  </Actions>\n</Task>\n"
    )
}

/// A word as programs on Windows read their command lines: backslashes count only before a quote.
fn quoted(word: &str) -> String {
    let mut quoted = String::from('"');
    let mut backslashes = 0;
    let twice = |quoted: &mut String, backslashes| quoted.extend(std::iter::repeat_n('\\', backslashes));
    for c in word.chars() {
        match c {
            '\\' => backslashes += 1,
            '"' => twice(&mut quoted, backslashes + 1),
            _ => {}
        }
        backslashes = if c == '\\' { backslashes } else { 0 };
        quoted.push(c);
    }
    twice(&mut quoted, backslashes);
    quoted.push('"');
    quoted
}

/// An error if there is a task of this name that this program did not write.
fn check() -> Result<(), ServiceError> {
    let Ok(text) = run("schtasks", &["/Query", "/TN", NAME, "/XML"]) else { return Ok(()) };
    if text.replace('\0', "").contains(DESCRIPTION) {
        return Ok(());
    }
    Err(ServiceError::Foreign { place: format!("the Task Scheduler's task {NAME}") })
}

fn install(service: &Service) -> Result<(), ServiceError> {
    check()?;
    let name = |variable| std::env::var(variable).map_err(|_| ServiceError::Nowhere);
    let user = format!(r"{}\{}", name("USERDOMAIN")?, name("USERNAME")?);
    // `schtasks` reads UTF-16, and says so in no manual.
    let bytes: Vec<u8> =
        format!("\u{feff}{}", definition(service, &user)).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = std::env::temp_dir().join(format!("nightjar-task-{}.xml", std::process::id()));
    let place = file.display().to_string();
    // What has that name is another's.
    let created = fs::File::options().write(true).create_new(true).open(&file);
    let written = created.and_then(|mut created| created.write_all(&bytes));
    written.map_err(|source| ServiceError::File { place: place.clone(), source })?;
    let created = run("schtasks", &["/Create", "/TN", NAME, "/XML", &place, "/F"]);
    // What stays in the folder for such files harms nobody.
    let _ = fs::remove_file(&file);
    created?;
    run("schtasks", &["/Run", "/TN", NAME]).map(drop)
}

fn remove() -> Result<(), ServiceError> {
    if !state()?.installed {
        return Ok(());
    }
    check()?;
    // It fails where the task does not run, which is what is wanted.
    let _ = run("schtasks", &["/End", "/TN", NAME]);
    run("schtasks", &["/Delete", "/TN", NAME, "/F"]).map(drop)
}

fn state() -> Result<ServiceState, ServiceError> {
    let installed = run("schtasks", &["/Query", "/TN", NAME]).is_ok();
    // What `schtasks` says of it is in the owner's language; this is not.
    let state = "(Get-ScheduledTask -TaskName Nightjar).State";
    let running =
        installed && run("powershell", &["-NoProfile", "-Command", state]).is_ok_and(|said| said == "Running");
    Ok(ServiceState { installed, running, place: format!("the Task Scheduler's task {NAME}") })
}
