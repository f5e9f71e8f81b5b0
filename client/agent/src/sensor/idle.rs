//! How long nobody has used this computer. On Linux a terminal's access time moves when something is typed there (and
//! never for its output). A graphical session does its input elsewhere; this version cannot ask one, and says so.

use crate::policy::Reading;
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Looks at terminals below a root folder, which tests replace.
pub struct IdleSensor {
    root: PathBuf,
    graphical_variable: Option<OsString>,
}

impl IdleSensor {
    /// Of the computer that this runs on.
    pub fn of_this_computer() -> Self {
        let variable = ["WAYLAND_DISPLAY", "DISPLAY"].into_iter().find_map(std::env::var_os);
        IdleSensor::at("/", variable)
    }

    /// Of the system whose folders are below `root`, with the value of `WAYLAND_DISPLAY` or `DISPLAY`, if set.
    pub fn at(root: impl Into<PathBuf>, graphical_variable: Option<OsString>) -> Self {
        IdleSensor { root: root.into(), graphical_variable: graphical_variable.filter(|v| !v.is_empty()) }
    }

    /// Time since the last input, or why that is unknown.
    pub fn read(&self, now: SystemTime) -> Reading<Duration> {
        if !cfg!(target_os = "linux") {
            return Reading::Unknown("this version cannot ask this operating system; choose `always` or `schedule`".into());
        }
        if self.graphical_session() {
            let why = "there is a graphical session, which this version cannot ask; choose `always` or `schedule`";
            return Reading::Unknown(why.into());
        }
        match self.last_input() {
            Ok(Some(last)) => Reading::Known(now.duration_since(last).unwrap_or_default()),
            // Nobody can type where there is no terminal.
            Ok(None) => Reading::Known(Duration::MAX),
            Err(e) => Reading::Unknown(format!("the terminals cannot be read ({e})")),
        }
    }

    fn graphical_session(&self) -> bool {
        let sockets = fs::read_dir(self.root.join("tmp/.X11-unix")).is_ok_and(|mut entries| entries.next().is_some());
        self.graphical_variable.is_some() || sockets
    }

    /// The latest access to any terminal.
    fn last_input(&self) -> io::Result<Option<SystemTime>> {
        let dev = self.root.join("dev");
        let consoles = names(&dev)?.into_iter().filter(|n| n.strip_prefix("tty").is_some_and(|rest| !rest.is_empty()));
        let windows = names(&dev.join("pts"))?.into_iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        let paths = consoles.map(|n| dev.join(n)).chain(windows.map(|n| dev.join("pts").join(n)));
        let mut last = None;
        for path in paths {
            match fs::metadata(path).and_then(|m| m.accessed()) {
                Ok(accessed) => last = last.max(Some(accessed)),
                // Closed since it was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(last)
    }
}

/// Names in a folder; none if it does not exist.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(e),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A system with terminals that were last typed in so many seconds before `now`.
    fn system(terminals: &[(&str, u64)], now: SystemTime) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev/pts")).unwrap();
        for (name, idle_s) in terminals {
            let file = fs::File::create(root.path().join("dev").join(name)).unwrap();
            let times = fs::FileTimes::new().set_accessed(now - Duration::from_secs(*idle_s)).set_modified(now);
            file.set_times(times).unwrap();
        }
        root
    }

    #[test]
    fn the_terminal_used_last_counts_and_only_terminals_do() {
        let now = SystemTime::now();
        let root = system(&[("tty1", 900), ("pts/0", 40), ("pts/1", 70), ("pts/ptmx", 1), ("tty", 2), ("null", 3)], now);
        assert_eq!(IdleSensor::at(root.path(), None).read(now), Reading::Known(Duration::from_secs(40)));
        assert_eq!(IdleSensor::at(system(&[], now).path(), None).read(now), Reading::Known(Duration::MAX));
    }

    #[test]
    fn a_graphical_session_makes_it_unknown() {
        let now = SystemTime::now();
        let root = system(&[("tty1", 900)], now);
        assert!(matches!(IdleSensor::at(root.path(), Some(":0".into())).read(now), Reading::Unknown(_)));
        fs::create_dir_all(root.path().join("tmp/.X11-unix")).unwrap();
        assert!(matches!(IdleSensor::at(root.path(), None).read(now), Reading::Known(_)));
        fs::write(root.path().join("tmp/.X11-unix/X0"), "").unwrap();
        assert!(matches!(IdleSensor::at(root.path(), None).read(now), Reading::Unknown(_)));
    }
}
