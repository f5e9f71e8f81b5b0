//! The timeline's files: one a day, a line for every change of what the agent does. A line that a crash has torn is no
//! line; the next one starts afresh.

use super::HISTORY_FOLDER;
use crate::policy::ReasonKind;
use jiff::{Timestamp, Zoned, civil::Date};
use nightjar_shared::disk::Disk;
use serde::{Deserialize, Serialize};
use std::io;

/// Days whose timeline is kept.
const DAYS_MAX: usize = 92;
/// A day with more changes than this is told in broader strokes.
const ENTRIES_MAX: usize = 512;
/// Longest file that is read: a day's entries at their longest, twice over.
const BYTES_MAX: usize = ENTRIES_MAX * 2048;
/// Longest sentence that is kept, in characters.
const SENTENCE_MAX: usize = 300;
/// A span of the same state begins with other words only after so long: what is said while it fetches or connects comes
/// and goes.
const SETTLE_MS: i64 = 60_000;
/// Says when the agent last ran: milliseconds since the epoch, always in the same number of digits.
const BEAT_FILE: &str = "history/alive";

/// What the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It trains.
    Run,
    /// It may train, and has nothing to train on, or something on this device stands in the way.
    Ready,
    /// It may not, for a reason.
    Hold,
    /// Its owner has paused it.
    Paused,
    /// It does not run, or the computer does not.
    Off,
}

/// From this time on, this is what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub state: State,
    pub kind: Option<ReasonKind>,
    pub sentence: String,
}

impl Entry {
    pub fn new(state: State, kind: Option<ReasonKind>, sentence: &str, now: &Zoned) -> Self {
        let sentence = sentence.chars().take(SENTENCE_MAX).collect();
        Entry { at: now.timestamp().as_millisecond(), state, kind, sentence }
    }

    /// Whether this is the same thing still. That a sentence's figures move on is none, nor is what has just begun to
    /// be said.
    fn goes_on_as(&self, other: &Entry) -> bool {
        let is_told_by_kind = self.kind.is_some_and(|kind| kind != ReasonKind::Program);
        let gist = |entry: &Entry| entry.sentence.replace(|c: char| c.is_ascii_digit(), "");
        (self.state, self.kind) == (other.state, other.kind)
            && (is_told_by_kind || (0..SETTLE_MS).contains(&(other.at - self.at)) || gist(self) == gist(other))
    }
}

/// Where the timeline is written on.
pub(super) struct Timeline {
    date: Date,
    /// The day's entries.
    entries: Vec<Entry>,
    /// Bytes in the day's file.
    length: u64,
}

impl Timeline {
    /// Takes up where the files end: between the last sign of life and now, the agent was off.
    pub fn open(disk: &dyn Disk, now: &Zoned) -> Self {
        let ended = last_beat(disk)
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .map(|at| at.to_zoned(now.time_zone().clone()));
        if let Some(ended) = ended.filter(|ended| ended < now) {
            let mut then = Timeline::of(disk, ended.date());
            let last = then.entries.last();
            if last.is_some_and(|last| last.state != State::Off && last.at <= ended.timestamp().as_millisecond()) {
                // If the disk refuses now it will refuse again, and that is said then.
                let _ = then.append(disk, Entry::new(State::Off, None, "the agent did not run", &ended));
            }
        }
        Timeline::of(disk, now.date())
    }

    fn of(disk: &dyn Disk, date: Date) -> Self {
        let length = disk.length(&file(date)).ok().flatten().unwrap_or(0);
        Timeline { date, entries: read(disk, date), length }
    }

    /// Notes what the agent does from now on, if that is something else than before, or another day.
    pub fn note(&mut self, disk: &dyn Disk, entry: Entry, now: &Zoned) -> io::Result<()> {
        if now.date() != self.date {
            *self = Timeline::of(disk, now.date());
            prune(disk)?;
        }
        if self.entries.last().is_some_and(|last| last.goes_on_as(&entry)) {
            return Ok(());
        }
        self.append(disk, entry)
    }

    fn append(&mut self, disk: &dyn Disk, entry: Entry) -> io::Result<()> {
        let file = file(self.date);
        self.entries.push(entry);
        if self.entries.len() > ENTRIES_MAX {
            self.entries = broader(std::mem::take(&mut self.entries));
            let mut whole = Vec::new();
            for entry in &self.entries {
                whole.extend(line(entry)?);
            }
            disk.write(&file, &whole)?;
            self.length = whole.len() as u64;
            return Ok(());
        }
        let Some(entry) = self.entries.last() else { return Ok(()) };
        let mut bytes = line(entry)?;
        // After a torn line.
        if self.length > 0 && disk.read_at(&file, self.length - 1, 1)? != b"\n" {
            bytes.insert(0, b'\n');
        }
        disk.write_at(&file, self.length, &bytes)?;
        self.length += bytes.len() as u64;
        disk.sync(&file)
    }

    /// Notes that the agent runs at this time. Not synced: after a power cut it may be half a minute off.
    pub fn beat(&self, disk: &dyn Disk, now: &Zoned) -> io::Result<()> {
        disk.write_at(BEAT_FILE, 0, format!("{:015}\n", now.timestamp().as_millisecond().max(0)).as_bytes())
    }
}

fn last_beat(disk: &dyn Disk) -> Option<i64> {
    let bytes = disk.read_at(BEAT_FILE, 0, 16).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn file(date: Date) -> String {
    format!("{HISTORY_FOLDER}/{date}.jsonl")
}

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}

/// A day's entries, in the order of time even where the clock was set back. What is no entry is left out.
pub(super) fn read(disk: &dyn Disk, date: Date) -> Vec<Entry> {
    let bytes = disk.read_at(&file(date), 0, BYTES_MAX).unwrap_or_default();
    let lines = bytes.split(|b| *b == b'\n');
    let mut entries: Vec<Entry> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let mut latest = i64::MIN;
    for entry in &mut entries {
        latest = latest.max(entry.at);
        entry.at = latest;
    }
    entries
}

/// The longer half of the spans, each with what followed it for a shorter time. The newest stays: it is what holds now.
fn broader(entries: Vec<Entry>) -> Vec<Entry> {
    let lengths: Vec<i64> = entries.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    let mut longer = lengths.iter().map(|length| *length > median).chain([true]);
    let mut kept: Vec<Entry> = entries.into_iter().filter(|_| longer.next() == Some(true)).collect();
    kept.dedup_by(|next, before| before.goes_on_as(next));
    kept
}

/// Removes the oldest days.
fn prune(disk: &dyn Disk) -> io::Result<()> {
    for file in days(disk)?.iter().rev().skip(DAYS_MAX) {
        disk.remove(file)?;
    }
    Ok(())
}

/// The files of the timeline, oldest first.
pub fn days(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let names = disk.list(HISTORY_FOLDER)?;
    let days =
        names.into_iter().filter(|name| name.strip_suffix(".jsonl").is_some_and(|day| day.parse::<Date>().is_ok()));
    Ok(days.map(|name| format!("{HISTORY_FOLDER}/{name}")).collect())
}
