//! The world: one queue of what is to happen, in virtual time. Messages take a while and get lost with their connection;
//! owners come and go; processes are killed before any effect, sometimes with a power cut, and start again.

use crate::{
    check,
    coordinator::{Coordinator, Estate, Reply},
    device::{Device, Wish},
    scene::Scene,
};
use nightjar_agent::session::{Event as DeviceEvent, Fault};
use nightjar_coordinator::engine::event::{Event as EngineEvent, ReplyTo};
use nightjar_shared::{
    ids::LeaseId,
    time::Mono,
    wire::{Invite, Role, coordinator_message, device_message},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

/// Events after which a simulation that does not end is given up.
const EVENTS_MAX: u64 = 3_000_000;
/// After the last kill, the run goes on undisturbed until this many more deltas are merged.
const SETTLING_DELTAS: u64 = 20;
/// Virtual time after which a run must have settled.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Draws of a simulation, by purpose.
mod purpose {
    pub const KILL: u64 = 1;
    pub const DELAY: u64 = 2;
    pub const LOSS: u64 = 3;
    pub const OWNER: u64 = 4;
    pub const POWER: u64 = 5;
}

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The scene's seed.
    pub seed: u64,
    /// Kills by the effect that did not happen any more.
    pub kills: BTreeMap<&'static str, u32>,
    /// Virtual seconds.
    pub virtual_s: u64,
    /// Versions published.
    pub versions: u64,
    /// Deltas merged.
    pub merged: u64,
    /// Deltas whose merge a device was told of.
    pub acknowledged: u64,
    /// Leases by how they ended.
    pub leases: BTreeMap<String, u64>,
    /// Distance to the target at the start and at the end.
    pub distance: (f64, f64),
    /// Digest of the last version.
    pub digest: Option<[u8; 32]>,
    /// Broken promises; none if all is well.
    pub faults: Vec<String>,
}

/// Something that is to happen.
#[derive(Debug)]
enum Happening {
    /// To a device, if it still has this connection or process.
    Device {
        number: u32,
        connection: u64,
        event: DeviceEvent,
    },
    /// The session's own timer, at the latest.
    DeviceTick(u32),
    WorkerDue {
        number: u32,
        job: u64,
    },
    StartDevice(u32),
    OwnerChanges(u32),
    /// A request has arrived.
    Request {
        number: u32,
        connection: u64,
        request: u64,
        body: device_message::Body,
    },
    /// A blob has travelled.
    Blob {
        number: u32,
        connection: u64,
        wish: Wish,
    },
    CoordinatorTick,
    StartCoordinator,
}

struct World<'s> {
    scene: &'s Scene,
    now: Mono,
    queue: BinaryHeap<Reverse<(Mono, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    estate: Estate,
    coordinator: Option<Coordinator>,
    devices: Vec<Device>,
    /// Whose connection each open request came by.
    asked: BTreeMap<ReplyTo, (u32, u64, u64, Option<LeaseId>)>,
    acknowledged: BTreeSet<LeaseId>,
    kills: BTreeMap<&'static str, u32>,
    draws: BTreeMap<u64, u64>,
}

/// Runs one simulation to its end: so many kills, then peace, then the checks.
pub fn simulate(scene: &Scene) -> Outcome {
    let mut world = World {
        scene,
        now: Mono { ms: 1000 },
        queue: BinaryHeap::new(),
        happenings: BTreeMap::new(),
        next: 0,
        estate: Estate::new(scene),
        coordinator: None,
        devices: (0..=scene.volunteers).map(|n| Device::new(scene, n)).collect(),
        asked: BTreeMap::new(),
        acknowledged: BTreeSet::new(),
        kills: BTreeMap::new(),
        draws: BTreeMap::new(),
    };
    let mut faults = vec![];
    if let Err(fault) = world.run() {
        faults.push(fault);
    }
    let acknowledged = std::mem::take(&mut world.acknowledged);
    let mut outcome = Outcome {
        seed: scene.seed,
        kills: std::mem::take(&mut world.kills),
        virtual_s: world.now.ms / 1000,
        acknowledged: acknowledged.len() as u64,
        ..Outcome::default()
    };
    check::examine(scene, &world.estate, &acknowledged, &mut outcome);
    outcome.faults.splice(0..0, faults);
    outcome
}

