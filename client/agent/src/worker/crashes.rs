//! What is learnt from a worker's crashes: wait a little longer after each, and leave a GPU alone that keeps taking its
//! worker down. Pure: both times are arguments. What was learnt about GPUs outlives the process
//! (`worker-crashes.json`), since a driver that hangs may take the whole computer down with it.

use super::Crash;
use nightjar_shared::{
    disk::Disk,
    time::{Mono, Wall},
    wire::{limits, worker::Ready},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, time::Duration};

/// Where it is kept, in the home folder.
pub const CRASHES_FILE: &str = "worker-crashes.json";
/// A GPU is left alone after so many crashes.
pub const CRASHES_MAX: u32 = 3;
/// Crashes further apart than this have nothing to do with each other.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The wait after the first crash; it doubles with each further one.
const WAIT_FIRST: Duration = Duration::from_secs(5);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30 * 60);
/// Most devices remembered: more than any computer has.
const DEVICES_MAX: usize = 32;
/// How the processor is called: `--device flex`.
const PROCESSOR: &str = "flex";
/// What stands for all GPUs when the crash came before the worker could say which one it opened.
const ANY_GPU: &str = "any GPU";

/// What is known of crashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Crashes {
    /// By the device's name.
    devices: BTreeMap<String, Record>,
    #[serde(skip)]
    since_start: u32,
    /// Without a lease worked in between.
    #[serde(skip)]
    in_a_row: u32,
    #[serde(skip)]
    wait: Option<(Mono, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    crashes: u32,
    last: Wall,
    words: String,
}

/// A GPU that is not used any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// Its name.
    pub device: String,
    /// Why, and what to do about it, in a sentence.
    pub reason: String,
}

/// What to do when a worker is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Start one.
    Start {
        /// On this device.
        device: String,
        /// If that is `auto`: on none of these.
        avoid: Vec<String>,
    },
    /// Not yet.
    Wait {
        /// When to ask again.
        until: Mono,
        /// Why, in a sentence.
        reason: String,
    },
    /// Not until the owner says so.
    Hold {
        /// Why, in a sentence.
        reason: String,
    },
}

impl Crashes {
    /// What the disk knows. A damaged file is worth no more than none.
    pub fn load(disk: &dyn Disk) -> io::Result<Self> {
        let bytes = disk.read(CRASHES_FILE)?.unwrap_or_default();
        let mut crashes: Crashes = serde_json::from_slice(&bytes).unwrap_or_default();
        crashes.bound();
        Ok(crashes)
    }

