//! One story a test.

use crate::engine::{
    event::{Event, Measured},
    record::LeaseOutcome,
};
use crate::world::{World, code, device, hello, invite, manifest, spec};
use nightjar_shared::{
    delta::{self, CodecId},
    disk::FolderDisk,
    ids::{DeviceId, Version},
    lease::LeaseKind,
    run_spec::{DeltaSpec, RunSpec},
    shard::Manifest,
    wire::{
        Blob, DeltaOffer, Evaluation, HeldWeights, Hello, Invite, Lease, LeaseRenew, LeaseRequest, LeaseReturn, Leave,
        RefusalAction, RefusalCode, Role, coordinator_message::Body, device_message as ask,
    },
};
use std::{sync::Arc, time::Duration};

fn world() -> World {
    World::new(spec(), manifest())
}

fn outcome(world: &World, lease: &Lease) -> Option<(LeaseOutcome, u32)> {
    let facts = world.ledger.facts();
    let found = facts.leases.iter().find(|l| l.lease.id.0 == lease.id).unwrap();
    found.closed.map(|c| (c.outcome, c.samples_used))
}

fn free_samples(world: &World) -> u64 {
    let facts = world.ledger.facts();
    let held = facts.leases.iter().map(|l| l.closed.map_or(l.lease.samples, |c| c.samples_used));
    world.epoch_samples() - held.map(u64::from).sum::<u64>()
}

