//! Going through the ledger again: [`recover`] comes back to its tip after a start, [`verify`] proves that it holds
//! together, from version 0 on.

use crate::{
    engine::{
        event::MergeOrder,
        merge::{MergeError, Merger, PublishedBytes},
        record::{DeltaRecord, LeaseKind, LeaseOutcome, Squash, VersionRecord},
        usable,
    },
    store::{BlobError, Blobs, Facts, LeaseFacts},
};
use nightjar_shared::{
    ids::{BlobHash, LeaseId, Version},
    run_spec::RunSpec,
    shard::Manifest,
    version::update,
};
use std::collections::{BTreeMap, BTreeSet};

/// A ledger that cannot be gone through again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A blob that it names cannot be read.
    #[error("{0}; restore the state folder from a backup")]
    Blob(#[from] BlobError),
    /// The merger refused.
    #[error("the ledger cannot be replayed: {0}")]
    Merge(#[from] MergeError),
    /// Version 0 has no keyframe.
    #[error("the ledger is damaged: the run's first version has no keyframe; restore it from a backup")]
    NoStart,
    /// The same deltas gave other weights.
    #[error(
        "replaying the ledger gives other weights than version {0} was published with; was this state written by the same Nightjar?"
    )]
    Diverged(Version),
}

/// The merger at the ledger's tip: from the newest checkpoint that is sound, or from version 0, and all deltas since.
/// `start` gives the initial weights as a flat vector; it is called only for a run that has no version yet.
pub fn recover(spec: &RunSpec, facts: &Facts, blobs: &Blobs, start: impl FnOnce() -> Vec<f32>) -> Result<Merger, ReplayError> {
    let Some(first) = facts.versions.first() else { return Ok(Merger::start(spec.clone(), &start())) };
    let mut merger = match newest_checkpoint(spec, facts, blobs)? {
        Some(merger) => merger,
        None => from_first(spec, first, blobs)?,
    };
    let done = facts.versions.partition_point(|v| v.version <= merger.weights().version);
    for version in &facts.versions[done..] {
        advance(&mut merger, facts, blobs, version)?;
    }
    merge_through(&mut merger, facts, blobs, u64::MAX)?;
    Ok(merger)
}

fn from_first(spec: &RunSpec, first: &VersionRecord, blobs: &Blobs) -> Result<Merger, ReplayError> {
    let (keyframe, _) = first.keyframe.ok_or(ReplayError::NoStart)?;
    Ok(Merger::start_from_keyframe(spec.clone(), &blobs.read(keyframe)?)?)
}

/// The newest checkpoint of a version that the ledger knows as the checkpoint does. One may be there whose version was
/// never committed.
fn newest_checkpoint(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<Option<Merger>, BlobError> {
    for number in blobs.checkpoints()? {
        let known = facts.versions.binary_search_by_key(&Version(number), |v| v.version);
        let (Ok(at), Some(bytes)) = (known, blobs.checkpoint(number)?) else { continue };
        let version = &facts.versions[at];
        let merger = Merger::restore(spec.clone(), &bytes);
        let fits = |m: &Merger| m.last_seq() == version.through_seq && m.weights().digest() == version.digest;
        if let Some(merger) = merger.filter(fits) {
            return Ok(Some(merger));
        }
    }
    Ok(None)
}

/// Merges the deltas of a version, publishes it again, and compares.
fn advance(merger: &mut Merger, facts: &Facts, blobs: &Blobs, version: &VersionRecord) -> Result<(), ReplayError> {
    merge_through(merger, facts, blobs, version.through_seq)?;
    let again = merger.publish(version.version, version.keyframe.is_some())?;
    if is_same(&again, version) { Ok(()) } else { Err(ReplayError::Diverged(version.version)) }
}

fn merge_through(merger: &mut Merger, facts: &Facts, blobs: &Blobs, through_seq: u64) -> Result<(), ReplayError> {
    let done = facts.deltas.partition_point(|d| d.seq <= merger.last_seq());
    for delta in facts.deltas[done..].iter().take_while(|d| d.seq <= through_seq) {
        merger.add(&order(delta), &blobs.read(delta.blob)?)?;
    }
    Ok(())
}

fn order(d: &DeltaRecord) -> MergeOrder {
    MergeOrder { seq: d.seq, lease: d.lease, delta: d.blob, tokens: d.tokens, weight: d.weight }
}

fn is_same(again: &PublishedBytes, version: &VersionRecord) -> bool {
    let name = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| (BlobHash::of(b), b.len() as u64));
    again.digest == version.digest
        && again.through_seq == version.through_seq
        && name(&again.update) == version.update
        && name(&again.keyframe) == version.keyframe
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// Whether it does.
    pub passed: bool,
    /// What was counted, or what is wrong.
    pub detail: String,
}

impl Report {
    /// Whether everything holds.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.passed)
    }
}

