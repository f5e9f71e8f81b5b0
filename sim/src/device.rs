//! A device: the session and journal that ship on a home of its own, with a worker whose training takes virtual time.

mod job;

use crate::{
    byzantine::{Liar, Loot},
    coordinator::Killed,
    disk::SimDisk,
    draws::{Draws, Purpose},
    home::Home,
    owner::{self, Allowance, Owner},
    population::{Presence, Role, Traits},
    results::Activity,
    setup::Setup,
    training::{self, Training},
    transfer::Transfer,
};
use job::{Ahead, Checkpoint, Job, Progress};
use nightjar_agent::quota::{self, Space};
use nightjar_session::{
    preferences::Preferences,
    session::{Action, Ending, Event, Permission, Profile, Session},
};
use nightjar_shared::{
    blob::BlobRef,
    disk::Disk,
    ids::{BlobHash, DeviceId, LeaseId},
    invite,
    lease::LeaseKind,
    rng,
    run_spec::RunSpec,
    time::Mono,
    wire::{
        device_message,
        worker::{self, from_worker, to_worker},
    },
};
use std::{sync::Arc, time::Duration};

/// Measuring takes so much less time a token than training does: there is no backward pass.
const EVALUATION_SPEEDUP: f64 = 3.0;

/// A worker saves its training this often where no owner says otherwise, so that a process that is killed loses no
/// more.
const CHECKPOINT_MS: u64 = 60_000;

/// What a device has the world do.
#[derive(Debug)]
pub enum Effect {
    /// A connection.
    Connect,
    /// None any more.
    Disconnect,
    /// An answer.
    Ask(u64, device_message::Body),
    /// A blob that may not be on its disk.
    Fetch(BlobRef),
    /// Its delta delivered; the bytes, where there are any.
    Upload(LeaseId, BlobRef, Vec<u8>),
    /// To be told that the delta's file is gone.
    FileGone,
    /// To be heard again at this time, about its worker.
    WorkerDue(u32, Mono),
    /// To end.
    Exit(Ending),
}

/// What a worker that is due leads to.
pub struct Reported {
    /// What it says.
    pub event: Event,
    /// For so long the device is gone after that, in seconds.
    pub vanishes_s: Option<f64>,
}

/// A device, running or not.
pub struct Device {
    /// Its place in the population.
    pub number: u32,
    /// Who it is.
    pub id: DeviceId,
    /// What it is like.
    pub traits: Traits,
    /// What survives a kill.
    pub home: Home,
    /// The process, while it runs.
    pub session: Option<Session>,
    /// Counts processes and connections: what was on its way to an earlier one is dropped.
    pub connection: u32,
    /// Whether it is switched on.
    pub presence: Presence,
    /// When its presence is to be looked at again, in virtual seconds.
    pub look_at_s: Option<f64>,
    /// Whose word counts; without, nobody's.
    pub owner: Option<Box<Owner>>,
    /// Since when its worker has been frozen.
    frozen: Option<Mono>,
    /// Its chance.
    pub draws: Draws,
    /// The earliest of its timers that the world knows of.
    pub tick_at: Option<Mono>,
    /// The blob that is on its way.
    pub transfer: Option<Box<Transfer>>,
    /// Whether it has ended for good.
    pub is_done: bool,
    /// Whether it once used more of its disk than it has.
    pub disk_overfull: bool,
    spec: Arc<RunSpec>,
    job: Option<Box<Job>>,
    jobs: u32,
    checkpoint: Option<Checkpoint>,
    ahead: Option<Ahead>,
    /// The lease whose delta will not be found.
    lost: Option<u64>,
    /// Where it sends what it did not train.
    liar: Option<Box<Liar>>,
}

impl Device {
    /// Switched off. `shared` is the disk of devices that have none.
    pub fn new(
        setup: &Setup,
        number: u32,
        traits: Traits,
        spec: &Arc<RunSpec>,
        shared: Option<&Arc<SimDisk>>,
        loot: &Loot,
    ) -> Self {
        let liar = traits.byzantine().map(|lie| Box::new(Liar::new(number, lie, loot.clone())));
        let mut draws = Draws::of_device(setup.seed, number);
        let presence = Presence::new(&traits, setup.population.start_hour, &mut draws);
        let owner = traits.group.owner.as_ref();
        let owner = owner.map(|owner| Box::new(Owner::new(owner, &traits, setup.population.start_hour, &mut draws)));
        let home = match shared {
            None => Home::Disk(Arc::new(SimDisk::default())),
            Some(disk) => Home::Names { disk: disk.clone(), journal: None, blobs: vec![], partial: None },
        };
        Device {
            number,
            id: device_id(setup.seed, number),
            traits,
            home,
            session: None,
            connection: 0,
            presence,
            look_at_s: None,
            owner,
            frozen: None,
            draws,
            tick_at: None,
            transfer: None,
            is_done: false,
            disk_overfull: false,
            spec: spec.clone(),
            job: None,
            jobs: 0,
            checkpoint: None,
            ahead: None,
            lost: None,
            liar,
        }
    }

