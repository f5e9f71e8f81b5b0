//! Operators: a device or an invite is revoked, the run is paused, resumed and extended; each order is in the audit log.

use crate::{
    engine::{
        orders::{NotDone, Order},
        record::{AuditRecord, LeaseOutcome, Record},
    },
    world::{World, code, device, hello, invite, manifest, spec},
};
use nightjar_shared::{
    ids::DeviceId,
    lease::LeaseKind,
    wire::{
        Hello, Invite, Refusal, RefusalAction, RefusalCode, Role, coordinator_message::Body, device_message as ask,
    },
};

/// Each delta makes a version.
fn world() -> (World, DeviceId) {
    let mut spec = spec();
    (spec.merge.quorum, spec.token_budget) = (Some(1), 10_000);
    let mut world = World::new(spec, manifest());
    let owl = world.volunteer(1);
    (world, owl)
}

fn refusal(body: Body) -> Refusal {
    match body {
        Body::Refusal(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

/// The last commit's entries in the audit log.
fn audited(world: &World) -> Vec<AuditRecord> {
    let last = world.commits.last().unwrap().iter();
    last.filter_map(|record| match record {
        Record::Audit(entry) => Some(entry.clone()),
        _ => None,
    })
    .collect()
}

/// A device greets, with a name for everybody.
fn named(world: &mut World, device: DeviceId, public_name: &str) -> Option<String> {
    let hello = Hello { public_name: public_name.into(), ..hello(Role::Volunteer, &[LeaseKind::Train]) };
    assert!(matches!(world.ask(device, ask::Body::Hello(hello)), Body::Welcome(_)));
    shown(world)
}

/// By which name everybody may know the run's only device.
fn shown(world: &World) -> Option<String> {
    world.ledger.facts().devices[0].shown_name().map(ToString::to_string)
}

#[test]
fn a_name_is_shown_as_its_owner_wants_unless_an_operator_hides_it() {
    let (mut world, owl) = world();
    assert_eq!(shown(&world), None, "a device of an earlier version says nothing of it");
    assert_eq!(named(&mut world, owl, " Ada "), Some("Ada".into()));
    let commits = world.commits.len();
    assert_eq!(named(&mut world, owl, "Ada"), Some("Ada".into()));
    assert_eq!(world.commits.len(), commits, "nothing has changed");
    // What cannot be shown is not, and the device is as welcome as ever.
    assert_eq!(named(&mut world, owl, "a\u{202e}dA"), None);

    let order = |hidden| Order::HideName { device: owl, hidden };
    assert!(world.order(order(true)).unwrap().told.ends_with("is hidden"));
    assert_eq!(audited(&world)[0].action, "device hide-name");
    assert_eq!(named(&mut world, owl, "another"), None);
    assert!(world.order(order(true)).unwrap().told.ends_with("was hidden already"));
    world.restart();
    assert_eq!(named(&mut world, owl, "another"), None, "a restart changes nothing");
    world.order(order(false)).unwrap();
    assert_eq!(shown(&world), Some("another".into()));
    assert_eq!(world.order(Order::HideName { device: device(9), hidden: true }), Err(NotDone::NoSuchDevice(device(9))));
    world.check();
}

#[test]
fn a_revoked_device_is_out_for_good_and_what_was_merged_of_it_stays() {
    let (mut world, owl) = world();
    let first = world.lease(owl);
    world.train(owl, &first, 80.0);
    let lease = world.lease(owl);
    let offer = world.offer_for(&lease);
    let merged = world.engine.status().merged;
    let done = world.order(Order::RevokeDevice(owl)).unwrap();
    assert_eq!(done.devices, [owl]);
    let closed =
        |r: &Record| matches!(r, Record::LeaseClosed { id, outcome: LeaseOutcome::Returned, .. } if id.0 == lease.id);
    assert!(world.commits.last().unwrap().iter().any(closed), "its lease ends in the same transaction");
    let [entry] = &audited(&world)[..] else { panic!("one entry") };
    assert_eq!((&*entry.name, &*entry.from, &*entry.action), ("ann", "192.0.2.1", "device revoke"));
    assert_eq!(entry.subject, owl.to_string());
    assert_eq!((world.engine.status().leases_open, world.engine.status().merged), (0, merged));

    for restarts in 0..2 {
        for body in [ask::Body::DeltaOffer(offer.clone()), ask::Body::LeaseRequest(Default::default())] {
            let told = refusal(world.ask(owl, body));
            assert_eq!((told.code(), told.action()), (RefusalCode::Invite, RefusalAction::Stop));
            assert!(told.sentence.contains("taken this device out"), "{}", told.sentence);
        }
        let other = Invite { nonce: vec![77], ..invite(Role::Volunteer) };
        let hello = ask::Body::Hello(hello(Role::Volunteer, &[LeaseKind::Train]));
        let told = refusal(world.try_ask(owl, hello, Some(other)).unwrap());
        assert_eq!((told.code(), told.action()), (RefusalCode::Invite, RefusalAction::Stop), "after {restarts}");
        world.restart();
    }
    assert!(world.engine.devices_after(None, usize::MAX).iter().any(|d| d.id == owl && d.revoked_at.is_some()));
    world.check();

    let again = world.order(Order::RevokeDevice(owl)).unwrap();
    assert!(again.devices.is_empty() && again.told.contains("already"), "{again:?}");
    let stranger = device(200);
    assert_eq!(world.order(Order::RevokeDevice(stranger)), Err(NotDone::NoSuchDevice(stranger)));
    assert!(audited(&world)[0].outcome.starts_with("refused: "), "a refused order is told, too");
    // The others notice nothing.
    let other = world.volunteer(2);
    world.lease(other);
}

#[test]
fn with_a_revoked_invite_nobody_enrols_and_those_who_came_may_stay_or_not() {
    let (mut world, owl) = world();
    let nonce = invite(Role::Volunteer).nonce;
    let done = world.order(Order::RevokeInvite { nonce: nonce.clone(), with_devices: false }).unwrap();
    assert_eq!(done.devices, []);
    world.lease(owl);
    for _ in 0..2 {
        let told = refusal(world.join(device(2), Role::Volunteer, &[LeaseKind::Train]));
        assert!(told.code() == RefusalCode::Invite && told.sentence.contains("withdrawn"), "{told:?}");
        world.restart();
    }
    world.join(owl, Role::Volunteer, &[LeaseKind::Train]);
    world.lease(owl);
    let done = world.order(Order::RevokeInvite { nonce, with_devices: true }).unwrap();
    assert_eq!((done.devices, world.engine.status().leases_open), (vec![owl], 0));
    assert_eq!(code(&world.request(owl)), Some(RefusalCode::Invite));
    world.check();
}

#[test]
fn a_paused_run_ends_what_is_out_and_begins_nothing() {
    let (mut world, owl) = world();
    let (lease, late) = (world.lease(owl), world.volunteer(2));
    world.order(Order::Pause).unwrap();
    assert!(world.engine.status().paused_at.is_some());
    let told = refusal(world.request(late));
    assert_eq!((told.code(), told.action()), (RefusalCode::NoWork, RefusalAction::Retry));
    assert!(told.sentence.contains("paused") && (90_000..=150_000).contains(&told.retry_ms), "{told:?}");
    assert!(matches!(world.request(owl), Body::Lease(again) if again.id == lease.id), "it is told again of its own");
    assert!(world.train(owl, &lease, 80.0).merged);
    assert_eq!((code(&world.request(owl)), world.engine.status().leases_open), (Some(RefusalCode::NoWork), 0));

    world.restart();
    world.join(owl, Role::Volunteer, &[LeaseKind::Train]);
    assert_eq!(code(&world.request(owl)), Some(RefusalCode::NoWork), "it is paused after a restart, too");
    let commits = world.commits.len();
    assert!(world.order(Order::Pause).unwrap().told.contains("already"));
    assert_eq!(world.commits[commits].len(), 1, "the audit log alone");
    world.order(Order::Resume).unwrap();
    world.lease(owl);
    world.restart();
    assert_eq!(world.engine.status().paused_at, None);
    world.check();
}

#[test]
fn a_lease_from_older_weights_is_not_replaced_while_the_run_is_paused() {
    let (mut world, owl) = world();
    let old = world.lease(owl);
    let other = world.volunteer(2);
    let lease = world.lease(other);
    world.train(other, &lease, 80.0);
    world.order(Order::Pause).unwrap();
    // It has lost its lease, and there is a newer version: another would be issued.
    assert_eq!(code(&world.request(owl)), Some(RefusalCode::NoWork));
    assert_eq!(code(&world.offer(owl, world.offer_for(&old))), Some(RefusalCode::LeaseGone));
    world.check();
}

#[test]
fn an_extended_run_goes_on_and_its_devices_are_told() {
    let (mut world, owl) = world();
    let budget = world.spec.token_budget;
    for small in [0, budget] {
        assert_eq!(world.order(Order::Extend { token_budget: small }), Err(NotDone::NotLonger { now: budget }));
    }
    assert_eq!(world.order(Order::Extend { token_budget: u64::MAX }), Err(NotDone::TooLong));
    while !world.engine.status().finished {
        let lease = world.lease(owl);
        world.train(owl, &lease, 80.0);
    }
    assert_eq!(code(&world.request(owl)), Some(RefusalCode::RunOver));
    let told = world.order(Order::Extend { token_budget: 2 * budget }).unwrap().told;
    assert!(told.contains(&budget.to_string()) && told.contains(&(2 * budget).to_string()), "{told}");
    let again = refusal(world.request(owl));
    assert_eq!(again.action(), RefusalAction::HelloAgain);
    for _ in 0..2 {
        let Body::Welcome(welcome) = world.join(owl, Role::Volunteer, &[LeaseKind::Train]) else { panic!("welcome") };
        assert!(welcome.run_spec_json.contains(&format!("\"token_budget\":{}", 2 * budget)));
        let lease = world.lease(owl);
        world.train(owl, &lease, 80.0);
        world.restart();
    }
    world.check();
}
