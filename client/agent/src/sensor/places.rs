//! Where the sensors look: folders, buses and displays of this computer, or those that a test puts in their place.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Names a folder that stands for `/` where sensors read files: /sys, /proc, /dev and sockets without an address of
/// their own. For tests.
pub const ROOT_VARIABLE: &str = "NIGHTJAR_SENSOR_ROOT";

/// The places.
#[derive(Clone, Debug)]
pub struct Places {
    /// Stands for `/` wherever sensors read files.
    pub root: PathBuf,
    /// The system bus's address.
    pub system_bus: String,
    /// The session bus's address; `None` where there is no session.
    pub session_bus: Option<String>,
    /// The user's runtime folder.
    pub runtime: Option<PathBuf>,
    /// The Wayland display that the environment names.
    pub wayland: Option<OsString>,
    /// The X display that the environment names.
    pub display: Option<String>,
}

impl Places {
    /// Those of this computer, as the usual environment variables name them.
    pub fn of_this_computer() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let root = set(ROOT_VARIABLE).map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let runtime = set("XDG_RUNTIME_DIR").map(PathBuf::from);
        let usual_system_bus = || format!("unix:path={}", root.join("run/dbus/system_bus_socket").display());
        let usual_session_bus = || {
            let socket = runtime.as_ref()?.join("bus");
            socket.exists().then(|| format!("unix:path={}", socket.display()))
        };
        Places {
            system_bus: text("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(usual_system_bus),
            session_bus: text("DBUS_SESSION_BUS_ADDRESS").or_else(usual_session_bus),
            wayland: set("WAYLAND_DISPLAY"),
            display: text("DISPLAY"),
            runtime,
            root,
        }
    }

    /// The sockets of Wayland compositors: the one that the environment names, else those in the runtime folder, since
    /// a service may have been started before the session.
    pub fn wayland_sockets(&self) -> Vec<PathBuf> {
        let Some(runtime) = &self.runtime else { return vec![] };
        if let Some(name) = &self.wayland {
            return vec![runtime.join(name)];
        }
        let is_display =
            |n: &String| n.strip_prefix("wayland-").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        names(runtime).unwrap_or_default().into_iter().filter(is_display).map(|n| runtime.join(n)).collect()
    }

    /// The X displays: the one that the environment names, else those of this user or root.
    pub fn x_displays(&self) -> Vec<String> {
        if let Some(display) = &self.display {
            return vec![display.clone()];
        }
        let folder = self.root.join("tmp/.X11-unix");
        let numbers = names(&folder).unwrap_or_default().into_iter().filter(|name| is_ours(&folder.join(name)));
        numbers.filter_map(|name| Some(format!(":{}", name.strip_prefix('X')?.parse::<u16>().ok()?))).collect()
    }

    /// Whether there is any sign of a graphical session, be it one that cannot be asked.
    pub fn graphical(&self) -> bool {
        let sockets = names(&self.root.join("tmp/.X11-unix")).is_ok_and(|names| !names.is_empty());
        self.display.is_some() || !self.wayland_sockets().is_empty() || sockets
    }
}

#[cfg(unix)]
fn is_ours(socket: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(socket).is_ok_and(|m| m.uid() == 0 || m.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn is_ours(_: &Path) -> bool {
    false
}

/// Most names that are read of a folder.
const NAMES_MAX: usize = 65_536;

/// Names in a folder; none if it does not exist.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.take(NAMES_MAX).map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(e),
    }
}

/// The beginning of a small file, such as one of /sys or /proc: at most 4 KiB of it.
pub(crate) fn small_file(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut bytes = vec![];
    fs::File::open(path)?.take(4096).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The number that a small file holds.
pub(crate) fn number(path: &Path) -> Option<i64> {
    small_file(path).ok()?.trim().parse().ok()
}
