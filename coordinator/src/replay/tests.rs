//! Real weights, a real folder: recovery and verification, and that verification notices.

use super::*;
use crate::store::{Facts, Ledger};
use crate::world::{World, device, manifest, spec};
use nightjar_shared::{disk::FolderDisk, ids::LeaseId, wire::device_message as ask};
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
    recover(&world.spec, &world.ledger.facts().lineage, blobs(world), || panic!("there is a version to start from"))
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

/// By its definition, from each version by itself.
fn averaged(world: &World, shares: &[(u64, f64)]) -> Vec<f32> {
    let lineage = world.ledger.facts().lineage;
    let mut sum = vec![0f64; world.spec.model.parameters()];
    for (version, share) in shares {
        let (weights, _) = weights(&world.spec, &lineage.versions, blobs(world), Version(*version)).unwrap();
        sum.iter_mut().zip(weights.flat()).for_each(|(sum, value)| *sum += share * f64::from(value));
    }
    sum.into_iter().map(|value| value as f32).collect()
}

#[test]
fn an_average_is_that_of_its_versions_also_where_an_update_is_lost() {
    let (folder, world) = run();
    let lineage = world.ledger.facts().lineage;
    let third = 1.0 / 3.0;
    let even = averaged(&world, &[(3, third), (4, third), (5, third)]);
    let ema = averaged(&world, &[(3, 1.0 / 7.0), (4, 2.0 / 7.0), (5, 4.0 / 7.0)]);
    let cases = [(Shares::even(Version(5), 3), even), (Shares::exponential(Version(5), 0.5, Version(3)), ema)];
    let newest = weights(&world.spec, &lineage.versions, blobs(&world), Version(5)).unwrap().0;
    let alone = blend(&world.spec, &lineage, blobs(&world), &Shares::even(Version(5), 1)).unwrap().0;
    assert_eq!(alone, newest.flat());
    // Version 4 has a keyframe; version 5 can be merged again.
    for lost in [None, Some(4), Some(5)] {
        let update = lost.and_then(|version: usize| lineage.versions[version].update);
        update.into_iter().for_each(|update| std::fs::remove_file(path_of(&folder, update.hash)).unwrap());
        for (shares, right) in &cases {
            let (average, told) = blend(&world.spec, &lineage, blobs(&world), shares).unwrap();
            assert_eq!(told.len(), usize::from(lost == Some(5)), "{told:?}");
            let far = average.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-6, "{far}");
        }
    }
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
        world.wait(10.0);
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

fn resumed(world: &World, facts: &Facts) -> Resumed {
    resume(&world.spec, &facts.lineage, blobs(world), || panic!("there is a version to start from")).unwrap()
}

/// Ways for a blob to be lost.
fn lose(file: &std::path::Path, is_damaged: bool) {
    if is_damaged { std::fs::write(file, b"rotten").unwrap() } else { std::fs::remove_file(file).unwrap() }
}

#[test]
fn a_lost_delta_of_a_published_version_costs_feedback_and_momenta_and_no_more() {
    for is_damaged in [true, false] {
        let (folder, world) = run();
        let (exact, mut facts) = (recovered(&world).unwrap(), world.ledger.facts());
        let file = path_of(&folder, facts.lineage.deltas[8].blob.hash);
        let whole = std::fs::read(&file).unwrap();
        lose(&file, is_damaged);
        assert!(recovered(&world).is_err());
        let resumed_first = resumed(&world, &facts);
        assert_eq!((resumed_first.merger.weights(), resumed_first.merger.last_seq()), (exact.weights(), 11));
        assert_ne!(resumed_first.merger, exact, "it did cost something");
        let told = &resumed_first.losses[..];
        assert!(told.len() == 1 && told[0].contains(&facts.lineage.deltas[8].blob.hash.to_string()), "{told:?}");
        assert!(told[0].contains("version 5") && told[0].contains("error feedback and momenta"), "{told:?}");
        assert!(resumed_first.lost_deltas.is_empty());

        // As the server goes on: noted, a checkpoint, and the next version.
        let Resumed { mut merger, restart: Some((version, checkpoint)), .. } = resumed_first else { panic!() };
        assert_eq!(version, Version(5));
        facts.lineage.restarts.push(version);
        blobs(&world).put_checkpoint(version.0, &checkpoint).unwrap();
        let made = merger.publish(Version(6), false).unwrap();
        let put = |bytes: Vec<u8>| BlobRef { hash: blobs(&world).put(&bytes).unwrap(), bytes: bytes.len() as u64 };
        facts.lineage.versions.push(VersionRecord {
            version: Version(6),
            update: made.update.map(put),
            given: None,
            keyframe: None,
            digest: made.digest,
            through_seq: made.through_seq,
            published_at: Default::default(),
            squashes: vec![],
        });
        // Every later start comes to the same bits, with the checkpoint or without, and if the delta is put back.
        for keeps in [true, false] {
            if !keeps {
                std::fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
            }
            let again = resumed(&world, &facts);
            assert_eq!((again.merger, again.restart, again.losses), (merger.clone(), None, vec![]));
        }
        let said = report(&world, &facts);
        let [whole_blobs, same] = [&said.checks[4], &said.checks[5]];
        assert!(whole_blobs.detail.contains("delta 9"), "{whole_blobs:?}");
        assert!(!same.passed && same.detail.matches("version").count() < 4, "version 6 is compared again: {same:?}");
        std::fs::write(&file, whole).unwrap();
        assert_eq!(resumed(&world, &facts).merger, merger);
        let said = report(&world, &facts);
        assert!(said.checks[5].passed && said.checks[5].detail.contains("anew at version 5"), "{:?}", said.checks[5]);
    }
}

