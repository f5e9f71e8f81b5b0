//! Going through the ledger again: [`recover`] comes back to its tip after a start, [`resume`] does so where blobs on the
//! way are lost, [`rebuild`] makes a lost blob of a version anew, and [`verify`] proves that the ledger holds together, from
//! version 0 on.

mod published;

pub use published::{PublishedError, weights};

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
    version::{keyframe, update},
};
use published::is_lost;
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
    /// Neither the deltas nor what was published lead to the newest version.
    #[error("{replay}; and {published}; restore the state folder from a backup")]
    NoWay {
        /// What is wrong with the deltas.
        replay: Box<ReplayError>,
        /// What is wrong with what was published.
        published: PublishedError,
    },
    /// A blob that no version was published as.
    #[error("no version was published as blob {0}")]
    Unpublished(BlobHash),
    /// A blob came out otherwise.
    #[error("blob {0} comes out otherwise than it was published")]
    Otherwise(BlobHash),
}

impl ReplayError {
    /// Whether another way may lead on: what is lost stays lost.
    fn is_lasting(&self) -> bool {
        match self {
            ReplayError::Blob(error) => is_lost(error),
            ReplayError::Merge(_) | ReplayError::Diverged(_) | ReplayError::NoStart => true,
            _ => false,
        }
    }
}

/// The merger at the ledger's tip: from the newest checkpoint that is sound, or from version 0, and all deltas since.
/// `start` gives the initial weights as a flat vector; it is called only for a run that has no version yet.
pub fn recover(spec: &RunSpec, facts: &Facts, blobs: &Blobs, start: impl FnOnce() -> Vec<f32>) -> Result<Merger, ReplayError> {
    let mut merger = at_newest_version(spec, facts, blobs, start)?;
    merge_through(&mut merger, facts, blobs, u64::MAX)?;
    Ok(merger)
}

/// A merger at the ledger's tip, by whatever way there is.
#[derive(Debug)]
pub struct Resumed {
    /// The merger.
    pub merger: Merger,
    /// Where merging began anew, with the merger's checkpoint there.
    pub restart: Option<(Version, Vec<u8>)>,
    /// Deltas that are passed over since their blobs are lost.
    pub lost_deltas: Vec<u64>,
    /// What was lost, for the operator.
    pub losses: Vec<String>,
}

/// As [`recover`], and where blobs are lost it goes on without them: with the weights of the newest version as they were
/// published, and with the deltas after it that are there. What it did has to be noted in the ledger.
pub fn resume(spec: &RunSpec, facts: &Facts, blobs: &Blobs, start: impl FnOnce() -> Vec<f32>) -> Result<Resumed, ReplayError> {
    let mut losses = vec![];
    let (mut merger, restart) = match at_newest_version(spec, facts, blobs, start) {
        Err(why) if why.is_lasting() => {
            let newest = facts.versions.last().ok_or(ReplayError::NoStart)?;
            let (weights, _) = match weights(spec, &facts.versions, blobs, newest.version) {
                Ok(found) => found,
                Err(PublishedError::Disk(error)) => return Err(error.into()),
                Err(published) => return Err(ReplayError::NoWay { replay: Box::new(why), published }),
            };
            losses.push(format!(
                "{} So the run goes on from version {} as it was published; error feedback and momenta since the last checkpoint \
                 are lost",
                said(&why),
                newest.version
            ));
            let merger = anew(spec, facts, weights, newest.through_seq);
            let checkpoint = merger.checkpoint();
            (merger, Some((newest.version, checkpoint)))
        }
        merger => (merger?, None),
    };
    let mut lost_deltas = vec![];
    for delta in after(facts, merger.last_seq()) {
        let is_known = facts.lost_deltas.binary_search(&delta.seq).is_ok();
        let added = if is_known { Ok(()) } else { add(&mut merger, blobs, delta) };
        match added {
            Err(why) if why.is_lasting() => {
                lost_deltas.push(delta.seq);
                losses.push(format!(
                    "{} It was to be in the next version, as delta {} of lease {}, and is passed over",
                    said(&why),
                    delta.seq,
                    delta.lease
                ));
            }
            added => added?,
        }
        merger.pass_over(delta.seq);
    }
    Ok(Resumed { merger, restart, lost_deltas, losses })
}

