//! The event loop: it owns the engine and hands it whatever happens. While one commit is on its way to the disk, the
//! engine goes on to decide; what it decides meanwhile is the next commit. What rests on a commit (answers, orders to
//! merge) is done after it, in order. Merging and publishing run on a thread of their own, in order too; deltas are
//! measured beside it.

mod commit;
mod ending;
mod log;
mod measuring;
mod reload;
mod stalled;
mod sweep;
mod trail;

pub use ending::run;

use super::{
    bucket::{Buckets, Rate},
    disk_reserve::{DiskReserve, DiskStatus},
    doors::Doors,
    feed::Feed,
    handle::{Question, Request, ShellHandle},
    health::{Health, Stage},
    metrics::{Metrics, Seen},
    news::Knowledge,
    publisher_thread::{self, Order},
    stream::Traffic,
    traces::Traces,
    track::Tracker,
    trouble::{Say, Troubles},
};
use crate::{
    engine::{
        Engine,
        event::{Action, Event, ReplyTo},
        group::Group,
        orders::{NotDone, Obeyed},
    },
    store::{Blobs, Counters, Ledger, LedgerError, PublishError, Publisher},
};
use commit::OnItsWay;
use ending::{DRAIN_LOOK, Drain, Stop};
use measuring::{Measurement, Places};
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    run_spec::{KeepSpec, RunSpec},
    time::Mono,
    wire::{
        Refusal, coordinator_message as answer, device_message as ask,
        limits::{ADDRESSES_MAX, LEASES_BURST, LEASES_PER_WALL_TIME, QUEUE_EVENTS_MAX},
    },
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use trail::Trail;

/// How often the counters of bytes are written to the ledger.
const COUNTERS_EVERY: Duration = Duration::from_secs(5);
/// Turns that the engine decides while a commit is on its way; more wait in the queue.
const TURNS_MAX: usize = 512;
/// After how long a device may ask again what failed here.
const RETRY: Duration = Duration::from_secs(10);
/// Wakes the loop up where the engine waits for nothing.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// How often the pages and the service manager are shown how the run stands.
const SEE_EVERY: Duration = Duration::from_secs(1);
/// How often uploads that belong to no lease are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Why the coordinator cannot go on. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// A transaction failed: what the engine had decided did not happen.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A version could not be made.
    #[error("a version could not be made: {0}")]
    Publish(#[from] PublishError),
    /// The person or the system wants an end, and something was being waited for. It is no fault.
    #[error("the coordinator was stopped")]
    Stopped,
    /// What writes to the ledger has failed in a way that nobody foresaw.
    #[error("writing to the ledger has ended unexpectedly ({0}); start again, nothing was lost")]
    Commit(String),
    /// The thread that merges is gone.
    #[error("the thread that merges has ended unexpectedly; start again, nothing was lost")]
    PublisherGone,
}

impl ShellError {
    /// Whether a delta that was merged is lost: a start takes the run up without it.
    pub fn is_of_lost_delta(&self) -> bool {
        matches!(self, ShellError::Publish(error) if error.is_loss())
    }
}

/// What the shell works with.
pub struct Parts {
    /// Decides.
    pub engine: Engine,
    /// Remembers.
    pub ledger: Arc<dyn Ledger>,
    /// Keeps deltas and versions.
    pub blobs: Blobs,
    /// Learns what is in the ledger.
    pub knowledge: Knowledge,
    /// The processes that hold connections for this one; they learn it too.
    pub doors: Arc<Doors>,
    /// Counts bytes.
    pub traffic: Arc<Traffic>,
    /// What the run is.
    pub spec: Arc<RunSpec>,
    /// What the pages are drawn from.
    pub feed: Arc<Feed>,
    /// Writes down how the run goes.
    pub tracker: Tracker,
    /// When monotonic time began: what the engine was restored at is zero.
    pub origin: Instant,
    /// Tells the person at the terminal what happens.
    pub say: Say,
    /// Where questions come from.
    pub handle: ShellHandle,
    /// Room on the disk.
    pub reserve: Arc<DiskReserve>,
    /// Places for those who read or write files.
    pub files: Arc<Semaphore>,
    /// What holds it up.
    pub troubles: Arc<Troubles>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What becomes of each lease.
    pub traces: Traces,
    /// Whether leases can be granted.
    pub health: Arc<Health>,
    /// The rule of what is kept: told anew when something may be given up by it.
    pub keep: watch::Sender<KeepSpec>,
}

