//! What the coordinator can be watched by: counters and times as they happen ([`Metrics`]), and the table of all that
//! Prometheus is told ([`table`]), each with how it is read. No figure is kept per device.

pub mod table;
mod text;

use super::{context::Context, disk_reserve::DiskStatus, health::Health};
use crate::engine::{
    Status,
    record::{LeaseOutcome, Record},
};
use nightjar_shared::lease::LeaseKind;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use text::{Histogram, Text};

pub use text::CONTENT_TYPE;

/// Bounds in seconds of what should take milliseconds.
const SOON: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Bounds in seconds of work on a whole model.
const LONG: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// Why a connection was not let in, or not kept, before it was a device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Too many came from its address.
    Rate,
    /// A newer stranger took its place.
    Evicted,
    /// Its handshake failed.
    Handshake,
    /// Its handshake or its hello took too long.
    Slow,
}

impl TurnedAway {
    /// All of them.
    pub const ALL: [TurnedAway; 4] = [TurnedAway::Rate, TurnedAway::Evicted, TurnedAway::Handshake, TurnedAway::Slow];

    const fn name(self) -> &'static str {
        match self {
            TurnedAway::Rate => "rate",
            TurnedAway::Evicted => "evicted",
            TurnedAway::Handshake => "handshake",
            TurnedAway::Slow => "slow",
        }
    }
}

/// Things counted, from 0 at the start of the process.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// What is counted and timed. Whoever sees something happen says so here; it costs an atomic addition or two.
pub struct Metrics {
    granted: [Count; LeaseKind::ALL.len()],
    settled: [Count; LeaseOutcome::ALL.len()],
    records: Count,
    retries: Count,
    turned_away: [Count; TurnedAway::ALL.len()],
    requests: Histogram,
    commits: Histogram,
    merges: Histogram,
    publications: Histogram,
    /// As the event loop saw it last.
    seen: Mutex<Option<Seen>>,
}

/// What only the event loop knows, as it was a moment ago.
#[derive(Clone)]
pub struct Seen {
    /// The run.
    pub run: Status,
    /// Room on the disk.
    pub disk: DiskStatus,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            granted: Default::default(),
            settled: Default::default(),
            records: Count::default(),
            retries: Count::default(),
            turned_away: Default::default(),
            requests: Histogram::new(&SOON),
            commits: Histogram::new(&SOON),
            merges: Histogram::new(&LONG),
            publications: Histogram::new(&LONG),
            seen: Mutex::default(),
        }
    }
}

impl Metrics {
    /// These records are in the ledger, after so long.
    pub fn committed(&self, records: &[Record], took: Duration) {
        self.commits.observe(took);
        self.records.add(records.len() as u64);
        for record in records {
            match record {
                Record::LeaseIssued(lease) => self.granted[place(&LeaseKind::ALL, lease.kind)].add(1),
                Record::LeaseClosed { outcome, .. } => self.settled[place(&LeaseOutcome::ALL, *outcome)].add(1),
                Record::Device(_)
                | Record::Delta(_)
                | Record::Version(_)
                | Record::Evaluation(_)
                | Record::DeviceRevoked { .. }
                | Record::InviteRevoked { .. }
                | Record::Paused(_)
                | Record::Extended { .. }
                | Record::Series(_)
                | Record::Audit(_) => {}
            }
        }
    }

    /// The ledger did not take something, and is tried again.
    pub fn retried(&self) {
        self.retries.add(1);
    }

    /// A request for a lease was answered, after so long.
    pub fn answered(&self, took: Duration) {
        self.requests.observe(took);
    }

    /// A delta was added to the buffer.
    pub fn merged(&self, took: Duration) {
        self.merges.observe(took);
    }

    /// A version was made and stored.
    pub fn published(&self, took: Duration) {
        self.publications.observe(took);
    }

    /// A connection came to nothing.
    pub fn turned_away(&self, why: TurnedAway) {
        self.turned_away[why as usize].add(1);
    }

    /// How the event loop sees the run.
    pub fn see(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }

    /// How it was seen last; `None` before the event loop has begun.
    pub fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where one is among all of its kind: each is.
fn place<T: PartialEq>(all: &[T], one: T) -> usize {
    all.iter().position(|other| *other == one).unwrap_or_default()
}

/// All that figures are read from.
pub(super) struct Scene<'a> {
    run: &'a str,
    metrics: &'a Metrics,
    context: &'a Context,
    health: &'a Health,
    seen: Option<Seen>,
}

/// All figures, as Prometheus reads them. Nothing here waits for the event loop.
pub fn text(run: &str, context: &Arc<Context>) -> String {
    let (metrics, health) = (&context.metrics, &context.health);
    let scene = Scene { run, metrics, context, health, seen: metrics.seen() };
    let mut text = Text::default();
    for metric in table::all() {
        text.metric(metric, |samples| (metric.read)(&scene, samples));
    }
    text.into_string()
}
