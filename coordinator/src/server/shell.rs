//! The event loop: it owns the engine, hands it whatever happens, and performs its actions in order. Merging and
//! publishing run on a thread of their own, in order too; deltas are measured beside it. Every wait is in `run`.

mod ending;
mod log;
mod reload;
mod stalled;
mod sweep;

pub use ending::run;

use super::{
    bucket::{Buckets, Rate},
    clock::wall_now,
    disk_reserve::{DiskReserve, DiskStatus},
    doors::Doors,
    handle::{Overview, Question, Request, ShellHandle},
    health::{Health, Stage},
    history::{History, thinned},
    metrics::{Metrics, Seen},
    news::{Knowledge, News},
    publisher_thread::{self, Order},
    stream::Traffic,
    trouble::{Say, Troubles},
};
use crate::{
    engine::{
        Engine,
        event::{Action, Event, ReplyTo},
        record::Record,
    },
    store::{BlobError, Blobs, Counters, Ledger, LedgerError, Measure, PublishError, Publisher},
};
use ending::{DRAIN_LOOK, Drain, Stop};
use nightjar_shared::{
    ids::DeviceId,
    lease::Offer,
    run_spec::RunSpec,
    time::Mono,
    wire::{
        Refusal, RefusalCode, UploadFrom, coordinator_message as answer, device_message as ask,
        limits::{ADDRESSES_MAX, LEASES_BURST, LEASES_PER_WALL_TIME, QUEUE_EVENTS_MAX},
    },
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

/// How often the counters of bytes are written to the ledger.
const COUNTERS_EVERY: Duration = Duration::from_secs(5);
/// Deltas measured at once: each takes a core, and its blob's length in memory.
const MEASURING_MAX: usize = 2;
/// Points of a curve that a page is given.
const POINTS_MAX: usize = 500;
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
    /// What the run was before this start.
    pub history: History,
    /// Its bytes before this start.
    pub counters: Counters,
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
    /// Whether leases can be granted.
    pub health: Arc<Health>,
}

/// A delta that was measured, or could not be.
struct Measurement {
    to: ReplyTo,
    device: DeviceId,
    offer: Offer,
    result: Result<Measure, BlobError>,
}

