//! Gives up what the rule lets go, and removes it: in the ledger first, then the blobs, a page at a time. A kill between
//! any two of these is made up for by the next pass: removing what is gone already changes nothing.

use super::{
    Kept, Point, Span, Standing, Weight, chain,
    plan::{self, Situation},
};
use crate::{
    engine::{record::VersionRecord, snapshot::BLOBS_KEPT},
    store::{BlobError, Blobs, Ledger, LedgerError},
};
use nightjar_shared::{
    fail,
    ids::{BlobHash, Version},
    run_spec::KeepSpec,
    time::Wall,
};
use std::collections::BTreeSet;
use tokio::task::spawn_blocking;

/// Blobs removed between two notes in the ledger.
const REMOVED_AT_ONCE: usize = 1024;

/// Why nothing more is given up or removed for now. What is kept is as it was.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The ledger does not answer, or holds what cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A blob could not be read or removed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A thread died.
    #[error("the removal failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// What may be given up now, beyond what is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Versions before this one.
    pub first_version: Version,
    /// Deltas up to this one.
    pub after_seq: u64,
    /// Checkpoints that nothing needs then.
    pub checkpoints: Vec<Version>,
}

impl Due {
    /// Whether the ledger has to be told.
    pub fn is_more_than(&self, kept: &Kept) -> bool {
        self.first_version > kept.first_version || self.after_seq > kept.after_seq
    }
}

/// What may go now, by the rule. Nothing goes before what takes its place was read through: the keyframe that devices
/// begin at, and the checkpoint that replays do.
pub async fn due(ledger: &dyn Ledger, blobs: &Blobs, rule: &KeepSpec, now: Wall) -> Result<Due, KeepError> {
    let Standing { kept, newest, last_seq, oldest_base, .. } = ledger.standing().await?;
    let mut due = Due { first_version: kept.first_version, after_seq: kept.after_seq, checkpoints: vec![] };
    let Some(newest) = newest else { return Ok(due) };
    let old_enough = match plan::old_since(rule, now) {
        Some(since) => newest_before(ledger, kept.first_version, newest, since).await?,
        None => None,
    };
    let checkpoints = linked_checkpoints(ledger, blobs).await?;
    let now = Situation { rule, kept, newest, last_seq, oldest_base, old_enough, checkpoints: &checkpoints, now };
    if let Some(bound) = now.version_bound()
        && let Some(keyframe) = ledger.keyframe_upto(bound).await?.filter(|k| k.version > kept.first_version)
        && has_sound_keyframe(ledger, blobs, keyframe.version).await?
    {
        due.first_version = keyframe.version;
    }
    if let Some(anchor) = now.anchor()
        && has_sound_checkpoint(ledger, blobs, anchor.version).await?
    {
        due.after_seq = anchor.through_seq;
    }
    due.checkpoints = now.idle_checkpoints(due.after_seq);
    // What has no link by now is damaged, or of no version.
    let newest_two = checkpoints.get(checkpoints.len().saturating_sub(2)).map_or(0, |p| p.version.0);
    let is_linked = |version: &u64| checkpoints.iter().any(|p| p.version.0 == *version);
    let of_no_use = blobs.checkpoints()?.into_iter().filter(|v| *v < newest_two && !is_linked(v));
    due.checkpoints.extend(of_no_use.map(Version));
    Ok(due)
}

/// The newest version that was published by then; none goes back in time.
async fn newest_before(
    ledger: &dyn Ledger,
    oldest: Version,
    newest: Version,
    since: Wall,
) -> Result<Option<Version>, KeepError> {
    let (mut known, mut beyond) = (None, newest.next());
    let mut least = oldest;
    while least < beyond {
        let middle = Version(least.0 + (beyond.0 - least.0) / 2);
        let is_old = ledger.versions_from(middle, 1).await?.first().is_some_and(|v| v.published_at <= since);
        if is_old {
            (known, least) = (Some(middle), middle.next());
        } else {
            beyond = middle;
        }
    }
    Ok(known)
}

/// The checkpoints that are in the chain and still there, oldest first.
async fn linked_checkpoints(ledger: &dyn Ledger, blobs: &Blobs) -> Result<Vec<Point>, KeepError> {
    let mut points = vec![];
    for version in blobs.checkpoints()?.into_iter().rev().map(Version) {
        let link = ledger.links(version, 1).await?.into_iter().find(|link| link.version == version);
        let row = ledger.versions_from(version, 1).await?.into_iter().find(|v| v.version == version);
        if let (Some(link), Some(row)) = (link, row) {
            points.push(Point { version, through_seq: link.through_seq, published_at: row.published_at });
        }
    }
    Ok(points)
}

async fn has_sound_keyframe(ledger: &dyn Ledger, blobs: &Blobs, version: Version) -> Result<bool, KeepError> {
    let row = ledger.versions_from(version, 1).await?.into_iter().find(|v| v.version == version);
    let Some(keyframe) = row.and_then(|v| v.keyframe) else { return Ok(false) };
    let blobs = blobs.clone();
    let is_sound = spawn_blocking(move || blobs.is_sound(keyframe.hash, keyframe.bytes)).await??;
    if !is_sound {
        tracing::warn!("the keyframe of version {version} is damaged: no version before it is given up");
    }
    Ok(is_sound)
}

