//! Real weights, a real folder: recovery and verification, and that verification notices.

use super::*;
use crate::engine::tests::world::{World, device, manifest, spec};
use nightjar_shared::{disk::FolderDisk, wire::device_message as ask};
use std::sync::Arc;

/// A run of 11 deltas and 5 versions, one delta waiting; a keyframe and a checkpoint at versions 0 and 4.
fn run() -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
    let mut world = World::with_weights(spec(), manifest(), disk);
    let owl = world.volunteer(1);
    for _ in 0..11 {
        let lease = world.lease(owl);
        assert!(world.train(owl, &lease, 8.0).merged);
    }
    assert_eq!(world.engine.status().version, Some(Version(5)));
    (folder, world)
}

fn blobs(world: &World) -> &Blobs {
    &world.weights.as_ref().unwrap().1
}

fn recovered(world: &World) -> Result<Merger, ReplayError> {
    recover(&world.spec, &world.ledger.facts(), blobs(world), || panic!("there is a version to start from"))
}

fn report(world: &World, facts: &Facts) -> Report {
    verify(&world.spec, &world.manifest, facts, blobs(world))
}

fn failed(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|c| !c.passed).map(|c| c.name).collect()
}

fn path_of(folder: &tempfile::TempDir, hash: BlobHash) -> std::path::PathBuf {
    folder.path().join(format!("blobs/{hash}"))
}

#[test]
fn a_sound_ledger_passes() {
    let (_folder, world) = run();
    let report = report(&world, &world.ledger.facts());
    assert!(report.passed(), "{report:#?}");
    let details: Vec<_> = report.checks.iter().map(|c| c.detail.as_str()).collect();
    assert_eq!(details[1], "11 deltas in 6 versions, 1 wait for the next");
    assert!(details[2].ends_with("1 make no whole batch"), "{}", details[2]);
    assert_eq!(details[5], "6 versions bit for bit, and the checkpoint of version 4");
    assert_eq!(details[6], "1 squashes", "from version 0 to 4, where a keyframe ends it");
}

#[test]
fn every_way_of_recovering_ends_in_the_same_bits() {
    let (folder, world) = run();
    let from_checkpoint = recovered(&world).unwrap();
    assert_eq!((from_checkpoint.weights().version, from_checkpoint.last_seq()), (Version(5), 11));
    assert_eq!(from_checkpoint.weights(), world.weights.as_ref().unwrap().0.weights());
    let newest = folder.path().join("checkpoints/4.njc");
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    assert_eq!(recovered(&world).unwrap(), from_checkpoint, "a damaged checkpoint: from the one before");
    assert_eq!(failed(&report(&world, &world.ledger.facts())), ["replaying the ledger gives the same versions"]);
    std::fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    assert_eq!(recovered(&world).unwrap(), from_checkpoint, "no checkpoint: from version 0");
}

#[test]
fn a_crash_at_any_action_leaves_a_run_that_goes_on() {
    for dies_after in 0..8 {
        let (_folder, mut world) = run();
        let owl = device(1);
        let lease = world.lease(owl);
        world.actions_left = dies_after;
        let offer = world.offer_for(&lease);
        let answer = world.try_ask(owl, ask::Body::DeltaOffer(offer.clone()), None);
        world.restart();
        world.volunteer(1);
        if answer.is_some() {
            assert!(world.is_merged(&lease), "an acknowledgement is never a lie");
        }
        let again = world.offer(owl, offer);
        assert!(matches!(again, nightjar_shared::wire::coordinator_message::Body::Done(d) if d.merged), "{dies_after}");
        assert_eq!(world.engine.status().version, Some(Version(6)));
        let report = report(&world, &world.ledger.facts());
        assert!(report.passed(), "{dies_after}: {report:#?}");
    }
}

