//! A ledger in memory, for the simulator and for tests: the same facts, the same refusals, the same snapshot as
//! SQLite's. What was committed survives whatever crashes around it. Nobody waits for it: beside the trait's answers
//! it has the same at once.

mod desk;
mod keeping;

use super::{
    BadRow, Closed, Counters, Curves, Facts, LeaseFacts, LeaseOfDevice, Ledger, LedgerError, Lineage, Shards, Unnamed,
    ledger::{Answer, check},
    samples::Taken,
};
use crate::engine::{
    record::{LeaseOutcome, LeaseRecord, Record},
    snapshot::{
        BLOBS_KEPT, DELTAS_KEPT, DELTAS_OF_DEVICE_KEPT, DeviceSummary, EpochUse, MergedRange, RecentDelta, Snapshot,
        Standing, VERSIONS_KEPT,
    },
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    time::Wall,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Facts in memory. Clones are the same ledger, open under the same generation.
#[derive(Clone, Default)]
pub struct MemoryLedger {
    state: Arc<Mutex<State>>,
    generation: Generation,
}

#[derive(Default)]
struct State {
    generation: Generation,
    facts: Facts,
    standing: Standing,
    notes: desk::Notes,
    counters: Counters,
    commits: Vec<Vec<Record>>,
}

impl MemoryLedger {
    /// An empty one, which nobody has opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the same ledger to write, under a generation of max(last + 1, `unix_s`): who had it open before cannot
    /// write any more.
    pub fn open(&self, unix_s: u64) -> Self {
        let mut state = self.state();
        state.generation = Generation(unix_s.max(state.generation.0 + 1));
        MemoryLedger { state: self.state.clone(), generation: state.generation }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to write to.
    fn to_write(&self) -> Result<MutexGuard<'_, State>, LedgerError> {
        let state = self.state();
        if state.generation == self.generation { Ok(state) } else { Err(LedgerError::Fenced(self.generation)) }
    }

    /// The generation that this handle writes under.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Writes records in one transaction: all of them, or none.
    pub fn commit(&self, records: &[Record]) -> Result<(), LedgerError> {
        let mut state = self.to_write()?;
        let State { facts, standing, .. } = &mut *state;
        let result = records.iter().try_for_each(|record| apply(facts, standing, record));
        if result.is_ok() {
            state.commits.push(records.to_vec());
            let audit = records.iter().filter_map(|record| match record {
                Record::Audit(entry) => Some(entry.clone()),
                _ => None,
            });
            state.notes.audit.extend(audit);
        } else {
            // Rare, so that it may take long: as if the transaction had never begun.
            let Lineage { restarts, lost_deltas, kept, .. } = std::mem::take(&mut state.facts.lineage);
            let lineage = Lineage { restarts, lost_deltas, kept, ..Lineage::default() };
            let links = std::mem::take(&mut state.facts.links);
            let mut facts = Facts { lineage, links, ..Facts::default() };
            let mut standing = Standing::default();
            state.commits.iter().flatten().try_for_each(|record| apply(&mut facts, &mut standing, record))?;
            (state.facts, state.standing) = (facts, standing);
        }
        result
    }

    /// Everything.
    pub fn facts(&self) -> Facts {
        self.state().facts.clone()
    }

    /// What the engine is restored from.
    pub fn snapshot(&self, shards: &Shards) -> Snapshot {
        let state = self.state();
        Snapshot { standing: state.standing.clone(), ..snapshot_of(&state.facts, shards) }
    }

    fn note(&self, restart: Option<Version>, deltas: &[u64]) -> Result<(), LedgerError> {
        let mut state = self.to_write()?;
        let lineage = &mut state.facts.lineage;
        let is_unknown = |seq: &u64| lineage.deltas.iter().all(|d| d.seq != *seq);
        if restart.is_some_and(|version| lineage.place(version).is_none()) || deltas.iter().any(is_unknown) {
            return Err(LedgerError::Contradiction("a loss of what is not there".into()));
        }
        lineage.restarts =
            lineage.restarts.iter().copied().chain(restart).collect::<BTreeSet<_>>().into_iter().collect();
        let lost = lineage.lost_deltas.iter().chain(deltas).copied().collect::<BTreeSet<_>>();
        lineage.lost_deltas = lost.into_iter().collect();
        Ok(())
    }

    fn end_unfit(&self, shards: &Shards, at: Wall) -> Result<Vec<BadRow>, LedgerError> {
        let facts = self.facts();
        let (_, _, mut taken) = epochs_of(&facts, shards);
        let (mut unfit, mut ends) = (vec![], vec![]);
        for lease in open_leases(&facts).filter(|lease| lease.kind.trains()) {
            if let Err(bad) = taken.lease(shards, lease) {
                let (id, outcome) = (lease.id, LeaseOutcome::Returned);
                ends.push(Record::LeaseClosed { id, outcome, samples_used: 0, at });
                unfit.push(bad);
            }
        }
        if !ends.is_empty() {
            self.commit(&ends)?;
        }
        Ok(unfit)
    }

    fn lineage_since(&self, since: Version) -> Lineage {
        let mut lineage = self.facts().lineage;
        let known = lineage.versions.partition_point(|v| v.version <= since).checked_sub(1);
        lineage.after_seq = known.map_or(0, |at| lineage.versions[at].through_seq);
        lineage.deltas.retain(|d| d.seq > lineage.after_seq);
        lineage
    }

    fn curves_now(&self) -> Curves {
        let Facts { lineage, evaluations, .. } = self.facts();
        let through = |seq| lineage.deltas.iter().filter(|d| d.seq <= seq).map(|d| d.tokens).sum();
        Curves { tokens: lineage.versions.iter().map(|v| through(v.through_seq)).collect(), evaluations }
    }

    fn unnamed_of(&self, mut blobs: BTreeSet<BlobHash>, now: Wall) -> Unnamed {
        let facts = self.facts();
        let Lineage { versions, deltas, .. } = &facts.lineage;
        for named in versions.iter().flat_map(|v| v.blobs()).chain(deltas.iter().map(|d| d.blob)) {
            blobs.remove(&named.hash);
        }
        let leases = facts.leases.iter().flat_map(|l| [Some(l.lease.issued_at), l.closed.map(|c| c.at)]).flatten();
        let devices = facts.devices.iter().map(|d| d.enrolled_at);
        let merged = deltas.iter().map(|d| d.merged_at).chain(versions.iter().map(|v| v.published_at));
        let all = leases.chain(devices).chain(merged).chain(facts.evaluations.iter().map(|e| e.measured_at));
        Unnamed { blobs, last_entry: all.filter(|at| *at <= now).max().unwrap_or_default() }
    }
}

impl Ledger for MemoryLedger {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn write<'a>(&'a self, records: &'a [Record], more: Counters) -> Answer<'a, ()> {
        let written = self.commit(records).and_then(|()| {
            let mut state = self.to_write()?;
            state.counters.bytes_up += more.bytes_up;
            state.counters.bytes_down += more.bytes_down;
            Ok(())
        });
        Box::pin(ready(written))
    }

    fn note_losses<'a>(&'a self, restart: Option<Version>, deltas: &'a [u64]) -> Answer<'a, ()> {
        Box::pin(ready(self.note(restart, deltas)))
    }

    /// It knows no run spec: whoever opens it has one.
    fn change_spec<'a>(&'a self, _spec_json: &'a str) -> Answer<'a, ()> {
        Box::pin(ready(self.to_write().map(drop)))
    }

    fn counters(&self) -> Answer<'_, Counters> {
        Box::pin(ready(Ok(self.state().counters)))
    }

    fn end_unfit_leases<'a>(&'a self, shards: &'a Shards, at: Wall) -> Answer<'a, Vec<BadRow>> {
        Box::pin(ready(self.end_unfit(shards, at)))
    }

    fn snapshot<'a>(&'a self, shards: &'a Shards) -> Answer<'a, Snapshot> {
        Box::pin(ready(Ok(self.snapshot(shards))))
    }

    fn lineage(&self, since: Version) -> Answer<'_, Lineage> {
        Box::pin(ready(Ok(self.lineage_since(since))))
    }

    fn curves(&self) -> Answer<'_, Curves> {
        Box::pin(ready(Ok(self.curves_now())))
    }

    fn unnamed(&self, blobs: BTreeSet<BlobHash>, now: Wall) -> Answer<'_, Unnamed> {
        Box::pin(ready(Ok(self.unnamed_of(blobs, now))))
    }

    fn recent_leases(&self, device: DeviceId, before: LeaseId, most: u32) -> Answer<'_, Vec<LeaseOfDevice>> {
        Box::pin(ready(Ok(leases_of(&self.state().facts, device, before, most))))
    }

    fn facts(&self) -> Answer<'_, Facts> {
        Box::pin(ready(Ok(self.facts())))
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}

