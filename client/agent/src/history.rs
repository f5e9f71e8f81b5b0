//! What this device has done, for its owner: a timeline of every day with the reasons for running and holding, figures
//! per day, a ledger of deliveries, and the log. All of it in `history/` and `agent.log`, bounded, through the `Disk`
//! seam.
//!
//! Nothing here decides anything but the month's data cap, and nothing here may stop the agent: what cannot be written
//! is said once in the log, and counted on in memory.

mod day;
pub mod energy;
mod figures;
mod ledger;
mod log;
mod timeline;

pub use day::{DayView, Span};
pub use figures::Figures;
pub use ledger::{Delivery, deliveries};
pub use log::{LOG_FILE, Log, OLD_LOG_FILE, log_lines, log_tail};
pub use timeline::{State, days};

use crate::policy::ReasonKind;
use figures::Months;
use jiff::{Zoned, civil::Date};
use nightjar_shared::{disk::FolderDisk, time::Mono};
use std::{io, sync::Arc, time::Duration};
use timeline::{Entry, Timeline};

/// The folder of all of it, in the home folder.
pub const HISTORY_FOLDER: &str = "history";

/// Figures that changed are written this often: so much is lost when the process is killed.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// The time is noted this often, so that a later start knows when this process ended.
const BEAT_EVERY: Duration = Duration::from_secs(60);

/// The history, as the event loop keeps it.
pub struct History {
    disk: Arc<FolderDisk>,
    timeline: Timeline,
    months: Months,
    next_beat: Mono,
    next_flush: Mono,
    /// The lease whose tokens were counted last, and how many of them.
    counted: (u64, u64),
    /// Whether the disk refused, and that was said.
    troubled: bool,
}

impl History {
    /// Takes up where the files end. What is damaged is put aside, and said.
    pub fn open(disk: Arc<FolderDisk>, now: &Zoned) -> Self {
        let mut history = History {
            timeline: Timeline::open(&*disk, now),
            months: Months::open(&*disk, now),
            disk,
            next_beat: Mono::default(),
            next_flush: Mono::default(),
            counted: (0, 0),
            troubled: false,
        };
        history.counted = history.months.counted();
        history
    }

    /// Notes what the agent does from now on. Called as often as one likes: only changes are written.
    pub fn note(&mut self, state: State, kind: Option<ReasonKind>, sentence: &str, now: &Zoned) {
        let entry = Entry::new(state, kind, sentence, now);
        let written = self.timeline.note(&*self.disk, entry, now);
        self.said(written);
    }

    /// Counts tokens that the worker reports: of a lease taken up again from a checkpoint only those not counted yet.
    pub fn trained(&mut self, lease: u64, tokens: u64, now: &Zoned) {
        let before = if self.counted.0 == lease { self.counted.1 } else { 0 };
        if tokens > before {
            self.months.today(&*self.disk, now).tokens += tokens - before;
            self.counted = (lease, tokens);
            self.months.count(self.counted);
        } else if self.counted.0 != lease {
            self.counted = (lease, tokens);
        }
    }

    /// Counts a delivery and writes it to the ledger.
    pub fn delivered(&mut self, delivery: &Delivery, now: &Zoned) {
        if delivery.kind.trains() {
            let today = self.months.today(&*self.disk, now);
            today.deltas += 1;
            today.merged += u64::from(delivery.merged);
        }
        let written = ledger::append(&*self.disk, delivery);
        self.said(written);
    }

    /// Counts bytes that went over the network.
    pub fn moved(&mut self, up: u64, down: u64, now: &Zoned) {
        if up + down > 0 {
            let today = self.months.today(&*self.disk, now);
            today.bytes_up += up;
            today.bytes_down += down;
        }
    }

    /// Counts bytes that were written to the disk.
    pub fn wrote(&mut self, bytes: u64, now: &Zoned) {
        if bytes > 0 {
            let today = self.months.today(&*self.disk, now);
            today.bytes_written = today.bytes_written.saturating_add(bytes);
        }
    }

    /// Counts energy, in joules.
    pub fn used(&mut self, energy: energy::Joules, now: &Zoned) {
        if energy.measured + energy.estimated > 0.0 {
            self.months.used(&*self.disk, energy, now);
        }
    }

    /// Time passes: writes what is due.
    pub fn tick(&mut self, now: &Zoned, mono: Mono) {
        if mono >= self.next_beat {
            self.next_beat = mono + BEAT_EVERY;
            let written = self.timeline.beat(&*self.disk, now);
            self.said(written);
        }
        if mono >= self.next_flush && self.months.is_dirty() {
            self.next_flush = mono + FLUSH_EVERY;
            self.flush();
        }
    }

    /// Writes the figures.
    pub fn flush(&mut self) {
        let written = self.months.flush(&*self.disk);
        self.said(written);
    }

    /// The agent ends.
    pub fn close(&mut self, now: &Zoned) {
        self.note(State::Off, None, "the agent was ended", now);
        self.flush();
    }

    /// Bytes up and down in this calendar month.
    pub fn data_this_month(&mut self, now: &Zoned) -> u64 {
        self.months.data_in(&*self.disk, now.date())
    }

    /// What was done today.
    pub fn today(&self, now: &Zoned) -> Figures {
        self.months.of(&*self.disk, now.date()).figures()
    }

    /// What was done ever.
    pub fn totals(&self) -> Figures {
        self.months.totals().figures()
    }

    /// A day's timeline and figures; without a date, today's.
    pub fn day(&self, date: Option<Date>, now: &Zoned) -> DayView {
        let date = date.unwrap_or_else(|| now.date());
        let entries = timeline::read(&*self.disk, date);
        day::view(date, &entries, self.months.of(&*self.disk, date).figures(), now)
    }

    /// A disk that refuses is mentioned once, until it works again.
    fn said(&mut self, written: io::Result<()>) {
        if let Err(e) = &written
            && !self.troubled
        {
            tracing::warn!("the history cannot be written ({e}); it goes on in memory");
        }
        self.troubled = written.is_err();
    }
}

#[cfg(test)]
mod tests;
