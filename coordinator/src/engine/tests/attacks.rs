//! One device against a run: it trains nothing, lies about all it says, and gains nothing by it.

use crate::engine::{event::Measured, record::LeaseOutcome};
use crate::world::{World, code, device, manifest, named, spec};
use nightjar_shared::{
    delta,
    ids::DeviceId,
    lease::LeaseKind,
    run_spec::{Pacing, RunSpec},
    wire::{
        Blob, DeltaOffer, Evaluation, Lease, LeaseRequest, RefusalAction, RefusalCode, Role, coordinator_message::Body,
        device_message as ask,
    },
};

/// The default run on the smallest model, of two million tokens.
fn default_run() -> World {
    let mut spec: RunSpec = serde_json::from_str(r#"{"name": "test", "token_budget": 2000000}"#).unwrap();
    spec.lease.pacing = Pacing::Free;
    let mut manifest = manifest();
    manifest.context = spec.model.max_position_embeddings;
    manifest.train.iter_mut().for_each(|shard| shard.samples = 100_000);
    World::new(spec, manifest)
}

fn boast(world: &World, lease: &Lease) -> DeltaOffer {
    DeltaOffer { train_ms: 1, ..world.offer_for(lease) }
}

/// Offers until it is taken, and waits as long as it is told.
fn insist(world: &mut World, device: DeviceId, offer: &DeltaOffer) -> Body {
    for _ in 0..100 {
        match world.offer_at_once(device, offer.clone()) {
            Body::Refusal(refusal) if refusal.code() == RefusalCode::Busy => {
                assert_eq!(refusal.action(), RefusalAction::Retry);
                world.wait(refusal.retry_ms as f64 / 1000.0);
            }
            other => return other,
        }
    }
    panic!("it is told to wait for ever");
}

/// It used up the whole run in a second and a half.
#[test]
fn an_instant_finisher_waits() {
    let mut world = default_run();
    let thief = world.volunteer(1);
    let lease = world.lease(thief);
    let answer = world.offer_at_once(thief, boast(&world, &lease));
    assert_eq!(code(&answer), Some(RefusalCode::Busy));
    while world.now.ms < 30_000 && !world.engine.status().finished {
        let lease = world.lease(thief);
        let offer = boast(&world, &lease);
        assert!(matches!(insist(&mut world, thief, &offer), Body::Done(done) if done.merged));
    }
    let tokens = world.engine.status().tokens;
    assert!(tokens < 1_100_000, "{tokens} tokens in half a minute");
    assert!(tokens > 256_000, "what a fast device might have done, it is believed: {tokens}");
}

/// What is trained ahead counts from the lease before it on: no time is counted for two leases.
#[test]
fn an_instant_finisher_that_trains_ahead_waits_for_each_lease() {
    let mut world = default_run();
    let thief = world.volunteer(1);
    let mut lease = world.lease(thief);
    for _ in 0..3 {
        let answer = world.offer_at_once(thief, boast(&world, &lease));
        assert_eq!(code(&answer), Some(RefusalCode::Busy), "a lease of {} steps", lease.steps);
        let offer = boast(&world, &lease);
        assert!(matches!(insist(&mut world, thief, &offer), Body::Done(done) if done.merged));
        let request = LeaseRequest { ahead_of: lease.id, ..LeaseRequest::default() };
        let Body::Lease(next) = world.ask(thief, ask::Body::LeaseRequest(request)) else { panic!("it is given work") };
        assert_eq!(next.ahead_of, lease.id);
        lease = next;
    }
}

/// What a device has shown counts after a restart of the coordinator as well.
#[test]
fn a_restart_leaves_a_device_its_credit() {
    let mut world = default_run();
    let owl = world.volunteer(1);
    for _ in 0..6 {
        let lease = world.lease(owl);
        assert!(world.train(owl, &lease, 250.0).merged);
    }
    world.restart();
    world.join(owl, Role::Volunteer, &[LeaseKind::Train]);
    let lease = world.lease(owl);
    assert_eq!(lease.steps, 500);
    world.wait(4.0);
    let answer = world.offer_at_once(owl, boast(&world, &lease));
    assert!(matches!(&answer, Body::Done(done) if done.merged), "a stranger would take ten seconds: {answer:?}");
}

/// Who asks for its lease again just before it delivers was no faster for that.
#[test]
fn a_lease_that_is_told_again_makes_its_device_no_faster() {
    let mut world = default_run();
    let thief = world.volunteer(1);
    let lease = world.lease(thief);
    world.wait(60.0);
    assert_eq!(world.lease(thief).id, lease.id);
    assert!(matches!(world.offer_at_once(thief, boast(&world, &lease)), Body::Done(done) if done.merged));
    let tokens = f64::from(lease.samples) * f64::from(world.manifest.context);
    let tokens_per_s = world.ledger.facts().devices[0].tokens_per_s;
    assert!(
        tokens_per_s < tokens / 0.05,
        "{tokens_per_s} tokens a second, of {tokens} tokens in {} steps",
        lease.steps
    );
}

/// Offered again and again before its time, a delta takes up nobody's: it is measured once.
#[test]
fn a_delta_that_has_to_wait_is_not_measured_again() {
    let mut world = default_run();
    let thief = world.volunteer(1);
    let lease = world.lease(thief);
    let offer = boast(&world, &lease);
    assert_eq!(code(&world.offer_at_once(thief, offer.clone())), Some(RefusalCode::Busy));
    world.measured = Some(Err("It was measured again.".into()));
    assert_eq!(code(&world.offer_at_once(thief, offer.clone())), Some(RefusalCode::Busy));
    world.measured = None;
    assert!(matches!(insist(&mut world, thief, &offer), Body::Done(done) if done.merged));
}

#[test]
fn a_lease_that_is_part_done_takes_its_part_of_the_time() {
    let mut world = default_run();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.wait(0.05);
    let part = DeltaOffer { steps: 2, samples: 8, ..boast(&world, &lease) };
    assert!(matches!(world.offer_at_once(owl, part), Body::Done(done) if done.merged));
}

#[test]
fn a_delta_that_was_merged_is_good_for_no_other_lease_not_even_after_a_restart() {
    let mut world = default_run();
    let (thief, other) = (world.volunteer(1), world.volunteer(2));
    let first = world.lease(thief);
    assert!(world.train(thief, &first, 1000.0).merged);
    let again =
        |world: &World, lease: &Lease| DeltaOffer { delta: world.offer_for(&first).delta, ..world.offer_for(lease) };
    for (device, restarts) in [(thief, false), (other, true)] {
        if restarts {
            world.restart();
            world.join(device, Role::Volunteer, &[LeaseKind::Train]);
        }
        let lease = world.lease(device);
        world.wait(10.0);
        let answer = world.offer(device, again(&world, &lease));
        assert_eq!(code(&answer), Some(RefusalCode::BadDelta));
        let facts = world.ledger.facts();
        let closed = facts.leases.iter().find(|l| l.lease.id.0 == lease.id).and_then(|l| l.closed).unwrap();
        assert_eq!((closed.outcome, facts.lineage.deltas.len()), (LeaseOutcome::ScreenedOut, 1));
    }
}

/// What is merged is what was stored: another length is none of it.
#[test]
fn a_delta_of_another_length_than_offered_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec();
    (spec.delta.codec, spec.delta.k) = (delta::CodecId::Sparse2, 1024);
    let disk = std::sync::Arc::new(nightjar_shared::disk::FolderDisk::open(folder.path()).unwrap());
    let mut world = World::with_weights(spec, manifest(), disk);
    let owl = world.volunteer(1);
    let allowed = delta::bytes_allowed(&world.spec.model, &world.spec.delta);
    let lease = world.lease(owl);
    let honest = world.offer_for(&lease);
    let blob = honest.delta.clone().unwrap();
    let stored = world.weights.as_ref().unwrap().1.length(blob.name().unwrap()).unwrap().unwrap();
    let other = if stored < *allowed.end() { stored + 1 } else { stored - 1 };
    let lying = |bytes| DeltaOffer { delta: Some(Blob { bytes, ..blob.clone() }), ..honest.clone() };
    let answer = world.offer(owl, lying(other));
    assert!(matches!(&answer, Body::Done(done) if !done.merged && done.note.contains("was offered as")), "{answer:?}");
    let lease = world.lease(owl);
    let offer = DeltaOffer { lease_id: lease.id, generation: lease.generation, ..lying(stored) };
    assert!(matches!(world.offer(owl, offer), Body::Done(done) if done.merged));
}

