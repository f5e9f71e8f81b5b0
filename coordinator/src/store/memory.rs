//! A ledger in memory, for the simulator and for tests: the same facts, the same refusals, the same snapshot as
//! SQLite's. What was committed survives whatever crashes around it. Nobody waits for it: beside the trait's answers
//! it has the same at once.

mod desk;
mod keeping;

use super::{
    BadRow, Closed, Counters, Curves, Facts, LeaseFacts, LeaseOfDevice, Ledger, LedgerError, Lineage, Merged, Shards,
    Unnamed,
    ledger::{Answer, CURVE_POINTS, ENTRIES_LOOKED, check, curve_stride, curve_versions},
    samples::Taken,
};
use crate::engine::{
    record::{EvaluationRecord, LeaseOutcome, LeaseRecord, Record, SeriesRecord, VersionRecord},
    snapshot::{BLOBS_KEPT, DeviceSummary, MergedRange, RecentDelta, RecentDeltas, Snapshot, Standing, VERSIONS_KEPT},
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
    series: Vec<SeriesRecord>,
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
        let State { facts, standing, series, .. } = &mut *state;
        let result = records.iter().try_for_each(|record| apply(facts, standing, series, record));
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
            let (mut standing, mut series) = (Standing::default(), vec![]);
            let mut again = state.commits.iter().flatten();
            again.try_for_each(|record| apply(&mut facts, &mut standing, &mut series, record))?;
            (state.facts, state.standing, state.series) = (facts, standing, series);
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
        let (standing, series) = (state.standing.clone(), state.series.last().cloned());
        Snapshot { standing, series, ..snapshot_of(&state.facts, shards) }
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
        let (_, mut taken) = epochs_of(&facts, shards);
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
        let newest = lineage.versions.last().map_or(0, |v| v.version.0);
        let first = since.min(Version(newest.saturating_sub(VERSIONS_KEPT as u64)));
        lineage.is_cut = lineage.versions.first().is_some_and(|v| v.version < first);
        lineage.versions.retain(|v| v.version >= first);
        lineage
    }

    fn curves_now(&self) -> Curves {
        let Facts { lineage: Lineage { versions, deltas, .. }, evaluations, .. } = self.facts();
        let through = |seq| deltas.iter().filter(|d| d.seq <= seq).map(|d| d.tokens).sum();
        let tokens: BTreeMap<Version, u64> = versions.iter().map(|v| (v.version, through(v.through_seq))).collect();
        let of = |version| tokens.get(&version).copied().unwrap_or(0);
        let picked: BTreeSet<u64> =
            versions.last().map_or(BTreeSet::new(), |newest| curve_versions(newest.version.0).collect());
        let versions = versions.into_iter().filter(|v| picked.contains(&v.version.0));
        let versions = versions.map(|v| (VersionRecord { squashes: vec![], ..v.clone() }, of(v.version))).collect();
        let evaluations = thinned(evaluations).into_iter().map(|e| (e.clone(), of(e.version))).collect();
        Curves { versions, evaluations }
    }

    fn unnamed_of(&self, mut blobs: BTreeSet<BlobHash>, now: Wall) -> Unnamed {
        let facts = self.facts();
        let Lineage { versions, deltas, .. } = &facts.lineage;
        let given: Vec<_> = self.state().series.iter().map(|series| series.weights).collect();
        for named in versions.iter().flat_map(|v| v.blobs()).chain(deltas.iter().map(|d| d.blob)).chain(given) {
            blobs.remove(&named.hash);
        }
        let leases = newest(&facts.leases).flat_map(|l| [Some(l.lease.issued_at), l.closed.map(|c| c.at)]).flatten();
        let devices = facts.devices.iter().map(|d| d.enrolled_at);
        let merged = newest(deltas).map(|d| d.merged_at).chain(newest(versions).map(|v| v.published_at));
        let all = leases.chain(devices).chain(merged).chain(newest(&facts.evaluations).map(|e| e.measured_at));
        Unnamed { blobs, last_entry: all.filter(|at| *at <= now).max().unwrap_or_default() }
    }
}

fn newest<T>(entries: &[T]) -> impl Iterator<Item = &T> {
    entries.iter().rev().take(ENTRIES_LOOKED)
}

