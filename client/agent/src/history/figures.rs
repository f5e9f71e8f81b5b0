//! Figures per day, one file a month, so that the month's data and all-time totals need no more than the newest file.

use super::{HISTORY_FOLDER, energy::Joules};
use jiff::{Zoned, civil::Date};
use nightjar_shared::disk::Disk;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, ops::AddAssign};

/// Months whose figures are kept day by day.
const MONTHS_MAX: usize = 36;

/// What was done in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Tokens trained on.
    pub tokens: u64,
    /// Deltas that the coordinator acknowledged.
    pub deltas: u64,
    /// Those of them that count in the model.
    pub merged: u64,
    /// Energy that training took, in joules.
    pub energy_joules: f64,
    /// Whether all of it was measured; else part of it is an estimate.
    pub energy_measured: bool,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// Bytes that training wrote to the disk.
    #[serde(default)]
    pub bytes_written: u64,
}

/// The same as it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sums {
    pub tokens: u64,
    pub deltas: u64,
    pub merged: u64,
    pub measured_joules: f64,
    pub estimated_joules: f64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub bytes_written: u64,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.deltas = self.deltas.saturating_add(other.deltas);
        self.merged = self.merged.saturating_add(other.merged);
        self.measured_joules += other.measured_joules;
        self.estimated_joules += other.estimated_joules;
        self.bytes_up = self.bytes_up.saturating_add(other.bytes_up);
        self.bytes_down = self.bytes_down.saturating_add(other.bytes_down);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
    }
}

impl Sums {
    /// What is left without these.
    fn without(self, other: Sums) -> Sums {
        Sums {
            tokens: self.tokens.saturating_sub(other.tokens),
            deltas: self.deltas.saturating_sub(other.deltas),
            merged: self.merged.saturating_sub(other.merged),
            measured_joules: (self.measured_joules - other.measured_joules).max(0.0),
            estimated_joules: (self.estimated_joules - other.estimated_joules).max(0.0),
            bytes_up: self.bytes_up.saturating_sub(other.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(other.bytes_down),
            bytes_written: self.bytes_written.saturating_sub(other.bytes_written),
        }
    }

    /// Of each the larger.
    fn at_least(self, other: Sums) -> Sums {
        Sums {
            tokens: self.tokens.max(other.tokens),
            deltas: self.deltas.max(other.deltas),
            merged: self.merged.max(other.merged),
            measured_joules: self.measured_joules.max(other.measured_joules),
            estimated_joules: self.estimated_joules.max(other.estimated_joules),
            bytes_up: self.bytes_up.max(other.bytes_up),
            bytes_down: self.bytes_down.max(other.bytes_down),
            bytes_written: self.bytes_written.max(other.bytes_written),
        }
    }

    pub fn figures(self) -> Figures {
        Figures {
            tokens: self.tokens,
            deltas: self.deltas,
            merged: self.merged,
            energy_joules: self.measured_joules + self.estimated_joules,
            energy_measured: self.measured_joules > 0.0 && self.estimated_joules == 0.0,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            bytes_written: self.bytes_written,
        }
    }
}

/// A month's file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Month {
    /// All that was done in other months, as far as it was known when this one was begun or taken up again.
    before: Sums,
    /// By date, as `2026-11-24`.
    days: BTreeMap<String, Sums>,
    /// The lease whose tokens were counted last, and how many of them.
    counted: (u64, u64),
}

impl Month {
    fn total(&self) -> Sums {
        let mut total = self.of_days();
        total += self.before;
        total
    }

    fn of_days(&self) -> Sums {
        self.days.values().fold(Sums::default(), |mut sum, day| {
            sum += *day;
            sum
        })
    }

    /// The same, taken up after another month. What was done in all never becomes less, whichever way the clock was
    /// set.
    fn after(self, other: &Month) -> Month {
        let before = self.before.at_least(other.total().without(self.of_days()));
        Month { before, counted: other.counted, ..self }
    }
}

/// The month at hand. Others are read where they are asked for.
pub(super) struct Months {
    /// Its first day.
    first: Date,
    month: Month,
    dirty: bool,
    /// Months that ended before they were written, by their first days.
    ended: BTreeMap<Date, Month>,
}

