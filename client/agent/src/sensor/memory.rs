//! How much memory is free: of the computer, and of the control groups that this process is in.

use super::places::{Places, number, small_file};
use crate::policy::Reading;
use std::path::{Path, PathBuf};
use sysinfo::{MemoryRefreshKind, System};

/// Control groups within control groups, at most so many.
const DEPTH_MAX: usize = 32;

/// Reads the memory that programs may still take.
pub struct MemorySensor {
    system: Result<System, String>,
    root: PathBuf,
}

impl Default for MemorySensor {
    fn default() -> Self {
        MemorySensor::at(&Places::of_this_computer().root)
    }
}

impl MemorySensor {
    /// Of this computer, whose control groups are found below `root`.
    pub fn at(root: &Path) -> Self {
        MemorySensor { system: System::new().map_err(|e| e.to_string()), root: root.to_owned() }
    }

    /// Free memory in bytes, within this process's control groups where there are any.
    pub fn read(&mut self) -> Reading<u64> {
        let system = match &mut self.system {
            Ok(system) => system,
            Err(why) => return Reading::Unknown(why.clone()),
        };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        if system.total_memory() == 0 {
            return Reading::Unknown("the system does not say".into());
        }
        let of_system = system.available_memory();
        Reading::Known(of_system.min(free_in_groups(&self.root)))
    }
}

/// What the tightest of this process's control groups leaves; each counts for all within it.
fn free_in_groups(root: &Path) -> u64 {
    let groups = small_file(&root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| free_along(root, line)).min().unwrap_or(u64::MAX)
}

/// A line is `0::/path` for version 2, `N:controllers:/path` for version 1.
fn free_along(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (mount, names) = if number == "0" && controllers.is_empty() {
        (root.join("sys/fs/cgroup"), &VERSION_2)
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (root.join("sys/fs/cgroup/memory"), &VERSION_1)
    } else {
        return None;
    };
    // Of a path that leads out of what is mounted here, only the mount itself can be read.
    let inside = if path.split('/').any(|part| part == "..") { "" } else { path.trim_matches('/') };
    let group = mount.join(inside);
    let groups = group.ancestors().take_while(|folder| folder.starts_with(&mount)).take(DEPTH_MAX);
    groups.filter_map(|folder| free_of(folder, names)).min()
}

/// The names of a version's files.
struct Names {
    limits: &'static [&'static str],
    usage: &'static str,
    /// Of the usage, what is given back as soon as it is wanted, in `memory.stat`.
    reclaimable: &'static str,
}

const VERSION_2: Names =
    Names { limits: &["memory.max", "memory.high"], usage: "memory.current", reclaimable: "inactive_file" };
const VERSION_1: Names = Names {
    limits: &["memory.limit_in_bytes", "memory.soft_limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

/// `None` where the group has no limit. One whose usage cannot be read counts as full.
fn free_of(folder: &Path, names: &Names) -> Option<u64> {
    let limits = names.limits.iter().filter_map(|name| number(&folder.join(name)));
    let limit = limits.filter_map(|limit| u64::try_from(limit).ok()).min()?;
    let used = number(&folder.join(names.usage)).and_then(|used| u64::try_from(used).ok()).unwrap_or(limit);
    let stat = small_file(&folder.join("memory.stat")).unwrap_or_default();
    let given_back = stat.lines().find_map(|line| line.strip_prefix(names.reclaimable)?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(given_back.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn free(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        free_in_groups(root.path())
    }

    #[test]
    fn the_tightest_of_its_control_groups_counts() {
        let own = ("proc/self/cgroup", "0::/user.slice/nightjar.service\n");
        assert_eq!(free(&[]), u64::MAX);
        assert_eq!(free(&[own, ("sys/fs/cgroup/user.slice/nightjar.service/memory.max", "max\n")]), u64::MAX);
        let group = |file: &str| format!("sys/fs/cgroup/user.slice/nightjar.service/{file}");
        let (max, high, current, stat) =
            (group("memory.max"), group("memory.high"), group("memory.current"), group("memory.stat"));
        let of_group =
            [own, (&*max, "1000\n"), (&*high, "max\n"), (&*current, "700\n"), (&*stat, "anon 5\ninactive_file 100\n")];
        assert_eq!(free(&of_group), 400);
        let outer =
            [("sys/fs/cgroup/user.slice/memory.high", "900"), ("sys/fs/cgroup/user.slice/memory.current", "850")];
        assert_eq!(free(&[&of_group[..], &outer[..]].concat()), 50);
        assert_eq!(free(&[own, (&*max, "1000")]), 0, "a usage that cannot be read");
        assert_eq!(
            free(&[
                ("proc/self/cgroup", "0::/../outside\n"),
                ("sys/fs/cgroup/memory.max", "9"),
                ("sys/fs/cgroup/memory.current", "2")
            ]),
            7
        );
    }

    #[test]
    fn a_computers_free_memory_is_no_more_than_its_groups() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let mut sensor = MemorySensor::at(root.path());
        let Reading::Known(of_computer) = sensor.read() else { panic!("this computer tells") };
        assert!(of_computer > 700);
        write("proc/self/cgroup", "0::/box\n");
        write("sys/fs/cgroup/box/memory.max", "1000\n");
        write("sys/fs/cgroup/box/memory.current", "300\n");
        assert_eq!(sensor.read(), Reading::Known(700));
    }

    #[test]
    fn version_1_has_other_names() {
        let folder = "sys/fs/cgroup/memory/box";
        let (limit, usage) = (format!("{folder}/memory.limit_in_bytes"), format!("{folder}/memory.usage_in_bytes"));
        let own = ("proc/self/cgroup", "12:cpu,cpuacct:/box\n4:memory:/box\n");
        assert_eq!(free(&[own, (&limit, "500"), (&usage, "300")]), 200);
        assert!(free(&[own, (&limit, "9223372036854771712"), (&usage, "300")]) > 1 << 60, "no limit");
    }
}
