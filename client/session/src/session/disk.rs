//! A disk that refuses: it is full, read-only or broken. The session begins nothing that needs it and gives nothing
//! away that is not in the journal; it keeps what it has, and tries again by writing the journal, ever more slowly.

use super::{Action, Report, Session, Timer, Worker};
use nightjar_shared::time::Mono;
use std::time::Duration;

/// The disk is tried again after this time, then after twice as long, and so on.
const TRY_FIRST: Duration = Duration::from_secs(5);
/// It is never left untried for longer.
const TRY_MAX: Duration = Duration::from_secs(60);

/// What is known of the disk.
#[derive(Debug, Default)]
pub(super) struct DiskState {
    /// What it said when it refused; empty: it works, as far as is known.
    why: String,
    /// Whether the journal in memory is another than the one on the disk.
    unstored: bool,
    /// Whether the journal is being written to find out.
    trying: bool,
    /// How often it refused since something was done that needed it.
    refusals: u32,
}

impl Session {
    /// What the disk says while it refuses, and when it is tried again.
    pub fn disk_refuses(&self) -> Option<(&str, Option<Mono>)> {
        (!self.disk.why.is_empty()).then(|| (self.disk.why.as_str(), self.timers.at(Timer::Disk)))
    }

    pub(super) fn disk_works(&self) -> bool {
        self.disk.why.is_empty()
    }

    /// Whether all that was decided is on the disk.
    pub(super) fn is_stored(&self) -> bool {
        !self.disk.unstored
    }

    /// Something was done that needed the disk.
    pub(super) fn disk_served(&mut self) {
        self.disk.refusals = 0;
    }

    /// The disk refused something that can be done again.
    pub(super) fn disk_refused(&mut self, why: String, now: Mono, out: &mut Vec<Action>) {
        let why = why.trim_end_matches('.').to_owned();
        if self.disk.why != why {
            out.push(Action::Report(Report::Trouble(why.clone())));
        }
        self.disk.why = why;
        self.disk.trying = false;
        let wait = TRY_FIRST.saturating_mul(1 << self.disk.refusals.min(8)).min(TRY_MAX);
        self.disk.refusals = self.disk.refusals.saturating_add(1);
        self.timers.set(Timer::Disk, now + wait);
    }

    /// The journal could not be written, so what was to come after it did not happen.
    pub(super) fn journal_refused(&mut self, why: String, now: Mono, out: &mut Vec<Action>) {
        self.disk.unstored = true;
        self.disk_refused(why, now, out);
        // An answer to what was asked before finds nothing open; it is asked again.
        self.line.asked = None;
        self.timers.clear(Timer::Answer);
        self.stage.stop_travel();
        if self.worker() == Worker::Busy {
            self.end_worker(out);
        }
    }

    /// It is time to try.
    pub(super) fn try_disk(&mut self, now: Mono, out: &mut Vec<Action>) {
        self.disk.trying = true;
        out.push(Action::WriteJournal(Box::new(self.journal.clone())));
        // Whatever is heard next, if it is not a refusal, means that it worked.
        self.timers.set(Timer::Disk, now);
    }

    /// Nothing was said against the attempt.
    pub(super) fn disk_tried(&mut self) {
        if std::mem::take(&mut self.disk.trying) {
            self.disk.why.clear();
            self.disk.unstored = false;
            self.timers.clear(Timer::Disk);
        }
    }
}
