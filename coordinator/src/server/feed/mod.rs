//! What the pages are drawn from. The event loop changes it with every commit, and whoever reads it never enters the
//! loop: not for a curve, not for a figure, and not for a page of a million devices.

mod curve;
mod devices;

pub use curve::{LossSpan, VersionSpan};
pub use devices::{DevicePage, DeviceRow, Devices, PAGE_MAX, Sort, State, Wanted, role};

use super::{
    clock::wall_now,
    disk_reserve::{DiskReserve, DiskStatus},
    history::{History, LossPoint, VersionPoint},
    stream::Traffic,
    trouble::Troubles,
};
use crate::{
    engine::{
        Status,
        record::{LeaseOutcome, Record},
    },
    store::{Counters, Ledger},
};
use curve::Curve;
use nightjar_shared::{
    ids::Generation,
    run_spec::RunSpec,
    time::Wall,
    wire::{Refusal, RefusalCode, coordinator_message as answer},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Points of a curve at most, however long the run is.
const POINTS_MAX: usize = 500;
/// Newest versions that are told one by one.
const NEWEST_VERSIONS: usize = 12;
/// Newest points that are kept as they are: a measurement comes some versions late.
const NEWEST_KEPT: usize = 1024;
/// Reasons that are counted apart; all others are one.
const REASONS_MAX: usize = 24;
/// Of how many merged deltas, about, the utilisation is an average.
const UTILISATION_OF: f64 = 256.0;

/// Where a feed begins.
pub struct Begun {
    /// What the run is.
    pub spec: Arc<RunSpec>,
    /// Where one device's leases are read.
    pub ledger: Arc<dyn Ledger>,
    /// All devices.
    pub devices: Arc<Devices>,
    /// The run before this start.
    pub history: History,
    /// The run at this start.
    pub status: Status,
    /// Its bytes before this start.
    pub counters: Counters,
    /// Its bytes since.
    pub traffic: Arc<Traffic>,
    /// Room on the disk.
    pub reserve: Arc<DiskReserve>,
    /// What holds it up.
    pub troubles: Arc<Troubles>,
}

/// See the module.
pub struct Feed {
    /// What the run is.
    pub spec: Arc<RunSpec>,
    /// Where one device's leases are read.
    pub ledger: Arc<dyn Ledger>,
    /// All devices.
    pub devices: Arc<Devices>,
    run: RwLock<Run>,
    since: Wall,
    counters: Counters,
    traffic: Arc<Traffic>,
    reserve: Arc<DiskReserve>,
    troubles: Arc<Troubles>,
}

struct Run {
    status: Status,
    history: History,
    losses: Curve<LossSpan>,
    versions: Curve<VersionSpan>,
    /// When the last version was published.
    published: Option<Wall>,
    ended: [u64; LeaseOutcome::ALL.len()],
    reasons: BTreeMap<String, u64>,
    /// Milliseconds of merged leases of late: trained, and in all.
    use_ms: [f64; 2],
}

/// The run's figures at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Of this process.
    pub generation: Generation,
    /// The newest version; null until the first stands.
    pub version: Option<u64>,
    /// Held-out loss, nats a byte.
    pub heldout_loss: Option<f64>,
    /// The version that it was measured of.
    pub heldout_version: Option<u64>,
    /// Tokens merged.
    pub tokens: u64,
    /// Tokens at which the run is over.
    pub token_budget: u64,
    /// Measured speeds of all devices that train, together.
    pub tokens_per_s: f64,
    /// Deltas merged.
    pub merged: u64,
    /// Bytes from devices.
    pub bytes_up: u64,
    /// Bytes to devices.
    pub bytes_down: u64,
    /// Leases that have not ended.
    pub leases_open: usize,
    /// The share of signal in the deltas of late, 0 to 1; null until this process has measured it.
    pub agreement: Option<f64>,
    /// Seconds between the two newest versions; null before there are two.
    pub round_s: Option<f64>,
    /// The share of their leases' time that devices trained, of late, 0 to 1; null before the first merged delta.
    pub utilisation: Option<f64>,
    /// Devices by what they do.
    pub states: BTreeMap<&'static str, usize>,
    /// When this process began.
    pub since: Wall,
    /// How leases ended since then.
    pub ended: BTreeMap<&'static str, u64>,
    /// Why deltas were turned down since then; numbers in the sentences are left out.
    pub reasons: BTreeMap<String, u64>,
    /// Whether the run is over.
    pub finished: bool,
    /// Since when an operator has paused it; null where it goes on.
    pub paused_unix_ms: Option<u64>,
    /// Room on the disk.
    pub disk: DiskStatus,
    /// What the coordinator waits for; null where it does not.
    pub trouble: Option<String>,
}

/// What curves are drawn from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drawn {
    /// Held-out losses.
    pub losses: Vec<LossSpan>,
    /// Versions.
    pub versions: Vec<VersionSpan>,
}

impl Run {
    fn loss(&mut self, point: LossPoint) {
        self.losses.push(point.into());
    }

    fn version(&mut self, point: VersionPoint, agreement: Option<f64>) {
        let before = self.published.replace(point.wall);
        self.versions.push(VersionSpan::new(point, before, agreement));
    }

