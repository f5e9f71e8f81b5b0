//! The agent's one loop: whatever happens becomes an [`Event`], the policy and the session decide, and what they want
//! is performed here, in order. Each part of an agent is in a file with what happens to it: its owner, its computer,
//! its run, the connection, the worker, the records and the control API.

mod api;
mod clocks;
mod command;
mod computer;
mod connection;
mod disk;
mod look;
mod owner;
mod participation;
mod perform;
mod record;
mod report;
mod signals;
#[cfg(test)]
mod tests;
mod worker;

use crate::{
    clock,
    control::Asked,
    home::Home,
    identity::Identity,
    join::{Answer, JoinError, Joined, Member},
    journal::{Journal, JournalError},
    link::{self, Link, LinkError},
    membership::{Membership, MembershipError},
    policy::{Decision, Memory},
    preferences::PreferencesFile,
    sensor::Sense,
    session::{self, Ending, Session},
    tray,
    worker::{Launcher, WorkerEvent},
};
use api::Api;
use computer::Computer;
use connection::Connection;
use jiff::Zoned;
use nightjar_shared::{
    fail,
    lease::LeaseKind,
    time::Mono,
    wire::{CoordinatorMessage, limits},
};
use owner::Owner;
use participation::{Device, Participation, RunState};
use record::Records;
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc, oneshot};
use worker::WorkerSlot;

/// The sensors are read this often; what may forbid training wakes the loop at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest sleep: timers of the runtime stop while the computer sleeps, the session's do not.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// What sees for an agent, once it has been told what to look for and whom to wake.
pub type StartSensors = Box<dyn FnOnce(crate::sensor::Wants, Arc<Notify>) -> Box<dyn Sense> + Send>;

