//! What was measured, in a small JSON file of the worker's folder: for each adapter, driver and set of kernels the two
//! times of each operation. The file is bounded and checked when it is read; what does not hold is measured again.

use crate::{
    choice::{Choices, Op},
    table,
};
use nightjar_shared::disk::Disk;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io};

const BYTES_MAX: usize = 64 * 1024;
const DEVICES_MAX: usize = 16;
/// Of an adapter's or driver's name, in bytes.
const NAME_MAX: usize = 256;
/// Our kernel is taken where it needs at most this share of the other way's time: less is within a measurement's noise.
const WORTH_IT: f64 = 0.97;

/// A measurement that was begun so often and never ended is not begun again: it takes the driver down. Fewer, and it
/// may have been the owner, who wanted the computer.
const BEGUN_MAX: u32 = 3;

/// Milliseconds of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Which.
    pub op: Op,
    /// By our kernel.
    pub ours_ms: f64,
    /// By Burn's own operations, or by the CPU where those have none.
    pub other_ms: f64,
}

/// What a measurement holds for, besides the kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The adapter's name.
    pub adapter: String,
    /// Its driver and the driver's version.
    pub driver: String,
}

impl Key {
    /// No longer than a file may hold.
    fn bounded(&self) -> Self {
        let cut = |text: &str| text.chars().take(NAME_MAX / 4).collect();
        Key { adapter: cut(&self.adapter), driver: cut(&self.driver) }
    }
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    devices: Vec<Measured>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    #[serde(flatten)]
    key: Key,
    /// [`table::version`] of the build that measured.
    kernels: String,
    /// By the operation's name: milliseconds of ours and of the other way.
    ops: BTreeMap<String, [f64; 2]>,
    /// By the operation's name: measurements that were begun and did not end.
    #[serde(default)]
    begun: BTreeMap<String, u32>,
}

impl Measured {
    fn is_sound(&self) -> bool {
        let names = [&self.key.adapter, &self.key.driver, &self.kernels];
        names.iter().all(|name| name.len() <= NAME_MAX)
            && self.ops.len().max(self.begun.len()) <= Op::ALL.len()
            && self.ops.keys().chain(self.begun.keys()).all(|name| Op::ALL.iter().any(|op| op.name() == name))
            && self.ops.values().flatten().all(|ms| ms.is_finite() && *ms > 0.0)
    }
}

impl Remembered {
    /// Reads the file; whatever is missing, too long or unsound counts as never measured.
    pub fn read(disk: &dyn Disk, name: &str) -> Self {
        let bytes = disk.read_at(name, 0, BYTES_MAX + 1).unwrap_or_default();
        if bytes.len() > BYTES_MAX {
            return Remembered::default();
        }
        let mut all: Remembered = serde_json::from_slice(&bytes).unwrap_or_default();
        // What an older or newer build wrote of other operations goes with its kernels.
        all.devices.retain(Measured::is_sound);
        all.devices.truncate(DEVICES_MAX);
        all
    }

    /// Replaces the file.
    pub fn write(&self, disk: &dyn Disk, name: &str) -> io::Result<()> {
        disk.write(name, &serde_json::to_vec_pretty(self)?)
    }

    /// The times of an operation with these kernels.
    pub fn timing(&self, key: &Key, op: Op) -> Option<Timing> {
        let measured = self.devices.iter().find(|m| m.key == key.bounded() && m.kernels == table::version())?;
        measured.ops.get(op.name()).map(|[ours_ms, other_ms]| Timing { op, ours_ms: *ours_ms, other_ms: *other_ms })
    }

    /// Notes that a measurement begins; false if it is better left alone.
    pub fn begin(&mut self, key: &Key, op: Op) -> bool {
        let mut may = false;
        self.change(key, |device| {
            let begun = device.begun.entry(op.name().to_string()).or_default();
            may = *begun < BEGUN_MAX;
            *begun += u32::from(may);
        });
        may
    }

    /// Remembers times of one device, and of it only those of this build's kernels.
    pub fn remember(&mut self, key: &Key, timings: &[Timing]) {
        self.change(key, |device| {
            for t in timings {
                device.begun.remove(t.op.name());
                device.ops.insert(t.op.name().to_string(), [t.ours_ms, t.other_ms]);
            }
        });
    }

