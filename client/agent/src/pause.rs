//! The owner's word for now, kept over restarts as `pause.json`: a pause, or "run now", and until when. By the calendar
//! on the disk, by monotonic time in the process.

use crate::policy::Override;
use nightjar_shared::{
    disk::Disk,
    time::{Mono, Wall},
};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// The file.
pub const PAUSE_FILE: &str = "pause.json";
/// Longest pause with an end, and longest "run now"; a jump of the calendar's clock can make none longer.
pub const PAUSE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Serialize, Deserialize)]
struct Stored {
    /// When it was said, which bounds its length: a clock that shows less than this is behind. Older versions did not
    /// say.
    #[serde(default)]
    said: Option<Wall>,
    /// `None`: until resumed.
    until: Option<Wall>,
    /// Whether it is the opposite of a pause.
    #[serde(default)]
    run_now: bool,
}

/// Writes a pause of this length, or one until resumed. It replaces "run now".
pub fn store(disk: &dyn Disk, length: Option<Duration>, now: Wall) -> io::Result<()> {
    write(disk, length, now, false).map(drop)
}

/// Writes a "run now" of this length, or one until resumed. It replaces a pause.
pub fn store_run_now(disk: &dyn Disk, length: Option<Duration>, now: Wall) -> io::Result<()> {
    write(disk, length, now, true).map(drop)
}

fn write(disk: &dyn Disk, length: Option<Duration>, now: Wall, run_now: bool) -> io::Result<Vec<u8>> {
    let until = length.map(|l| Wall { unix_ms: now.unix_ms.saturating_add(l.min(PAUSE_MAX).as_millis() as u64) });
    let bytes = serde_json::to_vec(&Stored { said: Some(now), until, run_now })?;
    disk.write(PAUSE_FILE, &bytes).map(|()| bytes)
}

/// Ends the pause, or the "run now".
pub fn clear(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(PAUSE_FILE)
}

/// The owner's word as an agent keeps it: in memory by monotonic time, and on the disk for the next start. Others may
/// write the file too, while the agent does not answer them.
pub struct OwnersWord {
    says: Override,
    /// The file as it was read or written last.
    bytes: Option<Vec<u8>>,
    /// Whether the clock was behind when the file was read: then its end is not known before the clock is set.
    is_guess: bool,
    is_kept: bool,
    is_damaged: bool,
}

impl OwnersWord {
    /// What the disk knows.
    pub fn open(disk: &dyn Disk, wall: Wall, mono: Mono) -> io::Result<Self> {
        let mut word =
            OwnersWord { says: Override::No, bytes: None, is_guess: false, is_kept: true, is_damaged: false };
        word.read(disk.read(PAUSE_FILE)?, wall, mono);
        Ok(word)
    }

    /// What is in force.
    pub fn says(&self) -> Override {
        self.says
    }

    /// Whether the next start will know it.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether what is on the disk is no word of anybody's, and so a pause.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Another word, in force from now on. [`OwnersWord::keep`] is what makes it last.
    pub fn say(&mut self, word: Override) {
        (self.says, self.is_guess, self.is_damaged) = (word, false, false);
    }

    /// Writes it for the next start.
    pub fn keep(&mut self, disk: &dyn Disk, wall: Wall, mono: Mono) -> io::Result<()> {
        let left = |end: Option<Mono>| end.map(|end| end.since(mono));
        let written = match self.says {
            Override::No => clear(disk).map(|()| None),
            Override::Pause(end) => write(disk, left(end), wall, false).map(Some),
            Override::RunNow(end) => write(disk, left(end), wall, true).map(Some),
        };
        self.is_kept = written.is_ok();
        self.bytes = written?;
        Ok(())
    }

    /// Ends it once its time is over, and takes up what somebody else has written; says whether it is another word now.
    pub fn look(&mut self, disk: &dyn Disk, wall: Wall, mono: Mono) -> bool {
        let before = self.says;
        // One that cannot be read now stays as it was.
        if let Ok(bytes) = disk.read(PAUSE_FILE)
            && bytes != self.bytes
        {
            self.read(bytes, wall, mono);
        }
        if end(self.says).is_some_and(|end| end <= mono) {
            self.say(Override::No);
            // One that stays on the disk is over by its own time.
            let _ = self.keep(disk, wall, mono);
        }
        self.says != before
    }

    /// The calendar's clock was set, to `wall`: what was said goes on by monotonic time, what was read under a clock
    /// that was behind is read again.
    pub fn clock_was_set(&mut self, disk: &dyn Disk, wall: Wall, mono: Mono) {
        if self.is_damaged {
            return; // Nothing is better than a word that nobody has said.
        }
        if !self.is_guess {
            let _ = self.keep(disk, wall, mono); // else the next start reckons with the old clock
            return;
        }
        let guessed = end(self.says);
        self.read(self.bytes.clone(), wall, mono);
        // However often the clock is set, it does not begin anew.
        self.says = match self.says {
            Override::No => Override::No,
            Override::Pause(end) => Override::Pause(end.min(guessed)),
            Override::RunNow(end) => Override::RunNow(end.min(guessed)),
        };
    }

    /// A damaged file counts as a pause: of the two, it is the one that does no harm.
    fn read(&mut self, bytes: Option<Vec<u8>>, wall: Wall, mono: Mono) {
        let stored = bytes.as_ref().map(|bytes| serde_json::from_slice::<Stored>(bytes));
        (self.bytes, self.is_kept, self.is_damaged) = (bytes, true, matches!(stored, Some(Err(_))));
        (self.says, self.is_guess) = match stored {
            None => (Override::No, false),
            Some(Err(_)) => (Override::Pause(None), false),
            Some(Ok(stored)) => {
                let is_behind = stored.said.is_some_and(|said| wall < said);
                let until = stored.until.map(|end| mono + left(end, stored.said, wall));
                (if stored.run_now { Override::RunNow(until) } else { Override::Pause(until) }, is_behind)
            }
        };
    }
}