/// An error as a sentence, without the advice to restore all from a backup.
fn said(why: &ReplayError) -> String {
    let text = match why {
        ReplayError::Blob(error) => error.to_string(),
        other => other.to_string(),
    };
    let mut letters = text.chars();
    let sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    format!("{}.", sentence.trim_end_matches(['.', '?']))
}

/// The merger at the newest version, before the deltas that wait for the next.
fn at_newest_version(
    spec: &RunSpec,
    facts: &Facts,
    blobs: &Blobs,
    start: impl FnOnce() -> Vec<f32>,
) -> Result<Merger, ReplayError> {
    if facts.versions.is_empty() {
        return Ok(Merger::start(spec.clone(), &start()));
    }
    let mut merger = before(spec, facts, blobs, None)?;
    let done = facts.versions.partition_point(|v| v.version <= merger.weights().version);
    for version in &facts.versions[done..] {
        advance(&mut merger, facts, blobs, version)?;
    }
    Ok(merger)
}

/// A merger to replay from: at the newest version before `limit` that has a sound checkpoint, or at which merging began anew, or
/// at version 0.
fn before(spec: &RunSpec, facts: &Facts, blobs: &Blobs, limit: Option<Version>) -> Result<Merger, ReplayError> {
    let checkpoint = newest_checkpoint(spec, facts, blobs, limit)?;
    let restart = facts.restarts.iter().copied().rfind(|v| limit.is_none_or(|limit| *v < limit));
    let restart = restart.filter(|v| checkpoint.as_ref().is_none_or(|merger| merger.weights().version < *v));
    if let Some(merger) = restart.and_then(|version| restarted(spec, facts, blobs, version)) {
        return Ok(merger);
    }
    match (checkpoint, facts.versions.first()) {
        (Some(merger), _) => Ok(merger),
        (None, Some(first)) => from_first(spec, first, blobs),
        (None, None) => Err(ReplayError::NoStart),
    }
}

/// The merger as it was when merging began anew at a version; `None` if its weights cannot be put together any more.
fn restarted(spec: &RunSpec, facts: &Facts, blobs: &Blobs, version: Version) -> Option<Merger> {
    let (weights, _) = weights(spec, &facts.versions, blobs, version).ok()?;
    let at = facts.versions.binary_search_by_key(&version, |v| v.version).ok()?;
    Some(anew(spec, facts, weights, facts.versions[at].through_seq))
}

fn anew(spec: &RunSpec, facts: &Facts, weights: nightjar_shared::version::Weights, through_seq: u64) -> Merger {
    let upto = &facts.deltas[..facts.deltas.partition_point(|d| d.seq <= through_seq)];
    let counted = upto.iter().filter(|d| facts.lost_deltas.binary_search(&d.seq).is_err());
    Merger::anew(spec.clone(), weights, through_seq, counted.map(|d| d.tokens))
}

fn from_first(spec: &RunSpec, first: &VersionRecord, blobs: &Blobs) -> Result<Merger, ReplayError> {
    let (keyframe, _) = first.keyframe.ok_or(ReplayError::NoStart)?;
    Ok(Merger::start_from_keyframe(spec.clone(), &blobs.read(keyframe)?)?)
}

/// The newest checkpoint, of a version before `limit`, that the ledger knows as the checkpoint does. One may be there whose
/// version was never committed.
fn newest_checkpoint(spec: &RunSpec, facts: &Facts, blobs: &Blobs, limit: Option<Version>) -> Result<Option<Merger>, BlobError> {
    for number in blobs.checkpoints()?.into_iter().filter(|v| limit.is_none_or(|limit| Version(*v) < limit)) {
        let known = facts.versions.binary_search_by_key(&Version(number), |v| v.version);
        let Ok(at) = known else { continue };
        let version = &facts.versions[at];
        let merger = match blobs.checkpoint(number) {
            Ok(bytes) => bytes.and_then(|bytes| Merger::restore(spec.clone(), &bytes)),
            Err(error) => {
                tracing::warn!(%error, "the checkpoint of version {number} cannot be read");
                None
            }
        };
        let fits = |m: &Merger| m.last_seq() == version.through_seq && m.weights().digest() == version.digest;
        if let Some(merger) = merger.filter(fits) {
            return Ok(Some(merger));
        }
        tracing::warn!("the checkpoint of version {number} is damaged or of another run; an earlier one is used");
    }
    Ok(None)
}