#[test]
fn no_train_ms_ends_the_run_over_a_restart_or_without_one() {
    for restarts in [false, true] {
        for train_ms in [0, 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
            let mut world = default_run();
            let owl = world.volunteer(1);
            let lease = world.lease(owl);
            if restarts {
                world.restart();
                world.join(owl, Role::Volunteer, &[LeaseKind::Train]);
            }
            world.wait(10.0);
            let answer = world.offer(owl, DeltaOffer { train_ms, ..world.offer_for(&lease) });
            match (train_ms, answer) {
                (0 | 1, Body::Done(done)) => assert!(done.merged),
                (2.., answer) => assert_eq!(code(&answer), Some(RefusalCode::BadDelta), "{train_ms}"),
                (_, answer) => panic!("{answer:?}"),
            }
        }
    }
}

/// A lease over a restart, that is told to have taken longer than it was out, counts as long as it was.
#[test]
fn what_a_restart_made_unknown_counts_as_far_as_it_can_be() {
    let mut world = default_run();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.restart();
    world.join(owl, Role::Volunteer, &[LeaseKind::Train]);
    world.wait(10.0);
    let answer = world.offer(owl, DeltaOffer { train_ms: 3_600_000, ..world.offer_for(&lease) });
    assert!(matches!(answer, Body::Done(done) if done.merged), "the calendar may have been set");
    assert_eq!(world.ledger.facts().lineage.deltas[0].train_ms, 70_000, "ten seconds, and a minute ahead");
}

