//! Random events, with crashes between any two actions: invariants 1 to 3, and an engine that is nothing but a cache.

use crate::{
    engine::event::Event,
    world::{World, device, manifest, spec},
};
use nightjar_shared::{
    lease::LeaseKind,
    run_spec::Pacing,
    wire::{
        DeltaOffer, Evaluation, Lease, LeaseRequest, LeaseReturn, Leave, Role, coordinator_message::Body,
        device_message as ask,
    },
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Hello(u8),
    /// Asks for a lease, or for one that begins where it has trained ahead.
    Request(u8, bool),
    /// Offers some share of the steps of one of the device's last leases.
    Offer(u8, u8, u8),
    /// The next measurement says this.
    Measures(bool),
    Return(u8, u8),
    Evaluate(u8),
    Leave(u8),
    /// The publisher takes its time from now on, or is done and quick.
    Publisher(bool),
    Wait(u16),
    /// The process dies after so many more actions, and is started anew before the next step.
    Crash(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0u8..4;
    let step = prop_oneof![
        2 => who.clone().prop_map(Step::Hello),
        8 => (who.clone(), any::<bool>()).prop_map(|(who, ahead)| Step::Request(who, ahead)),
        8 => (who.clone(), 0u8..3, any::<u8>()).prop_map(|(who, back, share)| Step::Offer(who, back, share)),
        1 => any::<bool>().prop_map(Step::Measures),
        1 => (who.clone(), 0u8..3).prop_map(|(who, back)| Step::Return(who, back)),
        2 => who.clone().prop_map(Step::Evaluate),
        1 => who.prop_map(Step::Leave),
        1 => any::<bool>().prop_map(Step::Publisher),
        3 => (0u16..200).prop_map(Step::Wait),
        2 => (0u8..4).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..150)
}

/// Devices, with the leases that each remembers.
struct Devices {
    world: World,
    leases: [Vec<Lease>; 4],
    acknowledged: Vec<Lease>,
}

impl Devices {
    fn remembered(&self, who: u8, back: u8) -> Option<Lease> {
        self.leases[who as usize].iter().rev().nth(back as usize).cloned()
    }

    fn ask(&mut self, who: u8, body: ask::Body) -> Option<Body> {
        self.world.try_ask(device(who), body, None)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hello(who) => {
                let (role, kinds) = match who {
                    0 => (Role::Anchor, [LeaseKind::Evaluate, LeaseKind::Train]),
                    _ => (Role::Volunteer, [LeaseKind::Train; 2]),
                };
                let greeting = ask::Body::Hello(crate::world::hello(role, &kinds));
                self.world.try_ask(device(who), greeting, Some(crate::world::invite(role)));
            }
            Step::Request(who, ahead) => {
                let ahead_of = self.remembered(who, 0).filter(|_| ahead).map_or(0, |lease| lease.id);
                let request = LeaseRequest { ahead_of, ..LeaseRequest::default() };
                if let Some(Body::Lease(lease)) = self.ask(who, ask::Body::LeaseRequest(request)) {
                    self.leases[who as usize].push(lease);
                }
            }
            Step::Offer(who, back, share) => {
                let Some(lease) = self.remembered(who, back) else { return };
                let steps = u32::from(share) % (lease.steps + 2);
                let offer = DeltaOffer { steps, samples: steps * 2, ..self.world.offer_for(&lease) };
                self.world.wait(0.03 * f64::from(steps));
                if let Some(Body::Done(done)) = self.ask(who, ask::Body::DeltaOffer(offer))
                    && done.merged
                {
                    self.acknowledged.push(lease);
                }
            }
            Step::Measures(well) => self.world.measured = (!well).then(|| Err("bad".into())),
            Step::Return(who, back) => {
                let Some(lease) = self.remembered(who, back) else { return };
                let back = LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
                self.ask(who, ask::Body::LeaseReturn(back));
            }
            Step::Evaluate(who) => {
                let Some(lease) = self.remembered(who, 0) else { return };
                let tokens = u64::from(lease.samples) * 4;
                let measured = Evaluation { lease_id: lease.id, generation: lease.generation, nats: 3.0, tokens };
                self.ask(who, ask::Body::Evaluation(measured));
            }
            Step::Leave(who) => drop(self.ask(who, ask::Body::Leave(Leave {}))),
            Step::Publisher(slow) => {
                self.world.publisher_is_slow = slow;
                if !slow {
                    self.world.deliver();
                }
            }
            Step::Wait(seconds) => {
                self.world.wait(f64::from(seconds));
                self.world.handle(Event::Tick);
            }
            Step::Crash(actions) => self.world.actions_left = actions.into(),
        }
    }

    fn check(&self) {
        self.world.check();
        for lease in &self.acknowledged {
            assert!(self.world.is_merged(lease), "lease {} was acknowledged and is lost", lease.id);
        }
        assert!(self.world.merged.windows(2).all(|w| w[0].seq < w[1].seq), "merged out of order or twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_invariants_hold(steps in steps(), pacing in prop_oneof![Just(Pacing::Free), Just(Pacing::Rounds)]) {
        let mut spec = spec();
        (spec.lease.pacing, spec.lease.ahead, spec.merge.grace_s) = (pacing, true, Some(0.5));
        let mut devices = Devices { world: World::new(spec, manifest()), leases: Default::default(), acknowledged: vec![] };
        for who in 0..4 {
            devices.take(Step::Hello(who));
        }
        for step in steps {
            if devices.world.actions_left < 5 {
                // The step after "crash" may have run out of actions: the process is dead.
                let dies_in = devices.world.actions_left;
                devices.take(step);
                if devices.world.actions_left == 0 || dies_in == 0 {
                    devices.world.restart();
                }
                devices.world.actions_left = usize::MAX;
            } else {
                devices.take(step);
            }
            if devices.world.actions_left == usize::MAX || devices.world.actions_left > 5 {
                devices.check();
            }
        }
    }
}