    /// Writes it down; durable on return.
    pub fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.write(CRASHES_FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// Forgets it all on the disk: every GPU is given another chance.
    pub fn retry(disk: &dyn Disk) -> io::Result<()> {
        disk.remove(CRASHES_FILE)
    }

    /// What to do now that a worker is wanted on the device that the owner has `chosen`.
    pub fn plan(&self, chosen: &str, now: Mono) -> Plan {
        if let Some((until, reason)) = self.wait.as_ref().filter(|(until, _)| *until > now) {
            return Plan::Wait { until: *until, reason: reason.clone() };
        }
        let avoid: Vec<String> = self.bad().map(|(name, _)| name.clone()).collect();
        let all_gpus = avoid.iter().any(|name| name == ANY_GPU);
        match chosen {
            PROCESSOR => Plan::Start { device: PROCESSOR.into(), avoid: vec![] },
            "auto" if all_gpus => Plan::Start { device: PROCESSOR.into(), avoid: vec![] },
            "auto" => Plan::Start { device: "auto".into(), avoid },
            // The owner chose this GPU: the agent does not choose another.
            _ => match self.devices.get_key_value(chosen).filter(|(_, record)| record.is_bad()) {
                Some((name, record)) => Plan::Hold { reason: sentence(name, record) },
                None => Plan::Start { device: chosen.into(), avoid: vec![] },
            },
        }
    }

    /// A worker crashed, or said that its device failed. `ready`: what it said when it had opened its device, if it
    /// came so far; `chosen`: the device it was started on.
    pub fn crashed(&mut self, crash: &Crash, ready: Option<&Ready>, chosen: &str, now: Mono, wall: Wall) {
        let words = limits::tame(&crash.to_string());
        self.since_start = self.since_start.saturating_add(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        let wait = WAIT_FIRST.saturating_mul(1 << (self.in_a_row - 1).min(16)).min(WAIT_MAX);
        // When it is started again is told apart, by whoever tells when it may go on: two times would be one too many.
        let reason = format!("the worker crashed ({words})");
        self.wait = Some((now + wait, reason));
        // The processor cannot be left alone: there would be nothing left to train on.
        let names: Vec<String> = match ready {
            _ if crash.is_kill() => vec![],
            Some(ready) if !ready.gpu => vec![],
            // Under its own name for `auto`, and under the owner's for a choice such as `wgpu:1`.
            Some(ready) => vec![limits::tame(&ready.device), chosen.to_owned()],
            None if chosen == PROCESSOR => vec![],
            None if chosen == "auto" => vec![ANY_GPU.into()],
            None => vec![chosen.to_owned()],
        };
        for name in names.into_iter().filter(|name| name != "auto") {
            let record = self.devices.entry(name).or_insert(Record { crashes: 0, last: wall, words: String::new() });
            let since = Duration::from_millis(wall.unix_ms.saturating_sub(record.last.unix_ms));
            if since > FORGOTTEN_AFTER && !record.is_bad() {
                record.crashes = 0;
            }
            record.crashes = record.crashes.saturating_add(1);
            (record.last, record.words) = (wall, words.clone());
        }
        self.bound();
    }

    /// A lease was worked: the next crash is the first in a row.
    pub fn worked(&mut self) {
        (self.in_a_row, self.wait) = (0, None);
    }

    /// The GPUs that are not used any more.
    pub fn left_alone(&self) -> Vec<LeftAlone> {
        self.bad().map(|(name, record)| LeftAlone { device: name.clone(), reason: sentence(name, record) }).collect()
    }

    /// Crashes since the agent started.
    pub fn since_start(&self) -> u32 {
        self.since_start
    }

    fn bad(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.devices.iter().filter(|(_, record)| record.is_bad())
    }

    fn bound(&mut self) {
        while self.devices.len() > DEVICES_MAX {
            let oldest = self.devices.iter().min_by_key(|(_, record)| record.last).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.devices.remove(&name));
        }
    }
}

impl Record {
    fn is_bad(&self) -> bool {
        self.crashes >= CRASHES_MAX
    }
}

fn sentence(device: &str, record: &Record) -> String {
    let Record { crashes, words, .. } = record;
    format!(
        "{device} is left alone after {crashes} crashes ({words}); `nightjar devices --retry` gives it another chance"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::worker::End;
    use nightjar_shared::disk::FolderDisk;
    #[cfg(unix)]
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn gpu(name: &str) -> Ready {
        Ready { device: name.into(), gpu: true, ..Ready::default() }
    }

    /// In these words.
    fn device(words: &str) -> Crash {
        Crash::Device(words.into())
    }

    fn start(device: &str, avoid: &[&str]) -> Plan {
        Plan::Start { device: device.into(), avoid: avoid.iter().map(|a| (*a).to_owned()).collect() }
    }

    fn at(s: u64) -> Mono {
        Mono { ms: s * 1000 }
    }

    fn wall(unix_ms: u64) -> Wall {
        Wall { unix_ms }
    }

    #[test]
    fn each_crash_in_a_row_doubles_the_wait_and_work_ends_the_row() {
        let mut crashes = Crashes::default();
        let mut now = at(100);
        for wait_s in [5, 10, 20, 40] {
            crashes.crashed(&device("exit status: 101"), None, "flex", now, wall(1));
            let Plan::Wait { until, reason } = crashes.plan("flex", now) else { panic!("no wait") };
            assert_eq!(until, now + Duration::from_secs(wait_s));
            assert!(reason.contains("exit status: 101"), "{reason}");
            now = until;
            assert_eq!(crashes.plan("flex", now), start("flex", &[]), "the processor is never left alone");
        }
        for _ in 0..100 {
            crashes.crashed(&device("x"), None, "flex", now, wall(1));
        }
        assert!(matches!(crashes.plan("flex", now), Plan::Wait { until, .. } if until == now + WAIT_MAX));
        crashes.worked();
        crashes.crashed(&device("x"), None, "flex", now, wall(1));
        assert!(matches!(crashes.plan("flex", now), Plan::Wait { until, .. } if until == now + WAIT_FIRST));
        assert_eq!((crashes.since_start(), crashes.left_alone()), (105, vec![]));
    }

    /// The worker is the first that the system ends when memory is short.
    #[cfg(unix)]
    #[test]
    fn what_is_killed_for_memory_says_nothing_of_its_gpu() {
        let ended =
            |signal| Crash::Exited { end: End::Status(ExitStatus::from_raw(signal)), last_words: "none".into() };
        let mut crashes = Crashes::default();
        for _ in 0..5 {
            crashes.crashed(&ended(9), Some(&gpu("A")), "auto", at(1), wall(1));
            crashes.crashed(&ended(9), None, "wgpu:1", at(1), wall(1));
        }
        assert_eq!((crashes.left_alone(), crashes.since_start()), (vec![], 10));
        assert!(matches!(crashes.plan("auto", at(1)), Plan::Wait { .. }), "all the same it is not started at once");
        for _ in 0..3 {
            crashes.crashed(&ended(11), Some(&gpu("A")), "auto", at(1), wall(1));
            // A worker cannot spare its device by how it puts that.
            crashes.crashed(&device("signal: 9 (SIGKILL)"), Some(&gpu("B")), "auto", at(1), wall(1));
        }
        let left: Vec<String> = crashes.left_alone().into_iter().map(|left| left.device).collect();
        assert_eq!(left, ["A", "B"]);
    }

    #[test]
    fn three_crashes_and_auto_passes_that_gpu_over() {
        let mut crashes = Crashes::default();
        for n in 1..=3 {
            assert_eq!(crashes.plan("auto", at(9999)), start("auto", &[]));
            crashes.crashed(&device("device lost"), Some(&gpu("A (vulkan)")), "auto", at(0), wall(n * DAY_MS / 2));
            // Leases that went well in between do not clear it.
            crashes.worked();
        }
        assert_eq!(crashes.plan("auto", at(9999)), start("auto", &["A (vulkan)"]));
        let left = crashes.left_alone();
        assert_eq!(left.len(), 1);
        assert!(left[0].reason.contains("3 crashes (device lost)") && left[0].reason.contains("--retry"), "{left:?}");
        // The next one too, and in the end the processor has to do.
        for _ in 0..3 {
            crashes.crashed(&device("SIGSEGV"), None, "auto", at(0), wall(2 * DAY_MS));
        }
        assert_eq!(crashes.plan("auto", at(9999)), start("flex", &[]));
    }

    #[test]
    fn a_gpu_that_the_owner_chose_holds_instead() {
        let mut crashes = Crashes::default();
        for _ in 0..3 {
            crashes.crashed(&device("device lost"), Some(&gpu("A (vulkan)")), "wgpu:1", at(0), wall(5));
        }
        let Plan::Hold { reason } = crashes.plan("wgpu:1", at(9999)) else { panic!("no hold") };
        assert!(reason.starts_with("wgpu:1 is left alone after 3 crashes"), "{reason}");
        assert_eq!(crashes.plan("wgpu:0", at(9999)), start("wgpu:0", &[]));
        assert_eq!(crashes.plan("auto", at(9999)), start("auto", &["A (vulkan)", "wgpu:1"]));
    }

    #[test]
    fn crashes_more_than_a_day_apart_do_not_add_up() {
        let mut crashes = Crashes::default();
        for n in 0..10 {
            crashes.crashed(&device("x"), Some(&gpu("A")), "auto", at(0), wall(n * (DAY_MS + 1)));
        }
        assert_eq!(crashes.left_alone(), vec![]);
        // A clock that jumps back makes no crash forgotten.
        for _ in 0..2 {
            crashes.crashed(&device("x"), Some(&gpu("A")), "auto", at(0), wall(0));
        }
        assert_eq!(crashes.left_alone().len(), 1);
        // What is left alone stays so until the owner says otherwise.
        crashes.crashed(&device("x"), Some(&gpu("A")), "wgpu", at(0), wall(99 * DAY_MS));
        assert!(crashes.left_alone().iter().any(|l| l.device == "A"));
    }

    #[test]
    fn it_outlives_the_process_until_the_owner_tries_again() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        assert_eq!(Crashes::load(&disk).unwrap(), Crashes::default());
        let mut crashes = Crashes::default();
        for n in 0..100 {
            crashes.crashed(&device(&"x".repeat(1 << 20)), Some(&gpu(&format!("{}", n / 3))), "auto", at(0), wall(n));
        }
        assert!(crashes.devices.len() <= DEVICES_MAX);
        crashes.store(&disk).unwrap();
        assert!(disk.length(CRASHES_FILE).unwrap().unwrap() < 100_000);
        let loaded = Crashes::load(&disk).unwrap();
        assert_eq!(loaded.left_alone(), crashes.left_alone());
        assert_eq!(loaded.plan("auto", at(0)), crashes.plan("auto", at(9999)), "waits do not outlive it");
        Crashes::retry(&disk).unwrap();
        assert_eq!(Crashes::load(&disk).unwrap(), Crashes::default());
        disk.write(CRASHES_FILE, b"{\"devices\": 7").unwrap();
        assert_eq!(Crashes::load(&disk).unwrap(), Crashes::default());
    }
}