/// The points of a curve, of measurements by lease.
fn thinned(evaluations: Vec<EvaluationRecord>) -> Vec<EvaluationRecord> {
    let ends = evaluations.first().zip(evaluations.last()).map(|(first, last)| (first.lease.0, last.lease.0));
    let Some((first, last)) = ends.filter(|_| evaluations.len() > CURVE_POINTS) else { return evaluations };
    let points = (first..last).step_by(curve_stride(last - first) as usize).chain([last]);
    let at = |lease| evaluations.partition_point(|e| e.lease < LeaseId(lease));
    let picked: BTreeSet<usize> = points.map(at).collect();
    picked.into_iter().map(|at| evaluations[at].clone()).collect()
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

    /// It keeps no sums.
    fn catch_up<'a>(&'a self, _: &'a Shards, _: &'a (dyn Fn(u64, u64) + Sync)) -> Answer<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    fn check_sums(&self) -> Answer<'_, Result<String, String>> {
        Box::pin(ready(Ok(Ok("none are kept".into()))))
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

    fn leases_of(&self, device: DeviceId, before: LeaseId, most: u32) -> Answer<'_, Vec<LeaseOfDevice>> {
        Box::pin(ready(Ok(leases_of(&self.state().facts, device, before, most))))
    }

    fn merged(&self, after_seq: u64, through_seq: u64) -> Answer<'_, Merged> {
        Box::pin(ready(Ok(merged_of(&self.state().facts, after_seq, through_seq))))
    }

    fn go_through<'a>(&'a self, hear: &'a mut (dyn FnMut(Facts) + Send)) -> Answer<'a, ()> {
        let mut facts = self.facts();
        facts.lineage.deltas.sort_by_key(|d| d.lease);
        hear(facts);
        Box::pin(ready(Ok(())))
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}

fn contradiction<T>(record: &Record) -> Result<T, LedgerError> {
    Err(LedgerError::Contradiction(format!("{record:?}")))
}

fn apply(
    facts: &mut Facts,
    standing: &mut Standing,
    all_series: &mut Vec<SeriesRecord>,
    record: &Record,
) -> Result<(), LedgerError> {
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
        Record::Series(series) => match all_series.iter_mut().find(|known| known.number == series.number) {
            Some(known) => known.clone_from(series),
            None => all_series.push(series.clone()),
        },
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

fn leases_of(facts: &Facts, device: DeviceId, before: LeaseId, most: u32) -> Vec<LeaseOfDevice> {
    let its = facts.leases.iter().rev().filter(|l| l.lease.device == device && l.lease.id < before);
    let delta = |id| facts.lineage.deltas.iter().find(|d| d.lease == id).cloned();
    let told = |l: &LeaseFacts| LeaseOfDevice { lease: l.lease.clone(), closed: l.closed, delta: delta(l.lease.id) };
    its.take(most as usize).map(told).collect()
}

/// Epochs that were opened, and what is merged of those that are not finished.
fn epochs_of(facts: &Facts, shards: &Shards) -> (u32, Taken) {
    let (mut opened, mut taken) = (0, Taken::default());
    for LeaseFacts { lease, closed } in facts.leases.iter().filter(|l| l.lease.kind.trains()) {
        if u64::from(lease.epoch) >= lease.id.0 {
            continue;
        }
        opened = opened.max(lease.epoch.saturating_add(1));
        taken.begun(lease.epoch);
        if let Some(Closed { outcome: LeaseOutcome::Merged, samples_used: samples, .. }) = *closed {
            let range = MergedRange { shard: lease.shard, first: lease.first_sample, samples };
            // What another lease has already is left out.
            let _ = taken.merged(shards, lease.epoch, lease.id, range);
        }
    }
    let leased = open_leases(facts).filter(|lease| lease.kind.trains()).map(|lease| lease.epoch).collect();
    taken.keep_unfinished(shards, &leased);
    (opened, taken)
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
    let (epochs_opened, taken) = epochs_of(facts, shards);
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
    let mut recent = RecentDeltas::default();
    recent_deltas.into_iter().rev().for_each(|delta| recent.older(delta));
    Snapshot {
        devices: devices.collect(),
        open_leases: open_leases(facts).cloned().collect(),
        last_lease: facts.leases.last().map_or(LeaseId(0), |l| l.lease.id),
        epochs_opened,
        epochs: taken.epochs(),
        last_seq: facts.lineage.deltas.last().map_or(0, |d| d.seq),
        tokens,
        recent_deltas: recent.oldest_first(),
        merged_blobs: facts.lineage.deltas[facts.lineage.deltas.len().saturating_sub(BLOBS_KEPT)..]
            .iter()
            .map(|d| d.blob.hash)
            .collect(),
        versions: facts.lineage.versions[facts.lineage.versions.len().saturating_sub(VERSIONS_KEPT)..].to_vec(),
        evaluation: facts.evaluations.iter().max_by_key(|e| (e.version, e.lease)).cloned(),
        standing: Standing::default(),
        series: None,
    }
}

fn merged_of(facts: &Facts, after_seq: u64, through_seq: u64) -> Merged {
    let deltas = facts.lineage.deltas.iter().filter(|d| (after_seq + 1..=through_seq).contains(&d.seq));
    let mut devices = BTreeSet::new();
    let mut merged = Merged::default();
    for d in deltas {
        devices.insert(d.device);
        merged.tokens += d.tokens;
        merged.nats += d.tokens as f64 * d.loss_last;
    }
    Merged { devices: devices.len() as u64, ..merged }
}