#[test]
fn what_comes_while_a_version_is_pressed_is_replayed_in_its_place() {
    let (_folder, mut world) = run();
    let owls = [2, 3, 4].map(|number| world.volunteer(number));
    let leases = owls.map(|owl| world.lease(owl));
    world.press_is_slow = true;
    for (owl, lease) in owls.into_iter().zip(&leases) {
        assert!(world.train(owl, lease, 80.0).merged);
    }
    let pressed = world.weights.as_ref().unwrap().0.weights().clone();
    world.deliver();
    let facts = world.ledger.facts();
    assert_eq!(facts.deltas[11..].iter().map(|d| d.staleness).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(facts.versions.iter().map(|v| v.through_seq).next_back(), Some(12));
    let report = report(&world, &facts);
    assert!(report.passed(), "{report:#?}");
    assert_eq!(recovered(&world).unwrap().weights(), &pressed);
}

#[test]
fn a_checkpoint_whose_version_was_never_committed_is_passed_over() {
    let (_folder, world) = run();
    let mut ahead = recovered(&world).unwrap();
    ahead.publish(Version(6), true).unwrap();
    blobs(&world).put_checkpoint(6, &ahead.checkpoint()).unwrap();
    assert_eq!(recovered(&world).unwrap().weights().version, Version(5));
    assert!(report(&world, &world.ledger.facts()).passed());
}

#[test]
fn a_checkpoint_of_other_deltas_is_passed_over() {
    let (_folder, world) = run();
    let right = recovered(&world).unwrap();
    let facts = world.ledger.facts();
    let mut wrong = Merger::restore(world.spec.clone(), &blobs(&world).checkpoint(4).unwrap().unwrap()).unwrap();
    for (d, as_if) in facts.deltas[..2].iter().zip(&facts.deltas[8..]) {
        wrong.add(&order(as_if), &blobs(&world).read(d.blob).unwrap()).unwrap();
    }
    wrong.publish(Version(5), true).unwrap();
    blobs(&world).put_checkpoint(5, &wrong.checkpoint()).unwrap();
    assert_eq!(recovered(&world).unwrap(), right);
}

#[test]
fn what_is_wrong_is_named() {
    let (folder, world) = run();
    let sound = world.ledger.facts();
    let [leases, sequence, samples, measurements, whole, same, sums] =
        report(&world, &sound).checks.iter().map(|c| c.name).collect::<Vec<_>>()[..]
    else {
        panic!()
    };
    let after = |change: &dyn Fn(&mut Facts)| {
        let mut facts = sound.clone();
        change(&mut facts);
        failed(&report(&world, &facts))
    };
    assert_eq!(
        after(&|f| {
            f.leases.remove(2);
        }),
        [leases]
    );
    assert_eq!(after(&|f| f.deltas[3].tokens += 4), [leases, same]);
    assert_eq!(
        after(&|f| {
            f.deltas.remove(3);
        }),
        [leases, sequence, same]
    );
    assert_eq!(after(&|f| f.deltas[4].lease = f.deltas[3].lease), [leases, sequence]);
    assert_eq!(
        after(&|f| {
            f.versions.remove(2);
        }),
        [sequence, same, sums]
    );
    assert_eq!(after(&|f| f.leases[5].lease.first_sample = f.leases[4].lease.first_sample), [samples]);
    assert_eq!(after(&|f| f.leases[5].lease.first_sample = 99), [samples]);
    assert_eq!(after(&|f| f.deltas[3].weight = 0.5), [same]);
    assert_eq!(after(&|f| f.versions[3].digest[0] ^= 1), [same]);
    assert_eq!(after(&|f| f.versions[4].squashes[0].from = Version(1)), [sums]);
    assert_eq!(after(&|f| f.versions[4].squashes[0].blob = f.versions[3].update.unwrap()), [sums]);
    assert_eq!(after(&|f| f.versions[2].keyframe = f.versions[4].keyframe), [same, sums]);
    let nowhere = crate::engine::record::EvaluationRecord {
        version: Version(1),
        lease: LeaseId(1),
        nats: 1.0,
        tokens: 1,
        text_bytes: 1,
        measured_at: nightjar_shared::time::Wall::default(),
    };
    assert_eq!(after(&|f| f.evaluations.push(nowhere.clone())), [measurements]);
    assert_eq!(after(&|_| ()), [""; 0], "and nothing is, where nothing is");

    std::fs::remove_file(path_of(&folder, sound.versions[2].update.unwrap().0)).unwrap();
    assert_eq!(failed(&report(&world, &sound)), [whole, sums]);
    std::fs::write(path_of(&folder, sound.deltas[10].blob), b"rotten").unwrap();
    assert_eq!(failed(&report(&world, &sound)), [whole, same, sums]);
    assert!(matches!(recovered(&world), Err(ReplayError::Blob(BlobError::Corrupt(_)))));
}
