//! Going through the ledger again: [`recover`] comes back to its tip after a start, [`resume`] does so where blobs on
//! the way are lost, [`rebuild`] makes a lost blob of a version anew, and [`verify`] proves that the ledger holds
//! together, from what is kept on.

mod blend;
mod chain;
mod published;
mod rows;
mod verify;

pub use blend::{Shares, blend};
pub use published::{PublishedError, weights};
pub use rows::Rows;
pub use verify::{Check, Report, verify, verify_blobs, verify_facts};

use crate::{
    engine::{
        event::MergeOrder,
        merge::{MergeError, Merger, PublishedBytes, RECENT},
        record::{DeltaRecord, VersionRecord},
    },
    store::{BlobError, Blobs, LedgerError, Lineage},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Version},
    run_spec::RunSpec,
    version::{Weights, keyframe, update},
};
use published::is_lost;
use std::io;

/// A ledger that cannot be gone through again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A blob that it names cannot be read.
    #[error("{0}; {advice}", advice = advice(.0))]
    Blob(#[from] BlobError),
    /// The merger refused.
    #[error("the ledger cannot be replayed: {0}")]
    Merge(#[from] MergeError),
    /// Version 0 has no keyframe.
    #[error("the ledger is damaged: the run's first version has no keyframe; restore it from a backup")]
    NoStart,
    /// The same deltas gave other weights.
    #[error(
        "replaying the ledger gives other weights than version {0} was published with; was this state written by the \
        same Nightjar?"
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
    /// Deltas or versions are needed that were left out of the lineage; see [`reaching_back`].
    #[error("older deltas or versions are needed than were read")]
    Older,
    /// They cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger has no row of it.
    #[error("the ledger has no row of version {0}: it was not published yet, or the row is gone")]
    Unknown(Version),
    /// The deltas that led here are given up, and no checkpoint that is left is sound.
    #[error("no checkpoint is sound, and the deltas before are removed by the rule [keep]")]
    GivenUp,
    /// A version whose blobs are given up.
    #[error(
        "version {version} is removed by the rule [keep]: the oldest that is kept is {oldest}, and before it milestones; \
        `keys keep` tells which"
    )]
    Forgotten {
        /// Which.
        version: Version,
        /// The oldest that is kept.
        oldest: Version,
    },
    /// A blob that no version was published as.
    #[error("no version was published as blob {0}")]
    Unpublished(BlobHash),
    /// A blob came out otherwise.
    #[error("blob {0} comes out otherwise than it was published")]
    Otherwise(BlobHash),
}

/// What to do about a blob that cannot be read.
fn advice(error: &BlobError) -> &'static str {
    match error {
        BlobError::Io { error, .. } | BlobError::Folder(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "make the state folder readable and writable for the user who runs this"
        }
        BlobError::Store(_) => "start again once the store can be used",
        _ => "restore the state folder from a backup",
    }
}

impl ReplayError {
    /// Whether another way may lead on: what is lost stays lost.
    fn is_lasting(&self) -> bool {
        match self {
            ReplayError::Blob(error) => is_lost(error),
            ReplayError::Merge(_) | ReplayError::Diverged(_) | ReplayError::NoStart | ReplayError::GivenUp => true,
            _ => false,
        }
    }
}

/// The version since which deltas are needed, as long as one of the two newest checkpoints is sound.
pub fn since(blobs: &Blobs) -> Result<Version, BlobError> {
    let newest_first = blobs.checkpoints()?;
    Ok(Version(newest_first.get(1).or(newest_first.first()).copied().unwrap_or(0)))
}

/// Does `work` with a lineage, and where that does not reach back far enough, with the whole one.
pub fn reaching_back<T>(
    lineage: &Lineage,
    whole: impl FnOnce() -> Result<Lineage, LedgerError>,
    mut work: impl FnMut(&Lineage) -> Result<T, ReplayError>,
) -> Result<T, ReplayError> {
    match work(lineage) {
        Err(ReplayError::Older) => work(&whole()?),
        done => done,
    }
}

