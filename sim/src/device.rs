//! A device: the session and journal that ship on a disk of its own, with a worker whose training takes virtual time.

use crate::{coordinator::Killed, disk::SimDisk, scene::Scene, training};
use nightjar_agent::{
    journal::{self, Journal},
    lease::BlobRef,
    session::{Action, Event, Permission, Profile, Session},
};
use nightjar_shared::{
    disk::Disk,
    ids::{BlobHash, LeaseId},
    run_spec::RunSpec,
    time::Mono,
    wire::{device_message, worker, worker::from_worker, worker::to_worker},
};
use std::time::Duration;

/// What a device wants of the world.
#[derive(Debug)]
pub enum Wish {
    /// A connection.
    Connect,
    /// None any more.
    Disconnect,
    /// An answer.
    Ask(u64, device_message::Body),
    /// A blob that is not on its disk.
    Fetch(BlobRef),
    /// Its delta delivered.
    Upload(LeaseId, BlobRef, Vec<u8>),
    /// To be heard again at this time, about its worker.
    WorkerDue(u64, Mono),
    /// To end for good.
    Exit,
}

/// A job of the worker.
struct Job {
    number: u64,
    body: to_worker::Body,
    began: Mono,
    /// Inner steps it will have taken when it is due.
    steps: u32,
}

/// A device, running or not.
pub struct Device {
    /// Its place in the population; 0 is the anchor node.
    pub number: u32,
    /// Who it is and what it takes.
    pub profile: Profile,
    /// What survives a kill.
    pub disk: SimDisk,
    /// The process, while it runs.
    pub session: Option<Session>,
    /// Counts processes and connections: what was on its way to an earlier one is dropped.
    pub connection: u64,
    /// Whether its owner allows training now.
    pub allowed: bool,
    spec: RunSpec,
    tokens_per_s: f64,
    job: Option<Job>,
    jobs: u64,
}

impl Device {
    /// Switched off.
    pub fn new(scene: &Scene, number: u32) -> Self {
        Device {
            number,
            profile: scene.profile(number),
            disk: SimDisk::default(),
            session: None,
            connection: 0,
            allowed: true,
            spec: scene.spec(),
            tokens_per_s: scene.tokens_per_s(number),
            job: None,
            jobs: 0,
        }
    }

    /// The process starts from what is on the disk.
    pub fn start(&mut self) {
        let journal = Journal::load(&self.disk).expect("a journal is never torn");
        journal::tidy(&self.disk, &journal.files()).expect("the simulated disk never fails");
        self.session = Some(Session::new(self.profile.clone(), journal));
    }

    /// The process and its worker are killed, and the power may be cut too.
    pub fn kill(&mut self, power: Option<u64>) {
        self.session = None;
        self.job = None;
        self.connection += 1;
        if let Some(seed) = power {
            self.disk.crash(seed);
        }
    }

    /// Its owner's word.
    pub fn permission(&self) -> Permission {
        if self.allowed { Permission::Allowed } else { Permission::Held("its owner is using it".into()) }
    }