async fn has_sound_checkpoint(ledger: &dyn Ledger, blobs: &Blobs, version: Version) -> Result<bool, KeepError> {
    let link = ledger.links(version, 1).await?.into_iter().find(|link| link.version == version);
    // Where merging began anew after the link was made, the checkpoint is another; the next one will do.
    let is_sound = link.is_some() && chain::hash_of(blobs, version).await? == link.map(|link| link.checkpoint);
    if !is_sound {
        tracing::warn!(
            "the checkpoint of version {version} is not the one of its link: no delta before it is given up"
        );
    }
    Ok(is_sound)
}

/// Notes what is due. The caller has led devices away from the versions that go.
pub async fn give_up(ledger: &dyn Ledger, due: &Due) -> Result<(), KeepError> {
    ledger.give_up(due.first_version, due.after_seq).await?;
    fail::point("keep.noted");
    Ok(())
}

/// Removes checkpoints that nothing needs any more.
pub async fn remove_checkpoints(blobs: &Blobs, idle: Vec<Version>) -> Result<(), KeepError> {
    let blobs = blobs.clone();
    let remove = move || {
        idle.into_iter().try_for_each(|version| {
            blobs.remove_checkpoint(version.0)?;
            fail::point("keep.checkpoint");
            Ok(())
        })
    };
    spawn_blocking(remove).await?
}

/// Removes one page of what is given up; `false` once nothing is left to remove now. `before` hears of the blobs of
/// versions first, so that nobody is sent for one.
pub async fn remove_page(
    ledger: &dyn Ledger,
    blobs: &Blobs,
    rule: &KeepSpec,
    before: impl FnOnce(&[BlobHash]),
) -> Result<bool, KeepError> {
    let Standing { kept, oldest_lease, .. } = ledger.standing().await?;
    if kept.removed_deltas < kept.after_seq {
        return remove_deltas(ledger, blobs, kept).await.map(|()| true);
    }
    let is_on_its_way = oldest_lease.is_some_and(|lease| lease <= kept.last_lease);
    if kept.removed_versions < kept.first_version && !is_on_its_way {
        return remove_versions(ledger, blobs, rule, kept, before).await.map(|()| true);
    }
    Ok(false)
}

async fn remove_deltas(ledger: &dyn Ledger, blobs: &Blobs, kept: Kept) -> Result<(), KeepError> {
    let mut page = ledger.deltas_after(kept.removed_deltas, REMOVED_AT_ONCE).await?;
    page.retain(|d| d.seq <= kept.after_seq);
    let names: BTreeSet<BlobHash> = page.iter().map(|d| d.blob.hash).collect();
    // Bytes that came twice are one blob. The engine takes none of the newest BLOBS_KEPT for another lease.
    let first = page.first().map_or(kept.after_seq, |d| d.seq);
    let needed = ledger.named_after(kept.after_seq.max(first + BLOBS_KEPT as u64), names.clone()).await?;
    remove(blobs, names.difference(&needed).copied().collect()).await?;
    fail::point("keep.deltas");
    // Behind the last row nothing is left to remove, whatever rows are missing.
    let through = page.last().map_or(kept.after_seq, |d| d.seq);
    Ok(ledger.note_removed(kept.removed_versions, through).await?)
}

async fn remove_versions(
    ledger: &dyn Ledger,
    blobs: &Blobs,
    rule: &KeepSpec,
    kept: Kept,
    before: impl FnOnce(&[BlobHash]),
) -> Result<(), KeepError> {
    let mut page = ledger.versions_from(kept.removed_versions, REMOVED_AT_ONCE / 8).await?;
    page.retain(|v| v.version < kept.first_version);
    let of_version = |v: &VersionRecord| {
        let stays = v.keyframe.filter(|_| rule.is_milestone(v.version)).map(|blob| blob.hash);
        v.blobs().map(|blob| blob.hash).filter(move |hash| Some(*hash) != stays).collect::<Vec<_>>()
    };
    let mut names: Vec<BlobHash> = page.iter().flat_map(of_version).collect();
    // The same weights may be given again.
    let given = page.iter().filter_map(|v| v.given.map(|blob| blob.hash)).collect();
    let needed = ledger.given_from(kept.first_version, given).await?;
    names.retain(|hash| !needed.contains(hash));
    before(&names);
    remove(blobs, names).await?;
    fail::point("keep.versions");
    let next = page.last().map_or(kept.first_version, |v| v.version.next());
    Ok(ledger.note_removed(next, kept.removed_deltas).await?)
}

async fn remove(blobs: &Blobs, names: Vec<BlobHash>) -> Result<(), KeepError> {
    let blobs = blobs.clone();
    let remove = move || {
        names.into_iter().try_for_each(|hash| {
            blobs.remove(hash)?;
            fail::point("keep.blob");
            Ok(())
        })
    };
    spawn_blocking(remove).await?
}

/// What would be removed of a run, if this were given up.
pub async fn weight_of(ledger: &dyn Ledger, rule: &KeepSpec, due: &Due) -> Result<Weight, KeepError> {
    let kept = ledger.kept().await?;
    let span = Span {
        from: kept.removed_versions,
        before: due.first_version,
        milestone_every: rule.milestone_every(),
        after_seq: kept.removed_deltas,
        through_seq: due.after_seq,
    };
    Ok(ledger.weight(span).await?)
}

/// What is still there of a run, but for milestones of what was removed.
pub async fn weight_kept(ledger: &dyn Ledger) -> Result<Weight, KeepError> {
    let kept = ledger.kept().await?;
    let span = Span {
        from: kept.removed_versions,
        before: Version(i64::MAX as u64),
        milestone_every: 0,
        after_seq: kept.removed_deltas,
        through_seq: i64::MAX as u64,
    };
    Ok(ledger.weight(span).await?)
}