    /// Changes what is known of a device; the newest comes first, and the oldest beyond sixteen are forgotten.
    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Measured)) {
        let (key, kernels) = (key.bounded(), table::version());
        let old = self.devices.iter().position(|m| m.key == key).map(|at| self.devices.remove(at));
        let new = Measured { key, kernels, ops: BTreeMap::new(), begun: BTreeMap::new() };
        let mut device = old.filter(|m| m.kernels == new.kernels).unwrap_or(new);
        change(&mut device);
        self.devices.insert(0, device);
        self.devices.retain(Measured::is_sound);
        self.devices.truncate(DEVICES_MAX);
    }

    /// Ours where it was measured to be worth it.
    pub fn choices(&self, key: &Key) -> Choices {
        let worth_it = |op: Op| self.timing(key, op).is_some_and(|t| t.ours_ms <= WORTH_IT * t.other_ms);
        Op::ALL.iter().fold(Choices::NONE, |choices, op| choices.with(*op, worth_it(*op)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    fn key(adapter: &str) -> Key {
        Key { adapter: adapter.into(), driver: "driver 1.2".into() }
    }

    const FAST: Timing = Timing { op: Op::RmsNorm, ours_ms: 1.0, other_ms: 2.0 };
    const EVEN: Timing = Timing { op: Op::Swiglu, ours_ms: 1.0, other_ms: 1.0 };
    const SLOW: Timing = Timing { op: Op::AdamW, ours_ms: 3.0, other_ms: 2.0 };

    #[test]
    fn what_was_faster_is_chosen_for_this_adapter_driver_and_kernels_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let mut all = Remembered::read(&disk, "kernels.json");
        assert_eq!(all.choices(&key("a")), Choices::NONE);
        all.remember(&key("a"), &[FAST, EVEN]);
        all.remember(&key("a"), &[SLOW]);
        all.write(&disk, "kernels.json").unwrap();
        let mut all = Remembered::read(&disk, "kernels.json");
        assert_eq!(all.choices(&key("a")), Choices::NONE.with(Op::RmsNorm, true));
        assert_eq!(all.timing(&key("a"), Op::AdamW), Some(SLOW));
        assert_eq!(all.choices(&key("b")), Choices::NONE);
        assert_eq!(all.choices(&Key { driver: "driver 1.3".into(), ..key("a") }), Choices::NONE);
        all.devices[0].kernels = "others".into();
        assert_eq!(all.choices(&key("a")), Choices::NONE);
        // Times of other kernels are not mixed with new ones.
        all.remember(&key("a"), &[EVEN]);
        assert_eq!(all.timing(&key("a"), Op::RmsNorm), None);
    }

    #[test]
    fn what_never_ends_is_begun_three_times() {
        let mut all = Remembered::default();
        let begin = |all: &mut Remembered| all.begin(&key("a"), Op::RmsNorm);
        assert_eq!([0; 4].map(|_| begin(&mut all)), [true, true, true, false]);
        assert!(all.begin(&key("a"), Op::Swiglu) && all.begin(&key("b"), Op::RmsNorm), "others are others");
        // One that ends counts from nothing when it is begun again.
        all.remember(&key("a"), &[FAST]);
        assert_eq!([0; 4].map(|_| begin(&mut all)), [true, true, true, false]);
        assert_eq!(all.timing(&key("a"), Op::RmsNorm), Some(FAST));
        let read: Remembered = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(read, all);
    }

    #[test]
    fn a_file_that_does_not_hold_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let mut all = Remembered::default();
        all.remember(&key("a"), &[FAST]);
        let sound = serde_json::to_string(&all).unwrap();
        disk.write("kernels.json", sound.as_bytes()).unwrap();
        assert_eq!(Remembered::read(&disk, "kernels.json"), all);
        let bad = [
            sound.replace("rms_norm", "rms_morn"),
            sound.replace("1.0", "-1.0"),
            sound.replace("1.0", "1e999"),
            sound.replace("1.0", "null"),
            sound[..sound.len() - 1].to_string(),
            sound.replace("driver 1.2", &"x".repeat(NAME_MAX + 1)),
            format!("{sound}{}", " ".repeat(BYTES_MAX)),
            String::new(),
        ];
        for text in bad {
            disk.write("kernels.json", text.as_bytes()).unwrap();
            assert_eq!(Remembered::read(&disk, "kernels.json").choices(&key("a")), Choices::NONE, "{text}");
        }
    }

    #[test]
    fn the_file_is_bounded() {
        let mut all = Remembered::default();
        for n in 0..40 {
            all.remember(&key(&format!("{n}{}", "é".repeat(1000))), &[FAST, EVEN, SLOW]);
        }
        assert_eq!(all.devices.len(), DEVICES_MAX);
        assert!(all.choices(&key(&format!("39{}", "é".repeat(1000)))).has(Op::RmsNorm));
        assert!(serde_json::to_vec_pretty(&all).unwrap().len() < BYTES_MAX);
    }
}
