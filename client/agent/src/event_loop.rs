//! The agent's one loop: whatever happens becomes an [`Event`], the policy and the session decide, and what they want
//! is performed here, in order.

mod clocks;
mod command;
mod disk;
mod join;
mod look;
mod perform;
mod record;
mod report;
mod staff;
#[cfg(test)]
mod tests;

use crate::{
    clock,
    control::{self, Asked, Tickets},
    history::{
        History, Log,
        energy::{Metering, Meters},
    },
    home::Home,
    identity::Identity,
    join::{Answer, JoinError, Joined, Member},
    journal::{Journal, JournalError},
    lease::LeaseKind,
    link::{self, Link, LinkError},
    membership::{Membership, MembershipError},
    pause::OwnersWord,
    policy::{Decision, Memory},
    preferences::PreferencesFile,
    sensor::{Places, Sense, SleepDelay},
    session::{self, Ending, Session},
    tray,
    worker::{WorkerEvent, Workshop, crashes::Crashes},
};
use clocks::Clocks;
use disk::Control;
use jiff::Zoned;
use nightjar_shared::{
    disk::FolderDisk,
    fail,
    time::{Mono, Wall},
    wire::{CoordinatorMessage, DeviceMessage, limits, worker::Ready},
};
use staff::Hired;
use std::{
    collections::VecDeque,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::AbortHandle,
};

/// The sensors are read this often; what may forbid training wakes the loop at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest sleep: timers of the runtime stop while the computer sleeps, the session's do not.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// The coordinator is given this long to hear goodbye.
const GOODBYE_MAX: Duration = Duration::from_millis(300);
/// Who listens for news hears them at most this often.
const NEWS_EVERY: Duration = Duration::from_millis(500);
/// What the policy remembers, in the home folder.
const POLICY_FILE: &str = "policy.json";

/// What sees for an agent, once it has been told what to look for and whom to wake.
pub type Eyes = Box<dyn FnOnce(crate::sensor::Wants, Arc<Notify>) -> Box<dyn Sense> + Send>;

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
    pub eyes: Eyes,
    /// What starts its workers.
    pub workshop: Box<dyn Workshop>,
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
    Knocked {
        member: Box<Member>,
        answered: Result<Answer, JoinError>,
        reply: oneshot::Sender<Result<Joined, String>>,
    },
    Control(Asked),
    Tray(tray::Wish),
    /// A sensor saw something that may forbid training.
    Alarm,
    Terminate,
}

/// A connection, as the loop holds it.
struct Online {
    link: Link,
    requests: mpsc::Sender<DeviceMessage>,
    conversation: AbortHandle,
    /// Bytes up and down that were counted.
    counted: (u64, u64),
}

struct Agent {
    home: Home,
    disk: Arc<FolderDisk>,
    identity: Identity,
    kinds: Vec<LeaseKind>,
    /// The run that it is in, and the way there; or why it is in none.
    member: Result<Member, String>,
    /// The run that it is in, while the disk does not let it read how far it has come there.
    unread: Option<Box<Member>>,
    /// Whether the coordinator of an invite is being asked.
    joining: bool,
    device: String,
    preferences: PreferencesFile,
    /// What was said last of the preferences' file.
    config_error: Option<String>,
    sensors: Box<dyn Sense>,
    /// When it started.
    begun: Mono,
    clocks: Clocks,
    word: OwnersWord,
    decision: Decision,
    memory: Memory,
    /// Of this computer, for the owner's "half of the cores".
    cores: usize,
    /// When a worker was last seen at work, since training was last allowed.
    worked: Option<Mono>,
    /// Keeps the computer awake until the training state is saved.
    sleep_delay: Option<SleepDelay>,
    session: Session,
    online: Option<Online>,
    /// Whether somebody else answered in the coordinator's place when it was last tried.
    wrong_key: bool,
    transfer: Option<AbortHandle>,
    workshop: Box<dyn Workshop>,
    crashes: Crashes,
    worker: Option<Hired>,
    /// What the last worker said when it was ready.
    ready: Option<Ready>,
    history: History,
    meters: Metering,
    /// Whether the computer runs on its battery.
    on_battery: bool,
    /// Memory that is free but for the worker's; `None`: not known.
    free_memory: Option<u64>,
    /// When there was a worker last.
    worker_seen: Option<Mono>,
    /// Whether it was decided anew, and the history does not know.
    unnoted: bool,
    /// Whether files of a run that it has left are still to be removed.
    unforgotten: bool,
    log: Log,
    /// For whom the page is opened from here.
    tickets: Tickets,
    faces: watch::Sender<tray::Face>,
    /// Serial numbers of the connection, transfer and worker at hand.
    connection_serial: u64,
    transfer_serial: u64,
    worker_serial: u64,
    queue: mpsc::Sender<Event>,
    /// What the session is to hear next: answers that need no waiting.
    waiting: VecDeque<session::Event>,
    say: Box<dyn FnMut(&str) + Send>,
    next_look: Mono,
    next_news: Mono,
    next_tidy: Mono,
    ending: Option<Ending>,
}

