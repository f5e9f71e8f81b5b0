//! Whether this machine can serve a run: what the run takes of memory and disk, held against what there is, before
//! anything is drawn or read.

use super::disk_reserve::bytes_of;
use crate::engine::merge::needs;
use nightjar_shared::run_spec::RunSpec;
use std::{path::Path, time::Duration};
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

/// A run that this machine cannot serve.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TooLarge {
    /// The memory.
    #[error(
        "a model of {parameters} parameters takes {} of memory to serve, and {owner} has {}: make [model] in run.toml smaller, \
         or serve it on a machine with more memory",
        gib(*.needed),
        gib(*.there)
    )]
    Memory {
        /// Of the model.
        parameters: u64,
        /// Bytes that serving it takes.
        needed: u64,
        /// Bytes that there are.
        there: u64,
        /// Whose they are.
        owner: &'static str,
    },
    /// The disk.
    #[error(
        "a model of {parameters} parameters takes {} on the disk of --state from the start on, and {} are free there: free some \
         space, choose a --state folder on another disk, or make [model] in run.toml smaller",
        gib(*.needed),
        gib(*.there)
    )]
    Disk {
        /// Of the model.
        parameters: u64,
        /// Bytes that a new run of it takes.
        needed: u64,
        /// Bytes that are free.
        there: u64,
    },
}

/// Bytes for people.
fn gib(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        gib @ 1..10 => format!("{gib}.{} GiB", ((bytes & ((1 << 30) - 1)) * 10) >> 30),
        gib => format!("{gib} GiB"),
    }
}

/// What a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory that this process may have at most; `None` where the system does not say.
    pub memory: Option<(u64, &'static str)>,
    /// Bytes that are free on the disk of the state folder.
    pub disk_free: Option<u64>,
}

impl Machine {
    /// This one.
    pub fn look(state: &Path) -> Self {
        let mut system = System::new();
        let memory = system.as_mut().ok().and_then(|system| {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            let of_machine = (system.total_memory() > 0).then(|| (system.total_memory(), "this machine"));
            let of_group =
                system.cgroup_limits().map(|limits| (limits.total_memory, "the control group of this process"));
            of_machine.into_iter().chain(of_group).chain(of_process()).min_by_key(|(bytes, _)| *bytes)
        });
        // A folder that is yet to be made will be on the disk of the nearest one above it.
        let above = state.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let disk_free = above.into_iter().find_map(|folder| bytes_of(folder).ok()).map(|bytes| bytes.free);
        Machine { memory, disk_free }
    }

    /// Whether a run can be served here; a new one needs room on the disk for its first version besides.
    pub fn can_serve(&self, spec: &RunSpec, is_new: bool) -> Result<(), TooLarge> {
        let parameters = spec.model.parameters() as u64;
        let needed = needs::memory_bytes(spec);
        if let Some((there, owner)) = self.memory.filter(|(there, _)| *there < needed) {
            return Err(TooLarge::Memory { parameters, needed, there, owner });
        }
        let needed = needs::run_bytes(spec);
        match self.disk_free.filter(|there| is_new && *there < needed) {
            Some(there) => Err(TooLarge::Disk { parameters, needed, there }),
            None => Ok(()),
        }
    }
}

/// What this process takes.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Resident memory.
    pub memory_bytes: u64,
    /// Processor time, of all threads.
    pub cpu: Duration,
    /// When it started, as Unix time.
    pub started_unix_s: u64,
}

/// What this process takes now; `None` where the system does not say.
pub fn process() -> Option<Process> {
    let (mut system, own) = (System::new().ok()?, sysinfo::get_current_pid().ok()?);
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, what);
    let process = system.process(own)?;
    Some(Process {
        memory_bytes: process.memory(),
        cpu: Duration::from_millis(process.accumulated_cpu_time()),
        started_unix_s: process.start_time(),
    })
}

/// What `ulimit -v` allows.
#[cfg(target_os = "linux")]
fn of_process() -> Option<(u64, &'static str)> {
    Some((rustix::process::getrlimit(rustix::process::Resource::As).current?, "this process, by its limit,"))
}

#[cfg(not(target_os = "linux"))]
fn of_process() -> Option<(u64, &'static str)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(hidden: u32, layers: u32) -> RunSpec {
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
        (spec.model.hidden_size, spec.model.intermediate_size) = (hidden, 4 * hidden);
        spec.model.num_hidden_layers = layers;
        spec
    }

    #[test]
    fn what_cannot_fit_is_said_with_both_numbers() {
        let machine = Machine { memory: Some((16 << 30, "this machine")), disk_free: Some(1 << 40) };
        machine.can_serve(&spec(768, 12), true).unwrap();
        let why = machine.can_serve(&spec(8192, 80), true).unwrap_err().to_string();
        assert!(why.contains("this machine has 16 GiB") && why.contains("run.toml"), "{why}");
        let TooLarge::Memory { parameters, needed, .. } = machine.can_serve(&spec(8192, 80), true).unwrap_err() else {
            panic!("{why}");
        };
        assert!((12..40).contains(&(needed / parameters)), "{needed} bytes for {parameters} parameters");

        let machine = Machine { disk_free: Some(1 << 20), ..machine };
        assert!(machine.can_serve(&spec(768, 12), true).unwrap_err().to_string().contains("1 MiB are free"));
        machine.can_serve(&spec(768, 12), false).unwrap();
        Machine { memory: None, disk_free: None }.can_serve(&spec(65_536, 512), true).unwrap();
    }

    #[test]
    fn this_machine_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::look(&folder.path().join("not").join("yet"));
        assert!(machine.memory.is_some_and(|(bytes, _)| bytes > 1 << 20) && machine.disk_free.is_some());
        assert_eq!(gib(1536 << 20), "1.5 GiB");
    }
}