/// The merger at the ledger's tip: from the newest checkpoint that is sound, or from version 0, and all deltas since.
/// `start` gives the initial weights as a flat vector; it is called only for a run that has no version yet.
pub fn recover(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    start: impl FnOnce() -> Vec<f32>,
) -> Result<Merger, ReplayError> {
    let mut merger = at_newest_version(spec, lineage, blobs, start)?;
    merge_through(&mut merger, lineage, blobs, u64::MAX)?;
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

/// As [`recover`], and where blobs are lost it goes on without them: with the weights of the newest version as they
/// were published, and with the deltas after it that are there. What it did has to be noted in the ledger.
pub fn resume(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    start: impl FnOnce() -> Vec<f32>,
) -> Result<Resumed, ReplayError> {
    let mut losses = vec![];
    let (mut merger, restart) = match at_newest_version(spec, lineage, blobs, start) {
        Err(why) if why.is_lasting() => {
            let newest = lineage.versions.last().ok_or(ReplayError::NoStart)?;
            let (weights, _) = match weights(spec, &lineage.versions, blobs, newest.version) {
                Ok(found) => found,
                Err(PublishedError::Disk(error)) => return Err(error.into()),
                Err(_) if lineage.is_cut => return Err(ReplayError::Older),
                Err(published) => return Err(ReplayError::NoWay { replay: Box::new(why), published }),
            };
            losses.push(format!(
                "{}{} So the run goes on from version {} as it was published; error feedback and momenta since the last checkpoint \
                 are lost",
                said(&why),
                all_lost(spec, lineage, blobs, newest.through_seq),
                newest.version
            ));
            let merger = anew(spec, lineage, weights, newest.through_seq)?;
            let checkpoint = merger.checkpoint();
            (merger, Some((newest.version, checkpoint)))
        }
        merger => (merger?, None),
    };
    let mut lost_deltas = vec![];
    for delta in after(lineage, merger.last_seq())? {
        let is_known = lineage.is_lost(delta.seq);
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

/// The deltas that are lost of those since the newest checkpoint, in words; nothing of a single one.
fn all_lost(spec: &RunSpec, lineage: &Lineage, blobs: &Blobs, through_seq: u64) -> String {
    let Ok(merger) = before(spec, lineage, blobs, None) else { return String::new() };
    let Ok(deltas) = after(lineage, merger.last_seq()) else { return String::new() };
    let of_versions = deltas.iter().take_while(|d| d.seq <= through_seq);
    let is_gone = |d: &&DeltaRecord| match blobs.is_sound(d.blob.hash, d.blob.bytes) {
        Ok(is_sound) => !is_sound,
        Err(error) => is_lost(&error),
    };
    let named = |d: &DeltaRecord| format!("delta {} (blob {})", d.seq, d.blob.hash);
    let gone: Vec<String> = of_versions.filter(is_gone).map(named).collect();
    if gone.len() < 2 { String::new() } else { format!(" Lost are {} deltas: {}.", gone.len(), gone.join(", ")) }
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
    lineage: &Lineage,
    blobs: &Blobs,
    start: impl FnOnce() -> Vec<f32>,
) -> Result<Merger, ReplayError> {
    if lineage.versions.is_empty() {
        return Ok(Merger::start(spec.clone(), &start()));
    }
    let mut merger = before(spec, lineage, blobs, None)?;
    let done = lineage.versions.partition_point(|v| v.version <= merger.weights().version);
    for version in &lineage.versions[done..] {
        advance(&mut merger, lineage, blobs, version)?;
    }
    Ok(merger)
}

/// A merger to replay from: at the newest version before `limit` that has a sound checkpoint, or at which merging began
/// anew, or at version 0.
fn before(spec: &RunSpec, lineage: &Lineage, blobs: &Blobs, limit: Option<Version>) -> Result<Merger, ReplayError> {
    let checkpoint = newest_checkpoint(spec, lineage, blobs, limit)?;
    let restart = lineage.restarts.iter().copied().rfind(|v| limit.is_none_or(|limit| *v < limit));
    let restart = restart.filter(|v| checkpoint.as_ref().is_none_or(|merger| merger.weights().version < *v));
    let is_kept = |v: &Version| lineage.place(*v).is_some_and(|at| has_deltas_since(lineage, &lineage.versions[at]));
    let restart = restart.filter(is_kept);
    if let Some(version) = restart
        && let Some(merger) = restarted(spec, lineage, blobs, version)?
    {
        return Ok(merger);
    }
    match (checkpoint, lineage.versions.first()) {
        (Some(merger), _) => Ok(merger),
        (None, Some(_)) if lineage.is_cut => Err(ReplayError::Older),
        (None, Some(_)) if lineage.kept.after_seq > 0 => Err(ReplayError::GivenUp),
        (None, Some(first)) => from_first(spec, first, blobs),
        (None, None) => Err(ReplayError::NoStart),
    }
}

/// Whether no delta after a version is given up.
fn has_deltas_since(lineage: &Lineage, version: &VersionRecord) -> bool {
    version.through_seq >= lineage.kept.after_seq
}

/// The merger as it was when merging began anew at a version; `None` if its weights cannot be put together any more.
fn restarted(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    version: Version,
) -> Result<Option<Merger>, ReplayError> {
    let weights = weights(spec, &lineage.versions, blobs, version).ok();
    if weights.is_none() && lineage.is_cut {
        return Err(ReplayError::Older);
    }
    let at = lineage.place(version).map(|at| lineage.versions[at].through_seq);
    weights.zip(at).map(|((weights, _), through_seq)| anew(spec, lineage, weights, through_seq)).transpose()
}

fn anew(spec: &RunSpec, lineage: &Lineage, weights: Weights, through_seq: u64) -> Result<Merger, ReplayError> {
    let upto = &lineage.deltas[..lineage.deltas.partition_point(|d| d.seq <= through_seq)];
    let counted = upto.iter().filter(|d| !lineage.is_lost(d.seq)).map(|d| d.tokens);
    if lineage.after_seq > 0 && counted.clone().count() < RECENT {
        return Err(ReplayError::Older);
    }
    Ok(Merger::anew(spec.clone(), weights, through_seq, counted))
}

fn from_first(spec: &RunSpec, first: &VersionRecord, blobs: &Blobs) -> Result<Merger, ReplayError> {
    let keyframe = first.keyframe.ok_or(ReplayError::NoStart)?;
    Ok(Merger::start_from_keyframe(spec.clone(), &blobs.read(keyframe.hash)?)?)
}

/// The newest checkpoint, of a version before `limit`, that the ledger knows as the checkpoint does. One may be there
/// whose version was never committed.
fn newest_checkpoint(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    limit: Option<Version>,
) -> Result<Option<Merger>, BlobError> {
    for number in blobs.checkpoints()?.into_iter().filter(|v| limit.is_none_or(|limit| Version(*v) < limit)) {
        let Some(at) = lineage.place(Version(number)) else { continue };
        if !has_deltas_since(lineage, &lineage.versions[at]) {
            continue;
        }
        if let Some(merger) = at_checkpoint(spec, &lineage.versions[at], blobs) {
            return Ok(Some(merger));
        }
        tracing::warn!("the checkpoint of version {number} is damaged or of another run; an earlier one is used");
    }
    Ok(None)
}

/// The merger as a version's checkpoint has it, if that is sound and the version's.
fn at_checkpoint(spec: &RunSpec, version: &VersionRecord, blobs: &Blobs) -> Option<Merger> {
    let merger = match blobs.checkpoint(version.version.0) {
        Ok(bytes) => bytes.and_then(|bytes| Merger::restore(spec.clone(), &bytes)),
        Err(error) => {
            tracing::warn!(%error, "the checkpoint of version {} cannot be read", version.version);
            None
        }
    };
    merger.filter(|m| m.last_seq() == version.through_seq && m.weights().digest() == version.digest)
}

/// Merges the deltas of a version, publishes it again, and compares.
fn advance(
    merger: &mut Merger,
    lineage: &Lineage,
    blobs: &Blobs,
    version: &VersionRecord,
) -> Result<PublishedBytes, ReplayError> {
    let again = match version.given {
        // Deltas that nobody waited for any more are in no version.
        Some(given) => {
            merger.pass_over(version.through_seq);
            merger.give(version.version, &blobs.read(given.hash)?)?
        }
        None => {
            merge_through(merger, lineage, blobs, version.through_seq)?;
            merger.publish(version.version, version.keyframe.is_some())?
        }
    };
    if !is_same(&again, version) {
        return Err(ReplayError::Diverged(version.version));
    }
    if lineage.restarts.binary_search(&version.version).is_ok() {
        let weights = merger.weights().clone();
        *merger = anew(&merger.spec().clone(), lineage, weights, version.through_seq)?;
    }
    Ok(again)
}

fn after(lineage: &Lineage, seq: u64) -> Result<&[DeltaRecord], ReplayError> {
    lineage.after(seq).ok_or(ReplayError::Older)
}

fn merge_through(merger: &mut Merger, lineage: &Lineage, blobs: &Blobs, through_seq: u64) -> Result<(), ReplayError> {
    for delta in after(lineage, merger.last_seq())?.iter().take_while(|d| d.seq <= through_seq) {
        if lineage.is_lost(delta.seq) {
            merger.pass_over(delta.seq);
        } else {
            add(merger, blobs, delta)?;
        }
    }
    Ok(())
}

fn add(merger: &mut Merger, blobs: &Blobs, delta: &DeltaRecord) -> Result<(), ReplayError> {
    Ok(merger.add(&order(delta), &blobs.read(delta.blob.hash)?)?)
}

fn order(d: &DeltaRecord) -> MergeOrder {
    MergeOrder { seq: d.seq, lease: d.lease, delta: d.blob.hash, tokens: d.tokens, weight: d.weight }
}

fn is_same(again: &PublishedBytes, version: &VersionRecord) -> bool {
    let name = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(BlobRef::of);
    again.digest == version.digest
        && again.through_seq == version.through_seq
        && name(&again.update) == version.update
        && name(&again.keyframe) == version.keyframe
}

/// The weights of a version by any way there is: from what was published, or else from the deltas. With what is lost.
pub fn weights_by_any_way(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    version: Version,
) -> Result<(Weights, Vec<String>), ReplayError> {
    let published = match weights(spec, &lineage.versions, blobs, version) {
        Ok(found) => return Ok(found),
        Err(PublishedError::Disk(error)) => return Err(error.into()),
        Err(_) if lineage.is_cut => return Err(ReplayError::Older),
        Err(PublishedError::Unknown(version)) => return Err(ReplayError::Unknown(version)),
        Err(published) => published,
    };
    match merged_again(spec, lineage, blobs, version) {
        Ok(weights) => Ok((weights, vec![published.to_string()])),
        Err(_) if version < lineage.kept.first_version => {
            Err(ReplayError::Forgotten { version, oldest: lineage.kept.first_version })
        }
        Err(replay) => Err(ReplayError::NoWay { replay: Box::new(replay), published }),
    }
}

fn merged_again(spec: &RunSpec, lineage: &Lineage, blobs: &Blobs, version: Version) -> Result<Weights, ReplayError> {
    let mut merger = before(spec, lineage, blobs, Some(version.next()))?;
    let done = lineage.versions.partition_point(|v| v.version <= merger.weights().version);
    for version in lineage.versions[done..].iter().take_while(|v| v.version <= version) {
        advance(&mut merger, lineage, blobs, version)?;
    }
    Ok(merger.weights().clone())
}

/// The bytes of a blob that a version was published as, bit for bit, made of other blobs: a squash of its updates, a
/// keyframe of whatever else leads to its version, an update of the deltas since the checkpoint before it.
pub fn rebuild(spec: &RunSpec, lineage: &Lineage, blobs: &Blobs, hash: BlobHash) -> Result<Vec<u8>, ReplayError> {
    let of = lineage
        .versions
        .iter()
        .find(|v| v.published().any(|blob| blob.hash == hash))
        .ok_or(if lineage.is_cut { ReplayError::Older } else { ReplayError::Unpublished(hash) })?;
    // What is removed by the rule is not made again behind its back.
    if of.version < lineage.kept.removed_versions {
        return Err(ReplayError::Forgotten { version: of.version, oldest: lineage.kept.first_version });
    }
    let is = |blob: &Option<BlobRef>| blob.is_some_and(|blob| blob.hash == hash);
    let bytes = if is(&of.keyframe) {
        let found = weights(spec, &lineage.versions, blobs, of.version);
        let (weights, _) = found.map_err(|published| match published {
            PublishedError::Disk(error) => ReplayError::Blob(error),
            _ if lineage.is_cut => ReplayError::Older,
            published => ReplayError::NoWay { replay: Box::new(BlobError::Corrupt(hash).into()), published },
        })?;
        keyframe::encode(&spec.model, &weights)
    } else if is(&of.update) {
        let mut merger = before(spec, lineage, blobs, Some(of.version))?;
        let done = lineage.versions.partition_point(|v| v.version <= merger.weights().version);
        let mut last = None;
        for version in lineage.versions[done..].iter().take_while(|v| v.version <= of.version) {
            last = advance(&mut merger, lineage, blobs, version)?.update;
        }
        last.ok_or(ReplayError::Unpublished(hash))?
    } else {
        let from = of.squashes.iter().find(|s| s.blob.hash == hash).map_or(of.version, |s| s.from);
        if lineage.is_cut && lineage.place(from).is_none() {
            return Err(ReplayError::Older);
        }
        let at = |v: Version| lineage.versions.partition_point(|known| known.version <= v);
        let parts = lineage.versions[at(from)..at(of.version)].iter().filter_map(|v| v.update);
        let parts = parts.map(|update| blobs.read(update.hash)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        update::squash(&spec.model, &parts).map_err(MergeError::from)?
    };
    if BlobHash::of(&bytes) == hash { Ok(bytes) } else { Err(ReplayError::Otherwise(hash)) }
}

#[cfg(test)]
mod given_tests;
#[cfg(test)]
mod tests;