/// Runs an agent until its session ends.
pub async fn run(setup: Setup) -> Result<Ending, AgentError> {
    let (leave, tray, stays) = (setup.leave, setup.tray, setup.stays);
    let (queue, mut events) = mpsc::channel(limits::QUEUE_EVENTS_MAX);
    let changed = Arc::new(Notify::new());
    let mut agent = Agent::new(setup, queue.clone(), &changed)?;
    let (asked, mut commands) = mpsc::channel(16);
    let mut control = Control::closed(asked);
    let (wish, mut wishes) = mpsc::channel(4);
    if tray {
        tray::spawn(agent.faces.subscribe(), wish.clone());
    }
    let terminated = terminated()?;
    tokio::pin!(terminated);
    if leave {
        agent.waiting.push_back(session::Event::Leave);
    } else {
        agent.announce();
    }
    let mut terminating = false;
    loop {
        let now = clock::mono_now();
        control.open(&mut agent, now).await;
        if now >= agent.next_look {
            agent.look(now);
        }
        agent.settle();
        if std::mem::take(&mut agent.unnoted) {
            agent.note(&Zoned::now(), now);
        }
        if let Some(ending) = agent.ending.take() {
            agent.note_the_end(&ending);
            match &ending {
                Ending::Left | Ending::Refused(_) | Ending::RunOver(_) if stays && !terminating => {
                    agent.rest(&ending).await
                }
                _ => {
                    agent.goodbye().await;
                    return Ok(ending);
                }
            }
        }
        let due = control.server().map_or(agent.next_look, |server| agent.tell_news(server, now));
        let deadline = agent.session.next_deadline().map_or(due, |d| d.min(due));
        let sleep = deadline.since(clock::mono_now()).min(SLEEP_MAX);
        let event = tokio::select! {
            () = changed.notified() => Event::Alarm,
            Some(event) = events.recv() => event,
            Some(asked) = commands.recv() => Event::Control(asked),
            Some(wish) = wishes.recv() => Event::Tray(wish),
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
    fn new(setup: Setup, queue: mpsc::Sender<Event>, changed: &Arc<Notify>) -> Result<Self, AgentError> {
        let Setup { home, identity, membership, preferences, kinds, eyes, workshop, say, tray: _, leave: _, stays: _ } =
            setup;
        let (disk, wanted) = (home.disk(), preferences.preferences());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (now, civil) = (clock::mono_now(), Zoned::now());
        let mut agent = Agent {
            sensors: eyes(look::wants(&home, wanted), changed.clone()),
            begun: now,
            clocks: Clocks::new(now, wall_now()),
            word: OwnersWord::open(&*disk, wall_now(), now)?,
            decision: Decision::starting(),
            memory: look::remembered(&*disk),
            cores,
            worked: None,
            sleep_delay: None,
            session: Session::new(join::profile(&identity, None, &[], wanted, cores), Journal::default()),
            member: Err(join::NONE.into()),
            unread: None,
            joining: false,
            device: identity.device().short(),
            identity,
            kinds,
            crashes: Crashes::load(&*disk)?,
            history: History::open(disk.clone(), &civil),
            meters: Metering::start(Meters::new(Places::of_this_computer().root)),
            on_battery: false,
            free_memory: None,
            worker_seen: None,
            unnoted: false,
            unforgotten: false,
            log: Log::of(&*disk),
            tickets: Tickets::default(),
            faces: watch::Sender::new(tray::Face::default()),
            home,
            disk,
            preferences,
            config_error: None,
            online: None,
            wrong_key: false,
            transfer: None,
            workshop,
            worker: None,
            ready: None,
            connection_serial: 0,
            transfer_serial: 0,
            worker_serial: 0,
            queue,
            waiting: VecDeque::new(),
            say,
            next_look: now,
            next_news: now,
            next_tidy: now,
            ending: None,
        };
        match membership {
            Ok(membership) => agent.take_up(Member::of(membership, &agent.identity)?)?,
            Err(MembershipError::None) => {}
            Err(damaged) => agent.member = Err(damaged.to_string()),
        }
        Ok(agent)
    }

    /// Tells the owner a line, and keeps it in the log.
    fn tell(&mut self, line: &str) {
        (self.say)(line);
        self.log.write(&control::timestamp(&Zoned::now()), line);
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
            Event::Connected { serial, made } if serial == self.connection_serial => {
                self.wrong_key = matches!(made, Err(LinkError::WrongKey(_)));
                match made {
                    Ok((link, control)) => {
                        self.converse(link, control);
                        self.waiting.push_back(session::Event::Connected);
                    }
                    Err(e) => self.waiting.push_back(session::Event::Disconnected { why: e.to_string() }),
                }
            }
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
                if let session::Event::UploadFailed(session::Fault::Untrue(why)) = &ended {
                    self.crashed(why);
                }
                self.waiting.push_back(ended);
            }
            Event::Worker { serial, event } if serial == self.worker_serial => self.worker_event(event),
            Event::Knocked { member, answered, reply } => self.knocked(*member, answered, reply),
            Event::Control(asked) => self.answer(asked),
            Event::Tray(wish) => self.grant(wish),
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

fn wall_now() -> Wall {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall { unix_ms: since_epoch.as_millis() as u64 }
}

/// Ends when the system asks the process to end.
#[cfg(unix)]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A terminal that is closed ends what runs in it; not what was started with `nohup`.
    let mut hangup = if hangups_are_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = hung_up => {}
        }
    })
}

/// Whether whoever started this process has it ignore SIGHUP, as far as the system tells.
#[cfg(unix)]
fn hangups_are_ignored() -> bool {
    const BIT_OF_SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & BIT_OF_SIGHUP != 0)
}

/// Ends when the owner asks the process to end, closes its window, logs out or shuts down.
#[cfg(windows)]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::windows;
    let (mut interrupt, mut stop) = (windows::ctrl_c()?, windows::ctrl_break()?);
    let (mut close, mut log_off, mut shut_down) =
        (windows::ctrl_close()?, windows::ctrl_logoff()?, windows::ctrl_shutdown()?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = stop.recv() => {}
            _ = close.recv() => {}
            _ = log_off.recv() => {}
            _ = shut_down.recv() => {}
        }
    })
}

/// Ends when the owner asks the process to end.
#[cfg(not(any(unix, windows)))]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
