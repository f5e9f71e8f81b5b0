//! Series: an operator gives weights, so many rounds follow, and then nobody trains until the next.

use crate::{
    engine::{
        event::{Event, ReplyTo},
        orders::{Giver, NotDone, Order},
        record::{LeaseOutcome, Record},
        series::SeriesStatus,
    },
    world::{World, manifest, spec},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Version},
    lease::LeaseKind,
    run_spec::Pacing,
    wire::{Evaluation, Lease, Refusal, RefusalCode, Role, coordinator_message::Body, device_message as ask},
};

/// Rounds of 10 seconds, a second of grace; two devices.
pub fn world() -> (World, [DeviceId; 2]) {
    let mut spec = spec();
    (spec.lease.pacing, spec.merge.grace_s, spec.merge.quorum) = (Pacing::Series, Some(1.0), Some(1));
    let mut manifest = manifest();
    manifest.train.iter_mut().for_each(|shard| shard.samples = 10_000);
    let mut world = World::new(spec, manifest);
    let devices = [world.volunteer(1), world.volunteer(2)];
    (world, devices)
}

fn begin(name: &str, weights: u8, rounds: u32) -> Order {
    Order::BeginSeries { name: name.into(), weights: BlobRef { hash: BlobHash([weights; 32]), bytes: 8 }, rounds }
}

