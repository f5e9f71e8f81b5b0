//! Rounds by the clock: leases end together, latecomers are not waited for, and early ones wait a little.

use crate::world::{World, manifest, spec};
use nightjar_shared::{
    ids::DeviceId,
    lease::LeaseKind,
    run_spec::Pacing,
    wire::{Lease, LeaseRequest, Role, coordinator_message::Body, device_message as ask},
};

/// Rounds of 10 seconds, a second of grace; two devices of 80 and 20 tokens a second, both measured, at the start of a
/// round.
fn world() -> (World, [DeviceId; 2]) {
    let mut spec = spec();
    (spec.lease.pacing, spec.merge.grace_s, spec.merge.quorum) = (Pacing::Rounds, Some(1.0), Some(1));
    let mut manifest = manifest();
    manifest.train.iter_mut().for_each(|shard| shard.samples = 10_000);
    let mut world = World::new(spec, manifest);
    let devices = [world.volunteer(1), world.volunteer(2)];
    for (device, speed) in devices.into_iter().zip([80.0, 20.0]) {
        let first = world.lease(device);
        world.train(device, &first, speed);
    }
    (world, devices)
}

/// With another run spec, and both devices there again.
fn restart(world: &mut World, devices: [DeviceId; 2]) {
    world.restart();
    for device in devices {
        world.join(device, Role::Volunteer, &[LeaseKind::Train]);
    }
}

/// Asks for a lease; `None` if the answer is held back.
fn request(world: &mut World, device: DeviceId) -> Option<Body> {
    world.try_ask(device, ask::Body::LeaseRequest(LeaseRequest::default()), None)
}

fn granted(world: &World, device: DeviceId) -> Option<Lease> {
    world.held_answers().into_iter().find_map(|(to, lease)| (to == device).then_some(lease))
}

#[test]
fn leases_of_a_round_end_together_and_make_the_version() {
    let (mut world, [fast, slow]) = world();
    let version = world.engine.status().version.unwrap().0;
    let (a, b) = (world.lease(fast), world.lease(slow));
    assert_eq!((a.steps, b.steps), (100, 25), "ten seconds at 80 and at 20 tokens a second, 8 a step");
    world.wait(5.0);
    assert!(matches!(world.offer(fast, world.offer_for(&a)), Body::Done(_)));
    assert_eq!(world.engine.status().version.unwrap().0, version, "the other's delta is still to come");
    // There is time for another lease in this round, from the same weights.
    let c = world.lease(fast);
    assert_eq!(c.base_version, version);
    assert!((50..150).contains(&c.steps), "five seconds at about twice the speed: {}", c.steps);
    world.wait(4.5);
    assert!(matches!(world.offer(fast, world.offer_for(&c)), Body::Done(_)));
    // Half a second before its end there is nothing left to lease: the answer waits for the version.
    assert_eq!(request(&mut world, fast), None);
    world.wait(0.3);
    assert!(matches!(world.offer(slow, world.offer_for(&b)), Body::Done(_)));
    assert_eq!(world.engine.status().version.unwrap().0, version + 1);
    let next = granted(&world, fast).expect("the answer came with the version");
    assert_eq!(next.base_version, version + 1);
}

/// Of a lease of five seconds two are not training. By its tokens and its wall time the device would pass for one of 48
/// tokens a second, and get 60 steps for ten seconds.
#[test]
fn short_leases_do_not_make_a_device_look_slow() {
    let (mut world, [fast, slow]) = world();
    world.overhead_s = 2.0;
    for _ in 0..6 {
        let b = world.lease(slow);
        world.wait(5.0);
        let a = world.lease(fast);
        assert!(world.train(fast, &a, 80.0).merged);
        assert!(matches!(world.offer(slow, world.offer_for(&b)), Body::Done(_)));
    }
    let steps = world.lease(fast).steps;
    assert!((77..=80).contains(&steps), "eight of ten seconds at 80 tokens a second: {steps}");
}

#[test]
fn who_is_late_is_waited_for_no_longer_than_the_grace() {
    let (mut world, [fast, slow]) = world();
    let version = world.engine.status().version.unwrap().0;
    let (a, b) = (world.lease(fast), world.lease(slow));
    world.wait(9.0);
    assert!(matches!(world.offer(fast, world.offer_for(&a)), Body::Done(_)));
    assert_eq!(request(&mut world, fast), None);
    let deadline = world.engine.next_deadline().unwrap();
    assert_eq!(deadline.since(world.now).as_secs_f64(), 2.0, "the round's end and a second of grace");
    world.wait(1.9);
    world.tick();
    assert_eq!(world.engine.status().version.unwrap().0, version);
    world.wait(0.2);
    world.tick();
    assert_eq!(world.engine.status().version.unwrap().0, version + 1, "without the late one");
    assert!(granted(&world, fast).is_some());
    let done = world.offer(slow, world.offer_for(&b));
    assert!(matches!(done, Body::Done(done) if done.merged), "it counts in the next version");
}

