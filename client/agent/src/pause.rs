//! The owner's word for now, kept over restarts as `pause.json`: a pause, or "run now", and until when. By the calendar on
//! the disk, by monotonic time in the process.

use crate::policy::Override;
use nightjar_shared::{
    disk::Disk,
    time::{Mono, Wall},
};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

const PAUSE_FILE: &str = "pause.json";
/// Longest pause with an end, and longest "run now"; a jump of the calendar's clock can make none longer.
pub const PAUSE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Serialize, Deserialize)]
struct Stored {
    /// `None`: until resumed.
    until: Option<Wall>,
    /// Whether it is the opposite of a pause.
    #[serde(default)]
    run_now: bool,
}

/// Writes a pause of this length, or one until resumed. It replaces "run now".
pub fn store(disk: &dyn Disk, length: Option<Duration>, now: Wall) -> io::Result<()> {
    write(disk, length, now, false)
}

/// Writes a "run now" of this length, or one until resumed. It replaces a pause.
pub fn store_run_now(disk: &dyn Disk, length: Option<Duration>, now: Wall) -> io::Result<()> {
    write(disk, length, now, true)
}

fn write(disk: &dyn Disk, length: Option<Duration>, now: Wall, run_now: bool) -> io::Result<()> {
    let until = length.map(|l| Wall { unix_ms: now.unix_ms.saturating_add(l.min(PAUSE_MAX).as_millis() as u64) });
    disk.write(PAUSE_FILE, &serde_json::to_vec(&Stored { until, run_now })?)
}

/// Ends the pause, or the "run now".
pub fn clear(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(PAUSE_FILE)
}

/// The owner's word that is in force. A damaged file counts as a pause: of the two, it is the one that does no harm.
pub fn load(disk: &dyn Disk, now: Wall, mono: Mono) -> io::Result<Override> {
    let Some(bytes) = disk.read(PAUSE_FILE)? else { return Ok(Override::No) };
    let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) else { return Ok(Override::Pause(None)) };
    let left = |end: Wall| Duration::from_millis(end.unix_ms.saturating_sub(now.unix_ms)).min(PAUSE_MAX);
    let until = stored.until.map(|end| mono + left(end));
    Ok(if stored.run_now { Override::RunNow(until) } else { Override::Pause(until) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    #[test]
    fn the_owners_word_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let (wall, mono) = (|unix_ms| Wall { unix_ms }, Mono { ms: 50 });
        assert_eq!(load(&disk, wall(0), mono).unwrap(), Override::No);
        store(&disk, Some(Duration::from_secs(10)), wall(1000)).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Override::Pause(Some(Mono { ms: 7050 })));
        store_run_now(&disk, Some(Duration::from_secs(10)), wall(1000)).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Override::RunNow(Some(Mono { ms: 7050 })));
        store(&disk, None, wall(1000)).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Override::Pause(None));
        disk.write(PAUSE_FILE, br#"{"until":null}"#).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Override::Pause(None), "as an older version wrote it");
        disk.write(PAUSE_FILE, b"{").unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Override::Pause(None));
        clear(&disk).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Override::No);
    }
}
