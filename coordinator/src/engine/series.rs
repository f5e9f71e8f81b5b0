//! Series: rounds from weights that an operator gives, so many in a row and no more, in a run whose `lease.pacing` says
//! so. Between two series nobody trains.
//!
//! The weights become a version of their own, of a keyframe and no update; merging begins anew from them. What is on
//! its way from other weights counts for nothing: leases end, and deltas that wait for a version are dropped. The series
//! is over with its last version, whose checkpoint has the answer: the weights as they were given, to the bit, plus what
//! its rounds make of them ([`super::merge::Merger::wanted`]).

use super::{
    Engine,
    orders::{NotDone, Obeyed},
    record::{LeaseOutcome, Record, SeriesRecord, VersionRecord},
    turn::Turn,
};
use nightjar_shared::{blob::BlobRef, ids::Version, time::Mono, wire::limits};
use std::time::Duration;

/// Rounds of a series, at most.
pub const ROUNDS_MAX: u32 = 1000;
/// Longest name of a series, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A device that finds no series asks again after this share of the time since the last one, or of a round where that
/// is less, and at most after a minute: soon in a run that is busy, and in time for most of the next round.
const AGAIN_SHARE: f64 = 0.25;
const AGAIN_S_MAX: f64 = 60.0;

/// The newest series, at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesStatus {
    /// As it stands in the ledger.
    pub record: SeriesRecord,
    /// Versions made of it, without the first; `None`: the first is not there yet.
    pub rounds_done: Option<u32>,
    /// Whether its last version is there.
    pub is_over: bool,
    /// Deltas up to this one are in its versions so far.
    pub through_seq: u64,
}

impl Engine {
    /// Begins a series. Asked for again under the same name, it is not begun again.
    pub(super) fn begin_series(
        &mut self,
        name: &str,
        weights: BlobRef,
        rounds: u32,
        turn: &mut Turn,
    ) -> Result<Obeyed, NotDone> {
        if !self.spec.has_series() {
            return Err(NotDone::NoSeries);
        }
        if let Some(known) = self.series.as_ref().filter(|known| known.name == name) {
            let told = format!("series {} was begun already", known.number);
            return if known.weights == weights {
                Ok(Obeyed { told, ..Obeyed::default() })
            } else {
                Err(NotDone::OtherSeries)
            };
        }
        let Some(newest) = self.versions.newest() else { return Err(NotDone::TooEarly) };
        if self.finished() && rounds > 0 {
            return Err(NotDone::Over);
        }
        // The same weights again, as after their evaluation: devices that have them need not fetch them again.
        let are_there = self.publishing.is_none() && newest.given == Some(weights) && self.buffered() == 0;
        let first = if are_there { newest.version } else { self.publishing.unwrap_or(newest.version).next() };
        let number = self.series.as_ref().map_or(0, |known| known.number) + 1;
        let left_out = self.call_back(turn) + self.buffered();
        self.note_series(
            SeriesRecord {
                number,
                name: name.to_owned(),
                weights,
                first,
                rounds,
                is_cut: false,
                after_seq: self.last_seq,
                left_out,
                begun_at: self.wall,
            },
            turn,
        );
        Ok(Obeyed { told: format!("series {number} begins with version {first}"), ..Obeyed::default() })
    }

    /// Ends the newest series with whatever is there.
    pub(super) fn cut_series(&mut self, name: &str, now: Mono, turn: &mut Turn) -> Result<Obeyed, NotDone> {
        let Some(series) = self.series.clone().filter(|series| series.name == name) else {
            return Err(NotDone::NoSuchSeries(limits::tame(name)));
        };
        if self.series_is_over() {
            return Ok(Obeyed { told: format!("series {} was over already", series.number), ..Obeyed::default() });
        }
        let rounds = if self.last_seq == series.after_seq {
            0
        } else {
            // A version that is being made is none with a checkpoint: one more is made, of whatever came meanwhile.
            let newest = self.publishing.or(self.versions.newest().map(|v| v.version)).unwrap_or_default();
            u32::try_from(newest.next().0.saturating_sub(series.first.0)).unwrap_or(series.rounds).min(series.rounds)
        };
        let left_out = series.left_out + self.call_back(turn);
        let told = format!("series {} ends after {rounds} of {} rounds", series.number, series.rounds);
        self.note_series(SeriesRecord { rounds, is_cut: true, left_out, ..series }, turn);
        self.idle_since = now;
        Ok(Obeyed { told, ..Obeyed::default() })
    }

    /// A version of a series was made: with the last, all that is still on its way ends.
    pub(super) fn series_went_on(&mut self, now: Mono, turn: &mut Turn) {
        let Some(series) = self.series.clone().filter(|_| self.spec.has_series()) else { return };
        if self.finished() && !self.series_is_over() {
            // Nobody trains any more.
            let _ = self.cut_series(&series.name, now, turn);
        } else if self.series_is_over() {
            self.idle_since = now;
            let late = self.call_back(turn);
            if late > 0 {
                self.note_series(SeriesRecord { left_out: series.left_out + late, ..series }, turn);
            }
        }
    }

    fn note_series(&mut self, series: SeriesRecord, turn: &mut Turn) {
        turn.records.push(Record::Series(series.clone()));
        self.series = Some(series);
    }

    /// Ends all leases to train; how many those were.
    fn call_back(&mut self, turn: &mut Turn) -> u64 {
        let leases = self.leases.training();
        for id in &leases {
            self.close(*id, LeaseOutcome::Returned, 0, turn);
        }
        leases.len() as u64
    }

    /// Whether the next version, in a run of series, is due after `newest`.
    pub(super) fn series_is_due(&self, newest: Version, buffered: u64, now: Mono) -> bool {
        let Some(series) = &self.series else { return false };
        series.first > newest || newest < series.last() && (series.is_cut || self.round_is_complete(buffered, now))
    }

    /// What a version is to be made of, if that is given.
    pub(super) fn given(&self, version: Version) -> Option<BlobRef> {
        self.series.as_ref().filter(|series| series.first == version).map(|series| series.weights)
    }

    /// Whether a version is one whose checkpoint is asked for.
    pub(super) fn ends_series(&self, version: Version) -> bool {
        self.series.as_ref().is_some_and(|series| series.last() == version)
    }

    pub(super) fn series_is_over(&self) -> bool {
        let newest = self.versions.newest().map(|v| v.version);
        self.series.as_ref().zip(newest).is_some_and(|(series, newest)| newest >= series.last())
    }

    /// After how long a device may ask again, if there is no round to train in.
    pub(super) fn idle(&self, now: Mono) -> Option<Duration> {
        let trains = || self.series.is_some() && !self.series_is_over();
        let wait_s = || {
            let round_s = self.spec.lease.wall_s_at(self.progress());
            (AGAIN_SHARE * now.since(self.idle_since).as_secs_f64().min(round_s)).clamp(1.0, AGAIN_S_MAX)
        };
        (self.spec.has_series() && !trains()).then(|| Duration::from_secs_f64(wait_s()))
    }

    /// The newest series at a glance.
    pub(super) fn series_status(&self) -> Option<SeriesStatus> {
        let record = self.series.clone()?;
        let newest: Option<&VersionRecord> = self.versions.newest();
        let made = newest.and_then(|v| v.version.0.checked_sub(record.first.0));
        Some(SeriesStatus {
            rounds_done: made.map(|made| u32::try_from(made).unwrap_or(u32::MAX).min(record.rounds)),
            is_over: self.series_is_over(),
            through_seq: newest.map_or(0, |v| v.through_seq).max(record.after_seq),
            record,
        })
    }
}
