//! Published versions, and the cheapest way from what a device holds to the version that it needs: over updates,
//! squashes and keyframes. Worked out once a version; a request only walks it, because a million devices ask.

use super::{record::VersionRecord, snapshot::VERSIONS_KEPT};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Version},
    wire::{Blob, HeldWeights, UpdateStep, limits::UPDATE_STEPS_MAX},
};
use std::collections::{BTreeSet, VecDeque};

/// How to come to a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Path {
    /// The whole to start from; `None`: from what the device holds.
    pub keyframe: Option<Blob>,
    /// The changes to apply after it: updates and squashes.
    pub updates: Vec<UpdateStep>,
}

/// The way on from a version.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Hop {
    /// From here to the target.
    bytes: u64,
    /// From here to the target.
    steps: usize,
    /// Where the first step leads, and its blob; `None` at the target.
    next: Option<(Version, BlobRef)>,
}

/// The ways to one target.
#[derive(Debug, Default)]
struct Routes {
    /// From each version kept, oldest first, up to the target.
    hops: Vec<Option<Hop>>,
    /// The keyframe that is the cheapest start for who holds nothing.
    start: Option<(Version, BlobRef)>,
    /// Bytes from there, the keyframe's included.
    start_bytes: u64,
}

/// The newest versions, oldest first, without a gap.
pub(super) struct Versions {
    kept: VecDeque<VersionRecord>,
    /// Blobs that are not to be had any more.
    lost: BTreeSet<BlobHash>,
    /// To the newest.
    routes: Routes,
}

impl Versions {
    pub fn restore(versions: Vec<VersionRecord>) -> Self {
        let mut versions = Versions { kept: versions.into(), lost: BTreeSet::new(), routes: Routes::default() };
        versions.find_routes();
        versions
    }

    pub fn push(&mut self, version: VersionRecord) {
        self.kept.push_back(version);
        if self.kept.len() > VERSIONS_KEPT {
            self.kept.pop_front();
        }
        self.find_routes();
    }

    /// Leads nobody over this blob any more.
    pub fn avoid(&mut self, lost: BlobHash) {
        self.lost.insert(lost);
        self.find_routes();
    }

    /// Leads nobody over versions before this one any more; the newest stays whatever is said.
    pub fn forget(&mut self, before: Version) {
        while self.kept.len() > 1 && self.kept.front().is_some_and(|oldest| oldest.version < before) {
            self.kept.pop_front();
        }
        self.find_routes();
    }

    /// Whether who holds nothing can come to the newest version.
    pub fn has_beginning(&self) -> bool {
        self.routes.start.is_some()
    }

    fn find_routes(&mut self) {
        self.routes = self.newest().and_then(|newest| self.routes_to(newest.version)).unwrap_or_default();
    }

    pub fn newest(&self) -> Option<&VersionRecord> {
        self.kept.back()
    }

    fn place(&self, version: Version) -> Option<usize> {
        usize::try_from(version.0.checked_sub(self.kept.front()?.version.0)?).ok()
    }

    pub fn get(&self, version: Version) -> Option<&VersionRecord> {
        self.kept.get(self.place(version)?)
    }

    /// The path of fewest bytes from what is held to `target`.
    pub fn path(&self, held: Option<&HeldWeights>, target: Version) -> Option<Path> {
        let held = held.filter(|h| self.get(Version(h.version)).is_some_and(|v| v.digest == *h.digest));
        let other;
        let routes = if self.newest()?.version == target {
            &self.routes
        } else {
            other = self.routes_to(target)?;
            &other
        };
        let hop = |v: Version| *routes.hops.get(self.place(v)?)?;
        let onward = held.map(|h| Version(h.version)).filter(|v| hop(*v).is_some());
        let (keyframe, from) = match (onward, routes.start) {
            (Some(from), Some(_)) if hop(from)?.bytes <= routes.start_bytes => (None, from),
            (_, Some((from, keyframe))) => (Some(keyframe.to_wire()), from),
            (Some(from), None) => (None, from),
            (None, None) => return None,
        };
        let mut updates = vec![];
        let mut at = from;
        while let Some((next, change)) = hop(at)?.next {
            updates.push(UpdateStep { update: Some(change.to_wire()), redefines: self.get(next)?.keyframe.is_some() });
            at = next;
        }
        Some(Path { keyframe, updates })
    }

    /// The cheapest way to `target` from every version kept; of ways that cost the same, the one of fewer steps. Steps
    /// only lead to newer versions, so one pass from the target backwards finds them all.
    fn routes_to(&self, target: Version) -> Option<Routes> {
        let end = self.place(target).filter(|place| *place < self.kept.len())?;
        let mut hops: Vec<Option<Hop>> = vec![None; end + 1];
        hops[end] = Some(Hop { bytes: 0, steps: 0, next: None });
        for (at, record) in self.kept.iter().enumerate().take(end + 1).rev() {
            let Some(here) = hops[at] else { continue };
            let update = record.update.into_iter().filter_map(|blob| Some((at.checked_sub(1)?, blob)));
            let squashes = record.squashes.iter().filter_map(|s| Some((self.place(s.from)?, s.blob)));
            for (from, blob) in update.chain(squashes).filter(|(_, blob)| !self.lost.contains(&blob.hash)) {
                let hop =
                    Hop { bytes: here.bytes + blob.bytes, steps: here.steps + 1, next: Some((record.version, blob)) };
                let is_better = hops[from].is_none_or(|known| (hop.bytes, hop.steps) < (known.bytes, known.steps));
                if hop.steps <= UPDATE_STEPS_MAX && is_better {
                    hops[from] = Some(hop);
                }
            }
        }
        let whole = |(hop, record): (&Option<Hop>, &VersionRecord)| {
            let keyframe = record.keyframe.filter(|keyframe| !self.lost.contains(&keyframe.hash))?;
            Some((hop.as_ref()?.bytes + keyframe.bytes, (record.version, keyframe)))
        };
        // The newest of the cheapest.
        let start = hops.iter().zip(&self.kept).filter_map(whole).rev().min_by_key(|(bytes, _)| *bytes);
        let (start_bytes, start) = start.map_or((0, None), |(bytes, start)| (bytes, Some(start)));
        Some(Routes { hops, start, start_bytes })
    }
}

#[cfg(test)]
mod tests;
