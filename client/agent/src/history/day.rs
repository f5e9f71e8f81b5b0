//! A day as the page draws it: from its first instant to its last, in spans of one state each.

use super::{
    Figures,
    timeline::{Entry, State},
};
use crate::{
    control::timestamp,
    policy::{Cause, ReasonKind},
};
use jiff::{Timestamp, Zoned, civil::Date};
use serde::{Deserialize, Serialize};

/// One day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DayView {
    /// Which, as `2026-11-24`.
    pub day: String,
    /// Its first instant: RFC 3339 with the local offset. A day may have 23 or 25 hours.
    pub from: String,
    /// The first instant of the next.
    pub to: String,
    /// What the agent did, in order, without gaps from the first on; the newest of today ends now.
    pub spans: Vec<Span>,
    /// What came of it.
    pub totals: Figures,
}

/// A time in which the agent did one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its first instant.
    pub from: String,
    /// Its end.
    pub to: String,
    /// What the agent did.
    pub state: State,
    /// Why it held.
    pub kind: Option<ReasonKind>,
    /// What that was for; `None` where it did not hold.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// The same in words.
    pub sentence: String,
}

pub(super) fn view(day: Date, entries: &[Entry], totals: Figures, now: &Zoned) -> DayView {
    let zone = now.time_zone();
    let start = |date: Date| date.to_zoned(zone.clone()).map(|at| at.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
    let (from, to) = (start(day), day.tomorrow().map_or(Timestamp::MAX, start));
    let end = to.min(now.timestamp()).max(from);
    let at = |entry: &Entry| Timestamp::from_millisecond(entry.at).unwrap_or(from).clamp(from, end);
    let show = |at: Timestamp| timestamp(&at.to_zoned(zone.clone()));
    let ends = entries.iter().skip(1).map(at).chain([end]);
    let spans = entries.iter().zip(ends).filter(|(entry, until)| at(entry) < *until).map(|(entry, until)| Span {
        from: show(at(entry)),
        to: show(until),
        state: entry.state,
        kind: entry.kind,
        cause: cause(entry),
        sentence: entry.sentence.clone(),
    });
    DayView { day: day.to_string(), from: show(from), to: show(to), spans: spans.collect(), totals }
}

/// What a hold was for. Where no reason was noted, it was the computer's.
fn cause(entry: &Entry) -> Option<Cause> {
    match entry.state {
        State::Run | State::Ready | State::Off => None,
        State::Hold | State::Paused => Some(entry.kind.map_or(Cause::Machine, |kind| kind.row().cause)),
    }
}
