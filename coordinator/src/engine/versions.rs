//! Published versions, and the shortest way from what a device holds to the version that it needs.

use super::record::VersionRecord;
use crate::store::snapshot::VERSIONS_KEPT;
use nightjar_shared::{
    ids::{BlobHash, Version},
    wire::{Blob, HeldWeights, UpdateStep, limits::UPDATE_STEPS_MAX},
};
use std::collections::VecDeque;

/// How to come to a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Path {
    /// The whole to start from; `None`: from what the device holds.
    pub keyframe: Option<Blob>,
    /// The changes to apply after it.
    pub updates: Vec<UpdateStep>,
}

impl Path {
    fn bytes(&self) -> u64 {
        self.keyframe.iter().chain(self.updates.iter().filter_map(|u| u.update.as_ref())).map(|b| b.bytes).sum()
    }
}

/// The newest versions, oldest first, without a gap.
pub(super) struct Versions {
    kept: VecDeque<VersionRecord>,
}

impl Versions {
    pub fn restore(versions: Vec<VersionRecord>) -> Self {
        Versions { kept: versions.into() }
    }

    pub fn push(&mut self, version: VersionRecord) {
        self.kept.push_back(version);
        if self.kept.len() > VERSIONS_KEPT {
            self.kept.pop_front();
        }
    }

    pub fn newest(&self) -> Option<&VersionRecord> {
        self.kept.back()
    }

    pub fn get(&self, version: Version) -> Option<&VersionRecord> {
        let oldest = self.kept.front()?.version.0;
        self.kept.get(usize::try_from(version.0.checked_sub(oldest)?).ok()?)
    }

    /// The path of fewest bytes from what is held to `target`.
    pub fn path(&self, held: Option<&HeldWeights>, target: Version) -> Option<Path> {
        let held = held.filter(|h| self.get(Version(h.version)).is_some_and(|v| v.digest == *h.digest));
        let onward = held.and_then(|h| self.updates(Version(h.version), target));
        let onward = onward.map(|updates| Path { keyframe: None, updates });
        let anew = self.starting_anew(target);
        [onward, anew].into_iter().flatten().min_by_key(Path::bytes)
    }

    fn starting_anew(&self, target: Version) -> Option<Path> {
        let reach = (0..=UPDATE_STEPS_MAX as u64).map_while(|back| target.0.checked_sub(back));
        let (version, keyframe) = reach.map(Version).find_map(|v| Some((v, blob(self.get(v)?.keyframe?))))?;
        Some(Path { keyframe: Some(keyframe), updates: self.updates(version, target)? })
    }

    /// The updates that lead from one version to another.
    fn updates(&self, from: Version, target: Version) -> Option<Vec<UpdateStep>> {
        if target.0.checked_sub(from.0)? > UPDATE_STEPS_MAX as u64 {
            return None;
        }
        let step = |v: &VersionRecord| Some(UpdateStep { update: Some(blob(v.update?)), redefines: v.keyframe.is_some() });
        (from.0 + 1..=target.0).map(|v| step(self.get(Version(v))?)).collect()
    }
}

fn blob((hash, bytes): (BlobHash, u64)) -> Blob {
    Blob::new(hash, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::time::Wall;

    /// Versions 0 to `newest`; updates of 10 bytes, keyframes of 25 bytes every fourth version.
    fn versions(newest: u64) -> Versions {
        let record = |v: u64| VersionRecord {
            version: Version(v),
            update: (v > 0).then_some((BlobHash([v as u8; 32]), 10)),
            keyframe: v.is_multiple_of(4).then(|| (BlobHash([100 + v as u8; 32]), 25)),
            digest: [v as u8; 32],
            through_seq: v,
            published_at: Wall::default(),
        };
        Versions::restore((0..=newest).map(record).collect())
    }

    fn held(version: u64) -> HeldWeights {
        HeldWeights { version, digest: vec![version as u8; 32] }
    }

    fn steps(path: &Path) -> Vec<(u64, bool)> {
        path.updates.iter().map(|u| (u64::from(u.update.as_ref().unwrap().hash[0]), u.redefines)).collect()
    }

    #[test]
    fn few_updates_beat_a_keyframe() {
        let path = versions(5).path(Some(&held(3)), Version(5)).unwrap();
        assert_eq!(path.keyframe, None);
        assert_eq!(steps(&path), [(4, true), (5, false)], "version 4 is a keyframe: round after it");
        assert_eq!(versions(5).path(Some(&held(5)), Version(5)), Some(Path::default()), "nothing to fetch");
    }

    #[test]
    fn a_keyframe_beats_many_updates() {
        let path = versions(5).path(Some(&held(1)), Version(5)).unwrap();
        assert_eq!(path.keyframe.as_ref().map(|b| b.hash[0]), Some(104));
        assert_eq!(steps(&path), [(5, false)]);
    }

    #[test]
    fn without_weights_that_we_know_the_keyframe_is_the_start() {
        let foreign = HeldWeights { version: 5, digest: vec![9; 32] };
        let ahead = held(7);
        for held in [None, Some(&foreign), Some(&ahead)] {
            let path = versions(5).path(held, Version(5)).unwrap();
            assert!(path.keyframe.is_some());
            assert_eq!(steps(&path), [(5, false)]);
        }
        assert_eq!(Versions::restore(vec![]).path(None, Version(0)), None);
    }
}