/// Merges the deltas of a version, publishes it again, and compares.
fn advance(merger: &mut Merger, facts: &Facts, blobs: &Blobs, version: &VersionRecord) -> Result<PublishedBytes, ReplayError> {
    merge_through(merger, facts, blobs, version.through_seq)?;
    let again = merger.publish(version.version, version.keyframe.is_some())?;
    if !is_same(&again, version) {
        return Err(ReplayError::Diverged(version.version));
    }
    if facts.restarts.binary_search(&version.version).is_ok() {
        let weights = merger.weights().clone();
        *merger = anew(&merger.spec().clone(), facts, weights, version.through_seq);
    }
    Ok(again)
}

fn after(facts: &Facts, seq: u64) -> &[DeltaRecord] {
    &facts.deltas[facts.deltas.partition_point(|d| d.seq <= seq)..]
}

fn merge_through(merger: &mut Merger, facts: &Facts, blobs: &Blobs, through_seq: u64) -> Result<(), ReplayError> {
    for delta in after(facts, merger.last_seq()).iter().take_while(|d| d.seq <= through_seq) {
        if facts.lost_deltas.binary_search(&delta.seq).is_ok() {
            merger.pass_over(delta.seq);
        } else {
            add(merger, blobs, delta)?;
        }
    }
    Ok(())
}