impl World<'_> {
    fn run(&mut self) -> Result<(), String> {
        self.after(Duration::ZERO, Happening::StartCoordinator);
        for number in 0..self.devices.len() as u32 {
            let late = Duration::from_millis((self.draw(purpose::DELAY) * 5000.0) as u64);
            self.after(late, Happening::StartDevice(number));
            if number > 0 {
                self.owner_will_change(number);
            }
        }
        let mut settled_at = None;
        for _ in 0..EVENTS_MAX {
            let Some(Reverse((at, id))) = self.queue.pop() else { return Err("everything stopped".into()) };
            self.now = self.now.max(at);
            if let Some(happening) = self.happenings.remove(&id) {
                self.happen(happening);
            }
            if self.peaceful() {
                let merged = self.coordinator.as_ref().map_or(0, |c| c.engine.status().merged);
                let goal = *settled_at.get_or_insert(merged + SETTLING_DELTAS);
                if self.coordinator.is_some() && merged >= goal {
                    return Ok(());
                }
            }
            if self.now.since(Mono::default()) > TIME_MAX {
                return Err("the run does not get on: a month passed".into());
            }
        }
        Err(format!("the run does not get on: {EVENTS_MAX} events, {} s of virtual time", self.now.ms / 1000))
    }

    fn peaceful(&self) -> bool {
        self.kills.values().sum::<u32>() >= self.scene.kills
    }

    /// The next draw of a purpose.
    fn draw(&mut self, purpose: u64) -> f64 {
        let i = self.draws.entry(purpose).or_default();
        *i += 1;
        self.scene.unit(purpose, *i)
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn at(&mut self, at: Mono, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((at, self.next)));
        self.happenings.insert(self.next, happening);
    }

    /// A message's way: 5 to 200 ms.
    fn latency(&mut self) -> Duration {
        Duration::from_millis(5 + (self.draw(purpose::DELAY) * 195.0) as u64)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::StartCoordinator => self.coordinator(None),
            Happening::CoordinatorTick => self.coordinator(Some(EngineEvent::Tick)),
            Happening::Request { number, connection, request, body } => self.request(number, connection, request, body),
            Happening::StartDevice(number) => {
                self.devices[number as usize].start();
                let permission = self.devices[number as usize].permission();
                self.device(number, DeviceEvent::Permission(permission));
            }
            Happening::OwnerChanges(number) => {
                let device = &mut self.devices[number as usize];
                device.allowed = !device.allowed;
                let permission = device.permission();
                self.device(number, DeviceEvent::Permission(permission));
                self.owner_will_change(number);
            }
            Happening::DeviceTick(number) => self.device(number, DeviceEvent::Tick),
            Happening::Device { number, connection, event } if self.devices[number as usize].connection == connection => {
                self.device(number, event);
            }
            Happening::WorkerDue { number, job } => {
                if let Some(event) = self.devices[number as usize].worker_due(job, self.now) {
                    self.device(number, event);
                }
            }
            Happening::Blob { number, connection, wish } if self.devices[number as usize].connection == connection => {
                self.blob(number, wish);
            }
            // On a connection that is gone.
            Happening::Device { .. } | Happening::Blob { .. } => {}
        }
    }

    /// Owners use their computers now and then: away for five minutes or so, at it for one.
    fn owner_will_change(&mut self, number: u32) {
        let mean_s = if self.devices[number as usize].allowed { 300.0 } else { 60.0 };
        let wait = Duration::from_secs_f64(mean_s * 2.0 * self.draw(purpose::OWNER));
        self.after(wait, Happening::OwnerChanges(number));
    }

    // -------------------------------------------------------------------------------------------------- the coordinator

    /// Starts the coordinator (without an event) or hands it one.
    fn coordinator(&mut self, event: Option<EngineEvent>) {
        let (now, mut lot) = (self.now, Lot::of(self));
        let mut kill = |point| lot.falls(point);
        let mut replies = vec![];
        let survivor = match (self.coordinator.take(), event) {
            (Some(mut running), Some(event)) => {
                running.handle(event, &self.estate, now, &mut kill, &mut replies).map(|()| running)
            }
            (None, None) => Coordinator::start(self.scene, &self.estate, now, &mut kill),
            // It was killed, or started, in the meantime.
            (as_it_is, _) => {
                self.coordinator = as_it_is;
                return;
            }
        };
        lot.back_to(self);
        for reply in replies {
            self.answer(reply);
        }
        match survivor {
            Ok(coordinator) => {
                if let Some(at) = coordinator.engine.next_deadline() {
                    self.at(at.max(now), Happening::CoordinatorTick);
                }
                self.coordinator = Some(coordinator);
            }
            Err(_) => self.coordinator_dies(),
        }
    }

    fn coordinator_dies(&mut self) {
        self.coordinator = None;
        if self.draw(purpose::POWER) < 0.5 {
            let seed = (self.draw(purpose::POWER) * 1e15) as u64;
            self.estate.disk.crash(seed);
        }
        self.asked.clear();
        for number in 0..self.devices.len() as u32 {
            self.disconnect(number, "the coordinator is gone");
        }
        let pause = Duration::from_secs_f64(20.0 * self.draw(purpose::DELAY));
        self.after(pause, Happening::StartCoordinator);
    }

    fn request(&mut self, number: u32, connection: u64, request: u64, body: device_message::Body) {
        if self.devices[number as usize].connection != connection {
            return;
        }
        let lease = match &body {
            device_message::Body::DeltaOffer(offer) => Some(LeaseId(offer.lease_id)),
            _ => None,
        };
        self.next += 1;
        let reply_to = ReplyTo(self.next);
        self.asked.insert(reply_to, (number, connection, request, lease));
        // The shell checks a token's signature; here every token is good.
        let invite = matches!(&body, device_message::Body::Hello(hello) if !hello.invite.is_empty()).then(|| Invite {
            role: if number == 0 { Role::Anchor } else { Role::Volunteer } as i32,
            nonce: vec![number as u8],
            ..Invite::default()
        });
        let device = self.devices[number as usize].profile.device;
        self.coordinator(Some(EngineEvent::Asked { device, reply_to, body, invite }));
    }

    fn answer(&mut self, (to, body): Reply) {
        let Some((number, connection, request, lease)) = self.asked.remove(&to) else { return };
        if let (Some(lease), coordinator_message::Body::Done(done)) = (lease, &body)
            && done.merged
        {
            self.acknowledged.insert(lease);
        }
        let delay = self.latency();
        self.after(delay, Happening::Device { number, connection, event: DeviceEvent::Answered { request, body } });
    }

    // ------------------------------------------------------------------------------------------------------ the devices

    fn device(&mut self, number: u32, event: DeviceEvent) {
        let (now, mut lot) = (self.now, Lot::of(self));
        let result = self.devices[number as usize].handle(event, now, &mut |point| lot.falls(point));
        lot.back_to(self);
        match result {
            Ok(wishes) => {
                for wish in wishes {
                    self.grant(number, wish);
                }
                let deadline = self.devices[number as usize].session.as_ref().and_then(|s| s.next_deadline());
                if let Some(at) = deadline {
                    self.at(at.max(now), Happening::DeviceTick(number));
                }
            }
            Err(_) => {
                let power = (self.draw(purpose::POWER) < 0.5).then(|| (self.draw(purpose::POWER) * 1e15) as u64);
                self.devices[number as usize].kill(power);
                let pause = Duration::from_secs_f64(60.0 * self.draw(purpose::DELAY));
                self.after(pause, Happening::StartDevice(number));
            }
        }
    }

    fn grant(&mut self, number: u32, wish: Wish) {
        let device = &mut self.devices[number as usize];
        let delay = match wish {
            Wish::Exit => {
                device.kill(None);
                return self.after(Duration::from_secs(30), Happening::StartDevice(number));
            }
            Wish::Disconnect => {
                device.connection += 1;
                return;
            }
            Wish::WorkerDue(job, at) => {
                return self.at(at.max(self.now), Happening::WorkerDue { number, job });
            }
            Wish::Connect => {
                device.connection += 1;
                let connection = device.connection;
                let event = if self.coordinator.is_some() {
                    DeviceEvent::Connected
                } else {
                    DeviceEvent::Disconnected { why: "nobody answers".into() }
                };
                let delay = self.latency();
                return self.after(delay, Happening::Device { number, connection, event });
            }
            Wish::Ask(..) => self.latency(),
            // A thin link: up to two seconds for a blob.
            Wish::Fetch(_) | Wish::Upload(..) => self.latency() * 10,
        };
        let connection = self.devices[number as usize].connection;
        if self.draw(purpose::LOSS) < 0.01 {
            self.after(delay / 2, Happening::Blob { number, connection, wish: Wish::Disconnect });
        }
        self.after(
            delay,
            match wish {
                Wish::Ask(request, body) => Happening::Request { number, connection, request, body },
                wish => Happening::Blob { number, connection, wish },
            },
        );
    }

    /// A blob's journey ends, or a connection breaks in the middle of one.
    fn blob(&mut self, number: u32, wish: Wish) {
        let breaks = self.draw(purpose::LOSS) < 0.02;
        let event = match wish {
            Wish::Fetch(blob) if self.devices[number as usize].has(blob) => DeviceEvent::Fetched { hash: blob.hash },
            Wish::Fetch(blob) => match self.estate.blob(blob.hash) {
                _ if self.coordinator.is_none() => return,
                Some(bytes) => {
                    self.devices[number as usize].receive(blob, &bytes, !breaks);
                    if breaks {
                        return self.disconnect(number, "the connection broke in a download");
                    }
                    DeviceEvent::Fetched { hash: blob.hash }
                }
                None => DeviceEvent::FetchFailed { hash: blob.hash, fault: Fault::Broken("not there".into()) },
            },
            Wish::Upload(lease, blob, bytes) => {
                let Some(coordinator) = &self.coordinator else { return };
                let device = self.devices[number as usize].profile.device;
                if !coordinator.engine.accepts_upload(device, lease, blob.bytes) {
                    return self.device(number, DeviceEvent::UploadFailed(Fault::Broken("not wanted".into())));
                }
                let blobs = self.estate.blobs();
                let stored = (|| {
                    let have = blobs.incoming(blob.hash)?.min(blob.bytes);
                    let rest = &bytes[have as usize..];
                    let now = if breaks { &rest[..rest.len() / 2] } else { rest };
                    blobs.append(blob.hash, have, now)?;
                    if breaks { Ok(()) } else { blobs.finish(blob.hash, blob.bytes) }
                })();
                match stored {
                    Ok(()) if breaks => return self.disconnect(number, "the connection broke in an upload"),
                    Ok(()) => DeviceEvent::Uploaded,
                    Err(error) => DeviceEvent::UploadFailed(Fault::Broken(error.to_string())),
                }
            }
            _ => return self.disconnect(number, "the connection broke"),
        };
        self.device(number, event);
    }

    fn disconnect(&mut self, number: u32, why: &str) {
        self.devices[number as usize].connection += 1;
        self.device(number, DeviceEvent::Disconnected { why: why.into() });
    }
}

/// Decides which effects do not happen any more. It takes the draws along, so that the world may be borrowed meanwhile.
struct Lot {
    scene: Scene,
    drawn: u64,
    kills: BTreeMap<&'static str, u32>,
    left: u32,
}

impl Lot {
    fn of(world: &mut World<'_>) -> Self {
        let drawn = world.draws.get(&purpose::KILL).copied().unwrap_or(0);
        let left = world.scene.kills.saturating_sub(world.kills.values().sum());
        Lot { scene: *world.scene, drawn, kills: BTreeMap::new(), left }
    }

    fn falls(&mut self, point: &'static str) -> bool {
        self.drawn += 1;
        let falls = self.left > 0 && self.scene.unit(purpose::KILL, self.drawn) * 1000.0 < f64::from(self.scene.kills_per_mille);
        if falls {
            self.left -= 1;
            *self.kills.entry(point).or_default() += 1;
        }
        falls
    }

    fn back_to(self, world: &mut World<'_>) {
        world.draws.insert(purpose::KILL, self.drawn);
        for (point, n) in self.kills {
            *world.kills.entry(point).or_default() += n;
        }
    }
}
