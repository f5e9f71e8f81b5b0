//! Before a stop no more leases are granted, and what may change in a run changes while it is served.

use crate::{
    engine::{Reason, event::Event},
    world::{World, code, manifest, spec},
};
use nightjar_shared::{
    run_spec::{Pacing, RunSpec},
    wire::{DeltaOffer, LeaseRequest, RefusalCode, coordinator_message::Body, device_message as ask},
};

#[test]
fn before_a_stop_nobody_is_given_work_and_whoever_waits_for_it_is_told() {
    let mut spec = spec();
    (spec.lease.pacing, spec.merge.grace_s, spec.merge.quorum) = (Pacing::Rounds, Some(1.0), Some(1));
    let mut manifest = manifest();
    manifest.train.iter_mut().for_each(|shard| shard.samples = 10_000);
    let mut world = World::new(spec, manifest);
    let [fast, slow] = [world.volunteer(1), world.volunteer(2)];
    for (device, speed) in [(fast, 80.0), (slow, 20.0)] {
        let first = world.lease(device);
        world.train(device, &first, speed);
    }
    let (_, out) = (world.lease(fast), world.lease(slow));
    world.wait(9.5);
    let early = world.lease(fast);
    world.give_back(fast, &early);
    // Its answer would come with the next round.
    assert!(world.try_ask(fast, ask::Body::LeaseRequest(LeaseRequest::default()), None).is_none());
    assert_eq!(world.unanswered(), 1);
    world.handle(Event::Drain);
    assert_eq!(world.unanswered(), 0, "it hangs");
    assert_eq!(code(&world.request(slow)), Some(RefusalCode::Busy));
    // What is on its way counts all the same, and makes its version.
    let version = world.engine.status().version;
    assert!(matches!(world.offer(slow, world.offer_for(&out)), Body::Done(done) if done.merged));
    world.wait(2.0);
    world.tick();
    assert!(world.engine.status().version > version);
    assert_eq!(world.engine.status().leases_open, 0);
    assert!(world.held_answers().is_empty());
    world.check();
}

#[test]
fn a_budget_that_is_raised_is_worked_for_at_once() {
    let spec = RunSpec { token_budget: 8, ..spec() };
    let mut world = World::new(spec.clone(), manifest());
    let device = world.volunteer(1);
    let lease = world.lease(device);
    world.train(device, &lease, 80.0);
    assert_eq!(code(&world.request(device)), Some(RefusalCode::RunOver));
    let more = RunSpec { token_budget: 8000, description: "for longer".into(), ..spec };
    world.handle(Event::SpecChanged(Box::new(more)));
    assert_eq!((world.engine.status().finished, world.engine.status().token_budget), (false, 8000));
    world.lease(device);
}

#[test]
fn what_is_not_merged_is_counted_by_its_reason() {
    let mut world = World::new(spec(), manifest());
    let device = world.volunteer(1);
    let lease = world.lease(device);
    let honest = world.offer_for(&lease);
    world.offer(device, DeltaOffer { steps: lease.steps + 1, ..honest });
    let refused = world.engine.status().refused;
    let counts = Reason::ALL.map(|reason| refused.of(reason));
    assert_eq!(counts, Reason::ALL.map(|reason| u64::from(reason == Reason::Offer)));
}
