//! The worker's control group (Linux, version 2): where systemd has given the agent's service its own piece of the tree
//! (`Delegate=cpu memory`), the worker gets a group in it whose memory the kernel bounds, and which gets the processor
//! only when no other group wants it. Never RLIMIT_AS: drivers reserve address space by the hundred gigabytes and touch
//! little.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the tree of version 2 is mounted.
const TREE: &str = "/sys/fs/cgroup";
/// The mark that systemd (252 and later) puts on a group that is its service's own to divide.
const MARK: &str = "user.delegate";
/// The variable by which nightjar's own unit, which asks for such a group, says that it is the one.
const UNIT: &str = "NIGHTJAR_SERVICE";

/// The agent's part of the group, and the worker's.
const AGENT: &str = "agent";
const WORKER: &str = "worker";

/// Why a worker gets no group.
#[derive(Debug, thiserror::Error)]
pub(super) enum CgroupError {
    #[error("cannot read /proc/self/cgroup: {0}")]
    Unread(io::Error),
    #[error("this system has no control groups (v2)")]
    NoneHere,
    #[error("{} is not delegated to this program", .0.display())]
    NotDelegated(PathBuf),
    #[error("cannot {what} in {}: {source}", .folder.display())]
    Refused { what: &'static str, folder: PathBuf, source: io::Error },
}

/// The group of this agent's worker.
pub(super) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Makes it, beside the agent's own group.
    pub fn for_worker() -> Result<Self, CgroupError> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(CgroupError::Unread)?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(CgroupError::NoneHere)?;
        let is_unit = std::env::var_os(UNIT).is_some_and(|value| value == "systemd");
        Self::within(Path::new(TREE), own, is_unit, std::process::id())
    }

    /// `own`: the agent's group, relative to `tree`; `is_unit`: whether that is nightjar's own unit, or the part of it
    /// that the agent has moved to; `agent`: the agent's number.
    fn within(tree: &Path, own: &str, is_unit: bool, agent: u32) -> Result<Self, CgroupError> {
        let own = tree.join(own);
        let parent = own.parent().filter(|parent| *parent != tree);
        let is_service = |folder: &Path| is_unit && folder.extension().is_some_and(|end| end == "service");
        let mut candidates = [Some(own.as_path()), parent].into_iter().flatten();
        let delegated = candidates.find(|folder| is_delegated(folder) || is_service(folder));
        let delegated = delegated.ok_or_else(|| CgroupError::NotDelegated(own.clone()))?;
        let failed = |what| move |source| CgroupError::Refused { what, folder: delegated.to_path_buf(), source };
        if delegated == own {
            // A group with a process in it cannot bound its parts: the agent moves into a part of its own.
            make(&delegated.join(AGENT)).map_err(failed("make a group for the agent"))?;
            fs::write(delegated.join(AGENT).join("cgroup.procs"), agent.to_string())
                .map_err(failed("move the agent"))?;
        }
        fs::write(delegated.join("cgroup.subtree_control"), "+memory")
            .map_err(failed("turn on the memory controller"))?;
        let folder = delegated.join(WORKER);
        make(&folder).map_err(failed("make a group for the worker"))?;
        // A group has its weight whatever its threads' priority; older kernels do not know this one, and lose little by
        // it.
        let _ = fs::write(delegated.join("cgroup.subtree_control"), "+cpu")
            .and_then(|()| fs::write(folder.join("cpu.idle"), "1"));
        Ok(Cgroup { folder })
    }

    /// Its folder in the tree.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bounds its memory; `u64::MAX` is no bound. Near the bound the kernel slows it and takes back what it can; at the
    /// bound it ends the worker, and nothing else.
    pub fn limit(&self, bytes: u64) -> io::Result<()> {
        let text = |bytes: u64| if bytes == u64::MAX { "max".into() } else { bytes.to_string() };
        let high = if bytes == u64::MAX { bytes } else { bytes / 10 * 9 };
        // A bound that is met by swapping would cost the owner more than it spares; a kernel without swap has no such
        // file.
        let _ = fs::write(self.folder.join("memory.swap.max"), if bytes == u64::MAX { "max" } else { "0" });
        fs::write(self.folder.join("memory.high"), text(high))?;
        fs::write(self.folder.join("memory.max"), text(bytes))
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn is_delegated(folder: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(folder, MARK, &mut value).is_ok_and(|read| read == 1 && value == *b"1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{XattrFlags, setxattr};

    /// A folder in the tree's place: what the kernel would make of the files is not tested here.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let tree = tempfile::tempdir().unwrap();
        let service = tree.path().join("user/nightjar.service");
        fs::create_dir_all(service.join("agent")).unwrap();
        (tree, service)
    }

    #[test]
    fn it_lies_beside_the_agents() {
        for (own, is_unit) in
            [("user/nightjar.service/agent", true), ("user/nightjar.service", true), ("user/x.scope", false)]
        {
            let (tree, mut service) = tree();
            if !is_unit {
                service = tree.path().join(own);
                fs::create_dir(&service).unwrap();
                if setxattr(&service, MARK, b"1", XattrFlags::empty()).is_err() {
                    println!("skipped: no extended attributes here");
                    continue;
                }
            }
            let cgroup = Cgroup::within(tree.path(), own, is_unit, 77).unwrap();
            assert_eq!(cgroup.folder(), service.join("worker"));
            let read = |file: &str| fs::read_to_string(service.join(file)).ok();
            assert_eq!(read("agent/cgroup.procs").as_deref(), (!own.ends_with("agent")).then_some("77"));
            assert_eq!(read("worker/cpu.idle").as_deref(), Some("1"));
            for (bytes, max, high) in [(1000, "1000", "900"), (u64::MAX, "max", "max")] {
                cgroup.limit(bytes).unwrap();
                assert_eq!(read("worker/memory.max").as_deref(), Some(max));
                assert_eq!(read("worker/memory.high").as_deref(), Some(high));
            }
        }
    }

    #[test]
    fn what_is_not_delegated_is_left_alone() {
        let (tree, service) = tree();
        let refused = Cgroup::within(tree.path(), "user/nightjar.service/agent", false, 77);
        assert!(matches!(refused, Err(CgroupError::NotDelegated(_))));
        assert!(!service.join("worker").exists());
        // The unit's own variable, inherited by a program that runs somewhere else.
        fs::create_dir(tree.path().join("user/terminal.scope")).unwrap();
        assert!(Cgroup::within(tree.path(), "user/terminal.scope", true, 77).is_err());
    }
}