#[test]
fn a_measurement_that_cannot_be_is_refused() {
    let mut world = World::new(spec(), manifest());
    let (owl, anchor) = (world.volunteer(1), device(3));
    world.join(anchor, Role::Anchor, &[LeaseKind::Evaluate]);
    let lease = world.lease(owl);
    assert!(world.train(owl, &lease, 80.0).merged);
    let measure = |world: &mut World, nats: f64, more: u64| {
        let lease = world.lease(anchor);
        let tokens = u64::from(lease.samples) * 4 + more;
        let evaluation = Evaluation { lease_id: lease.id, generation: lease.generation, nats, tokens };
        world.ask(anchor, ask::Body::Evaluation(evaluation))
    };
    let nonsense = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-9, 1e9, f64::MAX].map(|nats| (nats, 0));
    for (nats, more) in nonsense.into_iter().chain([(3.0, 1)]) {
        assert_eq!(
            code(&measure(&mut world, nats, more)),
            Some(RefusalCode::BadDelta),
            "{nats} nats, {more} tokens more"
        );
    }
    assert!(world.ledger.facts().evaluations.is_empty());
    assert!(matches!(measure(&mut world, 3.0, 0), Body::Done(_)));
}

/// The screen that has seen nothing is the strictest.
#[test]
fn noise_as_large_as_the_peak_rate_allows_is_refused_from_the_first_delta_on() {
    let mut world = default_run();
    let thief = world.volunteer(1);
    let lease = world.lease(thief);
    // Ten times Adam's largest step at the peak of the schedule, as it was allowed.
    let norm = 10.0 * 2e-3 * f64::from(lease.steps) * (world.spec.model.parameters() as f64).sqrt();
    for share in [1.0, 0.1, 0.01] {
        let lease = world.lease(thief);
        world.measured = Some(Ok(Measured { norm: share * norm, largest: 0.0 }));
        let done = world.train(thief, &lease, 1000.0);
        assert!(!done.merged, "{share}: {}", done.note);
    }
}

#[test]
fn a_device_that_is_refused_again_and_again_is_not_asked() {
    let mut world = default_run();
    let (thief, owl) = (world.volunteer(1), world.volunteer(2));
    world.measured = Some(Err("It is no delta.".into()));
    let mut waits = vec![];
    for refusals in 1..=6 {
        let lease = world.lease(thief);
        assert!(!world.train(thief, &lease, 1000.0).merged);
        let asked = world.request(thief);
        if refusals <= 2 {
            assert!(matches!(asked, Body::Lease(_)));
            continue;
        }
        let Body::Refusal(refusal) = asked else { panic!("{asked:?}") };
        assert_eq!((refusal.code(), refusal.action()), (RefusalCode::BadDelta, RefusalAction::Retry));
        assert!(refusal.sentence.contains("It is no delta."), "{}", refusal.sentence);
        waits.push(refusal.retry_ms);
        world.wait(refusal.retry_ms as f64 / 1000.0 * 1.4);
    }
    assert!(waits.windows(2).all(|w| w[1] > w[0]), "{waits:?}");
    world.restart();
    for device in [thief, owl] {
        world.join(device, Role::Volunteer, &[LeaseKind::Train]);
    }
    let lease = world.lease(thief);
    assert!(!world.train(thief, &lease, 1000.0).merged);
    assert_eq!(code(&world.request(thief)), Some(RefusalCode::BadDelta), "a restart takes nothing back");
    world.measured = None;
    let lease = world.lease(owl);
    assert!(world.train(owl, &lease, 1000.0).merged, "nobody else is held");
}

