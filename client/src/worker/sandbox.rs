//! What keeps the worker in its place, whatever its driver or a malformed file makes of it. Before it has a second
//! thread: a control group, an environment that leads drivers' caches into its own folder, and on Linux two walls
//! around it, one around files (landlock) and one around system calls (seccomp). What the system cannot do is said and
//! lived without.

#[cfg(target_os = "linux")]
mod calls;
mod environment;
#[cfg(target_os = "linux")]
mod files;

use std::{io, path::Path};

/// What the system could not do to confine the worker, as the owner reads it in the status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gap {
    #[error(
        "the kernel does not bound the worker's memory, as nightjar runs outside a control group of its own (the \
        installed service has one); it keeps count by itself"
    )]
    NoCgroup,
    #[error("the worker cannot join its control group: {0}")]
    Cgroup(#[from] io::Error),
    #[cfg(target_os = "linux")]
    #[error("landlock failed ({0}), so the worker may touch all files that its user may")]
    Landlock(#[from] landlock::RulesetError),
    #[cfg(target_os = "linux")]
    #[error(
        "this kernel's landlock is older than nightjar's rules: files are out of the worker's reach, but not all \
        signals and device commands"
    )]
    OldLandlock,
    #[cfg(target_os = "linux")]
    #[error("this kernel has no landlock, so the worker may touch all files that its user may")]
    NoLandlock,
    #[cfg(target_os = "linux")]
    #[error("seccomp failed ({0}), so the worker may use all system calls")]
    Filter(#[from] seccompiler::BackendError),
    #[cfg(target_os = "linux")]
    #[error("seccomp failed ({0}), so the worker may use all system calls")]
    Seccomp(#[from] seccompiler::Error),
    #[cfg(not(target_os = "linux"))]
    #[error("this system has no sandbox that nightjar knows: the worker may do what its user may do")]
    NoSandbox,
}

/// Confines this process for good; gives back what the system could not do. `cgroup` is the control group that the
/// agent has made for it.
///
/// To be called before any thread is started: a thread that is there already would stay outside.
pub(super) fn enter(state: &Path, cgroup: Option<&Path>) -> Vec<Gap> {
    environment::lead_caches_into(&state.join(CACHE));
    let mut gaps = Vec::from_iter(join(cgroup).err());
    #[cfg(target_os = "linux")]
    {
        // Without a parent there is nobody to train for, also while it is frozen and cannot see its pipe close.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        gaps.extend(files::confine(state).err());
        gaps.extend(calls::confine().err());
    }
    #[cfg(not(target_os = "linux"))]
    gaps.push(Gap::NoSandbox);
    gaps
}

/// The folder, within the home folder, of what drivers and the GPU's runtime keep.
pub(super) const CACHE: &str = "cache";

fn join(cgroup: Option<&Path>) -> Result<(), Gap> {
    let folder = cgroup.ok_or(Gap::NoCgroup)?;
    // "0" is whoever writes it.
    Ok(std::fs::write(folder.join("cgroup.procs"), "0")?)
}
