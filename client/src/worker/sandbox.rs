//! What keeps the worker in its place, whatever its driver or a malformed file makes of it. Before it has a second
//! thread: a control group, an environment that leads drivers' caches into its own folder, and on Linux two walls
//! around it, one around files (landlock) and one around system calls (seccomp). What the system cannot do is said and
//! lived without.

#[cfg(target_os = "linux")]
mod calls;
mod environment;
#[cfg(target_os = "linux")]
mod files;

use std::path::Path;

/// Confines this process for good; gives back a sentence for each thing that the system could not do. `cgroup` is the
/// control group that the agent has made for it.
///
/// To be called before any thread is started: a thread that is there already would stay outside.
pub(super) fn enter(state: &Path, cgroup: Option<&Path>) -> Vec<String> {
    let mut notes = Vec::new();
    environment::lead_caches_into(&state.join(CACHE));
    if let Err(note) = join(cgroup) {
        notes.push(note);
    }
    #[cfg(target_os = "linux")]
    {
        // Without a parent there is nobody to train for, also while it is frozen and cannot see its pipe close.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        notes.extend(files::confine(state).err());
        notes.extend(calls::confine().err());
    }
    #[cfg(not(target_os = "linux"))]
    notes.push("this system has no sandbox that nightjar knows: the worker may do what its user may do".into());
    notes
}

/// The folder, within the home folder, of what drivers and the GPU's runtime keep.
pub(super) const CACHE: &str = "cache";

fn join(cgroup: Option<&Path>) -> Result<(), String> {
    let Some(folder) = cgroup else {
        return Err(
            "the kernel does not bound the worker's memory, as nightjar runs outside a control group of its own (the \
                    installed service has one); it keeps count by itself"
                .into(),
        );
    };
    // "0" is whoever writes it.
    std::fs::write(folder.join("cgroup.procs"), "0")
        .map_err(|e| format!("the worker cannot join its control group: {e}"))
}