impl Months {
    pub fn open(disk: &dyn Disk, now: &Zoned) -> Self {
        let first = now.date().first_of_month();
        let month = read(disk, first).unwrap_or_else(|| {
            // All of them, for a clock that was wrong may have been ahead in one.
            let names = disk.list(HISTORY_FOLDER).unwrap_or_default();
            let months =
                names.iter().filter_map(|name| format!("{}-01", name.strip_suffix(".json")?).parse::<Date>().ok());
            months.filter_map(|month| read(disk, month)).fold(Month::default(), |month, other| month.after(&other))
        });
        Months { first, month, dirty: false, ended: BTreeMap::new() }
    }

    /// The sums that today's doings are added to.
    pub fn today(&mut self, disk: &dyn Disk, now: &Zoned) -> &mut Sums {
        let date = now.date();
        self.turn_to(disk, date);
        self.dirty = true;
        self.month.days.entry(date.to_string()).or_default()
    }

    /// Another month begins, or goes on where the clock was set.
    fn turn_to(&mut self, disk: &dyn Disk, date: Date) {
        let first = date.first_of_month();
        if first == self.first {
            return;
        }
        let known = self.ended.remove(&first).or_else(|| read(disk, first)).unwrap_or_default();
        let next = known.after(&self.month);
        let ended = std::mem::replace(&mut self.month, next);
        if std::mem::replace(&mut self.dirty, true) {
            self.ended.insert(self.first, ended);
        }
        self.first = first;
    }

    pub fn used(&mut self, disk: &dyn Disk, energy: Joules, now: &Zoned) {
        let today = self.today(disk, now);
        today.measured_joules += energy.measured;
        today.estimated_joules += energy.estimated;
    }

    pub fn counted(&self) -> (u64, u64) {
        self.month.counted
    }

    pub fn count(&mut self, counted: (u64, u64)) {
        self.month.counted = counted;
    }

    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub fn flush(&mut self, disk: &dyn Disk) -> io::Result<()> {
        while let Some(ended) = self.ended.first_entry() {
            write(disk, *ended.key(), ended.get())?;
            ended.remove();
            prune(disk)?;
        }
        if self.dirty {
            write(disk, self.first, &self.month)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// A day's sums.
    pub fn of(&self, disk: &dyn Disk, date: Date) -> Sums {
        let first = date.first_of_month();
        if first == self.first {
            return self.month.days.get(&date.to_string()).copied().unwrap_or_default();
        }
        read(disk, first).and_then(|month| month.days.get(&date.to_string()).copied()).unwrap_or_default()
    }

    /// Bytes up and down in the month of today's date.
    pub fn data_in(&mut self, disk: &dyn Disk, today: Date) -> u64 {
        self.turn_to(disk, today);
        self.month.days.values().map(|day| day.bytes_up + day.bytes_down).sum()
    }

    pub fn totals(&self) -> Sums {
        self.month.total()
    }
}

fn file(first: Date) -> String {
    format!("{HISTORY_FOLDER}/{}.json", first.strftime("%Y-%m"))
}

fn write(disk: &dyn Disk, first: Date, month: &Month) -> io::Result<()> {
    disk.write(&file(first), &serde_json::to_vec(month)?)
}

/// A month's file; one that is damaged is put aside.
fn read(disk: &dyn Disk, first: Date) -> Option<Month> {
    let file = file(first);
    let bytes = disk.read(&file).ok()??;
    match serde_json::from_slice(&bytes) {
        Ok(month) => Some(month),
        Err(e) => {
            tracing::warn!("{file} is damaged ({e}); its figures start at zero, and it is kept as {file}.damaged");
            // Where that fails, it is damaged still at the next start.
            let _ = disk.rename(&file, &format!("{file}.damaged"));
            None
        }
    }
}

/// Removes the oldest months.
fn prune(disk: &dyn Disk) -> io::Result<()> {
    let names = disk.list(HISTORY_FOLDER)?;
    let months: Vec<_> = names.into_iter().filter(|name| name.ends_with(".json")).collect();
    for name in months.iter().rev().skip(MONTHS_MAX) {
        disk.remove(&format!("{HISTORY_FOLDER}/{name}"))?;
    }
    Ok(())
}