#[test]
fn a_lost_delta_that_waits_is_passed_over() {
    let (folder, world) = run();
    let mut facts = world.ledger.facts();
    let file = path_of(&folder, facts.lineage.deltas[10].blob.hash);
    let whole = std::fs::read(&file).unwrap();
    lose(&file, true);
    let first = resumed(&world, &facts);
    assert_eq!((first.restart.as_ref(), &first.lost_deltas[..], first.merger.last_seq()), (None, &[11][..], 11));
    assert!(first.losses[0].contains("delta 11 of lease"), "{:?}", first.losses);
    facts.lineage.lost_deltas = first.lost_deltas;
    std::fs::write(&file, whole).unwrap();
    let again = resumed(&world, &facts);
    assert_eq!((again.merger, again.losses), (first.merger, vec![]), "put back, it stays passed over");
}

#[test]
fn the_newest_weights_are_found_by_any_way_that_is_left() {
    let (folder, world) = run();
    let (exact, facts) = (recovered(&world).unwrap(), world.ledger.facts());
    let lost = |hash: BlobHash| lose(&path_of(&folder, hash), false);
    lost(facts.lineage.deltas[8].blob.hash);
    lost(facts.lineage.versions[4].keyframe.unwrap().hash);
    assert_eq!(resumed(&world, &facts).merger.weights(), exact.weights(), "from the checkpoint's weights");
    std::fs::write(folder.path().join("checkpoints/4.njc"), b"rotten").unwrap();
    assert_eq!(resumed(&world, &facts).merger.weights(), exact.weights(), "over all updates");
    lost(facts.lineage.versions[2].update.unwrap().hash);
    assert_eq!(resumed(&world, &facts).merger.weights(), exact.weights(), "over the squash");
    lost(facts.lineage.versions[5].update.unwrap().hash);
    let told = resume(&world.spec, &facts.lineage, blobs(&world), || panic!()).unwrap_err().to_string();
    let named = [facts.lineage.deltas[8].blob.hash, facts.lineage.versions[5].update.unwrap().hash];
    assert!(named.iter().all(|hash| told.contains(&hash.to_string())), "{told}");
}

#[test]
fn weights_are_merged_again_where_what_was_published_is_lost() {
    let (folder, world) = run();
    let (exact, mut facts) = (recovered(&world).unwrap(), world.ledger.facts());
    lose(&path_of(&folder, facts.lineage.versions[5].update.unwrap().hash), false);
    let by_any_way = |facts: &Facts| weights_by_any_way(&world.spec, &facts.lineage, blobs(&world), Version(5));
    let (found, lost) = by_any_way(&facts).unwrap();
    assert_eq!(&found, exact.weights());
    assert!(lost.len() == 1 && lost[0].contains("is missing"), "{lost:?}");
    lose(&path_of(&folder, facts.lineage.deltas[8].blob.hash), false);
    let told = by_any_way(&facts).unwrap_err().to_string();
    assert!(told.contains(&facts.lineage.deltas[8].blob.hash.to_string()) && told.contains("backup"), "{told}");
    // A row that is gone or damaged is a reason, too.
    facts.lineage.versions[5].digest = [0; 32];
    lose(&path_of(&folder, facts.lineage.versions[4].keyframe.unwrap().hash), false);
    let why = |facts: &Facts| {
        weights(&world.spec, &facts.lineage.versions, blobs(&world), Version(5)).unwrap_err().to_string()
    };
    assert!(!why(&facts).contains(": ;") && !why(&facts).ends_with(": "), "{}", why(&facts));
}