fn contradiction<T>(record: &Record) -> Result<T, LedgerError> {
    Err(LedgerError::Contradiction(format!("{record:?}")))
}

fn apply(facts: &mut Facts, standing: &mut Standing, record: &Record) -> Result<(), LedgerError> {
    check(record)?;
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
            let is_known = facts.lineage.deltas.iter().any(|d| d.seq == delta.seq || d.lease == delta.lease);
            if is_known || facts.leases.iter().all(|l| l.lease.id != delta.lease) {
                return contradiction(record);
            }
            facts.lineage.deltas.push(delta.clone());
        }
        Record::Version(version) => {
            if facts.lineage.versions.iter().any(|v| v.version == version.version) {
                return contradiction(record);
            }
            facts.lineage.versions.push(version.clone());
        }
        Record::Evaluation(evaluation) => {
            if facts.evaluations.iter().any(|e| e.lease == evaluation.lease) {
                return contradiction(record);
            }
            let at = facts.evaluations.partition_point(|e| e.lease < evaluation.lease);
            facts.evaluations.insert(at, evaluation.clone());
        }
        Record::DeviceRevoked { id, at } => {
            let is_known = facts.devices.iter().any(|d| d.id == *id);
            if !is_known || standing.revoked_devices.insert(*id, *at).is_some() {
                return contradiction(record);
            }
        }
        Record::InviteRevoked { nonce, at } => {
            if standing.revoked_invites.insert(nonce.clone(), *at).is_some() {
                return contradiction(record);
            }
        }
        Record::Paused(at) => standing.paused_at = *at,
        Record::Extended { token_budget } => standing.token_budget = Some(*token_budget),
        Record::Audit(_) => {}
    }
    Ok(())
}

