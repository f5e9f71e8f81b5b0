//! Weights that are given: nothing of them is lost on the way, and a replay comes to the same bits.

use super::*;
use crate::{
    engine::{orders::Order, series::SeriesStatus},
    world::{World, device, manifest, spec},
};
use nightjar_shared::{
    delta,
    disk::FolderDisk,
    ids::DeviceId,
    lease::LeaseKind,
    run_spec::Pacing,
    wire::{Lease, RefusalCode, Role, coordinator_message::Body, device_message as ask},
};
use std::sync::Arc;

/// A run of series, with real weights.
fn run() -> (tempfile::TempDir, World, [DeviceId; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
    let mut spec = spec();
    (spec.lease.pacing, spec.merge.grace_s, spec.merge.quorum) = (Pacing::Series, Some(60.0), Some(1));
    let mut manifest = manifest();
    manifest.train.iter_mut().for_each(|shard| shard.samples = 10_000);
    let mut world = World::with_weights(spec, manifest, disk);
    let devices = [world.volunteer(1), world.volunteer(2)];
    (folder, world, devices)
}

fn blobs(world: &World) -> Blobs {
    world.weights.as_ref().unwrap().1.clone()
}

/// Weights that bf16 does not hold, among them some that no version does.
fn weights_of(world: &World, seed: u64) -> Vec<f32> {
    let mut flat = world.spec.model.draw_all(seed);
    flat.iter_mut().zip(0..).for_each(|(w, i)| *w = *w * 1.000_123 + (i % 7) as f32 * 1e-9);
    flat
}

fn begin(world: &mut World, name: &str, flat: &[f32], rounds: u32) {
    let bytes: Vec<u8> = flat.iter().flat_map(|value| value.to_le_bytes()).collect();
    let weights = BlobRef { hash: blobs(world).put(&bytes).unwrap(), bytes: bytes.len() as u64 };
    world.order(Order::BeginSeries { name: name.into(), weights, rounds }).unwrap();
}

/// One round of both devices; what each of them trained.
fn round(world: &mut World, devices: [DeviceId; 2]) -> Vec<(Lease, Vec<f32>)> {
    let leases = devices.map(|device| world.lease(device));
    let trained = leases.into_iter().zip(devices).map(|(lease, device)| {
        world.wait(1.0);
        let offer = world.offer_for(&lease);
        let (model, blobs) = (world.spec.model.clone(), blobs(world));
        let name = BlobHash(offer.delta.as_ref().unwrap().hash.clone().try_into().unwrap());
        let mut change = vec![0.0; model.parameters()];
        let ones = vec![1.0; model.tensors().len()];
        delta::add_scaled(&model, &blobs.read(name).unwrap(), &ones, &mut change).unwrap();
        loop {
            match world.offer(device, offer.clone()) {
                Body::Done(done) if done.merged => break,
                // It came sooner than this device is known to train.
                Body::Refusal(why) if why.code() == RefusalCode::Busy => world.wait(why.retry_ms as f64 / 1000.0),
                other => panic!("{other:?}"),
            }
        }
        (lease, change)
    });
    trained.collect()
}

/// What came of the newest series.
fn answer(world: &World) -> Vec<f32> {
    let SeriesStatus { record, is_over, .. } = world.engine.status().series.unwrap();
    assert!(is_over);
    let checkpoint = blobs(world).checkpoint(record.last().0).unwrap().expect("a checkpoint");
    Merger::restore(world.spec.clone(), &checkpoint).unwrap().wanted()
}

#[test]
fn what_is_given_comes_back_to_the_bit_and_with_it_the_mean_of_what_was_trained() {
    let (_folder, mut world, devices) = run();
    let flat = weights_of(&world, 3);
    begin(&mut world, "look", &flat, 0);
    assert_eq!(answer(&world), flat, "nothing was trained");
    let published = world.weights.as_ref().unwrap().0.weights().flat();
    assert!(published != flat && published.iter().zip(&flat).all(|(p, f)| (p - f).abs() <= f.abs() / 256.0 + 1e-5));

    begin(&mut world, "train", &flat, 2);
    let mut expected: Vec<f64> = flat.iter().map(|w| f64::from(*w)).collect();
    let mut largest = 0f64;
    for _ in 0..2 {
        let trained = round(&mut world, devices);
        let all: f64 = trained.iter().map(|(lease, _)| f64::from(lease.samples)).sum();
        for (lease, change) in &trained {
            for (w, g) in expected.iter_mut().zip(change) {
                *w -= f64::from(lease.samples) / all * f64::from(*g);
                largest = largest.max(f64::from(g.abs()));
            }
        }
    }
    let got = answer(&world);
    let off = got.iter().zip(&expected).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max);
    assert!(largest > 1e-3 && off < 1e-6, "of changes of up to {largest}, {off} is lost");
}