#[test]
fn a_row_that_is_gone_or_damaged_is_named() {
    let (folder, world) = run();
    std::fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    let mut facts = world.ledger.facts();
    let why = |facts: &Facts| {
        weights(&world.spec, &facts.lineage.versions, blobs(&world), Version(5)).unwrap_err().to_string()
    };
    let digest = std::mem::take(&mut facts.lineage.versions[5].digest);
    assert!(why(&facts).contains("the weights of version 5 are not those"), "{}", why(&facts));
    facts.lineage.versions[5].digest = digest;
    facts.lineage.versions.remove(4);
    let unknown = weights_by_any_way(&world.spec, &facts.lineage, blobs(&world), Version(4)).unwrap_err().to_string();
    assert!(unknown.contains("no row of version 4"), "{unknown}");
    assert!(why(&facts).contains("no row of version 4"), "{}", why(&facts));
}

#[test]
fn a_blob_that_is_no_plain_file_is_lost() {
    let (folder, world) = run();
    let (exact, facts) = (recovered(&world).unwrap(), world.ledger.facts());
    let files = [8, 9].map(|at: usize| path_of(&folder, facts.lineage.deltas[at].blob.hash));
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    std::fs::create_dir(&files[0]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &files[1]).unwrap();
    let resumed = resumed(&world, &facts);
    assert_eq!(resumed.merger.weights(), exact.weights());
    let told = &resumed.losses[0];
    assert!(told.contains("delta 9 (blob") && told.contains("delta 10 (blob"), "both are told: {told}");
    assert!(files[0].is_dir());
}

#[test]
fn what_to_do_about_a_blob_follows_from_the_reason() {
    let hash = BlobHash([0; 32]);
    let told = |kind: io::ErrorKind| ReplayError::from(BlobError::Io { hash, error: kind.into() }).to_string();
    assert!(told(io::ErrorKind::PermissionDenied).contains("make the state folder readable"));
    assert!(told(io::ErrorKind::Other).contains("from a backup"));
    for (code, lost) in [(5, true), (117, cfg!(target_os = "linux")), (13, false)] {
        assert_eq!(is_lost(&BlobError::Io { hash, error: io::Error::from_raw_os_error(code) }), lost && cfg!(unix));
    }
}

#[test]
fn every_blob_of_a_version_can_be_made_anew() {
    let (folder, world) = run();
    let facts = world.ledger.facts();
    for keeps_checkpoints in [true, false] {
        for blob in facts.lineage.versions.iter().flat_map(VersionRecord::blobs) {
            // Version 0 is what all else is made of: without its checkpoint there is nothing to make it of.
            let is_start = facts.lineage.versions[0].keyframe.is_some_and(|start| start == blob);
            if is_start && !keeps_checkpoints {
                continue;
            }
            lose(&path_of(&folder, blob.hash), keeps_checkpoints);
            let again = rebuild(&world.spec, &facts.lineage, blobs(&world), blob.hash).unwrap();
            assert_eq!(BlobRef::of(&again), blob);
            blobs(&world).put(&again).unwrap();
        }
        // Gone already after the second time.
        let _ = std::fs::remove_dir_all(folder.path().join("checkpoints"));
    }
    assert!(matches!(
        rebuild(&world.spec, &facts.lineage, blobs(&world), facts.lineage.deltas[0].blob.hash),
        Err(ReplayError::Unpublished(_))
    ));
}

#[test]
fn all_damaged_blobs_are_named() {
    let (folder, world) = run();
    let facts = world.ledger.facts();
    let (one, other) = (facts.lineage.deltas[0].blob.hash, facts.lineage.versions[3].update.unwrap().hash);
    lose(&path_of(&folder, one), true);
    lose(&path_of(&folder, other), false);
    let said = &report(&world, &facts).checks[4].detail;
    assert!(
        said.starts_with("2 of ") && said.contains(&one.to_string()) && said.contains(&other.to_string()),
        "{said}"
    );
    assert!(said.contains("delta 1 of lease 1") && said.contains("the update of version 3"), "{said}");
}

