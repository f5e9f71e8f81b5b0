//! A ledger in memory, for the simulator and for tests: the same facts, the same refusals, the same snapshot as
//! SQLite's. What was committed survives whatever crashes around it.

use super::{Closed, Facts, LeaseFacts, LedgerError, rows};
use crate::engine::{
    record::{LeaseKind, LeaseOutcome, Record},
    snapshot::{
        BLOBS_KEPT, DELTAS_KEPT, DELTAS_OF_DEVICE_KEPT, DeviceSummary, EpochUse, MergedRange, RecentDelta, Snapshot,
        VERSIONS_KEPT,
    },
};
use nightjar_shared::ids::{Generation, LeaseId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Facts in memory. Clones are the same ledger.
#[derive(Clone, Default)]
pub struct MemoryLedger {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    generation: Generation,
    facts: Facts,
    commits: Vec<Vec<Record>>,
}

impl MemoryLedger {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A coordinator starts: raises the generation to max(last + 1, `unix_s`).
    pub fn raise(&self, unix_s: u64) -> Generation {
        let mut state = self.state();
        state.generation = Generation(unix_s.max(state.generation.0 + 1));
        state.generation
    }

    /// Writes records in one transaction: all of them, or none.
    pub fn commit(&self, generation: Generation, records: &[Record]) -> Result<(), LedgerError> {
        let mut state = self.state();
        if state.generation != generation {
            return Err(LedgerError::Fenced(generation));
        }
        let result = records.iter().try_for_each(|record| apply(&mut state.facts, record));
        if result.is_ok() {
            state.commits.push(records.to_vec());
        } else {
            // Rare, so that it may take long: as if the transaction had never begun.
            let mut facts = Facts::default();
            state.commits.iter().flatten().try_for_each(|record| apply(&mut facts, record))?;
            state.facts = facts;
        }
        result
    }

    /// Everything.
    pub fn facts(&self) -> Facts {
        self.state().facts.clone()
    }

    /// What the engine is restored from. `epoch_samples` tells which epochs are finished.
    pub fn snapshot(&self, epoch_samples: u64) -> Snapshot {
        snapshot_of(&self.state().facts, epoch_samples)
    }
}

fn contradiction<T>(record: &Record) -> Result<T, LedgerError> {
    Err(LedgerError::Contradiction(format!("{record:?}")))
}

fn apply(facts: &mut Facts, record: &Record) -> Result<(), LedgerError> {
    rows::check(record)?;
    match record {
        Record::Device(device) => match facts.devices.binary_search_by_key(&device.id, |d| d.id) {
            Ok(at) => facts.devices[at] = device.clone(),
            Err(at) => facts.devices.insert(at, device.clone()),
        },
        Record::LeaseIssued(lease) => {
            let is_new = facts.leases.last().is_none_or(|l| l.lease.id < lease.id);
            let is_only = facts.leases.iter().all(|l| l.closed.is_some() || l.lease.device != lease.device);
            let is_enrolled = facts.devices.iter().any(|d| d.id == lease.device);
            if !(is_new && is_only && is_enrolled) {
                return contradiction(record);
            }
            facts.leases.push(LeaseFacts { lease: lease.clone(), closed: None });
        }
        Record::LeaseClosed { id, outcome, samples_used, at } => {
            match facts.leases.iter_mut().rev().find(|l| l.lease.id == *id && l.closed.is_none()) {
                Some(lease) => lease.closed = Some(Closed { outcome: *outcome, samples_used: *samples_used, at: *at }),
                None => return contradiction(record),
            }
        }
        Record::Delta(delta) => {
            let is_known = facts.deltas.iter().any(|d| d.seq == delta.seq || d.lease == delta.lease);
            if is_known || facts.leases.iter().all(|l| l.lease.id != delta.lease) {
                return contradiction(record);
            }
            facts.deltas.push(delta.clone());
        }
        Record::Version(version) => {
            if facts.versions.iter().any(|v| v.version == version.version) {
                return contradiction(record);
            }
            facts.versions.push(version.clone());
        }
        Record::Evaluation(evaluation) => {
            if facts.evaluations.iter().any(|e| e.lease == evaluation.lease) {
                return contradiction(record);
            }
            let at = facts.evaluations.partition_point(|e| e.lease < evaluation.lease);
            facts.evaluations.insert(at, evaluation.clone());
        }
    }
    Ok(())
}

fn snapshot_of(facts: &Facts, epoch_samples: u64) -> Snapshot {
    let generation_of = |id: LeaseId| facts.leases.iter().find(|l| l.lease.id == id).map(|l| l.lease.generation);
    let devices = facts.devices.iter().map(|record| {
        let deltas = || facts.deltas.iter().filter(|d| d.device == record.id);
        let last = deltas().map(|d| d.lease).max();
        let is_refused = |l: &&LeaseFacts| {
            l.lease.device == record.id
                && l.closed.is_some_and(|c| c.outcome == LeaseOutcome::ScreenedOut)
                && last.is_none_or(|last| l.lease.id > last)
        };
        DeviceSummary {
            record: record.clone(),
            tokens: deltas().map(|d| d.tokens).sum(),
            merged: deltas().count() as u64,
            last_merged: last.and_then(|id| Some((id, generation_of(id)?))),
            refused: u32::try_from(facts.leases.iter().filter(is_refused).count()).unwrap_or(u32::MAX),
        }
    });
    let mut epochs: BTreeMap<u32, Vec<MergedRange>> = BTreeMap::new();
    for LeaseFacts { lease, closed } in facts.leases.iter().filter(|l| l.lease.kind == LeaseKind::Train) {
        let merged = epochs.entry(lease.epoch).or_default();
        if let Some(Closed { outcome: LeaseOutcome::Merged, samples_used, .. }) = *closed {
            merged.push(MergedRange { shard: lease.shard, first: lease.first_sample, samples: samples_used });
        }
    }
    let epochs_opened = epochs.keys().last().map_or(0, |e| e + 1);
    let unfinished = epochs
        .into_iter()
        .filter(|(_, merged)| merged.iter().map(|m| u64::from(m.samples)).sum::<u64>() < epoch_samples);
    let mut tokens = 0;
    let mut recent_deltas: Vec<RecentDelta> = vec![];
    for d in &facts.deltas {
        tokens += d.tokens;
        recent_deltas.push(RecentDelta {
            seq: d.seq,
            device: d.device,
            norm: d.norm,
            steps: d.steps,
            tokens_so_far: tokens,
            merged_at: d.merged_at,
        });
    }
    let mut of_device: BTreeMap<_, usize> = BTreeMap::new();
    let mut newest_first = recent_deltas.into_iter().rev().filter(|d| {
        let count = of_device.entry(d.device).or_default();
        *count += 1;
        *count <= DELTAS_OF_DEVICE_KEPT
    });
    let mut recent_deltas: Vec<RecentDelta> = newest_first.by_ref().take(DELTAS_KEPT).collect();
    recent_deltas.reverse();
    Snapshot {
        devices: devices.collect(),
        open_leases: facts.leases.iter().filter(|l| l.closed.is_none()).map(|l| l.lease.clone()).collect(),
        last_lease: facts.leases.last().map_or(LeaseId(0), |l| l.lease.id),
        epochs_opened,
        epochs: unfinished
            .map(|(epoch, mut merged)| {
                merged.sort_unstable();
                EpochUse { epoch, merged }
            })
            .collect(),
        last_seq: facts.deltas.last().map_or(0, |d| d.seq),
        tokens,
        recent_deltas,
        merged_blobs: facts.deltas[facts.deltas.len().saturating_sub(BLOBS_KEPT)..].iter().map(|d| d.blob).collect(),
        versions: facts.versions[facts.versions.len().saturating_sub(VERSIONS_KEPT)..].to_vec(),
        evaluation: facts.evaluations.iter().max_by_key(|e| (e.version, e.lease)).cloned(),
    }
}