    fn add(&mut self, record: &Record) {
        self.history.add(record);
        match record {
            Record::LeaseClosed { outcome, .. } => self.ended[*outcome as usize] += 1,
            Record::Delta(delta) => {
                let more = [delta.train_ms.min(delta.wall_ms) as f64, delta.wall_ms as f64];
                for (sum, more) in self.use_ms.iter_mut().zip(more) {
                    *sum = *sum * (1.0 - 1.0 / UTILISATION_OF) + more;
                }
            }
            Record::Version(_) => {
                let agreement = self.status.agreement;
                self.history.versions.last().cloned().into_iter().for_each(|point| self.version(point, agreement));
            }
            Record::Evaluation(_) => {
                self.history.losses.last().cloned().into_iter().for_each(|point| self.loss(point));
            }
            Record::Device(_)
            | Record::LeaseIssued(_)
            | Record::DeviceRevoked { .. }
            | Record::InviteRevoked { .. }
            | Record::Paused(_)
            | Record::Extended { .. }
            | Record::Series(_)
            | Record::Audit(_) => {}
        }
        self.history.keep_newest(NEWEST_KEPT);
    }

    /// Seconds between the two newest versions.
    fn round_s(&self) -> Option<f64> {
        let [.., before, newest] = &self.history.versions[..] else { return None };
        Some(newest.wall.unix_ms.saturating_sub(before.wall.unix_ms) as f64 / 1e3)
    }
}

impl Feed {
    /// From here on.
    pub fn begin(begun: Begun) -> Self {
        let Begun { spec, ledger, devices, history, status, counters, traffic, reserve, troubles } = begun;
        let mut run = Run {
            status,
            history: History::default(),
            losses: Curve::new(POINTS_MAX),
            versions: Curve::new(POINTS_MAX),
            published: None,
            ended: [0; LeaseOutcome::ALL.len()],
            reasons: BTreeMap::new(),
            use_ms: [0.0; 2],
        };
        history.versions.iter().cloned().for_each(|point| run.version(point, None));
        history.losses.iter().cloned().for_each(|point| run.loss(point));
        run.history = history;
        run.history.keep_newest(NEWEST_KEPT);
        Feed { spec, ledger, devices, run: RwLock::new(run), since: wall_now(), counters, traffic, reserve, troubles }
    }

    fn read(&self) -> RwLockReadGuard<'_, Run> {
        // Every change leaves a whole run behind, whatever panics after it.
        self.run.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Run> {
        self.run.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was written to the ledger, and how the run stands with it.
    pub fn committed(&self, records: &[Record], status: Status) {
        self.devices.add(records);
        let mut run = self.write();
        run.status = status;
        records.iter().for_each(|record| run.add(record));
    }

    /// A device is answered; if its delta is turned down, the reason counts.
    pub fn answered(&self, body: &answer::Body) {
        let why = match body {
            answer::Body::Done(done) if !done.merged && !done.note.is_empty() => &done.note,
            answer::Body::Refusal(refusal @ Refusal { sentence, .. }) if refusal.code() == RefusalCode::BadDelta => {
                sentence
            }
            _ => return,
        };
        let mut run = self.write();
        let mut reason = without_numbers(why);
        if run.reasons.len() >= REASONS_MAX && !run.reasons.contains_key(&reason) {
            reason = "another reason".into();
        }
        *run.reasons.entry(reason).or_default() += 1;
    }

    /// Whether an operator has paused the run.
    pub fn is_paused(&self) -> bool {
        self.read().status.paused_at.is_some()
    }

    /// The newest measurement of held-out loss.
    pub fn newest_loss(&self) -> Option<LossPoint> {
        self.read().history.losses.last().cloned()
    }

    /// The curves.
    pub fn drawn(&self) -> Drawn {
        let run = self.read();
        Drawn { losses: run.losses.points().to_vec(), versions: run.versions.points().to_vec() }
    }

    /// The newest versions, the newest first.
    pub fn newest_versions(&self) -> Vec<VersionPoint> {
        self.read().history.versions.iter().rev().take(NEWEST_VERSIONS).cloned().collect()
    }

    /// The figures.
    pub fn figures(&self) -> Figures {
        let (disk, states) = (self.reserve.look(), self.devices.counts());
        let (up, down) = self.traffic.total();
        let run = self.read();
        let Status { generation, version, evaluation, .. } = &run.status;
        let [train_ms, all_ms] = run.use_ms;
        Figures {
            generation: *generation,
            version: version.map(|v| v.0),
            heldout_loss: evaluation.as_ref().map(|e| e.nats_per_byte()),
            heldout_version: evaluation.as_ref().map(|e| e.version.0),
            tokens: run.status.tokens,
            token_budget: run.status.token_budget,
            tokens_per_s: run.status.tokens_per_s,
            merged: run.status.merged,
            bytes_up: self.counters.bytes_up + up,
            bytes_down: self.counters.bytes_down + down,
            leases_open: run.status.leases_open,
            agreement: run.status.agreement,
            round_s: run.round_s(),
            utilisation: (all_ms > 0.0).then(|| train_ms / all_ms),
            states: State::ALL.iter().map(|state| state.name()).zip(states).collect(),
            since: self.since,
            ended: LeaseOutcome::ALL.iter().map(|outcome| outcome.name()).zip(run.ended).collect(),
            reasons: run.reasons.clone(),
            finished: run.status.finished,
            paused_unix_ms: run.status.paused_at.map(|at| at.unix_ms),
            disk,
            trouble: self.troubles.sentence(disk.full),
        }
    }
}

/// A sentence whose numbers are left out, so that the same reason is counted as one.
fn without_numbers(sentence: &str) -> String {
    let mut without = String::with_capacity(sentence.len());
    let mut letters = sentence.chars().peekable();
    while let Some(letter) = letters.next() {
        if !letter.is_ascii_digit() {
            without.push(letter);
            continue;
        }
        without.push('…');
        loop {
            let mut ahead = letters.clone();
            match (ahead.next(), ahead.next()) {
                (Some('0'..='9' | 'e'), _) => drop(letters.next()),
                (Some('.' | '-'), Some('0'..='9')) => drop(letters.next()),
                _ => break,
            }
        }
    }
    without
}

#[cfg(test)]
pub mod tests;