    /// Hands an event to the session and performs what concerns only the device.
    pub fn handle(&mut self, event: Event, now: Mono, kill: &mut dyn FnMut(&'static str) -> bool) -> Result<Vec<Wish>, Killed> {
        let mut wishes = vec![];
        let Some(session) = &mut self.session else { return Ok(wishes) };
        for action in session.handle(event, now) {
            if kill(action.fail_point()) {
                return Err(Killed);
            }
            match action {
                Action::Connect => wishes.push(Wish::Connect),
                Action::Disconnect => wishes.push(Wish::Disconnect),
                Action::Ask { request, body } => wishes.push(Wish::Ask(request, body)),
                Action::Fetch(blob) => wishes.push(Wish::Fetch(blob)),
                Action::Upload { lease, blob, file } => {
                    let bytes = self.disk.read(&file).expect("the simulated disk never fails");
                    let bytes = bytes.expect("the journal names the delta before it goes up, and keeps it");
                    assert_eq!(BlobHash::of(&bytes), blob.hash, "a retry sends the same blob");
                    wishes.push(Wish::Upload(lease, blob, bytes));
                }
                Action::Work(body) => {
                    assert!(self.allowed, "invariant 4: work begins while the owner forbids it");
                    wishes.push(self.begin(body, now));
                }
                Action::StopWork => wishes.extend(self.stop(now)),
                Action::EndWorker => self.job = None,
                Action::WriteJournal(journal) => journal.store(&self.disk).expect("the simulated disk never fails"),
                Action::Tidy { keep } => journal::tidy(&self.disk, &keep).expect("the simulated disk never fails"),
                Action::Exit(_) => wishes.push(Wish::Exit),
                Action::Forget | Action::Report(_) => {}
            }
        }
        Ok(wishes)
    }

    /// A blob has arrived: whole, or only its first part before the connection broke.
    pub fn receive(&self, blob: BlobRef, bytes: &[u8], whole: bool) {
        let (file, partial) = (blob.file(), blob.partial_file());
        let write = || -> std::io::Result<()> {
            if !whole {
                return self.disk.write_at(&partial, 0, &bytes[..bytes.len() / 2]);
            }
            let have = self.disk.length(&partial)?.unwrap_or(0).min(bytes.len() as u64);
            self.disk.write_at(&partial, have, &bytes[have as usize..])?;
            if self.disk.read(&partial)?.is_none_or(|b| BlobHash::of(&b) != blob.hash) {
                // Torn by a power cut: from the start.
                self.disk.remove(&partial)?;
                self.disk.write_at(&partial, 0, bytes)?;
            }
            self.disk.sync(&partial)?;
            self.disk.rename(&partial, &file)
        };
        write().expect("the simulated disk never fails");
    }

    /// Whether a blob is on the disk, whole.
    pub fn has(&self, blob: BlobRef) -> bool {
        self.disk.read(&blob.file()).is_ok_and(|b| b.is_some_and(|b| BlobHash::of(&b) == blob.hash))
    }

    /// What the worker says at the time it asked to be heard; `None` if that job is over.
    pub fn worker_due(&mut self, number: u64, now: Mono) -> Option<Event> {
        let job = self.job.take_if(|job| job.number == number)?;
        let train_ms = now.since(job.began).as_millis() as u64;
        let said = match &job.body {
            to_worker::Body::Train(train) if job.steps == 0 => {
                Ok(from_worker::Body::Trained(worker::Trained { lease_id: train.lease_id, ..Default::default() }))
            }
            to_worker::Body::Train(train) => {
                training::train(&self.disk, &self.spec, &self.profile, train, job.steps, train_ms).map(from_worker::Body::Trained)
            }
            to_worker::Body::Evaluate(evaluate) => {
                training::evaluate(&self.disk, &self.spec, evaluate).map(from_worker::Body::Evaluated)
            }
            to_worker::Body::Stop(_) => return None,
        };
        Some(Event::Worker(said.unwrap_or_else(|error| {
            // Weights that a power cut took: the worker says so, and a keyframe comes.
            from_worker::Body::Failed(worker::Failed { sentence: error.to_string(), base_is_wrong: true })
        })))
    }

    /// Whether the worker is at work.
    pub fn works(&self) -> bool {
        self.job.is_some()
    }

    fn begin(&mut self, body: to_worker::Body, now: Mono) -> Wish {
        self.jobs += 1;
        let (steps, tokens) = match &body {
            to_worker::Body::Train(train) => (train.steps, u64::from(train.steps) * self.spec.tokens_per_step()),
            _ => (0, 8 * self.spec.tokens_per_sample()),
        };
        let due = now + Duration::from_secs_f64(tokens as f64 / self.tokens_per_s);
        self.job = Some(Job { number: self.jobs, body, began: now, steps });
        Wish::WorkerDue(self.jobs, due)
    }

    /// Stops after the step at hand.
    fn stop(&mut self, now: Mono) -> Option<Wish> {
        let job = self.job.as_mut()?;
        let step_s = self.spec.tokens_per_step() as f64 / self.tokens_per_s;
        let done = (now.since(job.began).as_secs_f64() / step_s).ceil();
        job.steps = job.steps.min(done as u32);
        Some(Wish::WorkerDue(job.number, job.began + Duration::from_secs_f64(f64::from(job.steps) * step_s)))
    }
}
