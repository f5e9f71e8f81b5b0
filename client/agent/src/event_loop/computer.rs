//! The computer that it runs on: what is seen of it, and what that leaves for training.

use super::{Agent, clocks::Clocks};
use crate::{
    clock,
    policy::{Decision, Observation},
    sensor::{Sense, SleepDelay},
};
use nightjar_shared::time::Mono;
use std::time::Duration;

/// No reading of the free memory is older.
const READING_MAX: Duration = Duration::from_secs(15);
/// By then all sensors have answered, or will not.
const READY_MAX: Duration = Duration::from_secs(15);

pub(super) struct Computer {
    pub sensors: Box<dyn Sense>,
    /// Keeps it awake until the training state is saved.
    pub sleep_delay: Option<SleepDelay>,
    /// Whether it runs on its battery.
    pub on_battery: bool,
    clocks: Clocks,
    /// When it was first looked at.
    begun: Mono,
    /// Memory that is free but for the worker's; `None`: not known.
    free_memory: Option<u64>,
    /// When there was a worker last.
    worker_seen: Option<Mono>,
}

impl Computer {
    pub fn new(sensors: Box<dyn Sense>, now: Mono) -> Self {
        Computer {
            sensors,
            sleep_delay: None,
            on_battery: false,
            clocks: Clocks::new(now, clock::wall_now()),
            begun: now,
            free_memory: None,
            worker_seen: None,
        }
    }

    /// Whether all sensors have answered. One that is still being asked is not one that cannot tell; one that does not
    /// come back is.
    pub fn is_known(&self, now: Mono) -> bool {
        self.sensors.ready() || now.since(self.begun) >= READY_MAX
    }

    pub fn observe(&mut self) -> Observation {
        let seen = self.sensors.observe();
        self.on_battery = seen.power.known().is_some_and(|power| !power.on_mains);
        seen
    }

    /// Memory that training may take, in bytes, given what is `free` now: what was before there was a worker, or has
    /// become so since. `None`: not known.
    fn memory_without_worker(&mut self, free: Option<u64>, has_worker: bool, now: Mono) -> Option<u64> {
        if has_worker {
            self.worker_seen = Some(now);
        }
        // A reading is a few seconds old, and may be of when there still was one.
        let is_lowered = self.worker_seen.is_some_and(|at| now.since(at) < READING_MAX);
        self.free_memory = if is_lowered { self.free_memory.max(free) } else { free };
        self.free_memory
    }
}

impl Agent {
    /// Tells the session how much memory a lease may take: what is free, but for the owner's floor, and within their
    /// cap. What a GPU's own memory holds is not known.
    pub(super) fn count_memory(&mut self, seen: &Observation, now: Mono) {
        let floor = self.owner.wants().memory_mib_min.unwrap_or(0) << 20;
        let free = seen.memory_free.known().filter(|_| !self.worker.is_on_gpu());
        let free = free.map(|free| free.saturating_sub(floor));
        let free = self.computer.memory_without_worker(free, self.worker.running.is_some(), now);
        let cap = match &self.decision {
            Decision::Run { limits, .. } => limits.memory_bytes,
            Decision::Hold { .. } => u64::MAX,
        };
        let allowed = free.unwrap_or(u64::MAX).min(cap);
        self.session.set_memory(if allowed == u64::MAX { 0 } else { allowed.max(1) });
    }

    pub(super) fn look_at_clocks(&mut self, now: Mono) {
        let since = self.computer.clocks.look(now, clock::wall_now());
        if let Some(seconds) = since.jumped_s {
            let way = if seconds < 0 { "back" } else { "forward" };
            self.records.tell(&format!(
                "the clock was set {way} by {} s; leases and pauses go by a clock of their own",
                seconds.abs()
            ));
            self.owner.word.clock_was_set(&*self.home.disk(), clock::wall_now(), now);
        }
        if let Some(slept) = since.slept
            && self.connection.is_online()
        {
            // The coordinator has given the connection up long ago; waiting to find out would cost time.
            self.lost(format!("nothing ran here for {} s", slept.as_secs()));
        }
    }
}