/// What is done after a commit.
enum Effect {
    /// What the engine wants done.
    Act(Action),
    /// Another answer that rests on the turns before: whoever has it must not find it untrue after a kill.
    Tell(Box<dyn FnOnce() + Send + Sync>),
}

impl From<Action> for Effect {
    fn from(action: Action) -> Self {
        Effect::Act(action)
    }
}

/// A device that waits for an answer.
struct Waiting {
    answer: oneshot::Sender<answer::Body>,
    /// When it came.
    came: Instant,
    /// Whether its answer says how fast this is.
    is_timed: bool,
}

struct Shell {
    parts: Parts,
    /// What is decided, and not on its way to the ledger yet.
    decided: Group<Effect>,
    /// Whether bytes that travelled are to be written with the next commit.
    counters_due: bool,
    /// The commit that is on its way.
    on_its_way: Option<OnItsWay>,
    orders: mpsc::Sender<Order>,
    measurements: mpsc::Sender<Measurement>,
    measuring: Places,
    questions: mpsc::Receiver<Question>,
    stopping: watch::Receiver<Stop>,
    /// Set once it is to finish what is on its way.
    drain: Option<Drain>,
    /// Devices that wait for an answer.
    waiting: HashMap<ReplyTo, Waiting>,
    /// Operators that do.
    ordering: HashMap<ReplyTo, oneshot::Sender<Result<Obeyed, NotDone>>>,
    last_reply: u64,
    /// How many a device may still be given.
    leases: Buckets<DeviceId>,
    /// What the person at the terminal was told last of what is waited for.
    told: Option<String>,
    /// The disk when it was last looked at.
    looked: Option<(Instant, DiskStatus)>,
    /// Whether the ledger has a version.
    stands: bool,
    /// Said once the first version stands.
    ready: Option<String>,
    /// Whether it was said that devices know more than the ledger.
    said_unheard_of: bool,
    /// How fast the run goes.
    trail: Trail,
}

/// How many leases each device may be given.
fn leases_of_device(spec: &RunSpec) -> Buckets<DeviceId> {
    let often = LEASES_PER_WALL_TIME / spec.lease.wall_s.clamp(1.0, 600.0);
    Buckets::new(Rate::new(LEASES_BURST, often), ADDRESSES_MAX)
}

