//! That a ledger and its blobs hold together: what must be true of the facts, of every blob, and of the replay from
//! version 0, or from the oldest checkpoint that the rule `[keep]` left. For what is before it stands the chain.

use super::{advance, at_checkpoint, before, chain::chained, from_first, has_deltas_since, merge_through};
use crate::{
    engine::{
        merge::Merger,
        record::{LeaseOutcome, Squash, VersionRecord},
        usable,
    },
    store::{Blobs, Facts, LeaseFacts, Lineage},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, LeaseId, Version},
    run_spec::RunSpec,
    shard::Manifest,
    version::update,
};
use std::collections::{BTreeMap, BTreeSet};

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

/// Checks the invariants of a ledger and its blobs, and of its chain of checkpoints; and replays what is kept.
pub fn verify(spec: &RunSpec, manifest: &Manifest, facts: &Facts, blobs: &Blobs) -> Report {
    let mut report = verify_facts(spec, manifest, facts);
    report.checks.extend([
        check("every blob is there and whole", all_blobs(facts, blobs)),
        check("replaying the ledger gives the same versions", replayed(spec, facts, blobs)),
        check("every squash is the sum of its updates", squashes(spec, facts, blobs)),
        check("the chain of checkpoints fits the ledger's rows", chained(facts, blobs)),
        check("every row of the ledger can be read, or is set aside by name", Ok(set_aside(facts))),
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

/// What was lost with a row shows in the checks that follow.
fn set_aside(facts: &Facts) -> String {
    match facts.set_aside.as_slice() {
        [] => "none is set aside".into(),
        rows => rows.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// Invariant 1: a delta is merged only for the lease that it was issued for.
fn leases_of_deltas(spec: &RunSpec, facts: &Facts) -> Result<String, String> {
    let leases: BTreeMap<LeaseId, &LeaseFacts> = facts.leases.iter().map(|l| (l.lease.id, l)).collect();
    for d in &facts.lineage.deltas {
        let LeaseFacts { lease, closed } = leases.get(&d.lease).ok_or(format!("delta {} has no lease", d.seq))?;
        let closed =
            closed.filter(|c| c.outcome == LeaseOutcome::Merged).ok_or(format!("lease {} is not merged", d.lease))?;
        let tokens = u64::from(closed.samples_used) * spec.tokens_per_sample();
        if !lease.kind.trains() || lease.device != d.device || closed.samples_used > lease.samples || d.tokens != tokens
        {
            return Err(format!("delta {} does not fit its lease {}", d.seq, d.lease));
        }
    }
    let with_delta = facts.lineage.deltas.iter().map(|d| d.lease).collect::<BTreeSet<_>>().len();
    let merged = leases.values().filter(|l| l.closed.is_some_and(|c| c.outcome == LeaseOutcome::Merged)).count();
    if merged != with_delta {
        return Err(format!("{merged} leases are merged, but {with_delta} have a delta"));
    }
    Ok(format!("{} leases, {merged} merged", facts.leases.len()))
}

/// Deltas and versions are numbered without a gap, and no lease has two deltas.
fn sequence(facts: &Facts) -> Result<String, String> {
    let mut lease_of = BTreeMap::new();
    for (d, expected) in facts.lineage.deltas.iter().zip(1..) {
        if d.seq != expected {
            return Err(format!("delta {expected} is missing"));
        }
        if let Some(before) = lease_of.insert(d.lease, d.seq) {
            return Err(format!("lease {} was merged twice, as delta {before} and {}", d.lease, d.seq));
        }
    }
    let mut through_seq = 0;
    for (v, expected) in facts.lineage.versions.iter().zip(0..) {
        if v.version.0 != expected {
            return Err(format!("version {expected} is missing"));
        }
        if v.through_seq < through_seq || v.through_seq > facts.lineage.deltas.len() as u64 {
            return Err(format!("version {expected} claims deltas up to {}", v.through_seq));
        }
        through_seq = v.through_seq;
    }
    let waiting = facts.lineage.deltas.len() as u64 - through_seq;
    Ok(format!(
        "{} deltas in {} versions, {waiting} wait for the next",
        facts.lineage.deltas.len(),
        facts.lineage.versions.len()
    ))
}

/// Invariant 3: within an epoch, what is merged and what is leased never overlaps; all else is free.
fn samples(spec: &RunSpec, manifest: &Manifest, facts: &Facts) -> Result<String, String> {
    let batch = spec.inner.batch_samples;
    let mut taken: BTreeMap<u32, Vec<(u32, u32, u32, LeaseId)>> = BTreeMap::new();
    let (mut merged, mut leased) = (0u64, 0u64);
    for LeaseFacts { lease, closed } in facts.leases.iter().filter(|l| l.lease.kind.trains()) {
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
        let lease =
            facts.leases.binary_search_by_key(&e.lease, |l| l.lease.id).ok().map(|at| &facts.leases[at]).filter(of_it);
        if lease.and_then(|l| l.closed).is_none_or(|c| c.outcome != LeaseOutcome::Evaluated) {
            return Err(format!("the measurement of version {} has no lease", e.version));
        }
    }
    Ok(format!("{} measurements", facts.evaluations.len()))
}

/// All that are wrong are named, each with what it is. What is given up is not looked for.
fn all_blobs(facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let Lineage { versions, deltas, kept, .. } = &facts.lineage;
    let mut named: BTreeMap<BlobHash, (u64, String)> = BTreeMap::new();
    let mut name = |blob: BlobRef, what: String| drop(named.insert(blob.hash, (blob.bytes, what)));
    for d in deltas.iter().filter(|d| d.seq > kept.after_seq) {
        name(d.blob, format!("delta {} of lease {}", d.seq, d.lease));
    }
    for v in versions.iter().filter(|v| v.version >= kept.first_version) {
        for (blob, what) in [(v.update, "update"), (v.keyframe, "keyframe")] {
            blob.into_iter().for_each(|blob| name(blob, format!("the {what} of version {}", v.version)));
        }
        for Squash { from, blob } in &v.squashes {
            name(*blob, format!("the squash from version {from} to {}", v.version));
        }
    }
    let (mut total, mut wrong) = (0, vec![]);
    for (hash, (bytes, what)) in &named {
        match blobs.read(*hash) {
            Ok(stored) if stored.len() as u64 == *bytes => total += bytes,
            Ok(stored) => {
                wrong.push(format!("blob {hash} has {} bytes, the ledger says {bytes} ({what})", stored.len()))
            }
            Err(error) => wrong.push(format!("{error} ({what})")),
        }
    }
    if wrong.is_empty() {
        let gone = match (kept.first_version.0, kept.after_seq) {
            (0, 0) => String::new(),
            (versions, deltas) => {
                format!("; those of {versions} versions and {deltas} deltas before are given up by the rule [keep]")
            }
        };
        return Ok(format!("{} blobs, {total} bytes{gone}", named.len()));
    }
    Err(format!("{} of {} are not: {}", wrong.len(), named.len(), wrong.join("; ")))
}

/// Invariant 6: replaying gives every version's bits again, and the bytes of every checkpoint. Behind a fault it goes on
/// where the next checkpoint or restart allows, so that a later one is found, too.
fn replayed(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let lineage = &facts.lineage;
    let Some(first) = lineage.versions.first() else { return Ok("nothing is published yet".into()) };
    let text = |e: &dyn std::error::Error| e.to_string();
    let checkpoints = blobs.checkpoints().map_err(|e| text(&e))?;
    // A checkpoint may be newer than the ledger: written, and then its version was never committed.
    let newest = checkpoints.iter().copied().find(|v| lineage.place(Version(*v)).is_some());
    let (mut wrong, mut merger) = (vec![], None);
    let begin = match lineage.kept.after_seq {
        0 => from_first(spec, first, blobs).map_err(|e| text(&e)),
        after_seq => oldest_checkpoint(spec, facts, &checkpoints, blobs).ok_or_else(|| {
            format!("no checkpoint is sound from which the deltas after {after_seq} can be merged again")
        }),
    };
    match begin {
        Ok(start) => merger = Some(start),
        Err(why) => wrong.push(why),
    }
    let begun = merger.as_ref().map_or(Version(0), |merger| merger.weights().version);
    let before_it = lineage.versions.partition_point(|v| v.version <= begun && lineage.kept.after_seq > 0);
    for version in &lineage.versions[before_it..] {
        let advanced = merger.as_mut().map(|merger| advance(merger, lineage, blobs, version));
        if let Some(Err(error)) = advanced {
            let and_on = "the versions from there to the next checkpoint or restart are not compared";
            wrong.push(format!("version {}: {error}; {and_on}", version.version));
            merger = None;
        }
        let restarts = lineage.restarts.binary_search(&version.version).is_ok();
        let Some(there) = &merger else {
            if checkpoints.contains(&version.version.0) || restarts {
                merger = before(spec, lineage, blobs, Some(version.version.next())).ok().filter(|merger| {
                    merger.weights().version == version.version && merger.last_seq() == version.through_seq
                });
            }
            continue;
        };
        let link = facts.links.binary_search_by_key(&version.version, |link| link.version);
        let link = link.ok().map(|at| facts.links[at]);
        if newest != Some(version.version.0) && link.is_none() {
            continue;
        }
        let bytes = there.checkpoint();
        if newest == Some(version.version.0)
            && blobs.checkpoint(version.version.0).map_err(|e| text(&e))?.as_ref() != Some(&bytes)
        {
            wrong
                .push(format!("the checkpoint of version {} is damaged; a start uses the one before", version.version));
        }
        // Where merging began anew after the link was made, the checkpoint is another.
        if link.is_some_and(|link| link.checkpoint != BlobHash::of(&bytes)) && !restarts {
            wrong.push(format!("the chain names another checkpoint of version {}", version.version));
        }
    }
    if let Some(Err(error)) = merger.as_mut().map(|merger| merge_through(merger, lineage, blobs, u64::MAX)) {
        wrong.push(text(&error));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let checkpoint = newest.map_or("no checkpoint".into(), |v| format!("and the checkpoint of version {v}"));
    let restarts = match &lineage.restarts[..] {
        [] => String::new(),
        restarts => {
            let versions: Vec<String> = restarts.iter().map(ToString::to_string).collect();
            format!("; merging began anew at version {}, where blobs were lost", versions.join(", "))
        }
    };
    let unproven = match before_it {
        0 => String::new(),
        _ => format!(
            "; versions 0 to {begun} are not merged again, since their deltas are given up: the chain stands for them"
        ),
    };
    let compared = lineage.versions.len() - before_it;
    Ok(format!("{compared} versions bit for bit, {checkpoint}{restarts}{unproven}"))
}

/// The merger at the oldest checkpoint after which all deltas are kept.
fn oldest_checkpoint(spec: &RunSpec, facts: &Facts, checkpoints: &[u64], blobs: &Blobs) -> Option<Merger> {
    let lineage = &facts.lineage;
    let oldest_first = checkpoints.iter().rev().filter_map(|v| lineage.place(Version(*v)));
    let mut kept = oldest_first.map(|at| &lineage.versions[at]).filter(|v| has_deltas_since(lineage, v));
    kept.find_map(|version| at_checkpoint(spec, version, blobs))
}

/// A squash leads where the updates lead: made of them again, it has the same name.
fn squashes(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let at = |v: Version| facts.lineage.place(v);
    let (mut checked, mut all_wrong) = (0, vec![]);
    let one = |version: &VersionRecord, Squash { from, blob }: &Squash| -> Result<(), String> {
        let wrong = |why: &str| format!("the squash from version {from} to {}: {why}", version.version);
        let parts = at(*from).zip(at(version.version)).and_then(|(from, to)| facts.lineage.versions.get(from + 1..=to));
        let parts = parts.filter(|parts| !parts.is_empty()).ok_or_else(|| wrong("there is no such version"))?;
        if parts[..parts.len() - 1].iter().any(|v| v.keyframe.is_some()) {
            return Err(wrong("it leads across a keyframe"));
        }
        let updates =
            parts.iter().filter_map(|v| v.update).map(|update| blobs.read(update.hash)).collect::<Result<Vec<_>, _>>();
        let updates = updates.map_err(|e| wrong(&e.to_string()))?;
        let again = update::squash(&spec.model, &updates.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let again = again.map_err(|e| wrong(&e.to_string()))?;
        if BlobRef::of(&again) != *blob {
            return Err(wrong("its updates give another"));
        }
        Ok(())
    };
    for version in &facts.lineage.versions {
        for squash in version.squashes.iter().filter(|squash| squash.from >= facts.lineage.kept.first_version) {
            checked += 1;
            all_wrong.extend(one(version, squash).err());
        }
    }
    if all_wrong.is_empty() { Ok(format!("{checked} squashes")) } else { Err(all_wrong.join("; ")) }
}