fn add(merger: &mut Merger, blobs: &Blobs, delta: &DeltaRecord) -> Result<(), ReplayError> {
    Ok(merger.add(&order(delta), &blobs.read(delta.blob)?)?)
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

/// The bytes of a blob that a version was published as, bit for bit, made of other blobs: a squash of its updates, a keyframe of
/// whatever else leads to its version, an update of the deltas since the checkpoint before it.
pub fn rebuild(spec: &RunSpec, facts: &Facts, blobs: &Blobs, hash: BlobHash) -> Result<Vec<u8>, ReplayError> {
    let of = facts.versions.iter().find(|v| v.blobs().any(|(name, _)| name == hash)).ok_or(ReplayError::Unpublished(hash))?;
    let is = |blob: &Option<(BlobHash, u64)>| blob.is_some_and(|(name, _)| name == hash);
    let bytes = if is(&of.keyframe) {
        let found = weights(spec, &facts.versions, blobs, of.version);
        let (weights, _) = found.map_err(|published| match published {
            PublishedError::Disk(error) => ReplayError::Blob(error),
            published => ReplayError::NoWay { replay: Box::new(BlobError::Corrupt(hash).into()), published },
        })?;
        keyframe::encode(&spec.model, &weights)
    } else if is(&of.update) {
        let mut merger = before(spec, facts, blobs, Some(of.version))?;
        let done = facts.versions.partition_point(|v| v.version <= merger.weights().version);
        let mut last = None;
        for version in facts.versions[done..].iter().take_while(|v| v.version <= of.version) {
            last = advance(&mut merger, facts, blobs, version)?.update;
        }
        last.ok_or(ReplayError::Unpublished(hash))?
    } else {
        let from = of.squashes.iter().find(|s| s.blob.0 == hash).map_or(of.version, |s| s.from);
        let at = |v: Version| facts.versions.partition_point(|known| known.version <= v);
        let parts = facts.versions[at(from)..at(of.version)].iter().filter_map(|v| v.update);
        let parts = parts.map(|(hash, _)| blobs.read(hash)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        update::squash(&spec.model, &parts).map_err(MergeError::from)?
    };
    if BlobHash::of(&bytes) == hash { Ok(bytes) } else { Err(ReplayError::Otherwise(hash)) }
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

/// All that are wrong are named, each with what it is.
fn all_blobs(facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let mut named: BTreeMap<BlobHash, (u64, String)> = BTreeMap::new();
    for d in &facts.deltas {
        named.insert(d.blob, (d.bytes, format!("delta {} of lease {}", d.seq, d.lease)));
    }
    for v in &facts.versions {
        let of_it = |what: &str| format!("the {what} of version {}", v.version);
        let update = v.update.map(|(hash, bytes)| (hash, (bytes, of_it("update"))));
        let keyframe = v.keyframe.map(|(hash, bytes)| (hash, (bytes, of_it("keyframe"))));
        let squash = |s: &Squash| (s.blob.0, (s.blob.1, format!("the squash from version {} to {}", s.from, v.version)));
        named.extend(update.into_iter().chain(keyframe).chain(v.squashes.iter().map(squash)));
    }
    let (mut total, mut wrong) = (0, vec![]);
    for (hash, (bytes, what)) in &named {
        match blobs.read(*hash) {
            Ok(stored) if stored.len() as u64 == *bytes => total += bytes,
            Ok(stored) => wrong.push(format!("blob {hash} has {} bytes, the ledger says {bytes} ({what})", stored.len())),
            Err(error) => wrong.push(format!("{error} ({what})")),
        }
    }
    if wrong.is_empty() {
        return Ok(format!("{} blobs, {total} bytes", named.len()));
    }
    Err(format!("{} of {} are not: {}", wrong.len(), named.len(), wrong.join("; ")))
}

/// Invariant 6: replaying gives every version's bits again, and the newest checkpoint's. Behind a fault it goes on where the
/// next checkpoint or restart allows, so that a later one is found, too.
fn replayed(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let Some(first) = facts.versions.first() else { return Ok("nothing is published yet".into()) };
    let text = |e: &dyn std::error::Error| e.to_string();
    let checkpoints = blobs.checkpoints().map_err(|e| text(&e))?;
    // A checkpoint may be newer than the ledger: written, and then its version was never committed.
    let newest = checkpoints.iter().copied().find(|v| facts.versions.binary_search_by_key(&Version(*v), |v| v.version).is_ok());
    let (mut wrong, mut merger) = (vec![], None);
    match from_first(spec, first, blobs) {
        Ok(start) => merger = Some(start),
        Err(error) => wrong.push(text(&error)),
    }
    for version in &facts.versions {
        let advanced = merger.as_mut().map(|merger| advance(merger, facts, blobs, version));
        if let Some(Err(error)) = advanced {
            let and_on = "the versions from there to the next checkpoint or restart are not compared";
            wrong.push(format!("version {}: {error}; {and_on}", version.version));
            merger = None;
        }
        if merger.is_none() {
            if !checkpoints.contains(&version.version.0) && facts.restarts.binary_search(&version.version).is_err() {
                continue;
            }
            merger = before(spec, facts, blobs, Some(version.version.next()))
                .ok()
                .filter(|merger| merger.weights().version == version.version && merger.last_seq() == version.through_seq);
            continue;
        }
        if newest == Some(version.version.0) {
            let stored = blobs.checkpoint(version.version.0).map_err(|e| text(&e))?;
            if stored != merger.as_ref().map(Merger::checkpoint) {
                wrong.push(format!("the checkpoint of version {} is damaged; a start uses the one before", version.version));
            }
        }
    }
    if let Some(Err(error)) = merger.as_mut().map(|merger| merge_through(merger, facts, blobs, u64::MAX)) {
        wrong.push(text(&error));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let checkpoint = newest.map_or("no checkpoint".into(), |v| format!("and the checkpoint of version {v}"));
    let restarts = match &facts.restarts[..] {
        [] => String::new(),
        restarts => {
            let versions: Vec<String> = restarts.iter().map(ToString::to_string).collect();
            format!("; merging began anew at version {}, where blobs were lost", versions.join(", "))
        }
    };
    Ok(format!("{} versions bit for bit, {checkpoint}{restarts}", facts.versions.len()))
}

/// A squash leads where the updates lead: made of them again, it has the same name.
fn squashes(spec: &RunSpec, facts: &Facts, blobs: &Blobs) -> Result<String, String> {
    let at = |v: Version| facts.versions.binary_search_by_key(&v, |v| v.version).ok();
    let (mut checked, mut all_wrong) = (0, vec![]);
    let one = |version: &VersionRecord, Squash { from, blob }: &Squash| -> Result<(), String> {
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
        Ok(())
    };
    for version in &facts.versions {
        for squash in &version.squashes {
            checked += 1;
            all_wrong.extend(one(version, squash).err());
        }
    }
    if all_wrong.is_empty() { Ok(format!("{checked} squashes")) } else { Err(all_wrong.join("; ")) }
}

#[cfg(test)]
mod tests;