async fn until_stopped(
    parts: Parts,
    publisher: Publisher,
    first: Vec<Action>,
    questions: mpsc::Receiver<Question>,
    ready: String,
    stopping: watch::Receiver<Stop>,
) -> Result<(), ShellError> {
    let (troubles, reserve) = (parts.troubles.clone(), parts.reserve.clone());
    let (thread, orders, mut published) =
        publisher_thread::start(publisher, troubles, reserve, parts.metrics.clone(), parts.traces.clone());
    let leases = leases_of_device(&parts.spec);
    let (measurements, mut measured) = mpsc::channel(QUEUE_EVENTS_MAX);
    let stands = parts.engine.status().version.is_some();
    let trail = Trail::new(parts.origin.elapsed().as_secs_f64(), parts.engine.status().tokens);
    let mut shell = Shell {
        parts,
        decided: Group::default(),
        counters_due: false,
        on_its_way: None,
        orders,
        measurements,
        measuring: Places::default(),
        questions,
        stopping,
        drain: None,
        waiting: HashMap::new(),
        ordering: HashMap::new(),
        last_reply: 0,
        leases,
        told: None,
        looked: None,
        stands,
        ready: Some(ready),
        said_unheard_of: false,
        trail,
    };
    let mut counters_due = interval(COUNTERS_EVERY);
    counters_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep_due = interval(SWEEP_EVERY);
    let mut see_due = interval(SEE_EVERY);
    see_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Vec::with_capacity(TURNS_MAX);
    let ended = async {
        shell.decided.add(first);
        loop {
            shell.say_ready_once();
            shell.say_unheard_of_once();
            shell.parts.health.turned(Instant::now().into_std());
            if shell.is_drained() {
                return Ok(());
            }
            shell.send().await?;
            let (deadline, room) = (shell.next_deadline(), TURNS_MAX.saturating_sub(shell.decided.len()));
            tokio::select! {
                _ = shell.stopping.changed() => if shell.told() {
                    return shell.settle().await;
                },
                sent = commit::sent(&mut shell.on_its_way) => shell.sent(sent?).await?,
                _ = shell.questions.recv_many(&mut asked, room), if room > 0 => {
                    for question in asked.drain(..) {
                        shell.question(question).await?;
                    }
                }
                Some(measurement) = measured.recv(), if room > 0 => shell.measured(measurement),
                version = published.recv(), if room > 0 => {
                    let version = version.ok_or(ShellError::PublisherGone)??;
                    shell.parts.knowledge.catalog.publish(&version);
                    shell.decide(Event::Published(version));
                }
                () = sleep_until(deadline), if room > 0 => shell.decide(Event::Tick),
                _ = counters_due.tick() => {
                    shell.look();
                    shell.tell_troubles();
                    shell.counters_due = true;
                }
                _ = sweep_due.tick() => shell.sweep_strays(),
                _ = see_due.tick() => shell.see(),
            }
        }
    };
    let ended: Result<(), ShellError> = ended.await;
    // A thread that is gone may have left the reason behind.
    let ended = match ended {
        Err(ShellError::PublisherGone) => {
            Err(published.recv().await.and_then(Result::err).map_or(ShellError::PublisherGone, Into::into))
        }
        ended => ended,
    };
    // Whatever the end, what is stored is closed in order.
    let written = if ended.is_ok() { shell.write_counters().await } else { Ok(()) };
    // The order at hand is carried out; those that wait are in the ledger, and are carried out after the next start.
    published.close();
    drop(shell.orders);
    publisher_thread::join(thread).await;
    shell.parts.ledger.close().await;
    ended.and(written)
}

impl Shell {
    fn now(&self) -> Mono {
        Mono::from_origin(self.parts.origin.elapsed())
    }

    fn next_deadline(&self) -> Instant {
        if self.drain.is_some() {
            return Instant::now() + DRAIN_LOOK;
        }
        match self.parts.engine.next_deadline() {
            // A millisecond more: the engine's time is cut to whole ones.
            Some(deadline) => self.parts.origin + Duration::from_millis(deadline.ms + 1),
            None => Instant::now() + NEVER,
        }
    }

