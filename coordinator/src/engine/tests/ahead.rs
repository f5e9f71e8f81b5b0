//! Training ahead: what is kept behind a lease, for whom, and for how long.

use crate::world::{World, manifest, spec};
use nightjar_shared::{
    ids::DeviceId,
    wire::{Lease, LeaseRequest, Leave, coordinator_message::Body, device_message as ask},
};

/// Leases of 10 seconds, each by itself; two devices whose first lease is granted and not yet trained.
fn world() -> (World, [DeviceId; 2], [Lease; 2]) {
    let mut spec = spec();
    spec.lease.ahead = true;
    let mut manifest = manifest();
    manifest.train.iter_mut().for_each(|shard| shard.samples = 10_000);
    let mut world = World::new(spec, manifest);
    let devices = [world.volunteer(1), world.volunteer(2)];
    let leases = devices.map(|device| world.lease(device));
    (world, devices, leases)
}

fn next(world: &mut World, device: DeviceId, behind: &Lease) -> Lease {
    let request = LeaseRequest { ahead_of: behind.id, ..LeaseRequest::default() };
    match world.ask(device, ask::Body::LeaseRequest(request)) {
        Body::Lease(lease) => lease,
        other => panic!("expected a lease, got {other:?}"),
    }
}

fn place(lease: &Lease) -> (Vec<u8>, u32) {
    (lease.shard.as_ref().unwrap().hash.clone(), lease.first_sample)
}

/// Where the samples behind a lease begin.
fn behind(lease: &Lease) -> (Vec<u8>, u32) {
    (lease.shard.as_ref().unwrap().hash.clone(), lease.first_sample + lease.samples)
}

#[test]
fn the_next_lease_begins_behind_the_last_and_counts_from_its_delta() {
    let (mut world, [a, b], [first, _]) = world();
    assert_eq!((first.steps, first.ahead_steps), (4, 2), "a first lease measures");
    assert!(world.train(a, &first, 80.0).merged);
    // Three seconds on the wire, in which it trains on; others come meanwhile and do not get its samples.
    world.wait(3.0);
    let other = world.lease(b);
    assert_ne!(place(&other), behind(&first));
    let second = next(&mut world, a, &first);
    assert_eq!((second.ahead_of, place(&second)), (first.id, behind(&first)));
    assert_eq!(second.steps, 130, "80 tokens a second for 3 and 10 seconds, 8 a step");
    // From its delta to its next it trained all the time: that is its pace.
    world.wait(10.0);
    let mut offer = world.offer_for(&second);
    offer.train_ms = 13_000;
    assert!(matches!(world.offer(a, offer), Body::Done(done) if done.merged));
    assert_eq!(next(&mut world, a, &second).steps, 100);
}

#[test]
fn what_is_kept_is_never_less_than_what_was_trained_ahead() {
    let (mut world, [a, _], [first, _]) = world();
    assert!(world.train(a, &first, 0.8).merged);
    let second = next(&mut world, a, &first);
    assert_eq!(second.steps, 2, "one step takes it ten seconds, but it may have taken two already");
    assert_eq!(second.ahead_steps, 1, "half a lease");
}

#[test]
fn no_more_than_a_minute_is_trained_ahead() {
    let mut spec = spec();
    (spec.lease.ahead, spec.lease.wall_s) = (true, 1000.0);
    let mut manifest = manifest();
    manifest.train.iter_mut().for_each(|shard| shard.samples = 10_000);
    let mut world = World::new(spec, manifest);
    let device = world.volunteer(1);
    let first = world.lease(device);
    assert!(world.train(device, &first, 8.0).merged);
    let second = next(&mut world, device, &first);
    assert_eq!((second.steps, second.ahead_steps), (500, 60), "a step a second");
}

#[test]
fn it_is_free_again_for_whoever_comes_once_the_device_begins_elsewhere() {
    let (mut world, [a, b], [first, _]) = world();
    assert!(world.train(a, &first, 80.0).merged);
    let fresh = world.lease(a);
    assert_eq!(fresh.ahead_of, 0);
    // A lease that was never this device's last gives nothing either.
    assert!(world.train(a, &fresh, 80.0).merged);
    assert_eq!(next(&mut world, a, &first).ahead_of, 0);
    let lease = next(&mut world, b, &fresh);
    assert_eq!(lease.ahead_of, 0, "it is another's");
}

#[test]
fn a_delta_that_does_not_count_or_ends_early_keeps_nothing() {
    let (mut world, [a, b], [first, other]) = world();
    let mut offer = world.offer_for(&first);
    (offer.steps, offer.samples) = (3, 6);
    assert!(matches!(world.offer(a, offer), Body::Done(done) if done.merged));
    assert_eq!(next(&mut world, a, &first).ahead_of, 0);
    world.measured = Some(Err("bad".into()));
    assert!(!world.train(b, &other, 80.0).merged);
    assert_eq!(next(&mut world, b, &other).ahead_of, 0);
}

#[test]
fn who_gives_up_leaves_or_meets_another_process_gets_nothing() {
    let (mut world, [a, b], [first, other]) = world();
    assert!(world.train(a, &first, 80.0).merged);
    assert!(world.engine.next_deadline().is_some());
    world.wait(3600.0);
    world.tick();
    assert_eq!(next(&mut world, a, &first).ahead_of, 0, "it took too long");
    let other = if world.is_merged(&other) { other } else { world.lease(b) };
    assert!(world.train(b, &other, 80.0).merged);
    world.ask(b, ask::Body::Leave(Leave {}));
    let again = world.volunteer(2);
    assert_eq!(next(&mut world, again, &other).ahead_of, 0, "it had left");
    let last = world.lease(again);
    assert!(world.train(again, &last, 80.0).merged);
    world.restart();
    world.join(again, nightjar_shared::wire::Role::Volunteer, &[nightjar_shared::lease::LeaseKind::Train]);
    assert_eq!(next(&mut world, again, &last).ahead_of, 0, "the coordinator was started anew");
}

#[test]
fn a_run_whose_optimizer_starts_afresh_keeps_nothing() {
    let mut spec = spec();
    (spec.lease.ahead, spec.inner.state) = (true, nightjar_shared::run_spec::InnerState::Reset);
    let mut world = World::new(spec, manifest());
    let device = world.volunteer(1);
    assert_eq!(world.lease(device).ahead_steps, 0);
}
