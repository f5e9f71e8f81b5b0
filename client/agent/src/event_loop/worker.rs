//! The worker: started when the session has work, frozen when the owner wants the computer, replaced where new limits
//! need it, and ended.

use super::{Agent, Event};
use crate::{
    clock,
    journal::Journal,
    policy::{Decision, Limits},
    quota,
    session::{self, Untrue},
    worker::{
        Crash, Launcher, Order, Worker, WorkerEvent,
        crashes::{Crashes, Plan},
    },
};
use jiff::Zoned;
use nightjar_shared::{
    disk::Disk,
    time::Mono,
    wire::{
        limits,
        worker::{Checkpoint, Ready, from_worker, to_worker},
    },
};
use std::{io, time::Duration};
use tokio::sync::mpsc;

/// A worker that was asked to save its state is given this long. The system waits 5 s before it sleeps all the same.
const SAVE_MAX: Duration = Duration::from_secs(4);

/// No disk takes more in a millisecond: what is said beyond that is not counted.
const WRITTEN_PER_MS_MAX: u64 = 4_000_000;
/// A worker with a lease that says nothing for longer hangs, whatever it claims to do. A measurement says nothing
/// before its end, which on a slow computer takes a while.
const SILENCE_MAX: Duration = Duration::from_secs(6 * 3600);
/// The worker's folder is looked at this often while there is a worker.
const WEIGH_EVERY: Duration = Duration::from_secs(20);
/// Sentences about what confines it.
const SANDBOX_NOTES_MAX: usize = 16;

/// What becomes of a worker once it has saved its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It is frozen, and the computer may sleep.
    Freeze,
    /// It makes room for another.
    Replace,
}

/// Where the agent's one worker is, or is not.
pub(super) struct WorkerSlot {
    launcher: Box<dyn Launcher>,
    pub crashes: Crashes,
    pub running: Option<Running>,
    /// What the last worker said when it was ready.
    pub ready: Option<Ready>,
    /// Serial number of the worker at hand.
    pub serial: u64,
}

/// A worker that runs.
pub(super) struct Running {
    process: Box<dyn Worker>,
    /// What the owner wanted to compute on when it was started.
    pub chosen: String,
    limits: Limits,
    ready: Option<Ready>,
    frozen: bool,
    /// Set: it was asked to save its state, for this, and by then it must have.
    saving: Option<(Then, Mono)>,
    /// When it was started.
    since: Mono,
    /// Bytes written by it that were counted.
    written: u64,
    /// When it said something last, or was given something to do.
    heard: Mono,
    /// When its folder was looked at.
    weighed: Mono,
}

impl WorkerSlot {
    pub fn new(launcher: Box<dyn Launcher>, disk: &dyn Disk) -> io::Result<Self> {
        Ok(WorkerSlot { launcher, crashes: Crashes::load(disk)?, running: None, ready: None, serial: 0 })
    }

    /// What the last worker computed on.
    pub fn device(&self) -> Option<&str> {
        self.ready.as_ref().map(|ready| ready.device.as_str())
    }

