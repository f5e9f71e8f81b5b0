//! The agent's one loop: whatever happens becomes an [`Event`], the policy and the session decide, and what they want is
//! performed here, in order.

mod perform;

use crate::{
    clock,
    control::{self, AgentStatus, Asked, Command, Why},
    home::Home,
    identity::Identity,
    journal::{self, Journal, JournalError},
    lease::LeaseKind,
    link::{Control, Dialer, Link, LinkError},
    membership::Membership,
    pause,
    policy::{self, Decision, Pause, Reading},
    preferences::Preferences,
    sensor::Sensors,
    session::{self, Ending, Permission, Profile, Session},
    worker::{Worker, WorkerEvent, Workshop},
};
use nightjar_shared::{
    disk::FolderDisk,
    fail,
    time::{Mono, Wall},
    wire::{CoordinatorMessage, DeviceMessage, limits},
};
use std::{
    collections::VecDeque,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::mpsc, task::AbortHandle};

/// The sensors are read this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest sleep: timers of the runtime stop while the computer sleeps, the session's do not.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// The coordinator is given this long to hear goodbye.
const GOODBYE_MAX: Duration = Duration::from_millis(300);

/// All that an agent is started with.
pub struct Setup {
    /// Its folder, locked by the caller.
    pub home: Home,
    /// Its key.
    pub identity: Identity,
    /// The run it has joined.
    pub membership: Membership,
    /// What its owner wants.
    pub preferences: Preferences,
    /// What leases it takes.
    pub kinds: Vec<LeaseKind>,
    /// What starts its workers.
    pub workshop: Box<dyn Workshop>,
    /// What tells the owner a line.
    pub say: Box<dyn FnMut(&str) + Send>,
    /// Whether to leave the run at once.
    pub leave: bool,
}

/// What ends an agent before its time.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The journal is at fault.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The link cannot even be tried.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The disk refused.
    #[error("cannot use this device's folder ({0}); check free space and permissions, then start again")]
    Disk(#[from] io::Error),
}

/// All that can happen to an agent. What belongs to a connection, a transfer or a worker bears its serial number, so
/// that words from one that is over are not taken for its successor's.
enum Event {
    Connected { serial: u64, made: Result<(Link, Control), LinkError> },
    Answer { serial: u64, message: CoordinatorMessage },
    Disconnected { serial: u64, why: String },
    Transferred { serial: u64, ended: Result<session::Event, io::Error> },
    Worker { serial: u64, event: WorkerEvent },
    Control(Asked),
    Terminate,
}

/// A connection, as the loop holds it.
struct Online {
    link: Link,
    requests: mpsc::Sender<DeviceMessage>,
    conversation: AbortHandle,
}

struct Agent {
    home: Home,
    disk: Arc<FolderDisk>,
    membership: Membership,
    device: String,
    preferences: Preferences,
    sensors: Sensors,
    pause: Pause,
    decision: Decision,
    session: Session,
    dialer: Dialer,
    online: Option<Online>,
    transfer: Option<AbortHandle>,
    workshop: Box<dyn Workshop>,
    worker: Option<Box<dyn Worker>>,
    /// Serial numbers of the connection, transfer and worker at hand.
    connection_serial: u64,
    transfer_serial: u64,
    worker_serial: u64,
    queue: mpsc::Sender<Event>,
    /// What the session is to hear next: answers that need no waiting.
    waiting: VecDeque<session::Event>,
    say: Box<dyn FnMut(&str) + Send>,
    ending: Option<Ending>,
}

/// Runs an agent until its session ends.
pub async fn run(setup: Setup) -> Result<Ending, AgentError> {
    let leave = setup.leave;
    let (queue, mut events) = mpsc::channel(limits::QUEUE_EVENTS_MAX);
    let mut agent = Agent::new(setup, queue.clone())?;
    let (asked, mut commands) = mpsc::channel(16);
    let _control = control::serve(&agent.home, asked).await?;
    let terminated = terminated()?;
    tokio::pin!(terminated);
    if leave {
        agent.waiting.push_back(session::Event::Leave);
    } else {
        agent.announce();
    }
    let mut next_look = clock::mono_now();
    let mut terminating = false;
    loop {
        let now = clock::mono_now();
        if now >= next_look {
            agent.look(now);
            next_look = now + LOOK_EVERY;
        }
        agent.settle()?;
        if let Some(ending) = agent.ending.take() {
            agent.goodbye().await;
            return Ok(ending);
        }
        let deadline = agent.session.next_deadline().map_or(next_look, |d| d.min(next_look));
        let sleep = deadline.since(clock::mono_now()).min(SLEEP_MAX);
        let event = tokio::select! {
            Some(event) = events.recv() => event,
            Some(asked) = commands.recv() => Event::Control(asked),
            () = &mut terminated, if !terminating => Event::Terminate,
            () = tokio::time::sleep(sleep) => {
                agent.waiting.push_back(session::Event::Tick);
                continue;
            }
        };
        terminating |= matches!(event, Event::Terminate);
        agent.take(event)?;
    }
}

