//! What the agent can see of the computer that it runs on. Sensors only look; [`crate::policy`] judges. They wait for
//! events where the system has them, in tasks and threads of their own, and write to the readings, from which
//! [`Sense::observe`] is answered at once.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "elsewhere input is never told at once"))]
mod facts;
mod gather;
mod host_fed;
#[cfg(target_os = "linux")]
mod linux;
mod memory;
mod places;
mod programs;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only on Linux do several sources compete"))]
mod readings;
pub(crate) mod size;
mod thermal;

#[cfg(not(target_os = "linux"))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;

pub use host_fed::{HostFed, HostFeed};
pub use memory::MemorySensor;
pub use places::{Places, ROOT_VARIABLE};
pub(crate) use places::{names, number, small_file};

use crate::{clock, policy::Observation};
use readings::Readings;
use serde::Serialize;
use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};

/// Whatever can say how the computer is: its own sensors, a host app, a test, the simulator.
pub trait Sense: Send {
    /// What is known now. Never waits.
    fn observe(&mut self) -> Observation;

    /// Whether every question has been answered or given up once. Until then, which is seconds after a start at most,
    /// there is nothing to judge.
    fn ready(&self) -> bool {
        true
    }

    /// The owner's preferences need something else from now on.
    fn set_wants(&mut self, _: Wants) {}

    /// What is known now in words, and who says so.
    fn sources(&self) -> Vec<Seen> {
        vec![]
    }

    /// Once after the system has announced sleep: what keeps it awake, for a few seconds, until it is dropped.
    fn sleep_delay(&mut self) -> Option<SleepDelay> {
        None
    }
}

/// What the owner's preferences need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// The folder on whose disk there must be room.
    pub home: PathBuf,
    /// Programs that they named.
    pub programs: Vec<String>,
    /// The time without input that lets something run.
    pub idle: Duration,
}

/// One fact in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// What it is about.
    pub name: &'static str,
    /// What is known.
    pub value: Option<String>,
    /// Or why nothing is.
    pub unknown: Option<String>,
    /// Who says so.
    pub source: Option<&'static str>,
}

/// Keeps the system from going to sleep until it is dropped; the system waits a few seconds at most.
pub struct SleepDelay {
    _inhibitor: Box<dyn Send>,
}

impl fmt::Debug for SleepDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SleepDelay")
    }
}

/// All sensors of this computer. Dropping them ends their tasks and threads.
pub struct Sensors {
    readings: Arc<Readings>,
    again: mpsc::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Sensors {
    /// Starts those of this computer. `changed` is notified at once where something happens that may forbid training;
    /// what may allow it has to be looked for.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(wants: Wants, changed: Arc<Notify>) -> Self {
        Sensors::start_at(Places::of_this_computer(), wants, changed)
    }

    /// Starts those of the system that is found at these places.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_at(places: Places, wants: Wants, changed: Arc<Notify>) -> Self {
        let readings = Readings::new(facts::Facts::new(), wants, changed);
        let mut tasks = JoinSet::new();
        system::start(&places, &readings, &mut tasks);
        let (again, asked) = mpsc::channel();
        let of_thread = readings.clone();
        let gather = move || gather::run(&places, &of_thread, &asked);
        if let Err(e) = std::thread::Builder::new().name("sensors".into()).spawn(gather) {
            tracing::warn!("no thread for the sensors: {e}");
        }
        Sensors { readings, again, _tasks: tasks }
    }
}

impl Sense for Sensors {
    fn observe(&mut self) -> Observation {
        self.readings.facts().observation(clock::mono_now())
    }

    fn ready(&self) -> bool {
        self.readings.facts().ready()
    }

    fn set_wants(&mut self, wants: Wants) {
        if self.readings.wants() != wants {
            self.readings.set_wants(wants);
            // The thread ends only with this.
            let _ = self.again.send(());
        }
    }

    fn sources(&self) -> Vec<Seen> {
        let facts = self.readings.facts();
        facts::seen(&facts.observation(clock::mono_now()), facts.sources())
    }

    fn sleep_delay(&mut self) -> Option<SleepDelay> {
        let mut facts = self.readings.facts();
        if facts.sleeping { facts.sleep_delay.take() } else { None }
    }
}

/// How long to wait before asking again what tells of nothing by itself: often where the first input must stop
/// something.
fn pause(idle: Option<Duration>, wanted: Duration) -> Duration {
    match idle {
        Some(idle) if idle >= wanted => Duration::from_millis(50),
        Some(idle) if idle >= wanted / 2 => Duration::from_secs(1),
        _ => Duration::from_millis(2500),
    }
}