    /// Whether that was a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.gpu)
    }

    /// Whether it heard.
    pub fn send(&mut self, message: to_worker::Body) -> bool {
        self.running.as_mut().is_some_and(|running| running.process.send(message))
    }

    pub fn thaw(&mut self) {
        if let Some(running) = &mut self.running {
            running.thaw();
        }
    }

    fn start(&mut self, order: &Order, chosen: String, queue: mpsc::Sender<Event>) -> io::Result<()> {
        self.serial += 1;
        let serial = self.serial;
        let (events, mut heard) = mpsc::channel(16);
        let process = self.launcher.start(order, events)?;
        self.running = Some(Running::new(process, chosen, order.limits, clock::mono_now()));
        tokio::spawn(async move {
            while let Some(event) = heard.recv().await {
                if queue.send(Event::Worker { serial, event }).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

impl Agent {
    pub(super) fn work(&mut self, job: to_worker::Body) {
        if self.worker.running.is_none() {
            let refused = match self.start_worker() {
                Ok(refused) => refused,
                Err(e) => Some(session::Event::WorkerExited { why: format!("the worker does not start: {e}") }),
            };
            if let Some(refused) = refused {
                return self.waiting.push_back(refused);
            }
        }
        if let Some(running) = &mut self.worker.running {
            running.heard = clock::mono_now();
        }
        if !self.worker.send(job) {
            self.end_worker();
            self.waiting.push_back(session::Event::WorkerExited { why: "the worker takes no messages".into() });
        }
    }

    /// Starts a worker; or says why not now.
    fn start_worker(&mut self) -> io::Result<Option<session::Event>> {
        let refused = |why, until| Ok(Some(session::Event::WorkerRefused { why, until }));
        let Decision::Run { limits, .. } = self.decision else {
            return refused("training is not allowed at the moment".into(), Some(self.next_look));
        };
        let chosen = self.owner.wants().device.clone();
        let (device, avoid) = match self.worker.crashes.plan(&chosen, clock::mono_now()) {
            Plan::Start { device, avoid } => (device, avoid),
            Plan::Wait { until, reason } => return refused(reason, Some(until)),
            Plan::Hold { reason } => return refused(reason, None),
        };
        let file_bytes_max = self.session.spec().map(quota::file_bytes_max);
        self.worker.start(&Order { device, avoid, limits, file_bytes_max }, chosen, self.queue.clone())?;
        Ok(None)
    }

    /// Ends the worker at once, frozen or not: its memory is free when this returns, or a moment later.
    pub(super) fn end_worker(&mut self) {
        self.worker.running = None;
        self.worker.serial += 1;
        self.computer.sleep_delay = None;
    }

    /// Stops the worker where it stands.
    pub(super) fn freeze(&mut self) {
        if let Some(running) = &mut self.worker.running {
            running.freeze();
        }
        self.computer.sleep_delay = None;
    }

    /// The computer is about to sleep: the worker saves its state, and is frozen.
    pub(super) fn prepare_sleep(&mut self, now: Mono) {
        let is_at_work = self.session.is_at_work();
        let saves = match &mut self.worker.running {
            Some(Running { saving: Some((Then::Freeze, _)), .. }) => return,
            Some(running) if is_at_work && !running.frozen => running.ask_to_save(Then::Freeze, now),
            _ => false,
        };
        if saves {
            self.computer.sleep_delay = self.computer.sensors.sleep_delay();
            return;
        }
        // There is nothing to save: what keeps the computer awake is let go of at once.
        drop(self.computer.sensors.sleep_delay());
        self.let_sleep();
    }

    /// The computer may sleep now. Drivers lose GPUs over that, and a worker that wakes up without one would seem to
    /// crash.
    fn let_sleep(&mut self) {
        let running = self.worker.running.as_ref();
        if running.is_some_and(|running| running.ready.as_ref().is_some_and(|ready| ready.gpu)) {
            self.replace_worker();
        } else {
            self.freeze();
        }
    }

    /// Gives the worker new limits.
    pub(super) fn limit(&mut self, limits: Limits, now: Mono) {
        let Some(running) = &mut self.worker.running else { return };
        if running.limits == limits {
            return;
        }
        let is_more = limits.threads >= running.limits.threads && limits.memory_bytes >= running.limits.memory_bytes;
        let allowed = running.process.allow(&limits);
        running.limits = limits;
        if allowed {
            return;
        }
        // Less is for the owner, and at once; more can wait until the training state is saved.
        if !is_more || !running.ask_to_save(Then::Replace, now) {
            self.replace_worker();
        }
    }

    /// Ends the worker so that another can start, which goes on from the checkpoint.
    pub(super) fn replace_worker(&mut self) {
        self.end_worker();
        self.waiting.push_back(session::Event::WorkerReplaced);
    }

    /// What a worker was given time for is over.
    pub(super) fn worker_due(&mut self, now: Mono) {
        let due = self.worker.running.as_ref().and_then(|running| running.saving).filter(|(_, by)| *by <= now);
        if let Some((then, _)) = due {
            self.saved(then);
        }
        self.weigh(now);
        let is_silent = |running: &Running| !running.frozen && now.since(running.heard) > SILENCE_MAX;
        if self.session.is_at_work() && self.worker.running.as_ref().is_some_and(is_silent) {
            self.gone_wrong(&Crash::Silent { hours: SILENCE_MAX.as_secs() / 3600 });
        }
    }

    /// Looks at what the worker has made of its folder: one that fills the owner's disk is ended, and what it made
    /// goes, but for the state of leases that are delivered.
    fn weigh(&mut self, now: Mono) {
        let (Some(running), Some(spec)) = (&mut self.worker.running, self.session.spec()) else { return };
        if now.since(running.weighed) < WEIGH_EVERY {
            return;
        }
        running.weighed = now;
        match quota::overgrown(&*self.home.disk(), spec) {
            Ok(None) => {}
            Ok(Some(overgrown)) => {
                self.gone_wrong(&overgrown.into());
                let journal = Journal { lease: None, ..self.session.journal().clone() };
                if let Err(e) = quota::cut_back(&*self.home.disk(), &journal, overgrown.folder) {
                    tracing::warn!("the worker's folder cannot be tidied up ({e})");
                }
            }
            Err(e) => tracing::warn!("the worker's folder cannot be looked at ({e})"),
        }
    }

    fn saved(&mut self, then: Then) {
        match then {
            Then::Freeze => self.let_sleep(),
            Then::Replace => self.replace_worker(),
        }
    }

    pub(super) fn worker_event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Says(body) => self.worker_says(body),
            // It did nothing wrong: some systems cannot freeze, and end it; and who ends the agent may end both.
            WorkerEvent::Exited(_)
                if self.session.is_closing() || self.worker.running.as_ref().is_some_and(|running| running.frozen) =>
            {
                self.replace_worker();
            }
            WorkerEvent::Exited(crash) => self.gone_wrong(&crash),
        }
    }

    /// The worker has ended by itself, or must.
    fn gone_wrong(&mut self, crash: &Crash) {
        self.crashed(crash);
        self.end_worker();
        self.waiting.push_back(session::Event::WorkerExited { why: crash.to_string() });
    }

    fn worker_says(&mut self, body: from_worker::Body) {
        let now = clock::mono_now();
        let in_turn = self.worker.running.as_mut().map_or(Ok(()), |running| running.hears(&body, now));
        if let Err(untrue) = in_turn.and_then(|()| self.session.vet(&body, now)) {
            return self.gone_wrong(&untrue.into());
        }
        match &body {
            from_worker::Body::Ready(ready) => {
                let ready = tame(ready);
                if let Some(running) = &mut self.worker.running {
                    running.ready = Some(ready.clone());
                }
                self.worker.ready = Some(ready);
            }
            from_worker::Body::Saved(_) => {
                if let Some((then, _)) = self.worker.running.as_mut().and_then(|running| running.saving.take()) {
                    self.saved(then);
                }
            }
            from_worker::Body::Progress(progress) => {
                self.trained(progress);
                self.wrote(progress.written_bytes);
            }
            from_worker::Body::Trained(trained) => {
                self.wrote(trained.written_bytes);
                self.worker.crashes.worked();
            }
            from_worker::Body::Evaluated(_) => self.worker.crashes.worked(),
            from_worker::Body::Failed(failed) if failed.device_failed => {
                let crash = Crash::Device(limits::tame(&failed.sentence));
                // Beside a lease there is nothing that the session would end it for.
                if !self.session.has_job() {
                    return self.gone_wrong(&crash);
                }
                self.crashed(&crash);
            }
            from_worker::Body::Failed(_) | from_worker::Body::AheadOver(_) => {}
        }
        let begins_anew = matches!(&body, from_worker::Body::Trained(trained) if trained.begin_anew);
        self.waiting.push_back(session::Event::Worker(body));
        if begins_anew {
            self.replace_worker();
        }
    }

    /// Counts what the worker has written since it was counted last.
    fn wrote(&mut self, bytes: u64) {
        let Some(running) = &mut self.worker.running else { return };
        let possible = clock::mono_now().since(running.since).as_millis() as u64;
        let bytes = bytes.min(possible.saturating_mul(WRITTEN_PER_MS_MAX));
        let more = bytes.saturating_sub(running.written);
        running.written = running.written.max(bytes);
        self.records.history.wrote(more, &Zoned::now());
    }

    /// Notes a crash that nobody asked for: who crashes often is left alone.
    pub(super) fn crashed(&mut self, crash: &Crash) {
        let Some(Running { ready, chosen, .. }) = &self.worker.running else { return };
        let (now, wall) = (clock::mono_now(), clock::wall_now());
        self.worker.crashes.crashed(crash, ready.as_ref(), chosen, now, wall);
        if let Err(e) = self.worker.crashes.store(&*self.home.disk()) {
            tracing::warn!("a crash of the worker cannot be noted ({e})");
        }
    }

    /// What was left alone is tried again.
    pub(super) fn retry(&mut self) {
        self.worker.crashes = Crashes::default();
        self.waiting.push_back(session::Event::Retry);
        if let Err(e) = Crashes::retry(&*self.home.disk()) {
            self.records
                .tell(&format!("trouble: the crashes cannot be forgotten ({e}); the next start remembers them"));
        }
    }
}

/// What it said when it was ready, as it can be shown and kept.
fn tame(ready: &Ready) -> Ready {
    let sandbox = ready.sandbox.iter().take(SANDBOX_NOTES_MAX).map(|note| limits::tame(note)).collect();
    Ready { device: limits::tame(&ready.device), sandbox, gpu: ready.gpu }
}

impl Running {
    fn new(process: Box<dyn Worker>, chosen: String, limits: Limits, now: Mono) -> Self {
        Running {
            process,
            chosen,
            limits,
            ready: None,
            frozen: false,
            saving: None,
            since: now,
            written: 0,
            heard: now,
            weighed: now,
        }
    }

    fn freeze(&mut self) {
        if !self.frozen {
            self.process.freeze();
            self.frozen = true;
            self.saving = None;
        }
    }

    fn thaw(&mut self) {
        if matches!(self.saving, Some((Then::Freeze, _))) {
            // The computer does not sleep after all.
            self.saving = None;
        }
        if std::mem::take(&mut self.frozen) {
            self.heard = clock::mono_now();
            self.process.thaw();
        }
    }

    /// Takes note that it said this; an error if this is not its turn to.
    fn hears(&mut self, body: &from_worker::Body, now: Mono) -> Result<(), Untrue> {
        self.heard = now;
        match (body, &self.ready) {
            (from_worker::Body::Ready(_), Some(_)) => Err(Untrue("it is ready twice")),
            (
                from_worker::Body::Progress(_) | from_worker::Body::Trained(_) | from_worker::Body::Evaluated(_),
                None,
            ) => Err(Untrue("it works before it is ready")),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn forget_ready(&mut self) {
        self.ready = None;
    }

    /// Whether it heard.
    fn ask_to_save(&mut self, then: Then, now: Mono) -> bool {
        let heard = self.process.send(to_worker::Body::Checkpoint(Checkpoint {}));
        if heard {
            self.saving = Some((then, now + SAVE_MAX));
        }
        heard
    }
}