impl Agent {
    fn new(setup: Setup, queue: mpsc::Sender<Event>) -> Result<Self, AgentError> {
        let Setup { home, identity, membership, preferences, kinds, workshop, say, leave: _ } = setup;
        let disk = home.disk();
        let mut sensors = Sensors::of_this_computer();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_bytes = match sensors.observe().memory_free {
            Reading::Known(bytes) => bytes,
            Reading::Unknown(_) => 0,
        };
        let profile = Profile {
            device: identity.device(),
            token: membership.token.clone(),
            role: membership.role(),
            kinds,
            name: membership.name.clone(),
            hardware: format!("{}, {} threads", preferences.device, preferences.threads_on(cores)),
            memory_bytes,
            tokens_per_s_max: preferences.tokens_per_s_max,
            checkpoint_ms: preferences.checkpoint_s * 1000,
        };
        let journal = Journal::load(&*disk)?;
        journal::tidy(&*disk, &journal.files())?;
        Ok(Agent {
            pause: pause::load(&*disk, wall_now(), clock::mono_now())?,
            decision: Decision::Hold { reason: "it is just starting".into(), until: None },
            session: Session::new(profile, journal),
            dialer: Dialer::new(&identity, &membership.invite)?,
            device: identity.device().short(),
            home,
            disk,
            membership,
            preferences,
            sensors,
            online: None,
            transfer: None,
            workshop,
            worker: None,
            connection_serial: 0,
            transfer_serial: 0,
            worker_serial: 0,
            queue,
            waiting: VecDeque::new(),
            say,
            ending: None,
        })
    }

    fn announce(&mut self) {
        let policy = format!("{:?}", self.preferences.policy).to_lowercase();
        let run = &self.membership.invite.run_name;
        (self.say)(&format!("ready: device {} for the run \"{run}\", policy {policy}", self.device));
    }

    /// Reads the sensors and lets the policy decide.
    fn look(&mut self, now: Mono) {
        let seen = self.sensors.observe();
        self.decision = policy::decide(&self.preferences, self.pause, &seen, &jiff::Zoned::now(), now);
        self.waiting.push_back(session::Event::Permission(match &self.decision {
            Decision::Run => Permission::Allowed,
            Decision::Hold { reason, .. } => Permission::Held(reason.clone()),
        }));
    }

    /// Lets the session hear all that waits, and does what it wants.
    fn settle(&mut self) -> Result<(), AgentError> {
        while let Some(event) = self.waiting.pop_front() {
            for action in self.session.handle(event, clock::mono_now()) {
                fail::point(action.fail_point());
                self.perform(action)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), AgentError> {
        match event {
            Event::Connected { serial, made } if serial == self.connection_serial => match made {
                Ok((link, control)) => {
                    self.converse(link, control);
                    self.waiting.push_back(session::Event::Connected);
                }
                Err(e) => self.waiting.push_back(session::Event::Disconnected { why: e.to_string() }),
            },
            Event::Answer { serial, message } if serial == self.connection_serial => {
                let heard = match message.body {
                    Some(body) => session::Event::Answered { request: message.request, body },
                    None => self.lost("the coordinator sent an empty answer".into()),
                };
                self.waiting.push_back(heard);
            }
            Event::Disconnected { serial, why } if serial == self.connection_serial => {
                let lost = self.lost(why);
                self.waiting.push_back(lost);
            }
            Event::Transferred { serial, ended } if serial == self.transfer_serial => {
                self.transfer = None;
                self.waiting.push_back(ended?);
            }
            Event::Worker { serial, event } if serial == self.worker_serial => match event {
                WorkerEvent::Says(body) => self.waiting.push_back(session::Event::Worker(body)),
                WorkerEvent::Exited(why) => {
                    self.worker = None;
                    self.waiting.push_back(session::Event::WorkerExited { why });
                }
            },
            Event::Control((command, reply)) => {
                self.command(command)?;
                self.settle()?;
                // Who asked may have gone.
                let _ = reply.send(self.status());
            }
            Event::Terminate => self.waiting.push_back(session::Event::Shutdown),
            // Of a connection, transfer or worker that is over.
            Event::Connected { .. }
            | Event::Answer { .. }
            | Event::Disconnected { .. }
            | Event::Transferred { .. }
            | Event::Worker { .. } => {}
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> io::Result<()> {
        let now = clock::mono_now();
        match command {
            Command::Status => return Ok(()),
            Command::Pause(length) => {
                pause::store(&*self.disk, length, wall_now())?;
                self.pause = pause::load(&*self.disk, wall_now(), now)?;
            }
            Command::Resume => {
                pause::clear(&*self.disk)?;
                self.pause = Pause::No;
            }
            Command::Leave => self.waiting.push_back(session::Event::Leave),
            Command::Shutdown => self.waiting.push_back(session::Event::Shutdown),
        }
        self.look(now);
        Ok(())
    }

    fn status(&self) -> AgentStatus {
        let session = self.session.status();
        let why = match &self.decision {
            Decision::Run => Why { allowed: true, reason: format!("training is allowed; now {}", session.doing), until: None },
            Decision::Hold { reason, until } => {
                let until = until.as_ref().map(|u| u.strftime("%Y-%m-%d %H:%M").to_string());
                Why { allowed: false, reason: reason.clone(), until }
            }
        };
        AgentStatus {
            pid: std::process::id(),
            device: self.device.clone(),
            name: self.membership.name.clone(),
            run: self.membership.invite.run_name.clone(),
            why,
            session,
        }
    }
}

fn wall_now() -> Wall {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall { unix_ms: since_epoch.as_millis() as u64 }
}

/// Ends when the system asks the process to end.
#[cfg(unix)]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Ends when the owner asks the process to end.
#[cfg(not(unix))]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