    async fn question(&mut self, question: Question) -> Result<(), ShellError> {
        match question {
            Question::Request(request) => {
                let Request { device, body, invite, came, answer } = *request;
                if let Some(refusal) = self.not_now(device, &body) {
                    drop(answer.send(answer::Body::Refusal(refusal)));
                    return Ok(());
                }
                let reply_to = self.next_reply();
                let asks_for_work = matches!(body, ask::Body::LeaseRequest(_));
                let turn = self.turn(Event::Asked { device, reply_to, body, invite });
                let is_answered = |action: &Action| matches!(action, Action::Reply { to, .. } if *to == reply_to);
                // One that waits for the next round says nothing of how fast this is.
                let is_timed = asks_for_work && turn.iter().any(is_answered);
                self.waiting.insert(reply_to, Waiting { answer, came, is_timed });
                self.decided.add(turn);
            }
            Question::MayUpload { device, lease, bytes, answer } => {
                let gone =
                    || Refusal::lease_gone("The lease has ended, or what was offered is no delta of this model.");
                let is_welcome = self.parts.engine.accepts_upload(device, lease, bytes).then_some(()).ok_or_else(gone);
                self.answer(answer, is_welcome);
            }
            Question::GiveUp { device, lease, generation } => {
                self.decide(Event::UploadsDamaged { device, lease, generation });
            }
            Question::Order { order, giver, answer } => {
                let reply_to = self.next_reply();
                self.ordering.insert(reply_to, answer);
                self.decide(Event::Ordered { reply_to, order, giver });
            }
            question @ (Question::Status(_) | Question::Devices { .. } | Question::DevicesNamed { .. }) => {
                self.look_up(question);
            }
            Question::BlobLost(hash) => self.decide(Event::BlobLost(hash)),
            Question::BlobFound(hash) => self.decide(Event::BlobFound(hash)),
            Question::Reload(spec, answer) => {
                let changes = self.reload(*spec).await?;
                self.answer(answer, changes);
            }
            Question::GivenUp { before, answer } => {
                self.decide(Event::GivenUp(before));
                self.answer(answer, ());
            }
        }
        Ok(())
    }

    /// Answers after the next commit.
    fn answer<T: Send + Sync + 'static>(&mut self, to: oneshot::Sender<T>, answer: T) {
        // Who asked may be gone by then, which is no fault.
        self.decided.also(Effect::Tell(Box::new(move || drop(to.send(answer)))));
    }

    fn next_reply(&mut self) -> ReplyTo {
        self.last_reply += 1;
        ReplyTo(self.last_reply)
    }

    fn reply(&mut self, to: ReplyTo, body: answer::Body) {
        let Some(Waiting { answer, came, is_timed }) = self.waiting.remove(&to) else { return };
        if is_timed {
            self.parts.metrics.answered(came.elapsed());
        }
        if let answer::Body::Lease(lease) = &body {
            self.parts.traces.granted(LeaseId(lease.id), came.into_std());
        }
        drop(answer.send(body));
    }

    /// Answers what changes nothing, and takes next to no time.
    fn look_up(&mut self, question: Question) {
        let engine = &self.parts.engine;
        match question {
            Question::Status(answer) => {
                let status = engine.status();
                self.answer(answer, status);
            }
            Question::Devices { after, most, answer } => {
                let devices = engine.devices_after(after, most);
                self.answer(answer, devices);
            }
            Question::DevicesNamed { digits, answer } => {
                let devices = engine.devices_named(&digits);
                self.answer(answer, devices);
            }
            _ => {}
        }
    }

    /// Writes how much has travelled, as the last thing; where the ledger does not take it now, it is not known later.
    async fn write_counters(&mut self) -> Result<(), ShellError> {
        let (bytes_up, bytes_down) = self.parts.traffic.take();
        match self.parts.ledger.add_counters(Counters { bytes_up, bytes_down }).await {
            Err(error) if !error.may_pass() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Shows how the run stands to those who do not wait for this loop.
    fn see(&mut self) {
        let (run, disk) = (self.parts.engine.status(), self.look());
        self.parts.metrics.see(Seen { run, disk });
    }

    fn say_ready_once(&mut self) {
        if let Some(ready) = self.ready.take_if(|_| self.stands) {
            self.parts.health.enter(Stage::Serving);
            (self.parts.say)(&ready);
        }
    }

    fn say_unheard_of_once(&mut self) {
        let Some(version) = self.parts.engine.unheard_of().filter(|_| !self.said_unheard_of) else { return };
        self.said_unheard_of = true;
        (self.parts.say)(&format!(
            "note      a device holds version {version}, and the ledger does not know it: the ledger is an older copy, or that \
             device is not honest. If there is a newer copy, stop now and put it back: what is trained from here on takes the \
             place of what it holds"
        ));
    }
}

#[cfg(test)]
mod tests;