#[test]
fn what_comes_while_a_version_is_made_is_replayed_in_its_place() {
    let (_folder, mut world) = run();
    let owls = [2, 3, 4].map(|number| world.volunteer(number));
    let leases = owls.map(|owl| world.lease(owl));
    world.publisher_is_slow = true;
    for (owl, lease) in owls.into_iter().zip(&leases) {
        assert!(world.train(owl, lease, 80.0).merged);
    }
    let made = world.weights.as_ref().unwrap().0.weights().clone();
    world.deliver();
    let facts = world.ledger.facts();
    assert_eq!(facts.lineage.deltas[11..].iter().map(|d| d.staleness).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(facts.lineage.versions.iter().map(|v| v.through_seq).next_back(), Some(12));
    let report = report(&world, &facts);
    assert!(report.passed(), "{report:#?}");
    assert_eq!(recovered(&world).unwrap().weights(), &made);
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
    for (d, as_if) in facts.lineage.deltas[..2].iter().zip(&facts.lineage.deltas[8..]) {
        wrong.add(&order(as_if), &blobs(&world).read(d.blob.hash).unwrap()).unwrap();
    }
    wrong.publish(Version(5), true).unwrap();
    blobs(&world).put_checkpoint(5, &wrong.checkpoint()).unwrap();
    assert_eq!(recovered(&world).unwrap(), right);
}

#[test]
fn what_is_wrong_is_named() {
    let (folder, world) = run();
    let sound = world.ledger.facts();
    let [leases, sequence, samples, measurements, whole, same, sums, ..] =
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
    assert_eq!(after(&|f| f.lineage.deltas[3].tokens += 4), [leases, same]);
    assert_eq!(
        after(&|f| {
            f.lineage.deltas.remove(3);
        }),
        [leases, sequence, same]
    );
    assert_eq!(after(&|f| f.lineage.deltas[4].lease = f.lineage.deltas[3].lease), [leases, sequence]);
    assert_eq!(
        after(&|f| {
            f.lineage.versions.remove(2);
        }),
        [sequence, same, sums]
    );
    assert_eq!(after(&|f| f.leases[5].lease.first_sample = f.leases[4].lease.first_sample), [samples]);
    assert_eq!(after(&|f| f.leases[5].lease.first_sample = 99), [samples]);
    assert_eq!(after(&|f| f.lineage.deltas[3].weight = 0.5), [same]);
    assert_eq!(after(&|f| f.lineage.versions[3].digest[0] ^= 1), [same]);
    assert_eq!(after(&|f| f.lineage.versions[4].squashes[0].from = Version(1)), [sums]);
    assert_eq!(after(&|f| f.lineage.versions[4].squashes[0].blob = f.lineage.versions[3].update.unwrap()), [sums]);
    assert_eq!(after(&|f| f.lineage.versions[2].keyframe = f.lineage.versions[4].keyframe), [same, sums]);
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

    std::fs::remove_file(path_of(&folder, sound.lineage.versions[2].update.unwrap().hash)).unwrap();
    assert_eq!(failed(&report(&world, &sound)), [whole, sums]);
    std::fs::write(path_of(&folder, sound.lineage.deltas[10].blob.hash), b"rotten").unwrap();
    assert_eq!(failed(&report(&world, &sound)), [whole, same, sums]);
    assert!(matches!(recovered(&world), Err(ReplayError::Blob(BlobError::Corrupt(_)))));
}

#[test]
fn blobs_that_are_whole_and_of_no_use_are_named() {
    let (_folder, world) = run();
    let mut versions = world.ledger.facts().lineage.versions;
    let why = |versions: &[VersionRecord], at: u64| {
        weights(&world.spec, versions, blobs(&world), Version(at)).unwrap_err().to_string()
    };
    versions[5].digest = [9; 32];
    assert!(why(&versions, 5).contains("the weights of version 5 are not those"), "{}", why(&versions, 5));
    versions[0].digest = [9; 32];
    assert!(why(&versions, 0).contains("the weights of version 0 are not those"), "{}", why(&versions, 0));
    versions[0].keyframe = versions[1].update;
    assert!(
        why(&versions, 0).contains("the keyframe of version 0 cannot be used: it is no keyframe"),
        "{}",
        why(&versions, 0)
    );
    versions[0].keyframe = None;
    assert!(why(&versions, 0).contains("name nothing that leads there"), "{}", why(&versions, 0));
}

/// A start reads the deltas since the oldest checkpoint, and all only where that is not enough.
#[tokio::test]
async fn older_deltas_are_read_only_where_they_are_needed() {
    let (folder, world) = run();
    let exact = recovered(&world).unwrap();
    let whole = world.ledger.facts().lineage;
    std::fs::remove_file(folder.path().join("checkpoints/0.njc")).unwrap();
    assert_eq!(since(blobs(&world)).unwrap(), Version(4));
    let lately = world.ledger.lineage(Version(4)).await.unwrap();
    assert_eq!(lately.deltas.iter().map(|d| d.seq).collect::<Vec<_>>(), [9, 10, 11]);
    let times_read = std::cell::Cell::new(0);
    let all = || {
        times_read.set(times_read.get() + 1);
        Ok(whole.clone())
    };
    let resume = |lineage: &Lineage| resume(&world.spec, lineage, blobs(&world), || panic!("there is a version"));
    assert_eq!(reaching_back(&lately, all, resume).unwrap().merger, exact);
    assert_eq!(times_read.get(), 0);
    let old = whole.versions[2].update.unwrap().hash;
    let rebuilt = reaching_back(&lately, all, |lineage| rebuild(&world.spec, lineage, blobs(&world), old)).unwrap();
    assert_eq!((BlobHash::of(&rebuilt), times_read.get()), (old, 1));
    std::fs::remove_file(folder.path().join("checkpoints/4.njc")).unwrap();
    assert_eq!(reaching_back(&lately, all, resume).unwrap().merger, exact);
    assert_eq!(times_read.get(), 2);
}
