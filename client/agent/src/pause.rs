//! The owner's pause, kept over restarts as `pause.json`: by the calendar on the disk, by monotonic time in the process.

use crate::policy::Pause;
use nightjar_shared::{
    disk::Disk,
    time::{Mono, Wall},
};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

const PAUSE_FILE: &str = "pause.json";
/// Longest pause with an end; a jump of the calendar's clock can make none longer.
pub const PAUSE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Serialize, Deserialize)]
struct Stored {
    /// `None`: until resumed.
    until: Option<Wall>,
}

/// Writes a pause of this length, or one until resumed.
pub fn store(disk: &dyn Disk, length: Option<Duration>, now: Wall) -> io::Result<()> {
    let until = length.map(|l| Wall { unix_ms: now.unix_ms + l.min(PAUSE_MAX).as_millis() as u64 });
    disk.write(PAUSE_FILE, &serde_json::to_vec(&Stored { until })?)
}

/// Ends the pause.
pub fn clear(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(PAUSE_FILE)
}

/// The pause that is in force. A damaged file counts as a pause: the owner wanted one.
pub fn load(disk: &dyn Disk, now: Wall, mono: Mono) -> io::Result<Pause> {
    let Some(bytes) = disk.read(PAUSE_FILE)? else { return Ok(Pause::No) };
    Ok(match serde_json::from_slice(&bytes) {
        Ok(Stored { until: Some(end) }) => {
            let left = Duration::from_millis(end.unix_ms.saturating_sub(now.unix_ms)).min(PAUSE_MAX);
            Pause::Until(mono + left)
        }
        Ok(Stored { until: None }) | Err(_) => Pause::UntilResumed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    #[test]
    fn a_pause_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let (wall, mono) = (|unix_ms| Wall { unix_ms }, Mono { ms: 50 });
        assert_eq!(load(&disk, wall(0), mono).unwrap(), Pause::No);
        store(&disk, Some(Duration::from_secs(10)), wall(1000)).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Pause::Until(Mono { ms: 7050 }));
        store(&disk, None, wall(1000)).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Pause::UntilResumed);
        disk.write(PAUSE_FILE, b"{").unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Pause::UntilResumed);
        clear(&disk).unwrap();
        assert_eq!(load(&disk, wall(4000), mono).unwrap(), Pause::No);
    }
}