/// Checks the invariants of a ledger and its blobs, and replays it from version 0.
pub fn verify(spec: &RunSpec, manifest: &Manifest, facts: &Facts, blobs: &Blobs) -> Report {
    let mut report = verify_facts(spec, manifest, facts);
    report.checks.extend([
        check("every blob is there and whole", all_blobs(facts, blobs)),
        check("replaying the ledger gives the same versions", replayed(spec, facts, blobs)),
        check("every squash is the sum of its updates", squashes(spec, facts, blobs)),
    ]);
    report
}

/// Checks what can be checked without reading a blob.
pub fn verify_facts(spec: &RunSpec, manifest: &Manifest, facts: &Facts) -> Report {
    Report {
        checks: vec![
            check("every delta has a lease of its own", leases_of_deltas(spec, facts)),
            check("no delta is missing or merged twice", sequence(facts)),
            check("every sample is trained on once an epoch", samples(spec, manifest, facts)),
            check("every measurement has its lease", evaluations(facts)),
        ],
    }
}

fn check(name: &'static str, result: Result<String, String>) -> Check {
    Check { name, passed: result.is_ok(), detail: result.unwrap_or_else(|why| why) }
}

/// Invariant 1: a delta is merged only for the lease that it was issued for.
fn leases_of_deltas(spec: &RunSpec, facts: &Facts) -> Result<String, String> {
    let leases: BTreeMap<LeaseId, &LeaseFacts> = facts.leases.iter().map(|l| (l.lease.id, l)).collect();
    for d in &facts.deltas {
        let LeaseFacts { lease, closed } = leases.get(&d.lease).ok_or(format!("delta {} has no lease", d.seq))?;
        let closed = closed.filter(|c| c.outcome == LeaseOutcome::Merged).ok_or(format!("lease {} is not merged", d.lease))?;
        let tokens = u64::from(closed.samples_used) * spec.tokens_per_sample();
        if lease.kind != LeaseKind::Train || lease.device != d.device || closed.samples_used > lease.samples || d.tokens != tokens
        {
            return Err(format!("delta {} does not fit its lease {}", d.seq, d.lease));
        }
    }
    let with_delta = facts.deltas.iter().map(|d| d.lease).collect::<BTreeSet<_>>().len();
    let merged = leases.values().filter(|l| l.closed.is_some_and(|c| c.outcome == LeaseOutcome::Merged)).count();
    if merged != with_delta {
        return Err(format!("{merged} leases are merged, but {with_delta} have a delta"));
    }
    Ok(format!("{} leases, {merged} merged", facts.leases.len()))
}

/// Deltas and versions are numbered without a gap, and no lease has two deltas.
fn sequence(facts: &Facts) -> Result<String, String> {
    let mut lease_of = BTreeMap::new();
    for (d, expected) in facts.deltas.iter().zip(1..) {
        if d.seq != expected {
            return Err(format!("delta {expected} is missing"));
        }
        if let Some(before) = lease_of.insert(d.lease, d.seq) {
            return Err(format!("lease {} was merged twice, as delta {before} and {}", d.lease, d.seq));
        }
    }
    let mut through_seq = 0;
    for (v, expected) in facts.versions.iter().zip(0..) {
        if v.version.0 != expected {
            return Err(format!("version {expected} is missing"));
        }
        if v.through_seq < through_seq || v.through_seq > facts.deltas.len() as u64 {
            return Err(format!("version {expected} claims deltas up to {}", v.through_seq));
        }
        through_seq = v.through_seq;
    }
    let waiting = facts.deltas.len() as u64 - through_seq;
    Ok(format!("{} deltas in {} versions, {waiting} wait for the next", facts.deltas.len(), facts.versions.len()))
}

/// Invariant 3: within an epoch, what is merged and what is leased never overlaps; all else is free.
fn samples(spec: &RunSpec, manifest: &Manifest, facts: &Facts) -> Result<String, String> {
    let batch = spec.inner.batch_samples;
    let mut taken: BTreeMap<u32, Vec<(u32, u32, u32, LeaseId)>> = BTreeMap::new();
    let (mut merged, mut leased) = (0u64, 0u64);
    for LeaseFacts { lease, closed } in facts.leases.iter().filter(|l| l.lease.kind == LeaseKind::Train) {
        let of_epoch = taken.entry(lease.epoch).or_default();
        let held = match closed {
            Some(closed) if closed.outcome == LeaseOutcome::Merged => {
                merged += u64::from(closed.samples_used);
                closed.samples_used
            }
            Some(_) => continue,
            None => {
                leased += u64::from(lease.samples);
                lease.samples
            }
        };
        of_epoch.push((lease.shard, lease.first_sample, held, lease.id));
    }
    for (epoch, ranges) in &mut taken {
        ranges.sort_unstable();
        let mut end_of_last = (0, 0, LeaseId(0));
        for (shard, first, held, id) in ranges.iter().copied() {
            let (last_shard, last_end, last_id) = end_of_last;
            if shard == last_shard && first < last_end {
                return Err(format!("epoch {epoch}: leases {last_id} and {id} share samples of shard {shard}"));
            }
            let usable = manifest.train.get(shard as usize).map_or(0, |s| usable(s.samples, batch));
            if first.checked_add(held).is_none_or(|end| end > usable) {
                return Err(format!("epoch {epoch}: lease {id} has samples that shard {shard} does not have"));
            }
            end_of_last = (shard, first + held, id);
        }
    }
    let an_epoch = crate::engine::epoch_samples(manifest, batch);
    let free = an_epoch * taken.len() as u64 - merged - leased;
    let unused = manifest.train_samples() - an_epoch;
    Ok(format!(
        "{} epochs of {an_epoch} samples: {merged} merged, {leased} leased, {free} free; {unused} make no whole batch",
        taken.len()
    ))
}