#[test]
fn the_way_through_the_house() {
    let mut world = world();
    assert_eq!(world.engine.status().version, Some(Version(0)), "a new run publishes its first version at once");
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    assert_eq!((lease.base_version, lease.steps, lease.samples), (0, 4, 8), "the first lease measures");
    assert!(lease.keyframe.is_some() && lease.updates.is_empty());
    let done = world.train(owl, &lease, 80.0);
    assert_eq!((done.merged, done.version), (true, 0));
    assert_eq!(outcome(&world, &lease), Some((LeaseOutcome::Merged, 8)));
    assert_eq!(world.engine.status().version, Some(Version(0)), "one delta is no quorum");

    let lease = world.lease(owl);
    assert_eq!(lease.steps, 50, "80 tokens a second for 10 seconds, at 8 tokens a step: 100, but a shard holds 50");
    world.train(owl, &lease, 80.0);
    let status = world.engine.status();
    assert_eq!((status.version, status.merged, status.tokens), (Some(Version(1)), 2, 8 * 4 + 50 * 8));
    assert_eq!(world.merged.iter().map(|o| o.seq).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn leases_take_the_same_time_on_devices_four_times_apart() {
    let mut spec = spec();
    spec.lease.steps_max = 10_000;
    let big = Manifest {
        train: manifest()
            .train
            .into_iter()
            .map(|s| nightjar_shared::shard::ShardInfo { samples: 1 << 20, ..s })
            .collect(),
        ..manifest()
    };
    let mut world = World::new(spec, big);
    let speeds = [(world.volunteer(1), 40.0), (world.volunteer(2), 160.0)];
    for (owl, speed) in speeds {
        for _ in 0..3 {
            let lease = world.lease(owl);
            world.train(owl, &lease, speed);
        }
    }
    let wall_s = speeds.map(|(owl, speed)| world.lease(owl).samples as f64 * 4.0 / speed);
    assert!(wall_s.iter().all(|s| (9.0..=10.1).contains(s)), "{wall_s:?}");
}

#[test]
fn a_device_that_starts_late_gets_the_way_that_is_shortest_for_it() {
    let mut world = world();
    let (owl, newcomer) = (world.volunteer(1), world.volunteer(2));
    for _ in 0..4 {
        let lease = world.lease(owl);
        world.train(owl, &lease, 80.0);
    }
    assert_eq!(world.engine.status().version, Some(Version(2)));
    let held = Some(HeldWeights { version: 1, digest: vec![1; 32] });
    let request = LeaseRequest { held, ..LeaseRequest::default() };
    let Body::Lease(lease) = world.ask(owl, ask::Body::LeaseRequest(request)) else { panic!() };
    assert_eq!((lease.keyframe, lease.updates.len()), (None, 1));
    assert_eq!(lease.base_digest, [2; 32]);
    let lease = world.lease(newcomer);
    assert_eq!((lease.keyframe.is_some(), lease.updates.len()), (true, 2));
}

#[test]
fn an_expired_lease_gives_its_samples_back_and_its_delta_comes_too_late() {
    let mut world = world();
    let owl = world.volunteer(1);
    let all = free_samples(&world);
    let lease = world.lease(owl);
    assert_eq!(world.engine.next_deadline().map(|d| d.ms), Some(60_000), "deadline_s_min");
    world.wait(61.0);
    let answer = world.offer(owl, world.offer_for(&lease));
    assert_eq!(code(&answer), Some(RefusalCode::LeaseGone));
    let Body::Refusal(refusal) = answer else { panic!() };
    assert_eq!(refusal.action(), RefusalAction::DropLease);
    assert_eq!((outcome(&world, &lease), free_samples(&world)), (Some((LeaseOutcome::Expired, 0)), all));
    assert!(world.merged.is_empty());
    let again = world.lease(owl);
    assert_eq!((again.first_sample, again.samples), (lease.first_sample, lease.samples), "the samples are there again");
}

#[test]
fn a_device_without_memory_for_the_model_is_told_so_before_it_fetches_anything() {
    let mut world = world();
    let owl = world.volunteer(1);
    let needed = spec().model.training_bytes();
    let mut ask = |memory_bytes| {
        world.ask(owl, ask::Body::LeaseRequest(LeaseRequest { memory_bytes, ..LeaseRequest::default() }))
    };
    let Body::Refusal(refusal) = ask(needed - 1) else { panic!("a lease, without memory for it") };
    assert_eq!((refusal.code(), refusal.action()), (RefusalCode::NoWork, RefusalAction::Retry));
    assert!(refusal.retry_ms > 60_000, "what changes that takes a person");
    let sentence = refusal.sentence;
    assert!(sentence.contains("230 MiB of memory") && sentence.contains("may give it 229 MiB"), "{sentence}");
    assert!(matches!(ask(needed), Body::Lease(_)));
    assert!(matches!(ask(0), Body::Lease(_)), "who does not know may try");
}

#[test]
fn a_renewed_lease_lives_longer_but_not_for_ever() {
    let mut world = world();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    let renew = ask::Body::LeaseRenew(LeaseRenew { lease_id: lease.id, generation: lease.generation, steps_done: 0 });
    let mut renewals = 0;
    while matches!(world.ask(owl, renew.clone()), Body::Done(_)) {
        world.wait(50.0);
        renewals += 1;
        assert!(renewals < 1000);
    }
    assert!(renewals > 10, "{renewals}");
}

#[test]
fn a_device_that_must_stop_keeps_what_it_trained_and_gives_the_rest_back() {
    let mut world = world();
    let owl = world.volunteer(1);
    let all = free_samples(&world);
    let lease = world.lease(owl);
    let part = DeltaOffer { steps: 3, samples: 6, ..world.offer_for(&lease) };
    assert!(matches!(world.offer(owl, part), Body::Done(d) if d.merged));
    assert_eq!((outcome(&world, &lease), free_samples(&world)), (Some((LeaseOutcome::Merged, 6)), all - 6));
    let back = world.lease(owl);
    let give_back = LeaseReturn { lease_id: back.id, generation: back.generation, why: "battery".into() };
    assert!(matches!(world.ask(owl, ask::Body::LeaseReturn(give_back)), Body::Done(d) if !d.merged));
    assert_eq!(free_samples(&world), all - 6);
}

#[test]
fn an_offer_made_twice_is_merged_once_and_acknowledged_twice_even_after_a_restart() {
    let mut world = world();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.train(owl, &lease, 80.0);
    assert!(matches!(world.offer(owl, world.offer_for(&lease)), Body::Done(d) if d.merged));
    world.restart();
    assert_eq!(code(&world.offer(owl, world.offer_for(&lease))), Some(RefusalCode::StaleGeneration), "hello first");
    world.volunteer(1);
    assert!(matches!(world.offer(owl, world.offer_for(&lease)), Body::Done(d) if d.merged));
    assert_eq!(world.ledger.facts().lineage.deltas.len(), 1);
}

#[test]
fn a_lease_outlives_the_coordinator_that_issued_it() {
    let mut world = world();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.restart();
    world.volunteer(1);
    assert!(world.ledger.generation().0 > lease.generation);
    let forged = DeltaOffer { generation: world.ledger.generation().0, ..world.offer_for(&lease) };
    assert_eq!(code(&world.offer(owl, forged)), Some(RefusalCode::LeaseGone), "id and generation must both be right");
    assert!(world.train(owl, &lease, 80.0).merged);
}

#[test]
fn a_device_that_asks_again_gets_the_same_lease() {
    let mut world = world();
    let (owl, other) = (world.volunteer(1), world.volunteer(2));
    let lease = world.lease(owl);
    assert_eq!(world.lease(owl), lease, "the answer was lost");
    for _ in 0..2 {
        let lease = world.lease(other);
        world.train(other, &lease, 80.0);
    }
    assert_ne!(world.lease(owl).id, lease.id, "there is a newer version to start from");
    assert_eq!(outcome(&world, &lease), Some((LeaseOutcome::Returned, 0)));
}

#[test]
fn nobody_trains_without_an_invite() {
    let mut world = world();
    let stranger = device(9);
    let greet = |role| ask::Body::Hello(hello(role, &[LeaseKind::Train]));
    assert_eq!(code(&world.request(stranger)), Some(RefusalCode::Invite));
    assert_eq!(code(&world.ask(stranger, greet(Role::Volunteer))), Some(RefusalCode::Invite));
    let posing = world.try_ask(stranger, greet(Role::Anchor), Some(invite(Role::Volunteer)));
    assert_eq!(posing.and_then(|b| code(&b)), Some(RefusalCode::Invite));
    let other_run = Hello { run_id: vec![1; 32], ..hello(Role::Volunteer, &[]) };
    let lost = world.try_ask(stranger, ask::Body::Hello(other_run), Some(invite(Role::Volunteer)));
    assert_eq!(lost.and_then(|b| code(&b)), Some(RefusalCode::WrongRun));
    let foreign = Hello { codecs: vec![77], ..hello(Role::Volunteer, &[LeaseKind::Train]) };
    let future = world.try_ask(stranger, ask::Body::Hello(foreign), Some(invite(Role::Volunteer)));
    assert_eq!(future.and_then(|b| code(&b)), Some(RefusalCode::Unsupported));
    assert!(world.ledger.facts().devices.is_empty());
}

#[test]
fn an_invite_admits_as_many_devices_as_it_says_and_leaving_makes_room() {
    let mut world = world();
    let for_two = Invite { devices_max: 2, ..invite(Role::Volunteer) };
    let join = |world: &mut World, id: DeviceId| {
        world.try_ask(id, ask::Body::Hello(hello(Role::Volunteer, &[LeaseKind::Train])), Some(for_two.clone())).unwrap()
    };
    assert!(matches!(join(&mut world, device(1)), Body::Welcome(_)));
    assert!(matches!(join(&mut world, device(2)), Body::Welcome(_)));
    assert!(matches!(join(&mut world, device(2)), Body::Welcome(_)), "the same device is no third");
    assert_eq!(code(&join(&mut world, device(3))), Some(RefusalCode::Invite));
    world.restart();
    assert_eq!(code(&join(&mut world, device(3))), Some(RefusalCode::Invite));
    join(&mut world, device(1));
    let lease = world.lease(device(1));
    world.ask(device(1), ask::Body::Leave(Leave {}));
    assert_eq!(outcome(&world, &lease), Some((LeaseOutcome::Returned, 0)));
    assert_eq!(code(&world.request(device(1))), Some(RefusalCode::Invite));
    assert!(matches!(join(&mut world, device(3)), Body::Welcome(_)));
    assert_eq!(code(&join(&mut world, device(1))), Some(RefusalCode::Invite), "its place is taken");
}

#[test]
fn hostile_offers_change_nothing_but_their_own_lease() {
    type Forgery = fn(DeltaOffer) -> DeltaOffer;
    let forgeries: [(&str, Forgery); 10] = [
        ("no steps", |o| DeltaOffer { steps: 0, samples: 0, ..o }),
        ("more steps than the lease", |o| DeltaOffer { steps: o.steps + 1, samples: o.samples + 2, ..o }),
        ("more samples than its steps", |o| DeltaOffer { samples: o.samples * 2, ..o }),
        ("fewer samples than its steps", |o| DeltaOffer { samples: o.samples - 2, ..o }),
        ("overflowing", |o| DeltaOffer { steps: u32::MAX, samples: u32::MAX, ..o }),
        ("not a number", |o| DeltaOffer { loss_last: f64::NAN, ..o }),
        ("infinite", |o| DeltaOffer { loss_first: f64::INFINITY, ..o }),
        ("a century of training", |o| DeltaOffer { train_ms: u64::MAX, ..o }),
        ("no blob", |o| DeltaOffer { delta: None, ..o }),
        ("an endless blob", |o| DeltaOffer { delta: o.delta.map(|b| Blob { bytes: 1 << 60, ..b }), ..o }),
    ];
    let mut world = world();
    let owl = world.volunteer(1);
    for (what, forge) in forgeries {
        // Who is refused again and again is not asked for a while.
        world.wait(30_000.0);
        let lease = world.lease(owl);
        let answer = world.offer(owl, forge(world.offer_for(&lease)));
        assert_eq!(code(&answer), Some(RefusalCode::BadDelta), "{what}");
        assert_eq!(outcome(&world, &lease), Some((LeaseOutcome::ScreenedOut, 0)), "{what}");
    }
    world.wait(30_000.0);
    let lease = world.lease(owl);
    let thief = world.volunteer(2);
    assert_eq!(code(&world.offer(thief, world.offer_for(&lease))), Some(RefusalCode::LeaseGone), "another's lease");
    assert!(!world.engine.accepts_upload(thief, nightjar_shared::ids::LeaseId(lease.id), 1));
    assert_eq!(outcome(&world, &lease), None);
    assert_eq!((world.engine.status().merged, world.merged.len()), (0, 0));
}

#[test]
fn what_the_screen_refuses_is_answered_with_the_reason() {
    let mut world = world();
    let owl = world.volunteer(1);
    for measured in [
        Err("it ends too soon".into()),
        Ok(Measured { norm: f64::NAN, largest: 0.0 }),
        Ok(Measured { norm: 1e30, largest: 0.0 }),
    ] {
        let lease = world.lease(owl);
        world.measured = Some(measured);
        let done = world.train(owl, &lease, 80.0);
        assert!(!done.merged && !done.note.is_empty(), "{done:?}");
        assert_eq!(outcome(&world, &lease), Some((LeaseOutcome::ScreenedOut, 0)));
    }
}

/// A run of sparse deltas, k = 1024. All of these are well-formed, and of a length that such a delta can have.
#[test]
fn only_what_a_lease_asks_for_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec();
    (spec.delta.codec, spec.delta.k) = (CodecId::Sparse2, 1024);
    let mut world = World::with_weights(spec, manifest(), Arc::new(FolderDisk::open(folder.path()).unwrap()));
    let (owl, RunSpec { model, delta: asked, .. }) = (world.volunteer(1), world.spec.clone());
    let n = model.parameters();
    let encoded = |codec, k| {
        let delta = DeltaSpec { codec, k, ..asked.clone() };
        delta::encode(&model, &delta, &vec![1e-3; n], &mut vec![0.0; n])
    };
    // All tensors but the first: the embedding of 256 × 8 values, in eight blocks of 66 bytes.
    let (whole, from_second) = (encoded(CodecId::Blocks2, 1), 1u32.to_le_bytes());
    let part = [&whole[..8], &from_second, &whole[12..16], &whole[16 + 8 * 66..]].concat();
    let mut beginning = encoded(CodecId::Sparse2, 1024);
    beginning[12] -= 1;
    for (bytes, why) in [
        (part, "it is coded as Blocks2, and the run's deltas as Sparse2"),
        (beginning, "it covers 10 of the model's 11 tensors, and the run's deltas all of them"),
        (encoded(CodecId::Sparse2, 512), "it sends 512 of each 4096 values, and the run's deltas 1024"),
    ] {
        let lease = world.lease(owl);
        let hash = world.weights.as_ref().unwrap().1.put(&bytes).unwrap();
        let offer = DeltaOffer { delta: Some(Blob::new(hash, bytes.len() as u64)), ..world.offer_for(&lease) };
        let Body::Done(done) = world.offer(owl, offer) else { panic!("{why}") };
        assert_eq!((done.merged, done.note), (false, format!("The delta cannot be taken: {why}.")));
        assert_eq!(outcome(&world, &lease), Some((LeaseOutcome::ScreenedOut, 0)));
    }
    assert!(world.merged.is_empty());
}

#[test]
fn anchors_measure_each_version_once() {
    let mut spec = spec();
    spec.evaluate.samples = 8;
    let mut world = World::new(spec, manifest());
    let (owl, anchor, second) = (world.volunteer(1), device(2), device(3));
    for id in [anchor, second] {
        world.join(id, Role::Anchor, &[LeaseKind::Evaluate]);
    }
    let lease = world.lease(anchor);
    assert_eq!(LeaseKind::from_wire(lease.kind), Some(LeaseKind::Evaluate));
    assert_eq!((lease.base_version, lease.first_sample, lease.samples), (0, 0, 8));
    assert_eq!(code(&world.request(second)), Some(RefusalCode::NoWork), "one anchor is enough");
    let wrong = Evaluation { lease_id: lease.id, generation: lease.generation, nats: 1.0, tokens: 33 };
    assert_eq!(code(&world.ask(anchor, ask::Body::Evaluation(wrong))), Some(RefusalCode::BadDelta));
    let lease = world.lease(second);
    let measured = Evaluation { lease_id: lease.id, generation: lease.generation, nats: 100.0, tokens: 32 };
    assert!(matches!(world.ask(second, ask::Body::Evaluation(measured)), Body::Done(_)));
    let evaluation = world.engine.status().evaluation.unwrap();
    assert_eq!((evaluation.version, evaluation.text_bytes), (Version(0), 32));
    world.restart();
    world.join(anchor, Role::Anchor, &[LeaseKind::Evaluate]);
    assert_eq!(code(&world.request(anchor)), Some(RefusalCode::NoWork), "it is known already");
    world.volunteer(1);
    for _ in 0..2 {
        let lease = world.lease(owl);
        world.train(owl, &lease, 80.0);
    }
    assert_eq!(world.lease(anchor).base_version, 1);
}

#[test]
fn the_run_ends_with_its_budget_and_publishes_what_there_is() {
    let mut spec = spec();
    (spec.token_budget, spec.merge.quorum) = (3 * 8 * 4, Some(100));
    let mut world = World::new(spec, manifest());
    let (owl, late, anchor) = (world.volunteer(1), world.volunteer(2), device(3));
    let late_lease = world.lease(late);
    for steps in [4, 8] {
        let lease = world.lease(owl);
        assert_eq!(lease.steps, steps);
        world.train(owl, &lease, 80.0);
    }
    let status = world.engine.status();
    assert!(status.finished);
    assert_eq!(status.version, Some(Version(1)), "without a quorum");
    let Body::Refusal(over) = world.request(owl) else { panic!() };
    assert_eq!((over.code(), over.action()), (RefusalCode::RunOver, RefusalAction::Retry));
    assert!((2_700_000..=4_500_000).contains(&over.retry_ms), "{}", over.retry_ms);
    world.join(anchor, Role::Anchor, &[LeaseKind::Evaluate]);
    assert_eq!(world.lease(anchor).base_version, 1, "the last version is measured");
    assert!(world.train(late, &late_lease, 80.0).merged, "what was leased before the end still counts");
    assert_eq!(world.engine.status().version, Some(Version(2)));
}

#[test]
fn a_last_lease_is_no_longer_than_the_budget() {
    let mut spec = spec();
    spec.token_budget = 8 * 6;
    let mut world = World::new(spec, manifest());
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.train(owl, &lease, 80.0);
    assert_eq!((lease.steps, world.lease(owl).steps), (4, 2));
}

#[test]
fn a_quorum_that_came_together_before_a_crash_is_published_after_it() {
    let mut world = world();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.train(owl, &lease, 80.0);
    let lease = world.lease(owl);
    world.wait(10.0);
    // Measure, commit; then the process dies, before it answers, merges or publishes.
    world.actions_left = 2;
    assert_eq!(world.try_ask(owl, ask::Body::DeltaOffer(world.offer_for(&lease)), None), None);
    assert!(world.is_merged(&lease));
    world.restart();
    assert_eq!(world.engine.status().version, Some(Version(1)));
    world.volunteer(1);
    assert!(
        matches!(world.offer(owl, world.offer_for(&lease)), Body::Done(d) if d.merged),
        "the device hears of it at last"
    );
}

/// The version that is being made is made of the deltas before: what comes meanwhile is a step on top of it.
#[test]
fn a_delta_that_comes_while_a_version_is_made_is_stale_by_it() {
    let mut world = world();
    let owls = [world.volunteer(1), world.volunteer(2), world.volunteer(3)];
    let leases = owls.map(|owl| world.lease(owl));
    world.publisher_is_slow = true;
    for (owl, lease) in owls.into_iter().zip(&leases) {
        assert!(matches!(world.offer(owl, world.offer_for(lease)), Body::Done(d) if d.merged && d.version == 0));
    }
    world.deliver();
    let facts = world.ledger.facts();
    assert_eq!(facts.lineage.versions.last().map(|v| (v.version, v.through_seq)), Some((Version(1), 2)));
    assert_eq!(facts.lineage.deltas.iter().map(|d| d.staleness).collect::<Vec<_>>(), [0, 0, 1]);
    let weight = world.spec.merge.staleness.weight(1);
    assert_eq!((facts.lineage.deltas[2].weight, world.merged[2].weight), (weight, weight));
    assert!(weight < 1.0);
}

#[test]
fn after_the_quorum_more_deltas_are_waited_for_as_long_as_the_grace_period() {
    let mut spec = spec();
    spec.merge.grace_s = Some(5.0);
    let mut world = World::new(spec, manifest());
    let owls = [world.volunteer(1), world.volunteer(2), world.volunteer(3), world.volunteer(4)];
    let leases = owls.map(|owl| world.lease(owl));
    let deliver = |world: &mut World, i: usize| {
        assert!(matches!(world.offer(owls[i], world.offer_for(&leases[i])), Body::Done(_)))
    };
    for i in 0..2 {
        deliver(&mut world, i);
    }
    assert_eq!(world.engine.next_deadline(), Some(world.now + Duration::from_secs(5)), "the quorum is there");
    world.wait(4.9);
    deliver(&mut world, 2);
    assert_eq!(world.engine.status().version, Some(Version(0)));
    world.wait(0.1);
    world.handle(Event::Tick);
    let facts = world.ledger.facts();
    assert_eq!(
        facts.lineage.versions.last().map(|v| (v.version, v.through_seq)),
        Some((Version(1), 3)),
        "the third came in time"
    );
    deliver(&mut world, 3);
    assert_eq!(world.engine.status().version, Some(Version(1)), "the fourth waits for the next quorum");
    // A coordinator that starts anew grants the grace anew.
    for _ in 0..2 {
        world.restart();
        world.volunteer(1);
        let lease = world.lease(owls[0]);
        world.offer(owls[0], world.offer_for(&lease));
        world.wait(4.0);
    }
    world.restart();
    assert_eq!(world.engine.status().version, Some(Version(1)));
    world.wait(5.0);
    world.handle(Event::Tick);
    assert_eq!(world.engine.status().version, Some(Version(2)));
}

#[test]
fn leases_grow_with_the_runs_progress() {
    let mut spec = spec();
    spec.token_budget = 8 * 60;
    (spec.lease.wall_s, spec.lease.wall_s_end) = (2.0, Some(8.0));
    let mut world = World::new(spec, manifest());
    let owl = world.volunteer(1);
    let mut steps = vec![];
    for _ in 0..4 {
        let lease = world.lease(owl);
        steps.push(lease.steps);
        world.train(owl, &lease, 40.0);
    }
    // 4 measure; then 2 s · 4^(progress) at 5 steps a second: progress 4/60, 15/60, 29/60.
    assert_eq!(steps, [4, 11, 14, 20]);
}

#[test]
fn anchors_begin_the_run_and_volunteers_join_in_later() {
    let mut spec = spec();
    spec.lease.warm_tokens = 50;
    let mut world = World::new(spec, manifest());
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    assert!(world.train(owl, &lease, 80.0).merged, "without an anchor nobody is waited for");
    let anchor = device(2);
    world.join(anchor, Role::Anchor, &[LeaseKind::Train]);
    let warms = world.lease(anchor);
    assert_eq!(code(&world.request(owl)), Some(RefusalCode::NoWork));
    assert!(world.train(anchor, &warms, 80.0).merged);
    assert_eq!(world.engine.status().tokens, 64);
    let _ = world.lease(anchor);
    world.lease(owl);
}
