//! What must be true of a ledger's rows, checked a piece at a time: what is remembered of a long run is a bit for each
//! delta, a number for each version, and the ranges of samples, joined.

use super::Check;
use crate::{
    engine::{
        epoch_samples,
        record::{DeltaRecord, EvaluationRecord, LeaseOutcome, VersionRecord},
        snapshot::MergedRange,
        usable,
    },
    store::{BadRow, Facts, LeaseFacts, samples::Ranges},
};
use nightjar_shared::{run_spec::RunSpec, shard::Manifest};
use std::collections::BTreeMap;

/// Rows that are named, of those that are set aside.
const NAMED_MAX: usize = 1000;

/// What was seen of the rows so far. The pieces are those of [`crate::store::Ledger::go_through`], in their order.
pub struct Rows<'r> {
    spec: &'r RunSpec,
    manifest: &'r Manifest,
    leases: u64,
    /// Leases that are merged, and those that have a delta.
    merged: u64,
    with_delta: u64,
    deltas: u64,
    /// A bit for each delta's number.
    seen: Vec<u64>,
    newest_seq: u64,
    versions: u64,
    /// Of each version, its last delta.
    through: Vec<u64>,
    epochs: BTreeMap<u32, Ranges>,
    samples_merged: u64,
    samples_leased: u64,
    evaluations: u64,
    set_aside: Vec<BadRow>,
    more_set_aside: usize,
    /// What is wrong with deltas and their leases, with their order, with samples, and with measurements.
    wrong: [Option<String>; 4],
}

const LEASES: usize = 0;
const SEQUENCE: usize = 1;
const SAMPLES: usize = 2;
const EVALUATIONS: usize = 3;

impl<'r> Rows<'r> {
    /// Of a run on a dataset; no row was seen.
    pub fn new(spec: &'r RunSpec, manifest: &'r Manifest) -> Self {
        Rows {
            spec,
            manifest,
            leases: 0,
            merged: 0,
            with_delta: 0,
            deltas: 0,
            seen: vec![],
            newest_seq: 0,
            versions: 0,
            through: vec![],
            epochs: BTreeMap::new(),
            samples_merged: 0,
            samples_leased: 0,
            evaluations: 0,
            set_aside: vec![],
            more_set_aside: 0,
            wrong: Default::default(),
        }
    }

    /// Takes in a piece: leases with all deltas and measurements that are theirs.
    pub fn take(&mut self, piece: &Facts) {
        for version in &piece.lineage.versions {
            self.version(version);
        }
        for lease in &piece.leases {
            self.lease(lease);
        }
        let of = |id| piece.leases.binary_search_by_key(&id, |l| l.lease.id).ok().map(|at| &piece.leases[at]);
        let mut last: Option<&DeltaRecord> = None;
        for delta in &piece.lineage.deltas {
            if let Some(before) = last.filter(|before| before.lease == delta.lease) {
                let DeltaRecord { lease, seq, .. } = delta;
                self.note(SEQUENCE, || format!("lease {lease} was merged twice, as delta {} and {seq}", before.seq));
            } else {
                self.with_delta += 1;
            }
            self.delta(delta, of(delta.lease));
            last = Some(delta);
        }
        for evaluation in &piece.evaluations {
            self.evaluation(evaluation, of(evaluation.lease));
        }
        let room = NAMED_MAX.saturating_sub(self.set_aside.len());
        self.set_aside.extend(piece.set_aside.iter().take(room).cloned());
        self.more_set_aside += piece.set_aside.len().saturating_sub(room);
    }

    /// The first fault of its kind is told.
    fn note(&mut self, what: usize, why: impl FnOnce() -> String) {
        self.wrong[what].get_or_insert_with(why);
    }

    fn version(&mut self, version: &VersionRecord) {
        let (number, expected, before) = (version.version.0, self.versions, self.through.last().copied().unwrap_or(0));
        if number != expected {
            self.note(SEQUENCE, || format!("version {expected} is missing"));
        }
        if version.through_seq < before {
            self.note(SEQUENCE, || format!("version {number} claims deltas up to {}", version.through_seq));
        }
        self.versions = number + 1;
        self.through.push(version.through_seq);
    }

    /// Invariant 3: within an epoch, what is merged and what is leased never overlaps; all else is free.
    fn lease(&mut self, LeaseFacts { lease, closed }: &LeaseFacts) {
        self.leases += 1;
        self.merged += u64::from(closed.is_some_and(|c| c.outcome == LeaseOutcome::Merged));
        if !lease.kind.trains() {
            return;
        }
        let epoch = lease.epoch;
        let ranges = self.epochs.entry(epoch).or_default();
        let samples = match closed {
            None => lease.samples,
            Some(closed) if closed.outcome == LeaseOutcome::Merged => closed.samples_used,
            Some(_) => return,
        };
        let counted = if closed.is_none() { &mut self.samples_leased } else { &mut self.samples_merged };
        *counted += u64::from(samples);
        let range = MergedRange { shard: lease.shard, first: lease.first_sample, samples };
        let is_free = ranges.add(range);
        let shard = self.manifest.train.get(range.shard as usize);
        let usable = shard.map_or(0, |s| usable(s.samples, self.spec.inner.batch_samples));
        let (id, shard) = (lease.id, range.shard);
        if range.first.checked_add(samples).is_none_or(|end| end > usable) {
            self.note(SAMPLES, || format!("epoch {epoch}: lease {id} has samples that shard {shard} does not have"));
        } else if !is_free {
            self.note(SAMPLES, || {
                format!("epoch {epoch}: lease {id} has samples of shard {shard} that an earlier lease has")
            });
        }
    }

