//! Which path is offered, by sizes; and, with real weights, that every path offered ends in the version's digest.

use super::*;
use crate::{engine::record::Squash, world::published};
use nightjar_shared::{
    rng,
    time::Wall,
    version::{keyframe, update},
};

/// Versions 0 to `newest`; updates of 10 bytes, keyframes of 25 bytes every fourth version.
fn versions(newest: u64) -> Versions {
    let record = |v: u64| VersionRecord {
        version: Version(v),
        update: (v > 0).then_some(BlobRef { hash: BlobHash([v as u8; 32]), bytes: 10 }),
        given: None,
        keyframe: v.is_multiple_of(4).then(|| BlobRef { hash: BlobHash([100u8.wrapping_add(v as u8); 32]), bytes: 25 }),
        digest: [v as u8; 32],
        through_seq: v,
        published_at: Wall::default(),
        squashes: vec![],
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

#[test]
fn nobody_is_led_over_versions_that_are_given_up() {
    let mut versions = versions(9);
    assert_eq!(versions.path(Some(&held(3)), Version(4)).unwrap().keyframe, None);
    versions.forget(Version(4));
    assert!(versions.get(Version(3)).is_none() && versions.get(Version(4)).is_some());
    for (who, target) in [(held(3), 4), (held(3), 9)] {
        assert!(versions.path(Some(&who), Version(target)).unwrap().keyframe.is_some(), "it begins anew");
    }
    assert_eq!(steps(&versions.path(Some(&held(8)), Version(9)).unwrap()), [(9, false)]);
    versions.forget(Version(100));
    assert_eq!(versions.newest().map(|v| v.version), Some(Version(9)), "the newest stays");
}

#[test]
fn nobody_is_led_over_a_lost_blob() {
    let mut versions = versions(6);
    versions.avoid(BlobHash([104; 32]));
    let path = versions.path(None, Version(6)).unwrap();
    assert_eq!((path.keyframe.map(|b| b.hash[0]), path.updates.len()), (Some(100), 6), "the keyframe before");
    versions.avoid(BlobHash([3; 32]));
    assert!(versions.path(None, Version(6)).is_none() && !versions.has_beginning());
    assert_eq!(steps(&versions.path(Some(&held(5)), Version(6)).unwrap()), [(6, false)], "who has the weights goes on");
    assert!(versions.path(Some(&held(2)), Version(6)).is_none());
    versions.kept[6].squashes = vec![squash(2, 40)];
    versions.find_routes();
    assert_eq!(steps(&versions.path(Some(&held(2)), Version(6)).unwrap()), [(202, false)], "round it");
    assert!(versions.has_beginning());
}

fn squash(from: u64, bytes: u64) -> Squash {
    Squash { from: Version(from), blob: BlobRef { hash: BlobHash([200 + from as u8; 32]), bytes } }
}

#[test]
fn a_squash_takes_the_place_of_updates_where_that_is_cheaper() {
    let mut versions = versions(7);
    versions.kept[7].squashes = vec![squash(5, 19), squash(4, 24)];
    versions.find_routes();
    let path = |from| versions.path(Some(&held(from)), Version(7)).unwrap();
    assert_eq!(steps(&path(5)), [(205, false)]);
    assert_eq!(steps(&path(4)), [(204, false)]);
    assert_eq!(steps(&path(3)), [(4, true), (204, false)], "34 bytes; 39 by the other squash");
    assert_eq!(steps(&path(6)), [(7, false)], "who is past its start cannot use it");
    let anew = versions.path(None, Version(7)).unwrap();
    assert_eq!((anew.keyframe.map(|b| b.hash[0]), anew.updates.len()), (Some(104), 1));
    versions.kept[7].squashes = vec![squash(5, 21)];
    versions.find_routes();
    assert_eq!(
        steps(&versions.path(Some(&held(5)), Version(7)).unwrap()),
        [(6, false), (7, false)],
        "bytes count, not steps"
    );
    let older = versions.path(Some(&held(5)), Version(6)).unwrap();
    assert_eq!(steps(&older), [(6, false)], "to a version that is not the newest");
}

#[test]
fn a_path_has_a_bounded_number_of_steps() {
    let newest = UPDATE_STEPS_MAX as u64 + 3;
    let mut versions = versions(newest);
    for record in versions.kept.iter_mut().skip(1) {
        record.keyframe = None;
    }
    versions.find_routes();
    let path =
        |from: u64| versions.path(Some(&HeldWeights { version: from, digest: vec![from as u8; 32] }), Version(newest));
    assert_eq!(path(2), None, "no way that short from there, nor from the only keyframe");
    assert_eq!(path(3).unwrap().updates.len(), UPDATE_STEPS_MAX);
}

/// From whatever version a device holds, or none, to whatever version: what it is offered ends in the coordinator's
/// bits, and costs no more than the updates alone, or any keyframe with the updates after it.
#[test]
fn every_path_offered_ends_in_the_digest() {
    let (mut squashes, mut keyframes) = (0, 0);
    for seed in 0..6 {
        let newest = 66;
        let run = published(seed, newest);
        let versions = Versions::restore(run.records.clone());
        let read = |blob: &Blob| run.blobs.read(blob.name().unwrap()).unwrap();
        let updates = |from: u64, to: u64| -> u64 {
            (from + 1..=to).map(|v| versions.get(Version(v)).unwrap().update.unwrap().bytes).sum()
        };
        for case in 0..12 {
            let draw = |purpose: u64, most: u64| rng::draw(seed, purpose, case) % most;
            let target = if case % 3 == 0 { draw(1, newest + 1) } else { newest };
            let from = (case > 1).then(|| draw(2, target + 1));
            let held = from.map(|v| HeldWeights { version: v, digest: run.weights[v as usize].digest().to_vec() });
            let path = versions.path(held.as_ref(), Version(target)).unwrap();
            let mut weights = match &path.keyframe {
                Some(blob) => keyframe::decode(&run.model, &read(blob)).unwrap(),
                None => run.weights[from.unwrap() as usize].clone(),
            };
            keyframes += usize::from(path.keyframe.is_some());
            let mut bytes = path.keyframe.as_ref().map_or(0, |b| b.bytes);
            for step in &path.updates {
                let blob = step.update.as_ref().unwrap();
                let before = weights.version.0;
                update::apply(&run.model, &mut weights, &read(blob)).unwrap();
                if step.redefines {
                    keyframe::round(&mut weights);
                }
                squashes += usize::from(weights.version.0 > before + 1);
                bytes += blob.bytes;
            }
            assert_eq!(weights.digest(), versions.get(Version(target)).unwrap().digest, "seed {seed}, case {case}");
            let anew =
                (0..=target).filter_map(|v| Some(versions.get(Version(v))?.keyframe?.bytes + updates(v, target)));
            let plain = anew.chain(from.map(|from| updates(from, target))).min().unwrap();
            assert!(bytes <= plain, "seed {seed}, case {case}: {bytes} of {plain}");
        }
    }
    assert!(squashes > 20 && keyframes > 10, "{squashes} {keyframes}");
}