fn left(end: Wall, said: Option<Wall>, now: Wall) -> Duration {
    let since = |from: Wall| Duration::from_millis(end.unix_ms.saturating_sub(from.unix_ms)).min(PAUSE_MAX);
    said.map_or(PAUSE_MAX, since).min(since(now))
}

fn end(word: Override) -> Option<Mono> {
    match word {
        Override::No => None,
        Override::Pause(end) | Override::RunNow(end) => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    fn wall(s: u64) -> Wall {
        Wall { unix_ms: s * 1000 }
    }

    fn at(s: u64) -> Mono {
        Mono { ms: s * 1000 }
    }

    fn load(disk: &FolderDisk, s: u64) -> Override {
        OwnersWord::open(disk, wall(s), at(50)).unwrap().says()
    }

    fn disk() -> (tempfile::TempDir, FolderDisk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        (folder, disk)
    }

    const TEN: Option<Duration> = Some(Duration::from_secs(10));

    #[test]
    fn the_owners_word_survives_a_restart() {
        let (_folder, disk) = disk();
        assert_eq!(load(&disk, 0), Override::No);
        store(&disk, TEN, wall(1)).unwrap();
        assert_eq!(load(&disk, 4), Override::Pause(Some(at(57))));
        store_run_now(&disk, TEN, wall(1)).unwrap();
        assert_eq!(load(&disk, 4), Override::RunNow(Some(at(57))));
        store(&disk, None, wall(1)).unwrap();
        assert_eq!(load(&disk, 4), Override::Pause(None));
        disk.write(PAUSE_FILE, br#"{"until":null}"#).unwrap();
        assert_eq!(load(&disk, 4), Override::Pause(None), "as an older version wrote it");
        disk.write(PAUSE_FILE, b"{").unwrap();
        assert_eq!(load(&disk, 4), Override::Pause(None));
        let mut word = OwnersWord::open(&disk, wall(4), at(50)).unwrap();
        assert!(word.is_damaged());
        word.say(Override::No);
        assert!(!word.is_damaged());
        clear(&disk).unwrap();
        assert_eq!(load(&disk, 4), Override::No);
    }

    /// An agent that is busy, or just starting, answers nobody; what was noted beside it counts all the same.
    #[test]
    fn what_somebody_else_writes_is_taken_up_once() {
        let (_folder, disk) = disk();
        let mut word = OwnersWord::open(&disk, wall(1), at(50)).unwrap();
        store(&disk, TEN, wall(1)).unwrap();
        assert!(word.look(&disk, wall(2), at(51)));
        assert_eq!(word.says(), Override::Pause(Some(at(60))));
        assert!(!word.look(&disk, wall(4), at(53)));
        word.say(Override::RunNow(None));
        word.keep(&disk, wall(4), at(53)).unwrap();
        assert!(!word.look(&disk, wall(5), at(54)), "that was its own hand");
        word.say(Override::Pause(Some(at(56))));
        word.keep(&disk, wall(5), at(54)).unwrap();
        assert!(word.look(&disk, wall(7), at(56)), "its time is over");
        assert_eq!((word.says(), load(&disk, 7)), (Override::No, Override::No));
    }

    /// A computer without a battery for its clock starts in 1970.
    #[test]
    fn a_clock_that_is_behind_makes_no_year_of_an_hour_and_is_put_right() {
        let (_folder, disk) = disk();
        store_run_now(&disk, TEN, wall(1000)).unwrap();
        let mut word = OwnersWord::open(&disk, wall(0), at(50)).unwrap();
        assert_eq!(word.says(), Override::RunNow(Some(at(60))));
        word.clock_was_set(&disk, wall(0), at(53));
        assert_eq!(word.says(), Override::RunNow(Some(at(60))), "it does not begin anew");
        word.clock_was_set(&disk, wall(1008), at(55));
        assert_eq!(word.says(), Override::RunNow(Some(at(57))));
        let mut word = OwnersWord::open(&disk, wall(0), at(50)).unwrap();
        word.clock_was_set(&disk, wall(2000), at(51));
        assert!(word.look(&disk, wall(2001), at(52)) && word.says() == Override::No, "it was over long ago");
    }

    #[test]
    fn what_was_said_here_goes_on_when_the_clock_is_set_and_over_the_next_start() {
        let (_folder, disk) = disk();
        let mut word = OwnersWord::open(&disk, wall(0), at(50)).unwrap();
        word.say(Override::Pause(Some(at(60))));
        word.keep(&disk, wall(0), at(50)).unwrap();
        word.clock_was_set(&disk, wall(5000), at(52));
        assert_eq!(word.says(), Override::Pause(Some(at(60))));
        assert_eq!(load(&disk, 5001), Override::Pause(Some(at(57))));
    }

    /// On a full disk a pause is a pause still.
    #[test]
    fn a_word_that_cannot_be_kept_counts_until_the_end() {
        let (folder, disk) = disk();
        let mut word = OwnersWord::open(&disk, wall(0), at(50)).unwrap();
        // In the way of the file that a write begins with.
        std::fs::create_dir(folder.path().join(format!("{PAUSE_FILE}.new"))).unwrap();
        word.say(Override::Pause(None));
        word.keep(&disk, wall(0), at(50)).unwrap_err();
        assert!(!word.look(&disk, wall(1), at(51)));
        assert_eq!((word.says(), word.is_kept()), (Override::Pause(None), false));
    }
}