    /// Invariant 1: a delta is merged only for the lease that it was issued for.
    fn delta(&mut self, d: &DeltaRecord, of: Option<&LeaseFacts>) {
        self.deltas += 1;
        self.number(d.seq);
        let (seq, id) = (d.seq, d.lease);
        let Some(LeaseFacts { lease, closed }) = of else {
            return self.note(LEASES, || format!("delta {seq} has no lease"));
        };
        let Some(closed) = closed.filter(|c| c.outcome == LeaseOutcome::Merged) else {
            return self.note(LEASES, || format!("lease {id} is not merged"));
        };
        let tokens = u64::from(closed.samples_used) * self.spec.tokens_per_sample();
        if !lease.kind.trains() || lease.device != d.device || closed.samples_used > lease.samples || d.tokens != tokens
        {
            self.note(LEASES, || format!("delta {seq} does not fit its lease {id}"));
        }
    }

    /// Notes a delta's number.
    fn number(&mut self, seq: u64) {
        self.newest_seq = self.newest_seq.max(seq);
        // With a bit for each row there is room for all numbers, as long as none is missing.
        let (word, bit) = (seq / 64, 1 << (seq % 64));
        let Some(word) = usize::try_from(word).ok().filter(|word| *word <= 2 * self.seen.len() + 1024) else {
            return self.note(SEQUENCE, || format!("deltas before {seq} are missing"));
        };
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.note(SEQUENCE, || format!("delta {seq} is there twice"));
        }
        self.seen[word] |= bit;
    }

    fn evaluation(&mut self, e: &EvaluationRecord, of: Option<&LeaseFacts>) {
        self.evaluations += 1;
        let of_it = of.filter(|l| l.lease.base_version == e.version);
        if of_it.and_then(|l| l.closed).is_none_or(|c| c.outcome != LeaseOutcome::Evaluated) {
            self.note(EVALUATIONS, || format!("the measurement of version {} has no lease", e.version));
        }
    }

    /// The checks, once all pieces were taken in.
    pub fn checks(mut self) -> Vec<Check> {
        if self.merged != self.with_delta {
            let (merged, with_delta) = (self.merged, self.with_delta);
            self.note(LEASES, || format!("{merged} leases are merged, but {with_delta} have a delta"));
        }
        let is_missing =
            |seq: &u64| self.seen.get((*seq / 64) as usize).is_none_or(|word| word & (1 << (seq % 64)) == 0);
        if let Some(missing) = (1..=self.newest_seq).find(is_missing) {
            self.note(SEQUENCE, || format!("delta {missing} is missing"));
        }
        if let Some(at) = self.through.iter().position(|through| *through > self.newest_seq) {
            let through = self.through[at];
            self.note(SEQUENCE, || format!("version {at} claims deltas up to {through}"));
        }
        let waiting = self.newest_seq.saturating_sub(self.through.last().copied().unwrap_or(0));
        let an_epoch = epoch_samples(self.manifest, self.spec.inner.batch_samples);
        let (merged, leased) = (self.samples_merged, self.samples_leased);
        let free = (an_epoch * self.epochs.len() as u64).saturating_sub(merged + leased);
        let unused = self.manifest.train_samples() - an_epoch;
        let epochs = self.epochs.len();
        let found = [
            format!("{} leases, {} merged", self.leases, self.merged),
            format!("{} deltas in {} versions, {waiting} wait for the next", self.deltas, self.versions),
            format!(
                "{epochs} epochs of {an_epoch} samples: {merged} merged, {leased} leased, {free} free; {unused} make no whole batch"
            ),
            format!("{} measurements", self.evaluations),
        ];
        let names = [
            "every delta has a lease of its own",
            "no delta is missing or merged twice",
            "every sample is trained on once an epoch",
            "every measurement has its lease",
        ];
        let results = found.into_iter().zip(self.wrong).map(|(found, wrong)| wrong.map_or(Ok(found), Err));
        names.into_iter().zip(results).map(|(name, result)| Check::of(name, result)).collect()
    }

    /// What was set aside, for the check that comes last. What was lost with a row shows in the others.
    pub fn set_aside(&self) -> Check {
        let named: Vec<String> = self.set_aside.iter().map(ToString::to_string).collect();
        let more = if self.more_set_aside > 0 { format!("; and {} more", self.more_set_aside) } else { String::new() };
        let told = if named.is_empty() { "none is set aside".into() } else { named.join("; ") + &more };
        Check::of("every row of the ledger can be read, or is set aside by name", Ok(told))
    }
}
