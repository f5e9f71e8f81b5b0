//! The devices' side: what happens to them, and what becomes of what they want.

use super::{SimEvent, World, coordinator::MESSAGE_OVERHEAD_BYTES};
use crate::{
    device::{Effect, Reported},
    draws::Purpose,
    storage::Storage,
    transfer::{Kind, Settled, Transfer},
};
use nightjar_agent::quota::Space;
use nightjar_session::session::{Ending, Event as DeviceEvent, Fault};
use nightjar_shared::{blob::BlobRef, ids::LeaseId, wire::DeviceMessage};
use prost::Message;

/// Bytes of a handshake, each way: a first datagram is filled up to 1200, a certificate and its answer follow.
const HANDSHAKE_BYTES: u64 = 2400;
/// A process that ended starts again after so long.
const RESTART_S: f64 = 30.0;

impl World<'_> {
    /// Looks at a device's owner, and comes again when there may be something to see.
    pub(super) fn owner_looked_at(&mut self, number: u32) {
        let device = &mut self.devices[number as usize];
        let effect = device.look(self.now);
        let Some(next_s) = device.owner.as_ref().map(|owner| owner.next_s) else { return };
        let (is_running, allowance) = (device.session.is_some(), device.allowance().clone());
        if let Some(effect) = effect {
            self.perform(number, effect);
        }
        if is_running {
            self.device(number, DeviceEvent::Network(allowance.network));
            self.device(number, DeviceEvent::Permission(allowance.permission));
        }
        if next_s.is_finite() {
            self.at_s(next_s, SimEvent::OwnerLookedAt(number));
        }
    }

    /// Looks whether a device is to be switched on or off.
    pub(super) fn presence(&mut self, number: u32) {
        let now_s = self.now_s();
        let device = &mut self.devices[number as usize];
        let (is_on, next) = device.presence.advance(now_s, &device.traits, &mut device.draws);
        // One look ahead is enough, however many led here.
        device.look_at_s = device.look_at_s.filter(|at| *at > now_s);
        if let Some(next_s) = next.filter(|next| device.look_at_s.is_none_or(|known| *next < known)) {
            device.look_at_s = Some(next_s);
            self.at_s(next_s, SimEvent::Presence(number));
        }
        match (is_on, self.devices[number as usize].session.is_some()) {
            (true, false) => self.start_device(number),
            (false, true) => self.end_device(number, None),
            _ => {}
        }
    }

    pub(super) fn start_device(&mut self, number: u32) {
        let device = &mut self.devices[number as usize];
        if device.session.is_some() || device.is_done || !device.presence.is_on() {
            return;
        }
        device.start();
        let allowance = device.allowance().clone();
        self.device(number, DeviceEvent::Network(allowance.network));
        self.device(number, DeviceEvent::Permission(allowance.permission));
    }

    /// The process ends without notice; with a seed, the power is cut too.
    fn end_device(&mut self, number: u32, power: Option<u64>) {
        self.settle(number);
        let (now, training) = (self.now, &mut *self.training);
        self.devices[number as usize].kill(power, now, training);
        self.note(number);
    }

    pub(super) fn device_ticks(&mut self, number: u32) {
        let device = &mut self.devices[number as usize];
        if device.tick_at.is_some_and(|at| at > self.now) {
            // An earlier one, from before the timer moved.
            return;
        }
        device.tick_at = None;
        let Some(deadline) = device.session.as_ref().and_then(|s| s.next_deadline()) else { return };
        if deadline <= self.now {
            self.device(number, DeviceEvent::Tick);
        } else {
            self.will_tick(number);
        }
    }

    fn will_tick(&mut self, number: u32) {
        let device = &mut self.devices[number as usize];
        let Some(at) = device.session.as_ref().and_then(|s| s.next_deadline()) else { return };
        let at = at.max(self.now);
        if device.tick_at.is_none_or(|known| at < known) {
            device.tick_at = Some(at);
            self.at(at, SimEvent::DeviceTick(number));
        }
    }

    pub(super) fn device(&mut self, number: u32, event: DeviceEvent) {
        let (now, kills, training) = (self.now, &mut self.kills, &mut *self.training);
        let result = self.devices[number as usize].handle(event, now, training, &mut |point| kills.strikes(point));
        match result {
            Ok(effects) => {
                for effect in effects {
                    self.perform(number, effect);
                }
                self.will_tick(number);
            }
            Err(_) => {
                let draws = &mut self.devices[number as usize].draws;
                let power = (draws.unit(Purpose::Power) < 0.5).then(|| draws.bits(Purpose::Power));
                let pause_s = 60.0 * draws.unit(Purpose::Delay);
                self.end_device(number, power);
                self.after(pause_s, SimEvent::StartDevice(number));
            }
        }
        self.note(number);
    }

    /// Notes what the device does now.
    fn note(&mut self, number: u32) {
        let doing = self.devices[number as usize].doing();
        self.account.timelines.becomes(number as usize, self.now.ms as f64 / 1000.0, doing);
    }

    pub(super) fn worker_due(&mut self, number: u32, job: u32) {
        let (now, training) = (self.now, &mut *self.training);
        let device = &mut self.devices[number as usize];
        if device.has_nothing_to_say(job, now) {
            return;
        }
        if self.kills.strikes("worker.report") {
            let event = device.worker_killed(now, training);
            return self.device(number, event);
        }
        let Some(Reported { event, vanishes_s }) = device.worker_due(now, training) else { return };
        self.device(number, event);
        if let Some(away_s) = vanishes_s {
            let now_s = self.now_s();
            self.devices[number as usize].presence.vanish(now_s, away_s);
            self.end_device(number, None);
            self.after(away_s, SimEvent::Presence(number));
        }
    }

    fn perform(&mut self, number: u32, effect: Effect) {
        let device = &mut self.devices[number as usize];
        match effect {
            Effect::Exit(ending) => {
                device.is_done = matches!(ending, Ending::RunOver(_));
                self.end_device(number, None);
                self.after(RESTART_S, SimEvent::StartDevice(number));
            }
            Effect::Disconnect => {
                self.settle(number);
                self.devices[number as usize].connection += 1;
            }
            Effect::WorkerDue(job, at) => self.at(at, SimEvent::WorkerDue { number, job }),
            Effect::FileGone => self.soon(number, DeviceEvent::UploadFailed(Fault::FileGone)),
            Effect::Connect => {
                device.connection += 1;
                let way_s = device.traits.message_s(HANDSHAKE_BYTES, true, &mut device.draws)
                    + device.traits.message_s(HANDSHAKE_BYTES, false, &mut device.draws);
                self.account.bytes.messages_up += HANDSHAKE_BYTES;
                let event = if self.coordinator.is_some() {
                    self.account.bytes.messages_down += HANDSHAKE_BYTES;
                    DeviceEvent::Connected
                } else {
                    DeviceEvent::Disconnected { why: "nobody answers".into() }
                };
                self.later(number, way_s, event);
            }
            Effect::Ask(request, body) => {
                let message = DeviceMessage { request, body: Some(body) };
                let bytes = message.encoded_len() as u64 + MESSAGE_OVERHEAD_BYTES;
                self.account.bytes.messages_up += bytes;
                let way_s = device.traits.message_s(bytes, true, &mut device.draws);
                let connection = device.connection;
                let is_lost = device.draws.falls(Purpose::Loss, device.traits.group.message_loss);
                if is_lost {
                    self.after(way_s / 2.0, SimEvent::Breaks { number, connection });
                } else if let Some(body) = message.body {
                    self.after(way_s, SimEvent::Request { number, connection, ask: Box::new((request, body)) });
                }
            }
            Effect::Fetch(blob) => self.fetch(number, blob),
            Effect::Upload(lease, blob, delta) => self.upload(number, lease, blob, delta),
        }
    }

    /// To the device, if it still has this connection then.
    fn later(&mut self, number: u32, seconds: f64, event: DeviceEvent) {
        let connection = self.devices[number as usize].connection;
        self.after(seconds, SimEvent::Device { number, connection, event: Box::new(event) });
    }

    fn soon(&mut self, number: u32, event: DeviceEvent) {
        self.later(number, 0.0, event);
    }

    // ------------------------------------------------------------------------------------------------------ blobs

    fn fetch(&mut self, number: u32, blob: BlobRef) {
        match self.devices[number as usize].make_room() {
            Space::Enough { evict } if evict.is_empty() => {}
            Space::Enough { evict } => self.soon(number, DeviceEvent::Evicted(evict)),
            Space::Short(why) => {
                return self.soon(number, DeviceEvent::FetchFailed { hash: blob.hash, fault: Fault::NoRoom(why) });
            }
        }
        let device = &self.devices[number as usize];
        if device.home.has(blob) {
            return self.soon(number, DeviceEvent::Fetched { hash: blob.hash });
        }
        let round_trip_s = 2.0 * device.traits.latency_s;
        if self.coordinator.is_none() || self.storage.length(blob.hash) != Some(blob.bytes) {
            let event = DeviceEvent::FetchFailed { hash: blob.hash, fault: Fault::Broken("not there".into()) };
            return self.later(number, round_trip_s, event);
        }
        let lease = device.session.as_ref().and_then(|s| s.journal().lease.as_ref());
        let kind = match lease {
            Some(lease) if lease.keyframe.is_some_and(|k| k.hash == blob.hash) => Kind::Keyframe,
            Some(lease) if lease.shard.hash == blob.hash => Kind::Shard,
            _ => Kind::Update,
        };
        let offset = device.home.partial(blob);
        let transfer = Transfer::begin(kind, blob, offset, self.now_s(), device.traits.latency_s, device.traits.down);
        self.send(number, transfer, self.setup.population.coordinator_up_mbit, 0);
    }

    fn upload(&mut self, number: u32, lease: LeaseId, blob: BlobRef, delta: Vec<u8>) {
        let Some(coordinator) = &self.coordinator else { return };
        let device = &self.devices[number as usize];
        if !coordinator.engine.accepts_upload(device.id, lease, blob.bytes) {
            return self.soon(number, DeviceEvent::UploadFailed(Fault::Broken("not wanted".into())));
        }
        let offset = self.storage.incoming(blob.hash).min(blob.bytes);
        let (latency_s, up) = (device.traits.latency_s, device.traits.up);
        let transfer = Transfer::begin(Kind::Delta(lease), blob, offset, self.now_s(), latency_s, up);
        self.send(number, Transfer { delta, ..transfer }, self.setup.population.coordinator_down_mbit, 1);
    }

    /// A blob goes on its way, at the pace of the device's link, and in the coordinator's own queue where it has a
    /// limit.
    fn send(&mut self, number: u32, mut transfer: Transfer, link_mbit: f64, direction: usize) {
        if link_mbit > 0.0 {
            let free = &mut self.coordinator_link_free[direction];
            *free = free.max(transfer.from_s) + (transfer.blob.bytes - transfer.offset) as f64 * 8e-6 / link_mbit;
            transfer.to_s = transfer.to_s.max(*free);
        }
        let device = &mut self.devices[number as usize];
        let connection = device.connection;
        let (from_s, to_s) = (transfer.from_s, transfer.to_s);
        device.transfer = Some(Box::new(transfer));
        if device.draws.falls(Purpose::Loss, device.traits.group.loss) {
            let breaks_s = from_s + (to_s - from_s) * device.draws.unit(Purpose::Loss);
            self.at_s(breaks_s, SimEvent::Breaks { number, connection });
        } else {
            self.at_s(to_s, SimEvent::Arrived { number, connection });
        }
    }

    /// A blob's journey ends.
    pub(super) fn arrived(&mut self, number: u32) {
        let Some(transfer) = self.devices[number as usize].transfer.take() else { return };
        let settled = transfer.whole();
        let taken = self.take_in(number, &transfer, settled);
        let event = match (transfer.kind, taken) {
            (Kind::Delta(_), Ok(())) => DeviceEvent::Uploaded,
            (Kind::Delta(_), Err(why)) => DeviceEvent::UploadFailed(Fault::Broken(why)),
            (_, Ok(())) => DeviceEvent::Fetched { hash: transfer.blob.hash },
            (_, Err(why)) => DeviceEvent::FetchFailed { hash: transfer.blob.hash, fault: Fault::Broken(why) },
        };
        self.device(number, event);
    }

    /// A connection is gone: of a blob on its way, what came is kept.
    fn settle(&mut self, number: u32) {
        let Some(transfer) = self.devices[number as usize].transfer.take() else { return };
        let settled = transfer.broken(self.now_s());
        if settled.kept > 0 {
            // What cannot be stored now is stored when it comes again.
            let _ = self.take_in(number, &transfer, settled);
        } else {
            self.account.moved(&transfer, settled);
        }
    }

    fn take_in(&mut self, number: u32, transfer: &Transfer, settled: Settled) -> Result<(), String> {
        self.account.moved(transfer, settled);
        let (blob, end) = (transfer.blob, settled.end);
        if transfer.is_up() {
            return self.storage.receive(blob.hash, blob.bytes, &transfer.delta, end);
        }
        let home = &mut self.devices[number as usize].home;
        match &self.storage {
            Storage::Sizes(_) => home.receive(blob, &[], end),
            Storage::Bytes(whole) => {
                let stored = whole.with_blob(blob.hash, |bytes| home.receive(blob, bytes, end));
                return stored.ok_or_else(|| "not there".into());
            }
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, number: u32, why: &str) {
        self.settle(number);
        self.devices[number as usize].connection += 1;
        self.device(number, DeviceEvent::Disconnected { why: why.into() });
    }

    /// Somebody was told that a lease's delta is merged.
    pub(super) fn acknowledge(&mut self, lease: LeaseId) {
        match &self.storage {
            Storage::Bytes(_) => {
                self.acknowledged.insert(lease);
            }
            Storage::Sizes(tally) if !tally.was_merged(lease) => {
                self.faults.push(format!("invariant 2: lease {lease} was acknowledged before it was committed"));
            }
            Storage::Sizes(_) => {}
        }
    }
}
