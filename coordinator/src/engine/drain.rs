//! What changes for a whole run while it is served: no more leases, before a stop, and another run spec, where that may
//! change.

use super::{Engine, told_to_devices, turn::Turn};
use nightjar_shared::{
    ids::DeviceId,
    run_spec::RunSpec,
    time::Mono,
    wire::{Refusal, RefusalCode, coordinator_message as answer},
};
use std::time::Duration;

/// When a device asks again that is told that the coordinator is about to stop: a restart takes less.
const STOPPING_RETRY: Duration = Duration::from_secs(15);

impl Engine {
    /// From now on nobody gets a lease; whoever waits for one is told when to come back.
    pub(super) fn drain(&mut self, now: Mono, turn: &mut Turn) {
        self.drains = true;
        for (device, to) in self.round.let_go() {
            turn.reply(to, answer::Body::Refusal(self.stopping(device, now)));
        }
    }

    /// What a device is told that asks for a lease.
    pub(super) fn stopping(&self, device: DeviceId, now: Mono) -> Refusal {
        let sentence = "The coordinator is about to be stopped, or started anew. Nothing is lost.";
        self.retry(RefusalCode::Busy, sentence, STOPPING_RETRY, device, now)
    }

    /// Whether a version was ordered and is not there yet.
    pub fn is_publishing(&self) -> bool {
        self.publishing.is_some()
    }

    /// Goes on under another run spec. What may change in a run that exists decides nothing that was worked out when
    /// the engine was built.
    pub(super) fn change_spec(&mut self, spec: RunSpec) {
        debug_assert!(self.spec.changed_to(&spec).is_ok());
        self.spec_json = told_to_devices(&spec);
        self.spec = spec;
    }
}
