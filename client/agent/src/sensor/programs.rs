//! Which of the programs that the owner named run now. A process is looked at when it is new and once more after that
//! (it may have become another program); all of them again every minute, since numbers are used again.

use crate::{clock, policy::Reading};
use nightjar_shared::time::Mono;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything is looked at anew after this time.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// A process is looked at so often.
#[cfg(target_os = "linux")]
const LOOKS: u8 = 2;
/// The kernel cuts a process's short name off here.
#[cfg(target_os = "linux")]
const SHORT_NAME: usize = 15;

/// Looks for programs.
pub(super) struct Programs {
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has /proc"))]
    root: PathBuf,
    wanted: Vec<String>,
    processes: HashMap<String, (u8, Vec<usize>)>,
    since: Option<Mono>,
}

impl Programs {
    /// Of the system below `root`.
    pub fn new(root: &Path) -> Self {
        Programs { root: root.to_owned(), wanted: vec![], processes: HashMap::new(), since: None }
    }

    /// Those of `wanted` that run now, as they are written there.
    pub fn read(&mut self, wanted: &[String]) -> Reading<Vec<String>> {
        if wanted.is_empty() {
            return Reading::Known(vec![]);
        }
        let now = clock::mono_now();
        if self.wanted != wanted || self.since.is_none_or(|since| now.since(since) >= FORGET_AFTER) {
            self.wanted = wanted.to_vec();
            self.processes.clear();
            self.since = Some(now);
        }
        match self.look() {
            Ok(running) => {
                let named = self.wanted.iter().enumerate().filter(|(i, _)| running.contains(i));
                Reading::Known(named.map(|(_, name)| name.clone()).collect())
            }
            Err(e) => Reading::Unknown(format!("the list of processes cannot be read ({e})")),
        }
    }

    #[cfg(target_os = "linux")]
    fn look(&mut self) -> std::io::Result<Vec<usize>> {
        use crate::sensor::places::{names, small_file};
        let proc = self.root.join("proc");
        let processes: Vec<String> =
            names(&proc)?.into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).collect();
        if processes.is_empty() {
            return Err(std::io::Error::other("it is empty"));
        }
        let mut running = vec![];
        let mut seen = HashMap::with_capacity(processes.len());
        for process in processes {
            let (looks, matches) = match self.processes.remove(&process) {
                Some((LOOKS, matches)) => (LOOKS, matches),
                other => {
                    // A process may end between two looks: then it has no name.
                    let short = small_file(&proc.join(&process).join("comm")).unwrap_or_default();
                    let line = small_file(&proc.join(&process).join("cmdline")).unwrap_or_default();
                    let command = line.split('\0').next().unwrap_or_default();
                    (other.map_or(0, |(looks, _)| looks) + 1, matching(&self.wanted, &short, command))
                }
            };
            running.extend(&matches);
            seen.insert(process, (looks, matches));
        }
        self.processes = seen;
        Ok(running)
    }

    #[cfg(not(target_os = "linux"))]
    fn look(&mut self) -> std::io::Result<Vec<usize>> {
        use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
        let mut system = System::new().map_err(std::io::Error::other)?;
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, ProcessRefreshKind::nothing());
        let names = system.processes().values().map(|process| process.name().to_string_lossy().into_owned());
        Ok(names.flat_map(|name| matching(&self.wanted, &name, &name)).collect())
    }
}

/// Which of the wanted programs a process with this short name and this command is.
fn matching(wanted: &[String], short: &str, command: &str) -> Vec<usize> {
    let file = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
    let (short, command) = (short.to_lowercase(), file(command));
    let is = |name: &String| {
        let name = file(name.trim());
        let bare = |name: &str| name.strip_suffix(".exe").map(str::to_owned);
        #[cfg(target_os = "linux")]
        let is_short = short == name
            || (name.len() > SHORT_NAME && command.is_empty() && name.starts_with(&short) && !short.is_empty());
        #[cfg(not(target_os = "linux"))]
        let is_short = short == name;
        !name.is_empty() && (is_short || command == name || bare(&command).as_ref() == Some(&name))
    };
    wanted.iter().enumerate().filter(|(_, name)| is(name)).map(|(i, _)| i).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn programs_are_found_by_short_name_or_command() {
        let root = tempfile::tempdir().unwrap();
        let run = |id: u32, short: &str, command: &str| {
            let folder = root.path().join("proc").join(id.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{short}\n")).unwrap();
            fs::write(folder.join("cmdline"), format!("{command}\0--flag\0")).unwrap();
        };
        let wanted = ["Blender", "supertuxkart-with-a-long-name", "game", "not-there", " "].map(String::from);
        let mut programs = Programs::new(root.path());
        assert_eq!(programs.read(&[]), Reading::Known(vec![]));
        assert!(matches!(programs.read(&wanted), Reading::Unknown(_)));
        run(1, "init", "/sbin/init");
        run(20, "GeckoMain", "/usr/bin/blender");
        run(30, "supertuxkart-wi", "/opt/supertuxkart-with-a-long-name");
        run(40, "Main", r"C:\Games\Game.exe");
        let all = Reading::Known(wanted[..3].to_vec());
        assert_eq!(programs.read(&wanted), all);
        fs::remove_dir_all(root.path().join("proc/40")).unwrap();
        fs::remove_dir_all(root.path().join("proc/30")).unwrap();
        assert_eq!(programs.read(&wanted), Reading::Known(vec!["Blender".into()]));
        // A process becomes another program a moment after it began.
        run(50, "sh", "sh");
        assert_eq!(programs.read(&wanted), Reading::Known(vec!["Blender".into()]));
        run(50, "game", "game");
        assert_eq!(programs.read(&wanted), Reading::Known(vec!["Blender".into(), "game".into()]));
    }
}
