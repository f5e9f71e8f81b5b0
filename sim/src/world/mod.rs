//! The world: one queue of what is to happen, in virtual time. Messages take a while and get lost with their
//! connection; owners and devices come and go; processes are killed before any effect, sometimes with a power cut, and
//! start again.

mod account;
mod conclude;
mod coordinator;
mod devices;
mod kills;

pub use conclude::{Aftermath, aftermath, conclude};
pub use kills::KillCounts;

use crate::{
    byzantine::Loot,
    coordinator::Coordinator,
    device::Device,
    disk::SimDisk,
    draws::{Draws, Purpose},
    host::Meter,
    population::Traits,
    progress::Progress,
    setup::Setup,
    storage::Storage,
    training::Training,
};
use account::Account;
use kills::Kills;
use nightjar_coordinator::engine::{
    self, Mismatch,
    event::{Event as EngineEvent, ReplyTo},
};
use nightjar_session::session::Event as DeviceEvent;
use nightjar_shared::{ids::LeaseId, run_spec::RunSpecError, time::Mono, wire::device_message};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

/// With kills, events after which a simulation that does not end is given up.
const EVENTS_MAX: u64 = 3_000_000;
/// Events at one instant, for each device and in all, after which time is taken to stand still.
const INSTANT_MAX: u64 = 1000;
/// How many events pass between two looks of whoever watches.
const WATCH_EVERY: u64 = 1 << 12;

