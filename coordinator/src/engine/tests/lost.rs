//! Shards that cannot be had: nothing of them is leased until they are whole again, and nothing of them is forgotten.

use crate::engine::event::Event;
use crate::world::{World, code, device, manifest, spec};
use nightjar_shared::{
    lease::LeaseKind,
    wire::{RefusalCode, Role, coordinator_message::Body},
};

#[test]
fn nothing_of_a_lost_shard_is_leased_until_it_is_found() {
    let manifest = manifest();
    let [lost, others] = [manifest.train[0].hash, manifest.train[1].hash];
    let mut world = World::new(spec(), manifest);
    let devices = [1, 2, 3].map(|n| world.volunteer(n));
    world.handle(Event::BlobLost(lost));
    for device in devices {
        let lease = world.lease(device);
        assert_eq!(lease.shard.and_then(|shard| shard.name()), Some(others));
    }
    // One that was leased before is not given again.
    world.handle(Event::BlobLost(others));
    let asked = world.request(devices[0]);
    assert_eq!(code(&asked), Some(RefusalCode::NoWork));
    assert!(matches!(&asked, Body::Refusal(refusal) if refusal.sentence.contains("damaged")), "{asked:?}");
    world.handle(Event::BlobFound(lost));
    let lease = world.lease(devices[0]);
    assert_eq!(lease.shard.and_then(|shard| shard.name()), Some(lost));
    world.engine.agrees_with(&world.ledger.snapshot(&world.shards())).unwrap();
}

#[test]
fn nothing_is_evaluated_on_a_lost_shard() {
    let heldout = manifest().heldout[0].hash;
    for is_lost in [true, false] {
        let mut world = World::new(spec(), manifest());
        let anchor = device(9);
        world.join(anchor, Role::Anchor, &[LeaseKind::Train, LeaseKind::Evaluate]);
        if is_lost {
            world.handle(Event::BlobLost(heldout));
        }
        let kind = LeaseKind::from_wire(world.lease(anchor).kind);
        assert_eq!(kind, Some(if is_lost { LeaseKind::Train } else { LeaseKind::Evaluate }));
    }
}