fn open_leases(facts: &Facts) -> impl Iterator<Item = &LeaseRecord> {
    facts.leases.iter().filter(|l| l.closed.is_none()).map(|l| &l.lease)
}

/// Epochs that were opened, those that are not finished, and what is merged of these.
fn leases_of(facts: &Facts, device: DeviceId, before: LeaseId, most: u32) -> Vec<LeaseOfDevice> {
    let its = facts.leases.iter().rev().filter(|l| l.lease.device == device && l.lease.id < before);
    let ended = its.filter(|l| l.closed.is_some()).take(most as usize);
    let delta = |id| facts.lineage.deltas.iter().find(|d| d.lease == id).cloned();
    ended.map(|l| LeaseOfDevice { lease: l.lease.clone(), closed: l.closed, delta: delta(l.lease.id) }).collect()
}

fn epochs_of(facts: &Facts, shards: &Shards) -> (u32, Vec<EpochUse>, Taken) {
    let mut by_number: BTreeMap<u32, Vec<&LeaseFacts>> = BTreeMap::new();
    for lease in facts.leases.iter().filter(|l| l.lease.kind.trains()) {
        if u64::from(lease.lease.epoch) < lease.lease.id.0 {
            by_number.entry(lease.lease.epoch).or_default().push(lease);
        }
    }
    let opened = by_number.keys().last().map_or(0, |epoch| epoch.saturating_add(1));
    let used = |l: &LeaseFacts| l.closed.map(|c| c.samples_used).filter(|used| *used <= shards.largest());
    let is_unfinished = |leases: &[&LeaseFacts]| {
        let samples: u64 = leases.iter().filter_map(|l| used(l)).map(u64::from).sum();
        samples < shards.samples() || leases.iter().any(|l| l.closed.is_none())
    };
    let (mut epochs, mut taken) = (vec![], Taken::default());
    for (epoch, leases) in by_number.into_iter().filter(|(_, leases)| is_unfinished(leases)) {
        let merged = leases.into_iter().filter_map(|LeaseFacts { lease, closed }| {
            let used = closed.filter(|c| c.outcome == LeaseOutcome::Merged)?.samples_used;
            Some((lease.id, MergedRange { shard: lease.shard, first: lease.first_sample, samples: used }))
        });
        let mut merged: Vec<_> = merged.collect();
        merged.sort_by_key(|(_, range)| (range.shard, range.first));
        merged.retain(|(id, range)| taken.merged(shards, epoch, *id, *range).is_ok_and(|takes| takes));
        epochs.push(EpochUse { epoch, merged: merged.into_iter().map(|(_, range)| range).collect() });
    }
    (opened, epochs, taken)
}

fn snapshot_of(facts: &Facts, shards: &Shards) -> Snapshot {
    let generation_of = |id: LeaseId| facts.leases.iter().find(|l| l.lease.id == id).map(|l| l.lease.generation);
    let devices = facts.devices.iter().map(|record| {
        let deltas = || facts.lineage.deltas.iter().filter(|d| d.device == record.id);
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
    let (epochs_opened, epochs, _) = epochs_of(facts, shards);
    let mut tokens = 0;
    let mut recent_deltas: Vec<RecentDelta> = vec![];
    for d in &facts.lineage.deltas {
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
        open_leases: open_leases(facts).cloned().collect(),
        last_lease: facts.leases.last().map_or(LeaseId(0), |l| l.lease.id),
        epochs_opened,
        epochs,
        last_seq: facts.lineage.deltas.last().map_or(0, |d| d.seq),
        tokens,
        recent_deltas,
        merged_blobs: facts.lineage.deltas[facts.lineage.deltas.len().saturating_sub(BLOBS_KEPT)..]
            .iter()
            .map(|d| d.blob.hash)
            .collect(),
        versions: facts.lineage.versions[facts.lineage.versions.len().saturating_sub(VERSIONS_KEPT)..].to_vec(),
        evaluation: facts.evaluations.iter().max_by_key(|e| (e.version, e.lease)).cloned(),
        standing: Standing::default(),
    }
}