/// Why a run came to no end of its own.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// Nobody can train it.
    #[error("the run spec cannot be trained: {0}")]
    Spec(#[from] RunSpecError),
    /// Its data is of another run.
    #[error(transparent)]
    Dataset(#[from] Mismatch),
    /// Nothing is to happen any more.
    #[error("everything stopped")]
    Stopped,
    /// Events follow one another without any time between them.
    #[error("time stands still at {ms} ms: something is due again and again")]
    StandsStill {
        /// Virtual milliseconds so far.
        ms: u64,
    },
    /// After the kills, no more deltas are merged.
    #[error("the run does not get on: {EVENTS_MAX} events, {virtual_s} s of virtual time")]
    TooManyEvents {
        /// Virtual seconds so far.
        virtual_s: u64,
    },
    /// The same, and its time is over.
    #[error("the run does not get on: its virtual time is over")]
    OutOfTime,
}

/// Something that is to happen.
#[derive(Debug)]
enum SimEvent {
    /// To a device, if it still has this connection or process.
    Device {
        number: u32,
        connection: u32,
        event: Box<DeviceEvent>,
    },
    /// The session's own timer, at the latest.
    DeviceTick(u32),
    WorkerDue {
        number: u32,
        job: u32,
    },
    StartDevice(u32),
    /// It is switched on or off, perhaps.
    Presence(u32),
    OwnerLookedAt(u32),
    /// A request has arrived.
    Request {
        number: u32,
        connection: u32,
        ask: Box<(u64, device_message::Body)>,
    },
    /// A blob has arrived.
    Arrived {
        number: u32,
        connection: u32,
    },
    /// A connection breaks.
    Breaks {
        number: u32,
        connection: u32,
    },
    CoordinatorTick,
    CoordinatorDecides,
    StartCoordinator,
}

/// An entry of the queue: by time, then in the order of entering.
struct Entry {
    at: Mono,
    order: u64,
    what: SimEvent,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// An open request: whose connection it came by.
struct Asked {
    number: u32,
    connection: u32,
    request: u64,
    /// Of an offer.
    lease: Option<LeaseId>,
}

/// One simulated run.
pub struct World<'s> {
    setup: &'s Setup,
    training: Box<dyn Training + 's>,
    now: Mono,
    queue: BinaryHeap<Reverse<Entry>>,
    next: u64,
    events: u64,
    storage: Storage,
    coordinator: Option<Coordinator>,
    /// The earliest of its timers that is in the queue.
    coordinator_tick: Option<Mono>,
    /// Requests that wait for the next commit.
    waiting: Vec<EngineEvent>,
    /// When the coordinator's own link is free, up and down, in virtual seconds.
    coordinator_link_free: [f64; 2],
    devices: Vec<Device>,
    asked: HashMap<ReplyTo, Asked>,
    /// Kept only where there is a ledger to compare with.
    acknowledged: BTreeSet<LeaseId>,
    kills: Kills,
    draws: Draws,
    account: Account,
    faults: Vec<String>,
    meter: Meter,
    coordinator_cpu_s: f64,
}

impl<'s> World<'s> {
    /// Before anything has happened.
    pub fn new(setup: &'s Setup, training: Box<dyn Training + 's>) -> Self {
        let meter = Meter::start();
        let has_bytes = training.has_bytes();
        assert!(has_bytes || setup.chaos.kills == 0, "without bytes there is nothing to start again from");
        let spec = Arc::new(setup.spec.clone());
        let shared = (!has_bytes).then(|| Arc::new(SimDisk::default()));
        let traits = Traits::all(&setup.population, setup.seed);
        let account = Account::new(&traits);
        let loot = Loot::default();
        let device = |(traits, number)| Device::new(setup, number, traits, &spec, shared.as_ref(), &loot);
        let devices = traits.into_iter().zip(0..).map(device).collect();
        World {
            setup,
            now: Mono::default(),
            queue: BinaryHeap::new(),
            next: 0,
            events: 0,
            storage: Storage::new(setup, has_bytes),
            coordinator: None,
            coordinator_tick: None,
            waiting: vec![],
            coordinator_link_free: [0.0; 2],
            devices,
            asked: HashMap::new(),
            acknowledged: BTreeSet::new(),
            kills: Kills::new(setup),
            draws: Draws::of_world(setup.seed),
            account,
            faults: vec![],
            meter,
            coordinator_cpu_s: 0.0,
            training,
        }
    }

    /// Runs to the end; an error says why there is none.
    pub fn run(&mut self, watch: &mut dyn FnMut(&Progress)) -> Result<(), Unfinished> {
        self.setup.spec.validate()?;
        engine::check(&self.setup.spec, &self.setup.dataset.manifest)?;
        self.at_s(0.0, SimEvent::StartCoordinator);
        for number in 0..self.devices.len() as u32 {
            let device = &mut self.devices[number as usize];
            let (late_s, is_owned) =
                (self.setup.start_spread_s * device.draws.unit(Purpose::Delay), device.owner.is_some());
            self.at_s(late_s, SimEvent::Presence(number));
            if is_owned {
                self.at_s(late_s, SimEvent::OwnerLookedAt(number));
            }
        }
        let end = Mono::from_origin(Duration::try_from_secs_f64(self.setup.until.virtual_s).unwrap_or(Duration::MAX));
        let (mut settled_at, mut instant) = (None, 0);
        loop {
            let Some(Reverse(entry)) = self.queue.pop() else { return Err(Unfinished::Stopped) };
            if entry.at > end {
                self.now = end;
                return self.out_of_time();
            }
            if entry.at > self.now {
                (self.now, instant) = (entry.at, 0);
            }
            self.events += 1;
            instant += 1;
            if instant > INSTANT_MAX * (self.devices.len() as u64 + 1000) {
                return Err(Unfinished::StandsStill { ms: self.now.ms });
            }
            self.happen(entry.what);
            if self.events.is_multiple_of(WATCH_EVERY) {
                watch(&self.progress());
            }
            if self.setup.chaos.kills > 0 {
                if self.has_settled(&mut settled_at) {
                    return Ok(());
                }
                if self.events >= EVENTS_MAX {
                    return Err(Unfinished::TooManyEvents { virtual_s: self.now.ms / 1000 });
                }
            } else if self.has_ended() {
                return Ok(());
            }
        }
    }

    /// What the coordinator has beside its process.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    fn out_of_time(&self) -> Result<(), Unfinished> {
        if self.setup.chaos.kills > 0 { Err(Unfinished::OutOfTime) } else { Ok(()) }
    }

    /// After the last kill, the run goes on undisturbed until so many more deltas are merged.
    fn has_settled(&self, settled_at: &mut Option<u64>) -> bool {
        if self.kills.left > 0 {
            return false;
        }
        let goal = *settled_at.get_or_insert(self.account.merged + self.setup.chaos.settling_deltas);
        self.coordinator.is_some() && self.account.merged >= goal
    }

    fn has_ended(&self) -> bool {
        let spent =
            self.account.tokens >= self.setup.spec.token_budget && self.account.through_seq == self.account.merged;
        spent || self.setup.until.loss.is_some_and(|goal| self.account.loss.is_some_and(|loss| loss <= goal))
    }

    fn progress(&self) -> Progress {
        Progress {
            virtual_s: self.now_s(),
            virtual_s_end: self.setup.until.virtual_s,
            tokens: self.account.tokens,
            token_budget: self.setup.spec.token_budget,
            versions: self.account.versions,
            loss: self.account.loss,
            events: self.events,
        }
    }

    fn now_s(&self) -> f64 {
        self.now.ms as f64 / 1000.0
    }

    fn after(&mut self, seconds: f64, what: SimEvent) {
        self.at_s(self.now_s() + seconds, what);
    }

    fn at_s(&mut self, at_s: f64, what: SimEvent) {
        self.at(Mono { ms: (at_s.max(0.0) * 1000.0).ceil() as u64 }, what);
    }

    fn at(&mut self, at: Mono, what: SimEvent) {
        self.next += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), order: self.next, what }));
    }

    fn happen(&mut self, event: SimEvent) {
        let is_current = |w: &Self, number: u32, connection: u32| w.devices[number as usize].connection == connection;
        match event {
            SimEvent::StartCoordinator => self.coordinator(None),
            SimEvent::CoordinatorTick => self.coordinator_ticks(),
            SimEvent::CoordinatorDecides => self.coordinator_decides(),
            SimEvent::Request { number, connection, ask } if is_current(self, number, connection) => {
                self.request(number, ask.0, ask.1);
            }
            SimEvent::StartDevice(number) => self.start_device(number),
            SimEvent::Presence(number) => self.presence(number),
            SimEvent::OwnerLookedAt(number) => self.owner_looked_at(number),
            SimEvent::DeviceTick(number) => self.device_ticks(number),
            SimEvent::Device { number, connection, event } if is_current(self, number, connection) => {
                self.device(number, *event);
            }
            SimEvent::WorkerDue { number, job } => self.worker_due(number, job),
            SimEvent::Arrived { number, connection } if is_current(self, number, connection) => self.arrived(number),
            SimEvent::Breaks { number, connection } if is_current(self, number, connection) => {
                self.disconnect(number, "the connection broke");
            }
            // On a connection that is gone.
            SimEvent::Device { .. } | SimEvent::Request { .. } | SimEvent::Arrived { .. } | SimEvent::Breaks { .. } => {
            }
        }
    }
}
