//! What tells of nothing by itself is looked at every few seconds, on a thread of its own: a disk or a driver that
//! hangs holds up nothing but this.

use super::{
    MemorySensor,
    facts::Facts,
    places::{Places, small_file},
    programs::Programs,
    readings::{Readings, Reporter},
    thermal::Thermometers,
};
use crate::policy::{Pressure, Reading};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

/// All is looked at this often.
const EVERY: Duration = Duration::from_secs(5);
/// What was seen holds for so long.
const FRESH: Duration = Duration::from_secs(60);

/// Looks again and again until the other end of `again` goes; what comes from there means at once.
pub(super) fn run(places: &Places, readings: &Arc<Readings>, again: &Receiver<()>) {
    fn reporter<T: super::readings::Fact>(
        readings: &Arc<Readings>,
        of: fn(&mut Facts) -> &mut super::readings::Sourced<T>,
    ) -> Reporter<T> {
        Reporter::new(readings, of, 0)
    }
    let temperature = reporter(readings, |facts| &mut facts.temperature);
    let programs = reporter(readings, |facts| &mut facts.programs);
    let memory = reporter(readings, |facts| &mut facts.memory);
    let disk = reporter(readings, |facts| &mut facts.disk);
    let pressure = reporter(readings, |facts| &mut facts.pressure);
    let mut thermometers = Thermometers::new(&places.root);
    let mut named = Programs::new(&places.root);
    let mut free_memory = MemorySensor::at(&places.root);
    loop {
        let wants = readings.wants();
        temperature.says_for(thermometers.read(), FRESH);
        memory.says_for(free_memory.read(), FRESH);
        pressure.says_for(waiting(&places.root), FRESH);
        programs.says_for(named.read(&wants.programs), FRESH);
        disk.says_for(free_disk(&wants.home), FRESH);
        if again.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Bytes that programs may still write to the folder's file system; the nearest folder above it that exists counts.
#[cfg(unix)]
fn free_disk(home: &Path) -> Reading<u64> {
    let mut last = None;
    for folder in home.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        match rustix::fs::statvfs(folder) {
            Ok(stat) => return Reading::Known(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => last = Some(e),
        }
    }
    Reading::Unknown(last.map_or("the disk cannot be asked".into(), |e| format!("the disk cannot be asked ({e})")))
}

/// Bytes that are free on the disk whose mount point is the longest part of the folder's path.
#[cfg(not(unix))]
fn free_disk(home: &Path) -> Reading<u64> {
    let disks = match sysinfo::Disks::new_with_refreshed_list() {
        Ok(disks) => disks,
        Err(e) => return Reading::Unknown(format!("the disks cannot be asked ({e})")),
    };
    let of_home = disks.iter().filter(|disk| home.starts_with(disk.mount_point()));
    let nearest = of_home.max_by_key(|disk| disk.mount_point().as_os_str().len());
    nearest
        .map_or(Reading::Unknown("no disk holds the home folder".into()), |disk| Reading::Known(disk.available_space()))
}

/// How long programs wait, where the kernel tells.
fn waiting(root: &Path) -> Reading<Pressure> {
    let folder = root.join("proc/pressure");
    let read = || -> io::Result<Pressure> {
        let of = |name: &str| small_file(&folder.join(name)).map(|text| average(&text));
        Ok(Pressure { cpu: of("cpu")?, memory: of("memory")?, io: of("io")? })
    };
    read().map_or_else(|_| Reading::Unknown("this kernel does not tell".into()), Reading::Known)
}

/// The share of the last ten seconds in which some program waited.
fn average(text: &str) -> f64 {
    let some = text.lines().find(|line| line.starts_with("some "));
    let figure = some.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("avg10=")));
    figure.and_then(|figure| figure.parse().ok()).filter(|share| (0.0..=100.0).contains(share)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_from_the_kernels_words() {
        let text = "some avg10=12.34 avg60=1.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0";
        assert_eq!(average(text), 12.34);
        assert_eq!(average("full avg10=9.00"), 0.0);
        assert_eq!(average("some avg10=nan"), 0.0);
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(waiting(root.path()), Reading::Unknown(_)));
        std::fs::create_dir_all(root.path().join("proc/pressure")).unwrap();
        for name in ["cpu", "memory", "io"] {
            std::fs::write(root.path().join("proc/pressure").join(name), text).unwrap();
        }
        assert_eq!(waiting(root.path()), Reading::Known(Pressure { cpu: 12.34, memory: 12.34, io: 12.34 }));
    }

    #[test]
    fn the_disk_of_a_folder_that_is_still_to_come_is_known() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(free_disk(&root.path().join("a/b")), Reading::Known(1..)));
    }
}