fn refusal(body: Body) -> Refusal {
    match body {
        Body::Refusal(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

fn status(world: &World) -> SeriesStatus {
    world.engine.status().series.expect("a series")
}

fn version(world: &World) -> u64 {
    world.engine.status().version.unwrap().0
}

fn deliver(world: &mut World, device: DeviceId, lease: &Lease) -> bool {
    world.wait(1.0);
    matches!(world.offer(device, world.offer_for(lease)), Body::Done(done) if done.merged)
}

#[test]
fn a_series_is_so_many_rounds_from_the_weights_that_were_given() {
    let (mut world, devices) = world();
    let told = refusal(world.request(devices[0]));
    assert_eq!(told.code(), RefusalCode::NoWork, "nobody trains before a series: {told:?}");
    assert!((700..1300).contains(&told.retry_ms), "{told:?}");

    world.order(begin("one", 7, 2)).unwrap();
    let given = world.ledger.facts().lineage.versions[1].clone();
    assert_eq!((given.version, given.update, given.given.unwrap().hash), (Version(1), None, BlobHash([7; 32])));
    assert!(given.keyframe.is_some());
    for round in 0..2 {
        let leases = devices.map(|device| world.lease(device));
        assert!(leases.iter().all(|lease| lease.base_version == 1 + round && lease.ahead_steps == 0));
        assert!(leases[0].updates.is_empty() || round > 0, "its keyframe is the only way to version 1");
        assert_eq!(status(&world).rounds_done, Some(round as u32));
        for (device, lease) in devices.into_iter().zip(&leases) {
            assert!(deliver(&mut world, device, lease));
        }
    }
    let SeriesStatus { record, rounds_done, is_over, through_seq } = status(&world);
    assert_eq!((rounds_done, is_over, record.after_seq, through_seq, record.left_out), (Some(2), true, 0, 4, 0));
    let versions = world.ledger.facts().lineage.versions;
    assert!(versions[3].keyframe.is_some(), "the last version has a checkpoint");
    assert_eq!(versions.len(), 4);
    // The longer nothing happens, the more seldom devices ask.
    world.wait(100.0);
    assert!((1_700..3_300).contains(&refusal(world.request(devices[0])).retry_ms), "a quarter of a round");
    world.check();
    world.order(begin("two", 8, 1)).unwrap();
    assert_eq!(world.lease(devices[0]).base_version, 4);
}

#[test]
fn a_series_is_begun_once_under_its_name() {
    let (mut world, devices) = world();
    world.order(begin("one", 7, 1)).unwrap();
    let lease = world.lease(devices[0]);
    assert!(world.order(begin("one", 7, 1)).unwrap().told.contains("begun already"));
    assert_eq!(world.order(begin("one", 8, 1)), Err(NotDone::OtherSeries));
    assert_eq!(world.lease(devices[0]).id, lease.id, "it goes on");
    assert_eq!((version(&world), status(&world).record.number), (1, 1));
    let mut spec = world.spec.clone();
    spec.lease.pacing = Pacing::Rounds;
    let mut other = World::new(spec, manifest());
    assert_eq!(other.order(begin("one", 7, 1)), Err(NotDone::NoSeries));
}

#[test]
fn work_from_other_weights_counts_for_nothing() {
    let (mut world, [fast, slow]) = world();
    world.order(begin("one", 7, 3)).unwrap();
    let (done, late) = (world.lease(fast), world.lease(slow));
    assert!(deliver(&mut world, fast, &done));
    // One delta waits for its version, one lease is out.
    world.order(begin("two", 8, 1)).unwrap();
    let closed =
        |r: &Record| matches!(r, Record::LeaseClosed { id, outcome: LeaseOutcome::Returned, .. } if id.0 == late.id);
    assert!(world.commits.iter().flatten().any(closed));
    assert_eq!((status(&world).record.left_out, status(&world).record.after_seq), (2, 1));
    let told = refusal(world.offer(slow, world.offer_for(&late)));
    assert_eq!(told.code(), RefusalCode::LeaseGone);
    assert_eq!(world.merged.len(), 1);
    let next = world.lease(slow);
    assert_eq!(next.base_version, version(&world));
    assert!(deliver(&mut world, slow, &next));
    assert!(status(&world).is_over);
    world.check();
}

#[test]
fn whoever_is_late_when_a_series_ends_is_called_back() {
    let (mut world, [fast, slow]) = world();
    world.order(begin("one", 7, 1)).unwrap();
    let (done, late) = (world.lease(fast), world.lease(slow));
    assert!(deliver(&mut world, fast, &done));
    assert!(!status(&world).is_over, "the other is waited for");
    world.wait(11.0);
    world.tick();
    assert!(status(&world).is_over);
    assert_eq!(status(&world).record.left_out, 1);
    assert_eq!(refusal(world.offer(slow, world.offer_for(&late))).code(), RefusalCode::LeaseGone);
    assert_eq!(world.engine.status().leases_open, 0);
    world.check();
}

#[test]
fn a_series_that_is_cut_ends_with_what_is_there() {
    let (mut world, [fast, slow]) = world();
    assert!(matches!(world.order(Order::CutSeries { name: "one".into() }), Err(NotDone::NoSuchSeries(_))));
    world.order(begin("one", 7, 5)).unwrap();
    let (done, _late) = (world.lease(fast), world.lease(slow));
    assert!(deliver(&mut world, fast, &done));
    world.order(Order::CutSeries { name: "one".into() }).unwrap();
    let SeriesStatus { record, rounds_done, is_over, through_seq } = status(&world);
    assert_eq!((record.rounds, rounds_done, is_over, through_seq, record.left_out), (1, Some(1), true, 1, 1));
    assert!(world.ledger.facts().lineage.versions.last().unwrap().keyframe.is_some());
    // Of which nothing came: it ends where it began.
    world.order(begin("two", 8, 5)).unwrap();
    let _ = world.lease(fast);
    world.order(Order::CutSeries { name: "two".into() }).unwrap();
    let SeriesStatus { record, is_over, .. } = status(&world);
    assert_eq!((record.rounds, is_over, record.last().0), (0, true, version(&world)));
    world.check();
}

#[test]
fn weights_are_only_evaluated_and_then_trained_from_without_another_version() {
    let (mut world, [owl, _]) = world();
    world.spec.evaluate.every = 100;
    world.restart();
    world.volunteer(1);
    let anchor = crate::world::device(9);
    world.join(anchor, Role::Anchor, &[LeaseKind::Train, LeaseKind::Evaluate]);
    world.order(begin("look", 7, 0)).unwrap();
    assert!(status(&world).is_over);
    let lease = world.lease(anchor);
    assert_eq!((lease.kind, lease.base_version), (LeaseKind::Evaluate.to_wire(), 1));
    let (lease_id, generation) = (lease.id, lease.generation);
    let tokens = u64::from(lease.samples) * 4;
    let measured = Evaluation { lease_id, generation, nats: 2.0 * tokens as f64, tokens };
    assert!(matches!(world.ask(anchor, ask::Body::Evaluation(measured)), Body::Done(_)));
    assert_eq!(world.engine.status().evaluation.unwrap().version, Version(1));
    world.order(begin("train", 7, 1)).unwrap();
    assert_eq!((version(&world), world.lease(owl).base_version), (1, 1));
}

#[test]
fn weights_that_come_while_a_version_is_made_are_the_next() {
    let (mut world, [fast, slow]) = world();
    world.order(begin("one", 7, 3)).unwrap();
    let done = world.lease(fast);
    world.publisher_is_slow = true;
    assert!(deliver(&mut world, fast, &done));
    world.order(begin("two", 8, 1)).unwrap();
    assert_eq!(world.try_ask(slow, ask::Body::LeaseRequest(Default::default()), None), None, "it is held");
    world.deliver();
    assert_eq!((version(&world), world.held_answers().len()), (2, 0), "nobody trains on what is not wanted");
    world.publisher_is_slow = false;
    world.deliver();
    assert_eq!(version(&world), 3);
    assert!(matches!(&world.held_answers()[..], [(device, lease)] if *device == slow && lease.base_version == 3));
    assert_eq!(world.ledger.facts().lineage.versions[3].given.unwrap().hash, BlobHash([8; 32]));
}

/// After each action that a process may die behind, the next one comes to the same end.
#[test]
fn a_kill_at_any_moment_changes_nothing() {
    for dies_after in 0..8 {
        let (mut world, devices) = world();
        world.actions_left = dies_after;
        let giver = Giver { name: "ann".into(), from: "192.0.2.1".into() };
        world.handle(Event::Ordered { reply_to: ReplyTo(0), order: begin("one", 7, 1), giver });
        world.restart();
        world.order(begin("one", 7, 1)).unwrap();
        for device in devices {
            world.join(device, Role::Volunteer, &[LeaseKind::Train]);
        }
        let leases = devices.map(|device| world.lease(device));
        for (device, lease) in devices.into_iter().zip(&leases) {
            assert!(deliver(&mut world, device, lease), "{dies_after}");
        }
        world.restart();
        let SeriesStatus { record, rounds_done, is_over, .. } = status(&world);
        assert_eq!((record.number, rounds_done, is_over, version(&world)), (1, Some(1), true, 2), "{dies_after}");
        world.check();
    }
}

#[test]
fn a_budget_that_is_used_up_ends_a_series() {
    let (mut world, [owl, _]) = world();
    world.spec.token_budget = 8;
    world.restart();
    world.volunteer(1);
    world.order(begin("one", 7, 5)).unwrap();
    let lease = world.lease(owl);
    assert_eq!(lease.steps, 1);
    assert!(deliver(&mut world, owl, &lease));
    assert!(status(&world).is_over, "{:?}", status(&world));
    assert_eq!(world.order(begin("two", 8, 1)), Err(NotDone::Over));
    world.order(begin("look", 8, 0)).unwrap();
}
