//! What is kept of a run, and what the rule `[keep]` has given up. The ledger's rows stay for ever: they are the record of
//! who did what. What goes are blobs of old versions and merged deltas, and never before the ledger says so.
//!
//! In their place stands a chain ([`chain`]): one link a checkpoint, which names the checkpoint's bytes, the rows since the
//! link before, and that link. [`plan`] decides what may go, [`pass`] has it go.

pub mod chain;
pub mod pass;
pub mod plan;

use super::ledger::Answer;
use crate::engine::record::{DeltaRecord, VersionRecord};
use chain::Link;
use nightjar_shared::{
    ids::{BlobHash, LeaseId, Version},
    time::Wall,
};
use serde::Serialize;
use std::collections::BTreeSet;

/// How far back blobs are kept. It only ever moves on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Versions before this one are given up: devices are led over none of their blobs.
    pub first_version: Version,
    /// Merged deltas up to this one are given up.
    pub after_seq: u64,
    /// The newest lease when versions were given up: it and those before it may still be on their way over them.
    pub last_lease: LeaseId,
    /// Blobs of versions before this one are removed, but for milestones' keyframes.
    pub removed_versions: Version,
    /// Blobs of deltas up to this one are removed.
    pub removed_deltas: u64,
}

/// What a ledger stands at, as far as giving up goes by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is kept.
    pub kept: Kept,
    /// The newest version; `None` before the first.
    pub newest: Option<Version>,
    /// The newest merged delta.
    pub last_seq: u64,
    /// The oldest version that an open lease starts from.
    pub oldest_base: Option<Version>,
    /// The oldest lease that is open.
    pub oldest_lease: Option<LeaseId>,
    /// The chain's last link.
    pub last_link: Option<Link>,
}

/// A version at which something may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The version.
    pub version: Version,
    /// All deltas up to this one are in it.
    pub through_seq: u64,
    /// When it was published.
    pub published_at: Wall,
}

/// Blobs, as the ledger's rows name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Weight {
    /// Versions.
    pub versions: u64,
    /// Bytes of their updates, squashes and keyframes, and of the weights that they were made of.
    pub version_bytes: u64,
    /// Merged deltas.
    pub deltas: u64,
    /// Bytes of those.
    pub delta_bytes: u64,
}

/// Rows that [`Weight`] is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From this version.
    pub from: Version,
    /// To before this one.
    pub before: Version,
    /// Keyframes of versions that are a multiple of this are left out.
    pub milestone_every: u64,
    /// Deltas after this one.
    pub after_seq: u64,
    /// Up to this one.
    pub through_seq: u64,
}

/// What a ledger tells and notes of what is kept: the part of [`super::Ledger`] that old blobs go by. Answers that could
/// be long come a page at a time.
pub trait Keeping: Send + Sync {
    /// What is kept.
    fn kept(&self) -> Answer<'_, Kept>;

    /// How far the run is, beside it.
    fn standing(&self) -> Answer<'_, Standing>;

    /// Notes that versions before one, and deltas up to one, are given up. What was given up already stays so.
    fn give_up(&self, first_version: Version, after_seq: u64) -> Answer<'_, ()>;

    /// Notes what is removed of that. [`super::LedgerError::Contradiction`] if it was not given up.
    fn note_removed(&self, before: Version, through_seq: u64) -> Answer<'_, ()>;

    /// Lengthens the chain. [`super::LedgerError::Contradiction`] if the version has a link, or no row.
    fn add_link<'a>(&'a self, link: &'a Link) -> Answer<'a, ()>;

    /// The chain's links from a version on, oldest first; at most so many.
    fn links(&self, from: Version, most: usize) -> Answer<'_, Vec<Link>>;

    /// Versions from one on, oldest first; at most so many. [`super::LedgerError::Row`] if one cannot be read.
    fn versions_from(&self, from: Version, most: usize) -> Answer<'_, Vec<VersionRecord>>;

    /// The newest version up to one that has a keyframe.
    fn keyframe_upto(&self, upto: Version) -> Answer<'_, Option<Point>>;

    /// Merged deltas after one, in their order; at most so many. [`super::LedgerError::Row`] if one cannot be read.
    fn deltas_after(&self, seq: u64, most: usize) -> Answer<'_, Vec<DeltaRecord>>;

    /// Which of these blobs a merged delta after one is, too.
    fn named_after(&self, seq: u64, blobs: BTreeSet<BlobHash>) -> Answer<'_, BTreeSet<BlobHash>>;

    /// Which of these blobs a version from one on was made of, as weights that were given.
    fn given_from(&self, from: Version, blobs: BTreeSet<BlobHash>) -> Answer<'_, BTreeSet<BlobHash>>;

    /// Versions from which merging began anew, and deltas that were lost, each in their order.
    fn losses(&self) -> Answer<'_, (Vec<Version>, Vec<u64>)>;

    /// What blobs weigh.
    fn weight(&self, span: Span) -> Answer<'_, Weight>;
}