struct Shell {
    parts: Parts,
    orders: mpsc::Sender<Order>,
    measurements: mpsc::Sender<Measurement>,
    measuring: Arc<Semaphore>,
    questions: mpsc::Receiver<Question>,
    stopping: watch::Receiver<Stop>,
    /// Set once it is to finish what is on its way.
    drain: Option<Drain>,
    /// Devices that wait for an answer.
    waiting: HashMap<ReplyTo, oneshot::Sender<answer::Body>>,
    last_reply: u64,
    /// How many a device may still be given.
    leases: Buckets<DeviceId>,
    /// What the person at the terminal was told last of what is waited for.
    told: Option<String>,
    /// The disk when it was last looked at.
    looked: Option<(Instant, DiskStatus)>,
    /// Said once the first version stands.
    ready: Option<String>,
    /// Whether it was said that devices know more than the ledger.
    said_unheard_of: bool,
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
    let (thread, orders, mut published) =
        publisher_thread::start(publisher, parts.troubles.clone(), parts.reserve.clone(), parts.metrics.clone());
    let leases = leases_of_device(&parts.spec);
    let (measurements, mut measured) = mpsc::channel(QUEUE_EVENTS_MAX);
    let mut shell = Shell {
        parts,
        orders,
        measurements,
        measuring: Arc::new(Semaphore::new(MEASURING_MAX)),
        questions,
        stopping,
        drain: None,
        waiting: HashMap::new(),
        last_reply: 0,
        leases,
        told: None,
        looked: None,
        ready: Some(ready),
        said_unheard_of: false,
    };
    let mut counters_due = interval(COUNTERS_EVERY);
    counters_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep_due = interval(SWEEP_EVERY);
    let mut see_due = interval(SEE_EVERY);
    see_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = async {
        shell.perform(first).await?;
        loop {
            shell.say_ready_once();
            shell.say_unheard_of_once();
            shell.parts.health.turned(Instant::now().into_std());
            if shell.is_drained() {
                return Ok(());
            }
            let deadline = shell.next_deadline();
            tokio::select! {
                _ = shell.stopping.changed() => if shell.told().await? {
                    return Ok(());
                },
                Some(question) = shell.questions.recv() => shell.question(question).await?,
                Some(measurement) = measured.recv() => shell.measured(measurement).await?,
                version = published.recv() => {
                    let version = version.ok_or(ShellError::PublisherGone)??;
                    shell.parts.knowledge.catalog.publish(&version);
                    shell.happened(Event::Published(version)).await?;
                }
                () = sleep_until(deadline) => shell.happened(Event::Tick).await?,
                _ = counters_due.tick() => shell.write_counters().await?,
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

    async fn happened(&mut self, event: Event) -> Result<(), ShellError> {
        let actions = self.parts.engine.handle(event, self.now(), wall_now());
        self.perform(actions).await
    }

    /// Performs actions in order; what follows a failed one does not happen.
    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), ShellError> {
        for action in actions {
            match action {
                Action::Commit(records) => {
                    self.commit(&records).await?;
                    records.iter().for_each(|record| self.tell(record));
                }
                Action::Reply { to, body } => self.reply(to, body),
                Action::MeasureDelta { to, device, offer } => self.measure(to, device, offer),
                Action::Merge(order) => self.order(Order::Merge(order)).await?,
                Action::Publish { version, keyframe, .. } => self.order(Order::Publish { version, keyframe }).await?,
            }
        }
        Ok(())
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
                self.waiting.insert(reply_to, answer);
                self.happened(Event::Asked { device, reply_to, body, invite }).await?;
                // One that waits for the next round says nothing of how fast this is.
                if asks_for_work && !self.waiting.contains_key(&reply_to) {
                    self.parts.metrics.answered(came.elapsed());
                }
                Ok(())
            }
            Question::MayUpload { device, lease, bytes, answer } => {
                let is_welcome = self.parts.engine.accepts_upload(device, lease, bytes);
                let gone =
                    || Refusal::lease_gone("The lease has ended, or what was offered is no delta of this model.");
                drop(answer.send(is_welcome.then_some(()).ok_or_else(gone)));
                Ok(())
            }
            Question::GiveUp { device, lease, generation } => {
                self.happened(Event::UploadsDamaged { device, lease, generation }).await
            }
            Question::Overview(answer) => {
                drop(answer.send(self.overview()));
                Ok(())
            }
            Question::BlobLost(hash) => self.happened(Event::BlobLost(hash)).await,
            Question::BlobFound(hash) => self.happened(Event::BlobFound(hash)).await,
            Question::Reload(spec, answer) => {
                drop(answer.send(self.reload(*spec).await?));
                Ok(())
            }
        }
    }

    fn next_reply(&mut self) -> ReplyTo {
        self.last_reply += 1;
        ReplyTo(self.last_reply)
    }

    fn reply(&mut self, to: ReplyTo, body: answer::Body) {
        if let Some(answer) = self.waiting.remove(&to) {
            drop(answer.send(body));
        }
    }

    async fn order(&self, order: Order) -> Result<(), ShellError> {
        self.orders.send(order).await.map_err(|_| ShellError::PublisherGone)
    }