#[test]
fn a_replay_gives_the_same_bits() {
    let (folder, mut world, devices) = run();
    for (name, seed) in [("one", 3), ("two", 4)] {
        let flat = weights_of(&world, seed);
        begin(&mut world, name, &flat, 2);
        round(&mut world, devices);
        if name == "one" {
            // A delta that is in no version, since others are given before.
            let lease = world.lease(devices[0]);
            world.wait(1.0);
            let other = world.lease(devices[1]);
            assert_ne!(other.id, lease.id);
            world.offer(devices[0], world.offer_for(&lease));
        } else {
            round(&mut world, devices);
        }
    }
    let facts = world.ledger.facts();
    let check = |folder: &str| {
        let report = verify(&world.spec, &world.manifest, &facts, &blobs(&world));
        assert!(report.passed(), "{folder}: {report:#?}");
        let merger = recover(&world.spec, &facts.lineage, &blobs(&world), || panic!("there is a version")).unwrap();
        assert_eq!(merger.weights(), world.weights.as_ref().unwrap().0.weights(), "{folder}");
        assert_eq!(merger.wanted(), answer_of(&merger), "{folder}");
    };
    check("with checkpoints");
    let wanted = answer(&world);
    std::fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    check("from version 0 on");
    let again = recover(&world.spec, &facts.lineage, &blobs(&world), || panic!()).unwrap();
    assert_eq!(again.wanted(), wanted, "the answer comes out again");
    // Without what was given there is no way to the bits, and that is noticed.
    let given = facts.lineage.versions[1].given.unwrap();
    std::fs::remove_file(folder.path().join(format!("blobs/{}", given.hash))).unwrap();
    let report = verify(&world.spec, &world.manifest, &facts, &blobs(&world));
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).map(|c| c.detail.clone()).collect();
    assert!(failed.iter().any(|detail| detail.contains("the given weights of version 1")), "{failed:?}");
}

fn answer_of(merger: &Merger) -> Vec<f32> {
    Merger::restore(merger.spec().clone(), &merger.checkpoint()).unwrap().wanted()
}

#[test]
fn weights_of_another_model_or_without_meaning_are_refused() {
    let (_folder, world, _) = run();
    let model = &world.spec.model;
    let mut bytes: Vec<u8> = weights_of(&world, 3).iter().flat_map(|value| value.to_le_bytes()).collect();
    let read = |bytes: &[u8]| crate::engine::merge::read_given(model, bytes).map(drop).map_err(|e| e.to_string());
    assert_eq!(read(&bytes), Ok(()));
    assert!(read(&bytes[4..]).unwrap_err().contains("4 a parameter"));
    bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(read(&bytes).unwrap_err().starts_with("model.embed_tokens.weight holds the value NaN"));
}

#[test]
fn a_kill_at_any_moment_leads_to_the_same_answer() {
    let mut answers = vec![];
    for dies_after in [usize::MAX, 0, 1, 2, 3] {
        let (_folder, mut world, devices) = run();
        let flat = weights_of(&world, 3);
        begin(&mut world, "one", &flat, 1);
        let leases = devices.map(|device| world.lease(device));
        world.wait(1.0);
        let offers = [world.offer_for(&leases[0]), world.offer_for(&leases[1])];
        world.actions_left = dies_after;
        for (device, offer) in devices.into_iter().zip(&offers) {
            let _ = world.try_ask(device, ask::Body::DeltaOffer(offer.clone()), None);
        }
        world.restart();
        for (number, offer) in [1, 2].into_iter().zip(offers) {
            world.join(device(number), Role::Volunteer, &[LeaseKind::Train]);
            world.offer(device(number), offer);
        }
        answers.push(answer(&world));
        let report = verify(&world.spec, &world.manifest, &world.ledger.facts(), &blobs(&world));
        assert!(report.passed(), "{dies_after}: {report:#?}");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}