    fn profile(&self) -> Profile {
        let kinds = match self.traits.group.role {
            Role::Volunteer => vec![LeaseKind::Train],
            Role::Anchor => vec![LeaseKind::Train, LeaseKind::Evaluate],
            Role::Examiner => vec![LeaseKind::Evaluate],
        };
        Profile {
            device: self.id,
            token: self.number.to_le_bytes().to_vec(),
            role: self.traits.group.role.to_wire(),
            kinds,
            name: self.traits.name(),
            hardware: "simulated".into(),
            memory_bytes: self.traits.memory_bytes,
            checkpoint_ms: self.checkpoint_ms(),
            checkpoint_bytes_day_max: None,
            public_name: None,
        }
    }

    fn wanted(&self) -> Option<&Preferences> {
        self.traits.group.owner.as_ref().map(|owner| owner.preferences.preferences())
    }

    fn checkpoint_ms(&self) -> u64 {
        self.wanted().map_or(CHECKPOINT_MS, |wanted| 1000 * wanted.checkpoint_s)
    }

    /// The process starts from what is on the disk.
    pub fn start(&mut self) {
        let journal = self.home.open();
        self.session = Some(Session::new(self.profile(), journal));
    }

    /// The process and its worker are killed, and the power may be cut too.
    pub fn kill(&mut self, power: Option<u64>, now: Mono, training: &mut dyn Training) {
        self.abandon(now, training);
        if let Some(session) = self.session.take() {
            self.home.close(session.journal());
        }
        self.connection += 1;
        self.tick_at = None;
        if let (Some(seed), Home::Disk(disk)) = (power, &self.home) {
            disk.crash(seed);
        }
    }

    /// What its owner allows.
    pub fn allowance(&self) -> &Allowance {
        self.owner.as_ref().map_or(&owner::FREE, |owner| &owner.allowance)
    }

    /// Its owner's computer is looked at; the worker is slowed down, frozen or let go on as the policy says.
    pub fn look(&mut self, now: Mono) -> Option<Effect> {
        let (Some(owner), Some(habits)) = (&mut self.owner, &self.traits.group.owner) else { return None };
        let duty = owner.allowance.duty;
        owner.look(now, habits.preferences.preferences(), &mut self.draws);
        let (times, is_frozen) = (duty / owner.allowance.duty, owner.allowance.is_frozen);
        let thawed = self.frozen.take_if(|_| !is_frozen).map(|since| now.since(since));
        if let Some(paused) = thawed {
            self.job.iter_mut().for_each(|job| job.stood(paused));
            self.ahead.iter_mut().for_each(|ahead| ahead.progress.stood(paused));
        }
        if times != 1.0 {
            let every_ms = self.checkpoint_ms();
            if let Some(job) = &mut self.job {
                job.saved = job.saved(now, every_ms);
                job.stretch(times, now);
            }
            self.ahead.iter_mut().for_each(|ahead| ahead.progress.stretch(times, now, ahead.steps_max));
        }
        if is_frozen {
            self.frozen.get_or_insert(now);
        }
        let job = self.job.as_ref().filter(|_| thawed.is_some() || times != 1.0)?;
        Some(Effect::WorkerDue(job.number, job.due().max(now)))
    }

    /// Makes room on its disk for the lease at hand, as the agent does before it fetches.
    pub fn make_room(&self) -> Space {
        let lease = self.session.as_ref().and_then(|s| Some((s.journal(), s.journal().lease.as_ref()?)));
        match (&self.home, lease) {
            (Home::Disk(disk), Some((journal, lease))) if self.traits.disk_bytes > 0 => {
                quota::make_room(&**disk, journal, lease, &self.spec, self.traits.disk_bytes)
                    .expect("the simulated disk never fails")
            }
            _ => Space::Enough { evict: vec![] },
        }
    }

    /// For how long its worker has been at the lease at hand, in seconds.
    pub fn at_work_s(&self, now: Mono) -> f64 {
        self.job.as_ref().map_or(0.0, |job| job.at_work_s(self.frozen.unwrap_or(now)))
    }

