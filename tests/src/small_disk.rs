//! A disk that fills up: a small memory file system, mounted where only one process sees it, and gone when that ends.

use crate::{process::Running, until};
use std::{path::PathBuf, process::Command};

/// The process that holds the mount, and the way in.
pub struct SmallDisk {
    holder: Running,
    folder: PathBuf,
}

impl SmallDisk {
    /// A disk of so many KiB, or `None` where this machine forbids mounting even in a namespace of one's own.
    pub fn new(kib: u64, place: &crate::Place) -> Option<SmallDisk> {
        let folder = place.path("disk");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let script =
            format!("mount -t tmpfs -o size={kib}k tmpfs {} && echo mounted && exec sleep 600", folder.display());
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        let mut holder = Running::start(unshare, &place.path("disk.log"));
        let is_mounted = until("a mounted disk", || {
            if holder.said().contains("mounted\n") { Some(true) } else { holder.ended().map(|_| false) }
        });
        is_mounted.then_some(SmallDisk { holder, folder })
    }

    /// A path on it, for commands that [`enter`](Self::enter) its namespace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same command where the disk can be seen.
    pub fn enter(&self, command: Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--user", "--mount", "--preserve-credentials", "--target", &self.holder.id().to_string(), "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}