#[test]
fn no_request_is_left_without_an_answer() {
    let (mut world, [fast, slow]) = world();
    let _ = (world.lease(slow), world.wait(9.0));
    for _ in 0..5 {
        assert_eq!(request(&mut world, fast), None);
    }
    assert_eq!(world.unanswered(), 1, "only the newest is held");
    world.wait(2.1);
    world.tick();
    assert_eq!(world.unanswered(), 0);
}

#[test]
fn a_round_in_which_nobody_delivers_ends_too() {
    let (mut world, [fast, slow]) = world();
    let b = world.lease(slow);
    world.wait(9.0);
    assert_eq!(request(&mut world, fast), None, "it would be late");
    world.wait(2.1);
    world.tick();
    assert!(granted(&world, fast).is_some(), "a new round");
    // What comes back is not waited for.
    world.give_back(slow, &b);
}

#[test]
fn an_early_device_is_told_when_to_come_where_the_wait_is_long() {
    let (mut world, [fast, slow]) = world();
    world.spec.lease.wall_s = 1000.0;
    restart(&mut world, [fast, slow]);
    let lease = world.lease(slow);
    assert_eq!(lease.steps, 500, "a thousand seconds would be more, but for lease.steps_max");
    world.wait(760.0);
    let Some(Body::Refusal(refusal)) = request(&mut world, fast) else { panic!("not a refusal") };
    assert!((180_000..305_000).contains(&refusal.retry_ms), "{refusal:?}");
}

/// One round after the other, of both devices; gives how long the last was to be.
fn round_s(world: &mut World, devices: [DeviceId; 2]) -> f64 {
    let leases = devices.map(|device| world.lease(device));
    let speeds = [80.0, 20.0];
    let steps_s = |i: usize| f64::from(leases[i].steps) * 8.0 / speeds[i];
    let length = steps_s(0).max(steps_s(1));
    world.wait(length);
    for (device, lease) in devices.into_iter().zip(&leases) {
        assert!(matches!(world.offer(device, world.offer_for(lease)), Body::Done(_)));
    }
    length
}

#[test]
fn a_round_is_as_long_as_agreement_asks() {
    let (mut world, devices) = world();
    world.spec.lease.wall_s_min = Some(4.0);
    restart(&mut world, devices);
    // Two deltas of which a third is signal: of the rest, as much again is left.
    world.agreement = Some(1.0 / 3.0);
    let before = round_s(&mut world, devices);
    let lengths: Vec<f64> = (0..6).map(|_| round_s(&mut world, devices)).collect();
    assert!(lengths.iter().all(|s| (s - before).abs() <= 0.5), "they stay as they are: {before} {lengths:?}");
    world.agreement = Some(0.02);
    let lengths: Vec<f64> = (0..16).map(|_| round_s(&mut world, devices)).collect();
    assert!(lengths.windows(2).all(|w| w[1] >= w[0] - 0.5), "noise makes them longer: {lengths:?}");
    assert!((9.0..=10.0).contains(&lengths[15]), "up to lease.wall_s: {lengths:?}");
    world.agreement = Some(0.9);
    let lengths: Vec<f64> = (0..16).map(|_| round_s(&mut world, devices)).collect();
    assert!((3.5..=4.0).contains(&lengths[15]), "signal makes them shorter, down to lease.wall_s_min: {lengths:?}");
}

/// Two seconds of every lease are messages: rounds in which nobody had time to train would be worth nothing.
#[test]
fn a_round_is_longer_than_its_messages() {
    let (mut world, devices) = world();
    (world.spec.lease.wall_s_min, world.agreement, world.overhead_s) = (Some(0.5), Some(0.9), 2.0);
    restart(&mut world, devices);
    for _ in 0..40 {
        round_s(&mut world, devices);
    }
    assert!((3.5..4.5).contains(&world.engine.round_s()), "{}", world.engine.round_s());
}

/// What a large delta takes over a thin line is no reason to spend the round on it.
#[test]
fn rounds_are_longer_than_they_may_be_where_messages_take_long() {
    for (overhead_s, longest) in [(0.1, 10.0), (2.0, 40.0), (20.0, 100.0)] {
        let (mut world, devices) = world();
        (world.spec.lease.wall_s_min, world.overhead_s) = (Some(1.0), overhead_s);
        restart(&mut world, devices);
        for _ in 0..80 {
            round_s(&mut world, devices);
        }
        let round_s = world.engine.round_s();
        assert!((round_s - longest).abs() < 0.1 * longest, "{overhead_s} s: {round_s} s instead of {longest} s");
    }
    let (mut world, devices) = world();
    world.overhead_s = 2.0;
    restart(&mut world, devices);
    for _ in 0..20 {
        round_s(&mut world, devices);
    }
    assert_eq!(world.engine.round_s(), 10.0, "a length that is fixed stays");
}

/// Whether deltas agree, one alone cannot tell, and nobody waits for its versions.
#[test]
fn as_long_as_agreement_is_unknown_rounds_grow() {
    let (mut world, devices) = world();
    world.spec.lease.wall_s_min = Some(1.0);
    restart(&mut world, devices);
    let mut before = world.engine.round_s();
    for _ in 0..40 {
        round_s(&mut world, devices);
        assert!(world.engine.round_s() >= before);
        before = world.engine.round_s();
    }
    assert_eq!(before, 10.0);
}