    /// What it spends its time on.
    pub fn doing(&self) -> Activity {
        match (&self.session, &self.job, &self.transfer) {
            (None, ..) => Activity::Offline,
            _ if self.frozen.is_some() => Activity::Held,
            (_, Some(_), _) => Activity::Training,
            _ if self.ahead.is_some() => Activity::Training,
            _ if self.allowance().permission != Permission::Allowed => Activity::Held,
            (.., Some(transfer)) => {
                if transfer.is_up() {
                    Activity::Uploading
                } else {
                    Activity::Fetching
                }
            }
            _ => Activity::Waiting,
        }
    }

    /// Hands an event to the session and performs what concerns only the device.
    pub fn handle(
        &mut self,
        event: Event,
        now: Mono,
        training: &mut dyn Training,
        kill: &mut dyn FnMut(&'static str) -> bool,
    ) -> Result<Vec<Effect>, Killed> {
        let mut effects = vec![];
        let Some(session) = &mut self.session else { return Ok(effects) };
        for action in session.handle(event, now) {
            if kill(action.fail_point()) {
                return Err(Killed);
            }
            match action {
                Action::Connect => effects.push(Effect::Connect),
                Action::Disconnect => effects.push(Effect::Disconnect),
                Action::Ask { request, body } => effects.push(Effect::Ask(request, body)),
                Action::Fetch(blob) => effects.push(Effect::Fetch(blob)),
                Action::Upload { lease, .. } if self.lost == Some(lease.0) => effects.push(Effect::FileGone),
                Action::Upload { lease, blob, file } => {
                    effects.push(Effect::Upload(lease, blob, self.delta(blob, &file)))
                }
                Action::Work(body) => {
                    assert!(
                        self.allowance().permission == Permission::Allowed,
                        "invariant 4: work begins while the owner forbids it"
                    );
                    effects.push(self.begin(body, now, training));
                }
                Action::StopWork => effects.extend(self.stop(now)),
                Action::EndWorker => self.abandon(now, training),
                Action::WriteJournal(journal) => self.home.write_journal(&journal),
                Action::Tidy { keep } => {
                    let most = self.traits.disk_bytes;
                    self.disk_overfull |= most > 0 && self.home.bytes() > most;
                    self.home.tidy(&keep);
                }
                Action::Exit(ending) => effects.push(Effect::Exit(ending)),
                Action::Pin(_) | Action::Forget | Action::Report(_) => {}
            }
        }
        Ok(effects)
    }

    fn delta(&self, blob: BlobRef, file: &str) -> Vec<u8> {
        let Home::Disk(disk) = &self.home else { return vec![] };
        let bytes = disk.read(file).expect("the simulated disk never fails");
        let bytes = bytes.expect("the journal names the delta before it goes up, and keeps it");
        assert_eq!(BlobHash::of(&bytes), blob.hash, "a retry sends the same blob");
        bytes
    }

    fn begin(&mut self, body: to_worker::Body, now: Mono, training: &mut dyn Training) -> Effect {
        self.jobs += 1;
        let ahead = self.ahead.take();
        let mut progress = Progress::new(now, self.step_s());
        let (mut steps, mut measured, mut steps_ahead) = (0, None, None);
        match &body {
            to_worker::Body::Train(train) => {
                steps = train.steps;
                let base = train.base.as_ref().map_or(0, |b| b.version);
                let saved = self.checkpoint.take().filter(|c| (c.lease_id, c.base_version) == (train.lease_id, base));
                if let Some(checkpoint) = saved {
                    progress = progress.after(checkpoint.saved.at_most(train.steps.saturating_sub(1)));
                }
                if let Some(ahead) = ahead.filter(|ahead| ahead.lease_id == train.ahead_of) {
                    let (taken, so_far) = ahead.at(now);
                    if taken <= steps {
                        (progress, steps_ahead) = (so_far, Some(taken));
                    }
                }
            }
            to_worker::Body::Evaluate(evaluate) => {
                let samples = evaluate.slice.as_ref().map_or(0, |s| s.samples);
                let sample_s = progress.spent_s_with(1) / f64::from(self.spec.inner.batch_samples);
                measured = Some(now + Duration::from_secs_f64(f64::from(samples) * sample_s / EVALUATION_SPEEDUP));
            }
            to_worker::Body::Stop(_) | to_worker::Body::Limits(_) | to_worker::Body::Checkpoint(_) => {}
        }
        let (device, disk, spec) = (self.number, self.home.disk().clone(), self.spec.clone());
        let id = training.begin(training::Job { device, disk, body: body.clone(), spec, ahead: steps_ahead });
        let job = Job::new(self.jobs, id, body, progress, steps, measured);
        let at = job.due().max(now);
        self.job = Some(Box::new(job));
        Effect::WorkerDue(self.jobs, at)
    }

    /// Seconds that its next inner steps take.
    fn step_s(&mut self) -> f64 {
        let mut tokens_per_s = self.traits.tokens_per_s * self.traits.pace(&mut self.draws) * self.allowance().duty;
        if let Some(most) = self.wanted().map(|wanted| wanted.tokens_per_s_max).filter(|most| *most > 0.0) {
            tokens_per_s = tokens_per_s.min(most);
        }
        self.spec.tokens_per_step() as f64 / tokens_per_s
    }

    /// Stops after the step at hand.
    fn stop(&mut self, now: Mono) -> Option<Effect> {
        let job = self.job.as_mut()?;
        if job.measured.is_none() {
            job.steps = job.steps.min(job.progress.steps_with_the_next(now));
        }
        Some(Effect::WorkerDue(job.number, job.due()))
    }

    /// Ends the worker. What it saved on the way is good for the same lease.
    fn abandon(&mut self, now: Mono, training: &mut dyn Training) {
        self.ahead = None;
        let now = self.frozen.take().unwrap_or(now);
        let Some(job) = self.job.take() else { return };
        training.abandon(job.id);
        if let to_worker::Body::Train(train) = &job.body {
            let base_version = train.base.as_ref().map_or(0, |b| b.version);
            let saved = job.saved(now, self.checkpoint_ms());
            self.checkpoint = Some(Checkpoint { lease_id: train.lease_id, base_version, saved });
        }
    }

    /// Whether that job is over, or stands still, or is due at another time.
    pub fn has_nothing_to_say(&self, number: u32, now: Mono) -> bool {
        self.frozen.is_some() || self.job.as_ref().is_none_or(|job| job.number != number || job.due() > now)
    }

    /// The worker is killed before it says what it has done.
    pub fn worker_killed(&mut self, now: Mono, training: &mut dyn Training) -> Event {
        self.abandon(now, training);
        Event::WorkerExited { why: "it was killed".into() }
    }

    /// What the worker says at the time it asked to be heard; `None` if it has no job.
    pub fn worker_due(&mut self, now: Mono, training: &mut dyn Training) -> Option<Reported> {
        let job = self.job.take()?;
        let to_worker::Body::Train(train) = &job.body else {
            return Some(Reported { event: Event::Worker(training.finish(job.id, 1, 0)), vanishes_s: None });
        };
        if job.steps == 0 {
            training.abandon(job.id);
            let none = worker::Trained { lease_id: train.lease_id, ..Default::default() };
            return Some(Reported { event: Event::Worker(from_worker::Body::Trained(none)), vanishes_s: None });
        }
        let skips = self.liar.as_ref().is_some_and(|liar| liar.skips());
        if train.ahead_steps > 0 && job.steps == train.steps && !skips {
            let (lease_id, steps_max) = (train.lease_id, train.ahead_steps);
            self.ahead = Some(Ahead { lease_id, progress: Progress::new(now, self.step_s()), steps_max });
        }
        let train_ms = (job.progress.spent_s_with(job.steps) * 1000.0) as u64;
        let steps = self.liar.as_ref().map_or(job.steps, |liar| liar.steps(job.steps));
        let mut said = training.finish(job.id, steps, train_ms);
        let mut vanishes_s = None;
        if let from_worker::Body::Trained(trained) = &mut said {
            if let (Some(liar), Home::Disk(disk)) = (&mut self.liar, &self.home) {
                liar.tamper(disk, &self.spec, job.steps, trained, &mut self.draws);
            }
            if self.draws.falls(Purpose::Vanish, self.traits.group.deltas_lost) {
                self.lost = Some(trained.lease_id);
                let mean = self.traits.group.lost_away_s;
                vanishes_s = (mean > 0.0).then(|| self.draws.exponential(Purpose::Vanish, mean));
            }
        }
        Some(Reported { event: Event::Worker(said), vanishes_s })
    }
}

/// The id that belongs to a key drawn from the seed.
fn device_id(seed: u64, number: u32) -> DeviceId {
    let key: Vec<u8> =
        (0..4).flat_map(|i| rng::draw(seed, rng::stream::SIM + 11, u64::from(number) * 4 + i).to_le_bytes()).collect();
    DeviceId::of_spki(&invite::spki_of_ed25519(&key.try_into().unwrap_or([0; 32])))
}