    fn measure(&self, to: ReplyTo, device: DeviceId, offer: Offer) {
        let (blobs, spec) = (self.parts.blobs.clone(), self.parts.spec.clone());
        let delta = offer.trained.delta;
        // What a version was published as is nobody's delta, and is not read, nor removed, as one.
        let is_ours = self.parts.knowledge.catalog.get(delta.hash).is_some();
        self.parts.knowledge.uploads.offered(offer.lease, delta.hash);
        let (places, measurements) = (self.measuring.clone(), self.measurements.clone());
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            let measuring = tokio::task::spawn_blocking(move || {
                let result = match is_ours {
                    true => Ok(Measure::Done(Err("The offer names a blob of the coordinator's own.".into()))),
                    false => blobs.measure(&spec, delta),
                };
                Measurement { to, device, offer, result }
            });
            match measuring.await {
                // Fails only where the loop has ended.
                Ok(measurement) => drop(measurements.send(measurement).await),
                Err(panic) => tracing::error!(%panic, "measuring a delta failed"),
            }
        });
    }

    async fn measured(&mut self, measurement: Measurement) -> Result<(), ShellError> {
        let Measurement { to, device, offer, result } = measurement;
        match result {
            Ok(Measure::Done(measured)) => {
                self.happened(Event::DeltaMeasured { reply_to: to, device, offer, measured }).await?;
            }
            Ok(Measure::Missing { have }) => self.reply(to, answer::Body::Upload(UploadFrom { offset: have })),
            Err(error) => {
                tracing::error!(lease = offer.lease.0, device = device.short(), %error, "a delta could not be measured");
                let refusal = Refusal::retry(RefusalCode::Internal, "The coordinator could not read the delta.", RETRY);
                self.reply(to, answer::Body::Refusal(refusal));
            }
        }
        Ok(())
    }

    fn overview(&self) -> Overview {
        let (up, down) = self.parts.traffic.peek();
        Overview {
            status: self.parts.engine.status(),
            devices: self.parts.engine.devices().collect(),
            counters: Counters {
                bytes_up: self.parts.counters.bytes_up + up,
                bytes_down: self.parts.counters.bytes_down + down,
            },
            losses: thinned(&self.parts.history.losses, POINTS_MAX),
            versions: thinned(&self.parts.history.versions, POINTS_MAX),
            disk: self.parts.reserve.look(),
            trouble: self.parts.health.trouble(),
        }
    }

    /// Writes how much has travelled; where the ledger does not take it now, it is written next time.
    async fn write_counters(&mut self) -> Result<(), ShellError> {
        self.look();
        self.tell_troubles();
        let (up, down) = self.parts.traffic.take();
        if up + down == 0 || self.parts.reserve.is_full() {
            self.parts.traffic.put_back(up, down);
            return Ok(());
        }
        match self.parts.ledger.add_counters(Counters { bytes_up: up, bytes_down: down }).await {
            Ok(()) => {
                self.parts.counters.bytes_up += up;
                self.parts.counters.bytes_down += down;
                Ok(())
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "the counters are written later");
                self.parts.traffic.put_back(up, down);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Shows how the run stands to those who do not wait for this loop.
    fn see(&mut self) {
        let (run, disk) = (self.parts.engine.status(), self.look());
        self.parts.metrics.see(Seen { run, disk });
    }

    fn say_ready_once(&mut self) {
        if let Some(ready) = self.ready.take_if(|_| self.parts.engine.status().version.is_some()) {
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

    /// Tells people and the pages what is now in the ledger.
    fn tell(&mut self, record: &Record) {
        self.log(record);
        self.parts.history.add(record);
        if let Record::LeaseIssued(lease) = record {
            // It was asked for before; where it is one too many all the same, the next waits.
            let _ = self.leases.take(lease.device, 1.0, Instant::now().into_std());
        }
        if let Some(news) = News::of(record) {
            self.parts.knowledge.take(&news).into_iter().for_each(|rubbish| self.clear_away(rubbish));
            self.parts.doors.tell(&news);
        }
        match record {
            Record::Version(version) => {
                let status = self.parts.engine.status();
                let loss = self.parts.history.losses.last();
                let loss =
                    loss.map_or(String::new(), |l| format!("  loss {:.4} nats a byte (version {})", l.loss, l.version));
                let millions = status.tokens as f64 / 1e6;
                let line = format!(
                    "version {:<5} {:>6} deltas {millions:>9.3} M tokens{loss}",
                    version.version, status.merged
                );
                (self.parts.say)(&line);
                if status.finished {
                    (self.parts.say)(
                        "over      the token budget is used up: devices are told; `export` writes the model",
                    );
                }
            }
            Record::Device(_)
            | Record::LeaseIssued(_)
            | Record::LeaseClosed { .. }
            | Record::Delta(_)
            | Record::Evaluation(_) => {}
        }
    }
}