fn evaluations(facts: &Facts) -> Result<String, String> {
    for e in &facts.evaluations {
        let of_it = |l: &&LeaseFacts| l.lease.id == e.lease && l.lease.base_version == e.version;
        let lease = facts.leases.binary_search_by_key(&e.lease, |l| l.lease.id).ok().map(|at| &facts.leases[at]).filter(of_it);
        if lease.and_then(|l| l.closed).is_none_or(|c| c.outcome != LeaseOutcome::Evaluated) {
            return Err(format!("the measurement of version {} has no lease", e.version));
        }
    }
    Ok(format!("{} measurements", facts.evaluations.len()))
}

fn all_blobs(facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let of_versions = facts.versions.iter().flat_map(|v| v.blobs());
    let named: BTreeMap<BlobHash, u64> = of_versions.chain(facts.deltas.iter().map(|d| (d.blob, d.bytes))).collect();
    let mut total = 0;
    for (hash, bytes) in &named {
        let stored = blobs.read(*hash).map_err(|e| e.to_string())?.len() as u64;
        if stored != *bytes {
            return Err(format!("blob {hash} has {stored} bytes, the ledger says {bytes}"));
        }
        total += bytes;
    }
    Ok(format!("{} blobs, {total} bytes", named.len()))
}

/// Invariant 6: replaying gives every version's bits again, and the newest checkpoint's.
fn replayed(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let Some(first) = facts.versions.first() else { return Ok("nothing is published yet".into()) };
    let text = |e: &dyn std::error::Error| e.to_string();
    let mut merger = from_first(spec, first, blobs).map_err(|e| text(&e))?;
    let checkpoints = blobs.checkpoints().map_err(|e| text(&e))?;
    // A checkpoint may be newer than the ledger: written, and then its version was never committed.
    let newest = checkpoints.into_iter().find(|v| facts.versions.binary_search_by_key(&Version(*v), |v| v.version).is_ok());
    for version in &facts.versions {
        advance(&mut merger, facts, blobs, version).map_err(|e| text(&e))?;
        if newest == Some(version.version.0) {
            let stored = blobs.checkpoint(version.version.0).map_err(|e| text(&e))?;
            if stored.as_ref() != Some(&merger.checkpoint()) {
                return Err(format!("the checkpoint of version {} is damaged; a start uses the one before", version.version));
            }
        }
    }
    merge_through(&mut merger, facts, blobs, u64::MAX).map_err(|e| text(&e))?;
    let checkpoint = newest.map_or("no checkpoint".into(), |v| format!("and the checkpoint of version {v}"));
    Ok(format!("{} versions bit for bit, {checkpoint}", facts.versions.len()))
}

/// A squash leads where the updates lead: made of them again, it has the same name.
fn squashes(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let at = |v: Version| facts.versions.binary_search_by_key(&v, |v| v.version).ok();
    let mut checked = 0;
    for version in &facts.versions {
        for Squash { from, blob } in &version.squashes {
            let wrong = |why: &str| format!("the squash from version {from} to {}: {why}", version.version);
            let parts = at(*from).zip(at(version.version)).and_then(|(from, to)| facts.versions.get(from + 1..=to));
            let parts = parts.filter(|parts| !parts.is_empty()).ok_or_else(|| wrong("there is no such version"))?;
            if parts[..parts.len() - 1].iter().any(|v| v.keyframe.is_some()) {
                return Err(wrong("it leads across a keyframe"));
            }
            let updates = parts.iter().filter_map(|v| v.update).map(|(hash, _)| blobs.read(hash)).collect::<Result<Vec<_>, _>>();
            let updates = updates.map_err(|e| wrong(&e.to_string()))?;
            let again = update::squash(&spec.model, &updates.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let again = again.map_err(|e| wrong(&e.to_string()))?;
            if (BlobHash::of(&again), again.len() as u64) != *blob {
                return Err(wrong("its updates give another"));
            }
            checked += 1;
        }
    }
    Ok(format!("{checked} squashes"))
}

#[cfg(test)]
mod tests;