/// Who says that it trains in no time would seem to wait all the time, and make everybody's rounds long.
#[test]
fn one_that_says_it_trains_in_no_time_does_not_stretch_the_others_rounds() {
    let round_s = |boasts: bool| {
        let mut spec = spec();
        (spec.lease.pacing, spec.merge.grace_s, spec.merge.quorum) = (Pacing::Rounds, Some(1.0), Some(1));
        (spec.lease.wall_s_min, spec.lease.steps_max) = (Some(2.0), 100_000);
        let mut manifest = manifest();
        manifest.train.iter_mut().for_each(|shard| shard.samples = 1_000_000);
        let mut world = World::new(spec, manifest);
        world.overhead_s = 0.2;
        let devices = [1, 2, 3].map(|n| world.volunteer(n));
        for _ in 0..40 {
            let leases = devices.map(|device| world.lease(device));
            let longest = leases.iter().map(|l| f64::from(l.steps) * 8.0 / 40.0).fold(0.0, f64::max);
            world.wait(longest + world.overhead_s);
            for (device, lease) in devices.iter().zip(&leases) {
                let mut offer = world.offer_for(lease);
                if boasts && *device == devices[0] {
                    offer.train_ms = 1;
                }
                assert!(matches!(world.offer(*device, offer), Body::Done(_)));
            }
        }
        world.engine.round_s()
    };
    let (honest, lied_to) = (round_s(false), round_s(true));
    assert!(lied_to < 2.5 * honest, "{honest} s, and {lied_to} s with one that boasts");
}

/// A lease of one step that is held for an hour is no hour of work.
#[test]
fn a_lease_that_is_only_held_earns_no_credit() {
    let mut world = default_run();
    let thief = world.volunteer(1);
    let lease = world.lease(thief);
    for _ in 0..60 {
        world.wait(60.0);
        world.renew(thief, &lease);
    }
    let one = DeltaOffer { steps: 1, samples: 4, train_ms: 3_600_000, ..world.offer_for(&lease) };
    assert!(matches!(insist(&mut world, thief, &one), Body::Done(done) if done.merged));
    let lease = world.lease(thief);
    let answer = world.offer_at_once(thief, boast(&world, &lease));
    let Body::Refusal(refusal) = answer else { panic!("{answer:?}") };
    // A stranger's step takes 20 ms; one of the fastest device, 1.
    assert_eq!(refusal.code(), RefusalCode::Busy);
    assert!(
        refusal.retry_ms > 10 * u64::from(lease.steps),
        "it is believed no more than before: {} ms",
        refusal.retry_ms
    );
}

/// The machine was suspended: its own clock stood still, and the device trained on.
#[test]
fn a_lease_may_take_as_long_as_the_calendar_says() {
    let mut world = default_run();
    let owl = world.volunteer(1);
    let lease = world.lease(owl);
    world.wait(5.0);
    world.calendar_ahead_s += 3600;
    let offer = DeltaOffer { train_ms: 3_000_000, ..world.offer_for(&lease) };
    assert!(matches!(world.offer(owl, offer), Body::Done(done) if done.merged));
}

/// Whoever takes leases and delivers nothing does not drive the schedule of those who train.
#[test]
fn a_device_that_delivers_nothing_does_not_count_for_the_runs_speed() {
    let mut world = default_run();
    let (thief, owl) = (world.volunteer(1), world.volunteer(2));
    for device in [thief, owl] {
        let lease = world.lease(device);
        world.wait(if device == thief { 0.1 } else { 2.0 });
        assert!(world.train(device, &lease, 1e6).merged);
    }
    let told = |world: &mut World| {
        let _ = world.lease(thief);
        let lease = world.lease(owl);
        world.give_back(owl, &lease);
        lease.progress_tokens_per_step
    };
    let at_first = told(&mut world);
    for _ in 0..5 {
        let lease = world.lease(thief);
        world.give_back(thief, &lease);
    }
    let at_last = told(&mut world);
    assert!(at_last < at_first / 4, "{at_first} and {at_last} tokens a step");
}

#[test]
fn names_of_deltas_differ() {
    assert_ne!(named(1), named(257));
}
