//! The coordinator's side: its process is started, asked, killed; what it says goes on its way.

use super::{Asked, SimEvent, World};
use crate::{
    coordinator::{Coordinator, Out},
    draws::Purpose,
    host,
    population::Role,
    results::Agreement,
};
use nightjar_coordinator::engine::event::{Event as EngineEvent, ReplyTo};
use nightjar_session::session::Event as DeviceEvent;
use nightjar_shared::{
    ids::LeaseId,
    wire::{CoordinatorMessage, Invite, coordinator_message, device_message},
};
use prost::Message;

/// What a message costs on the wire beside its own bytes: its length prefix, and a datagram's headers and seal.
pub(super) const MESSAGE_OVERHEAD_BYTES: u64 = 64;
/// How long a commit takes, where processes are killed: requests that come meanwhile share the next. Elsewhere a commit
/// takes no time.
const COMMIT_S: f64 = 0.05;
/// Versions under measurement at once, beyond which the oldest is waited for.
const MEASURING_MAX: usize = 8;

impl World<'_> {
    /// Starts the coordinator (without events) or hands it some, whose turns share a commit.
    pub(super) fn coordinator(&mut self, events: Option<Vec<EngineEvent>>) {
        let mut out = Out::default();
        let (now, kills, storage) = (self.now, &mut self.kills, &mut self.storage);
        let began = host::thread_cpu_s();
        let mut kill = |point| kills.strikes(point);
        let survivor = match (self.coordinator.take(), events) {
            (Some(mut running), Some(events)) => {
                running.handle(events, storage, now, &mut kill, &mut out).map(|()| running)
            }
            (None, None) => Coordinator::start(self.setup, storage, now, &mut kill, &mut out),
            // It was killed, or started, in the meantime.
            (as_it_is, _) => {
                self.coordinator = as_it_is;
                return;
            }
        };
        self.coordinator_cpu_s += host::thread_cpu_s() - began;
        for delta in &out.merged {
            self.account.merged(delta);
        }
        for version in &out.versions {
            let inside = self.account.published(version, self.now_s());
            if self.setup.forget_deltas {
                inside.into_iter().for_each(|hash| self.storage.forget(hash));
            }
            if let Ok(coordinator) = &survivor {
                let share = coordinator.engine.status().agreement;
                self.account.agreement.extend(share.map(|share| Agreement { version: version.version.0, share }));
                self.measure(version.version.0, coordinator);
            }
        }
        for evaluation in &out.evaluations {
            self.account.evaluated(evaluation);
        }
        for (to, body) in out.replies {
            self.answer(to, body);
        }
        match survivor {
            Ok(coordinator) => {
                self.coordinator = Some(coordinator);
                self.coordinator_will_tick();
            }
            Err(_) => self.coordinator_dies(),
        }
    }

    fn coordinator_will_tick(&mut self) {
        let deadline = self.coordinator.as_ref().and_then(|c| c.engine.next_deadline());
        if let Some(at) = deadline.map(|at| at.max(self.now))
            && self.coordinator_tick.is_none_or(|known| at < known)
        {
            self.coordinator_tick = Some(at);
            self.at(at, SimEvent::CoordinatorTick);
        }
    }

    /// Most timers are moved before they are due: then nothing happens.
    pub(super) fn coordinator_ticks(&mut self) {
        self.coordinator_tick = None;
        let deadline = self.coordinator.as_ref().and_then(|c| c.engine.next_deadline());
        match deadline {
            Some(at) if at <= self.now => self.coordinator(Some(vec![EngineEvent::Tick])),
            _ => self.coordinator_will_tick(),
        }
    }

    fn coordinator_dies(&mut self) {
        self.coordinator = None;
        self.asked.clear();
        self.waiting.clear();
        for number in 0..self.devices.len() as u32 {
            self.disconnect(number, "the coordinator is gone");
        }
        if self.draws.unit(Purpose::Power) < 0.5 {
            self.storage.crash(self.draws.bits(Purpose::Power));
        }
        let pause_s = 20.0 * self.draws.unit(Purpose::Delay);
        self.after(pause_s, SimEvent::StartCoordinator);
    }

    /// Measures every `evaluate.every`-th version, which takes no virtual time.
    fn measure(&mut self, version: u64, coordinator: &Coordinator) {
        let newest = coordinator.weights().filter(|w| w.version.0 == version);
        if !version.is_multiple_of(self.setup.spec.evaluate.every) {
            return;
        }
        if let Some(job) = newest.and_then(|weights| self.training.measure(weights)) {
            self.account.measuring.push((version, job));
        }
        let wait_for = if self.setup.until.loss.is_some() { 0 } else { MEASURING_MAX };
        self.collect_measurements(wait_for);
    }

    /// Waits for the oldest measurements until no more than so many are open.
    pub(super) fn collect_measurements(&mut self, open: usize) {
        while self.account.measuring.len() > open {
            let (version, job) = self.account.measuring.remove(0);
            let losses = self.training.measured(job);
            self.account.measured(version, losses.heldout, losses.ood);
        }
    }

    pub(super) fn request(&mut self, number: u32, request: u64, body: device_message::Body) {
        let lease = match &body {
            device_message::Body::DeltaOffer(offer) => Some(LeaseId(offer.lease_id)),
            _ => None,
        };
        let device = &self.devices[number as usize];
        // The shell checks a token's signature; here every token is good.
        let invite = matches!(&body, device_message::Body::Hello(hello) if !hello.invite.is_empty()).then(|| {
            let nonce = vec![u8::from(device.traits.group.role != Role::Volunteer)];
            Invite { role: device.traits.group.role.to_wire() as i32, nonce, ..Invite::default() }
        });
        self.next += 1;
        let reply_to = ReplyTo(self.next);
        let event = EngineEvent::Asked { device: device.id, reply_to, body, invite };
        self.asked.insert(reply_to, Asked { number, connection: device.connection, request, lease });
        if self.setup.chaos.kills == 0 {
            return self.coordinator(Some(vec![event]));
        }
        // As while the last commit is on its way.
        if self.waiting.is_empty() {
            self.after(COMMIT_S, SimEvent::CoordinatorDecides);
        }
        self.waiting.push(event);
    }

    /// What was asked in the meantime is decided, and shares a commit.
    pub(super) fn coordinator_decides(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.coordinator(Some(waiting));
        }
    }

    fn answer(&mut self, to: ReplyTo, body: coordinator_message::Body) {
        let Some(Asked { number, connection, request, lease }) = self.asked.remove(&to) else { return };
        if let (Some(lease), coordinator_message::Body::Done(done)) = (lease, &body)
            && done.merged
        {
            self.acknowledge(lease);
        }
        let message = CoordinatorMessage { request, body: Some(body) };
        let bytes = message.encoded_len() as u64 + MESSAGE_OVERHEAD_BYTES;
        let device = &mut self.devices[number as usize];
        if device.connection != connection {
            return;
        }
        self.account.bytes.messages_down += bytes;
        let way_s = device.traits.message_s(bytes, false, &mut device.draws);
        let Some(body) = message.body else { return };
        let event = Box::new(DeviceEvent::Answered { request, body });
        self.after(way_s, SimEvent::Device { number, connection, event });
    }
}