/// All that an agent is started with.
pub struct Setup {
    /// Its folder, locked by the caller.
    pub home: Home,
    /// Its key.
    pub identity: Identity,
    /// The run it has joined; or why there is none, and then it holds until it is given an invite.
    pub membership: Result<Membership, MembershipError>,
    /// What its owner wants.
    pub preferences: PreferencesFile,
    /// What leases it takes.
    pub kinds: Vec<LeaseKind>,
    /// What it sees the computer with.
    pub start_sensors: StartSensors,
    /// What starts its workers.
    pub launcher: Box<dyn Launcher>,
    /// What tells the owner a line.
    pub say: Box<dyn FnMut(&str) + Send>,
    /// Whether to show an icon in the tray.
    pub tray: bool,
    /// Whether to leave the run at once.
    pub leave: bool,
    /// Whether it stays when it is out of its run: it holds, and can join another.
    pub stays: bool,
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
    /// The disk refused at the start.
    #[error("cannot use this device's folder ({0}); check free space and permissions, then start again")]
    Disk(#[from] io::Error),
}

/// All that can happen to an agent. What belongs to a connection, a transfer or a worker bears its serial number, so
/// that words from one that is over are not taken for its successor's.
enum Event {
    Connected {
        serial: u64,
        made: Result<(Link, link::Control), LinkError>,
    },
    Answer {
        serial: u64,
        message: CoordinatorMessage,
    },
    Disconnected {
        serial: u64,
        why: String,
    },
    Transferred {
        serial: u64,
        ended: session::Event,
    },
    Worker {
        serial: u64,
        event: WorkerEvent,
    },
    /// The coordinator of an invite was asked.
    JoinAnswered {
        member: Box<Member>,
        answered: Result<Answer, JoinError>,
        reply: oneshot::Sender<Result<Joined, JoinError>>,
    },
    Control(Asked),
    Tray(tray::MenuChoice),
    /// A sensor saw something that may forbid training.
    Alarm,
    Terminate,
}

struct Agent {
    home: Home,
    device: Device,
    participation: Participation,
    owner: Owner,
    computer: Computer,
    decision: Decision,
    /// What the policy remembers.
    memory: Memory,
    session: Session,
    /// What the session is to hear next: answers that need no waiting.
    waiting: VecDeque<session::Event>,
    connection: Connection,
    worker: WorkerSlot,
    records: Records,
    api: Api,
    /// What happens elsewhere comes back to the loop by this.
    queue: mpsc::Sender<Event>,
    next_look: Mono,
    next_tidy: Mono,
    ending: Option<Ending>,
}

/// Runs an agent until its session ends.
pub async fn run(setup: Setup) -> Result<Ending, AgentError> {
    let (leave, tray, stays) = (setup.leave, setup.tray, setup.stays);
    let (queue, mut events) = mpsc::channel(limits::QUEUE_EVENTS_MAX);
    let (asked, mut commands) = mpsc::channel(16);
    let (chosen, mut choices) = mpsc::channel(4);
    let changed = Arc::new(Notify::new());
    let mut agent = Agent::new(setup, queue, asked, &changed)?;
    if tray {
        tray::spawn(agent.api.views.subscribe(), chosen.clone());
    }
    let terminated = signals::terminated()?;
    tokio::pin!(terminated);
    if leave {
        agent.waiting.push_back(session::Event::Leave);
    } else {
        agent.announce();
    }
    let mut terminating = false;
    loop {
        let now = clock::mono_now();
        agent.open_api(now).await;
        if now >= agent.next_look {
            agent.look(now);
        }
        agent.settle();
        if std::mem::take(&mut agent.records.unnoted) {
            agent.note(&Zoned::now(), now);
        }
        if let Some(ending) = agent.ending.take() {
            agent.note_the_end(&ending);
            match &ending {
                Ending::Left | Ending::Refused(_) | Ending::RunOver(_) if stays && !terminating => {
                    agent.stay_without_run(&ending).await
                }
                _ => {
                    agent.goodbye().await;
                    return Ok(ending);
                }
            }
        }
        let due = agent.tell_news(now);
        let deadline = agent.session.next_deadline().map_or(due, |d| d.min(due));
        let sleep = deadline.since(clock::mono_now()).min(SLEEP_MAX);
        let event = tokio::select! {
            () = changed.notified() => Event::Alarm,
            Some(event) = events.recv() => event,
            Some(asked) = commands.recv() => Event::Control(asked),
            Some(choice) = choices.recv() => Event::Tray(choice),
            () = &mut terminated, if !terminating => Event::Terminate,
            () = tokio::time::sleep(sleep) => {
                agent.waiting.push_back(session::Event::Tick);
                continue;
            }
        };
        terminating |= matches!(event, Event::Terminate);
        agent.take(event);
    }
}

impl Agent {
    fn new(
        setup: Setup,
        queue: mpsc::Sender<Event>,
        asked: mpsc::Sender<Asked>,
        changed: &Arc<Notify>,
    ) -> Result<Self, AgentError> {
        let Setup { home, identity, membership, preferences, kinds, start_sensors, launcher, say, .. } = setup;
        let (disk, now) = (home.disk(), clock::mono_now());
        let device = Device::new(identity, kinds);
        let owner = Owner::new(preferences, &*disk, now)?;
        let mut agent = Agent {
            computer: Computer::new(start_sensors(owner.needs(&home), changed.clone()), now),
            decision: Decision::starting(),
            memory: look::remembered(&*disk),
            session: Session::new(device.profile(None, owner.wants()), Journal::default()),
            waiting: VecDeque::new(),
            participation: Participation::default(),
            connection: Connection::default(),
            worker: WorkerSlot::new(launcher, &*disk)?,
            records: Records::open(disk, say),
            api: Api::new(asked),
            home,
            device,
            owner,
            queue,
            next_look: now,
            next_tidy: now,
            ending: None,
        };
        match membership {
            Ok(membership) => agent.take_up(Member::of(membership, &agent.device.identity)?)?,
            Err(MembershipError::None) => {}
            Err(damaged) => agent.participation.run = RunState::Out(damaged.to_string()),
        }
        Ok(agent)
    }

    /// Lets the session hear all that waits, and does what it wants.
    fn settle(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            let mut is_stored = true;
            for action in self.session.handle(event, clock::mono_now()) {
                if !is_stored && action.rests_on_journal() {
                    continue;
                }
                fail::point(action.fail_point());
                if let Err(refused) = self.perform(action) {
                    is_stored = false;
                    self.waiting.push_front(session::Event::DiskRefused { why: refused.of_disk() });
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Connected { serial, made } if serial == self.connection.serial => self.connected(made),
            Event::Answer { serial, message } if serial == self.connection.serial => self.answered(message),
            Event::Disconnected { serial, why } if serial == self.connection.serial => self.lost(why),
            Event::Transferred { serial, ended } if serial == self.connection.transfer_serial => {
                self.transferred(ended);
            }
            Event::Worker { serial, event } if serial == self.worker.serial => self.worker_event(event),
            Event::JoinAnswered { member, answered, reply } => self.join_answered(*member, answered, reply),
            Event::Control(asked) => self.answer(asked),
            Event::Tray(choice) => self.chosen_in_tray(choice),
            Event::Alarm => self.look(clock::mono_now()),
            Event::Terminate => self.waiting.push_back(session::Event::Shutdown),
            // Of a connection, transfer or worker that is over.
            Event::Connected { .. }
            | Event::Answer { .. }
            | Event::Disconnected { .. }
            | Event::Transferred { .. }
            | Event::Worker { .. } => {}
        }
    }
}
