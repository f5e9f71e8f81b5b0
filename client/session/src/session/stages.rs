//! How far each of the session's parts is: the lease at hand, the worker, and the line to the coordinator.

use super::Training;
use crate::journal::Journal;
use nightjar_shared::{ids::LeaseId, time::Mono};

/// How far the lease at hand is. The journal has a lease in all stages but [`Stage::Idle`], and a delta in
/// [`Stage::Delivering`] only.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// There is none.
    Idle,
    /// Its blobs are fetched, one after the other. Once all are there it waits for a worker.
    Fetching {
        /// Blobs that are on the disk, counted in the order of `Lease::blobs`.
        fetched: usize,
        /// Whether the next one is on its way.
        underway: bool,
    },
    /// A worker trains or measures.
    Working {
        /// Whether it was told to finish its step and report.
        stopping: bool,
    },
    /// It was trained: its delta goes up and is offered.
    Delivering { upload: Upload },
    /// Its version was measured: the result is to be told.
    Measured { nats: f64, tokens: u64 },
    /// It is to be given back.
    Returning { why: String },
}

impl Stage {
    /// With nothing of the lease's on the disk, as far as is known.
    pub fn begin() -> Self {
        Stage::Fetching { fetched: 0, underway: false }
    }

    /// Where a journal leaves off.
    pub fn of(journal: &Journal) -> Self {
        match (&journal.lease, &journal.delta) {
            (None, _) => Stage::Idle,
            (Some(_), None) => Stage::begin(),
            (Some(_), Some(_)) => Stage::Delivering { upload: Upload::Unasked },
        }
    }

    /// The link broke, or the disk refused: whatever was travelling starts again.
    pub fn stop_travel(&mut self) {
        match self {
            Stage::Fetching { underway, .. } => *underway = false,
            // The offer will tell how much of the delta arrived.
            Stage::Delivering { upload } => *upload = Upload::Unasked,
            Stage::Idle | Stage::Working { .. } | Stage::Measured { .. } | Stage::Returning { .. } => {}
        }
    }
}

/// Where the pending delta's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// The coordinator may have them: the offer will tell.
    Unasked,
    Wanted,
    Underway,
}

/// How the work on the lease at hand goes; it lasts as long as the lease.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Since when somebody may have trained for it; `None`: since an earlier process.
    pub since: Option<Mono>,
    /// Whether a worker may have trained under it: then it is worth keeping through a hold.
    pub begun: bool,
    /// How far the worker came.
    pub training: Training,
}

/// A worker's process that has no lease to work at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    /// What it trains ahead of the next lease meanwhile.
    pub ahead: Option<Ahead>,
}

/// Training ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// The lease behind which it is.
    pub of: LeaseId,
    /// Since when.
    pub since: Mono,
    /// Whether all of its steps are taken, and the worker waits.
    pub over: bool,
}

/// The worker, as far as the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worker {
    Off,
    Idle,
    Busy,
    Stopping,
}

/// The line to the coordinator.
#[derive(Debug)]
pub(super) struct Line {
    pub link: Link,
    /// The one question that is open. Requests go one at a time, so an answer needs no matching beyond its number.
    pub asked: Option<(u64, Question)>,
    /// What memory the last request for a lease spoke of.
    pub asked_with: u64,
    pub next_request: u64,
    pub renew_due: bool,
}

impl Default for Line {
    fn default() -> Self {
        Line { link: Link::Down, asked: None, asked_with: 0, next_request: 1, renew_due: false }
    }
}

/// The link, as far as the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Down,
    Connecting,
    Up { greeted: bool },
}

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Hello,
    Lease,
    Offer,
    Return,
    Evaluation,
    Renew,
    Leave,
}

/// What the owner is told of whatever stands in the way; an empty text says that nothing does.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Why the coordinator had no work when it was last asked, in its words.
    pub told: String,
    /// The coordinator's words for the run's end, while it is over.
    pub over: Option<String>,
    /// Why there is no connection.
    pub offline: String,
    /// Why a blob did not travel the last time.
    pub transfer_fault: String,
    /// What stands in the way of the next lease on this device itself.
    pub trouble: String,
    /// Why there is no work before [`super::Timer::Work`] is due.
    pub obstacle: String,
    /// State that a lease had to do without, in the worker's words.
    pub lost_state: String,
}

/// How the session comes to its end.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// The owner leaves the run.
    pub leaving: bool,
    /// The process is to end soon.
    pub closing: bool,
    /// It is over.
    pub ended: bool,
}
