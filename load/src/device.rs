//! One device: the session that ships, on a real connection. Its journal is in memory, what it fetches it shares with
//! the others of its process, and its training takes as long as it is told to and gives a made-up delta.

use crate::orders::Report;
use nightjar_agent::{
    link::{Control, Dialer, Link, LinkError},
    membership::Membership,
    transfer::{self, TransferError},
};
use nightjar_session::{
    journal::Journal,
    session::{Action, Event, Fault, Permission, Profile, Report as Told, Session},
};
use nightjar_shared::{
    blob::BlobRef,
    delta,
    disk::FolderDisk,
    ids::{BlobHash, DeviceId, LeaseId, Version},
    lease::LeaseKind,
    rng,
    run_spec::RunSpec,
    time::Mono,
    wire::{
        BlobHead, BlobPut, BlobStored, DeviceMessage, coordinator_message, device_message, frame,
        limits::MESSAGE_BYTES_MAX,
        stream_open::Kind,
        worker::{Train, Trained, from_worker, to_worker},
    },
    work_files,
};
use prost::Message;
use quinn::{Endpoint, RecvStream};
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OnceCell, mpsc, watch},
    time::{Instant, sleep_until},
};

/// Blobs that a device of this process has fetched.
pub struct Blobs {
    disk: FolderDisk,
    known: Mutex<HashMap<BlobHash, Arc<OnceCell<()>>>>,
}

impl Blobs {
    /// In a folder.
    pub fn new(disk: FolderDisk) -> Self {
        Blobs { disk, known: Mutex::default() }
    }

    async fn fetch(&self, link: &Link, blob: BlobRef) -> Result<(), TransferError> {
        let cell = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(blob.hash).or_default().clone();
        cell.get_or_try_init(|| transfer::get(link, &self.disk, blob)).await.map(drop)
    }
}

/// What all devices of a process share.
pub struct Shared {
    blobs: Blobs,
    /// Devices below this number deliver what they lease.
    pub at_work: watch::Sender<usize>,
    /// How long they are at a lease, in microseconds.
    pub think_us: AtomicU64,
    figures: Mutex<Report>,
    /// When time began.
    origin: Instant,
}

impl Shared {
    /// At this moment.
    pub fn new(blobs: Blobs) -> Self {
        Shared {
            blobs,
            at_work: watch::Sender::new(0),
            think_us: AtomicU64::new(0),
            figures: Mutex::default(),
            origin: Instant::now(),
        }
    }

    fn note(&self, what: impl FnOnce(&mut Report)) {
        what(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Devices that have had a lease.
    pub fn connected(&self) -> usize {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).connected
    }

    /// What happened since the last report.
    pub fn report(&self) -> Report {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = figures.connected;
        std::mem::replace(&mut *figures, Report { connected, ..Report::default() })
    }

    fn now(&self) -> Mono {
        Mono::from_origin(self.origin.elapsed())
    }
}

/// The way to the coordinator.
pub struct Way {
    /// Shows the device's key.
    pub dialer: Dialer,
    /// From where.
    pub endpoint: Endpoint,
    /// To where.
    pub to: SocketAddr,
}

/// What a device says of itself.
pub fn profile(device: DeviceId, member: &Membership) -> Profile {
    Profile {
        device,
        token: member.token.clone(),
        role: member.role(),
        kinds: vec![LeaseKind::Train],
        name: member.name.clone(),
        hardware: "none".into(),
        memory_bytes: 0,
        checkpoint_ms: 60_000,
        checkpoint_bytes_day_max: None,
        public_name: None,
    }
}

/// A session and what it has under way.
struct Device {
    number: usize,
    session: Session,
    shared: Arc<Shared>,
    way: Arc<Way>,
    /// Of the connection at hand: what comes of an earlier one is dropped.
    serial: u64,
    link: Option<Link>,
    requests: Option<mpsc::Sender<DeviceMessage>>,
    events: mpsc::Sender<(u64, Event)>,
    made: mpsc::Sender<(u64, Link, mpsc::Sender<DeviceMessage>)>,
    /// The lease that its worker has.
    job: Option<Train>,
    is_counted: bool,
}

/// Runs for ever.
pub async fn run(number: usize, profile: Profile, way: Way, shared: Arc<Shared>) {
    let (events, mut happened) = mpsc::channel(8);
    let (made, mut links) = mpsc::channel(1);
    let mut at_work = shared.at_work.subscribe();
    let mut device = Device {
        number,
        session: Session::new(profile, Journal::default()),
        shared,
        way: Arc::new(way),
        serial: 0,
        link: None,
        requests: None,
        events,
        made,
        job: None,
        is_counted: false,
    };
    let mut queue = VecDeque::from([Event::Network(true), Event::Permission(Permission::Allowed)]);
    let mut done_at: Option<Instant> = None;
    loop {
        while let Some(event) = queue.pop_front() {
            for action in device.session.handle(event, device.shared.now()) {
                device.perform(action);
            }
        }
        let works = number < *at_work.borrow_and_update();
        if device.job.is_none() || !works {
            done_at = None;
        } else if done_at.is_none() {
            let think = Duration::from_micros(device.shared.think_us.load(Ordering::Relaxed));
            // Some sooner and some later, or all would come at once for ever.
            let share = rng::unit(number as u64, 1, device.shared.now().ms);
            done_at = Some(Instant::now() + think.mul_f64(0.5 + share));
        }
        let never = Instant::now() + Duration::from_secs(24 * 3600);
        let tick = device.session.next_deadline().map(|at| device.shared.origin + Duration::from_millis(at.ms + 1));
        tokio::select! {
            Some((serial, event)) = happened.recv() => {
                if serial == device.serial {
                    if matches!(event, Event::Disconnected { .. }) {
                        device.hang_up();
                        device.shared.note(|figures| figures.broken += 1);
                    }
                    queue.push_back(event);
                }
            }
            Some((serial, link, requests)) = links.recv() => {
                if serial == device.serial {
                    (device.link, device.requests) = (Some(link), Some(requests));
                    queue.push_back(Event::Connected);
                }
            }
            () = sleep_until(done_at.unwrap_or(never)), if done_at.is_some() => queue.extend(device.trained()),
            () = sleep_until(tick.unwrap_or(never)) => queue.push_back(Event::Tick),
            Ok(()) = at_work.changed() => {}
        }
    }
}

impl Device {
    fn perform(&mut self, action: Action) {
        match action {
            // It is told the same keys at every hello.
            Action::Pin(_) => {}
            Action::Connect => self.connect(),
            Action::Disconnect => self.hang_up(),
            Action::Ask { request, body } => {
                if let Some(requests) = &self.requests {
                    // Without room the connection is stuck, and its end will be heard of.
                    let _ = requests.try_send(DeviceMessage { request, body: Some(body) });
                }
            }
            Action::Fetch(blob) => {
                let shared = self.shared.clone();
                self.travel(async move |link| match shared.blobs.fetch(&link, blob).await {
                    Ok(()) => Event::Fetched { hash: blob.hash },
                    Err(error) => Event::FetchFailed { hash: blob.hash, fault: error.fault() },
                });
            }
            Action::Upload { lease, blob, .. } => {
                let bytes = self.session.spec().map(|spec| delta(spec, self.number, lease)).unwrap_or_default();
                self.travel(async move |link| match put(&link, lease, blob, &bytes).await {
                    Ok(()) => Event::Uploaded,
                    Err(fault) => Event::UploadFailed(fault),
                });
            }
            Action::Work(to_worker::Body::Train(train)) => {
                self.job = Some(train);
                if !std::mem::replace(&mut self.is_counted, true) {
                    self.shared.note(|figures| figures.connected += 1);
                }
            }
            Action::StopWork | Action::EndWorker => self.job = None,
            Action::Report(Told::Delivered { merged: Ok(()), .. }) => self.shared.note(|figures| figures.merged += 1),
            Action::Report(
                Told::Delivered { merged: Err(why), .. } | Told::Dropped { why, .. } | Told::Trouble(why),
            ) => self.shared.note(|figures| {
                figures.refused += 1;
                figures.why = why;
            }),
            Action::Work(_) | Action::WriteJournal(_) | Action::Tidy { .. } | Action::Forget => {}
            Action::Report(_) | Action::Exit(_) => {}
        }
    }

    fn connect(&mut self) {
        self.serial += 1;
        let (serial, way, shared) = (self.serial, self.way.clone(), self.shared.clone());
        let (events, made) = (self.events.clone(), self.made.clone());
        tokio::spawn(async move {
            let connected = async {
                let link = way.dialer.connect_from(&way.endpoint, way.to).await?;
                let control = link.control().await?;
                Ok::<_, LinkError>((link, control))
            };
            match connected.await {
                Ok((link, control)) => {
                    let (requests, waiting) = mpsc::channel(4);
                    // Both fail only where the device has ended.
                    let _ = made.send((serial, link.clone(), requests)).await;
                    let why = converse(link, control, waiting, serial, &events, &shared).await;
                    let _ = events.send((serial, Event::Disconnected { why })).await;
                }
                Err(error) => drop(events.send((serial, Event::Disconnected { why: error.to_string() })).await),
            }
        });
    }

    fn hang_up(&mut self) {
        self.serial += 1;
        (self.link, self.requests) = (None, None);
    }

    /// Has a blob travel, and hears what came of it.
    fn travel<F: Future<Output = Event> + Send>(&self, travel: impl FnOnce(Link) -> F + Send + 'static) {
        let (Some(link), serial, events) = (self.link.clone(), self.serial, self.events.clone()) else { return };
        tokio::spawn(async move {
            let event = travel(link).await;
            let _ = events.send((serial, event)).await;
        });
    }

    /// The worker is done with its lease.
    fn trained(&mut self) -> Option<Event> {
        let (train, spec) = (self.job.take()?, self.session.spec()?);
        let lease = LeaseId(train.lease_id);
        let bytes = delta(spec, self.number, lease);
        let base = train.base.as_ref().map_or(0, |base| base.version);
        Some(Event::Worker(from_worker::Body::Trained(Trained {
            lease_id: lease.0,
            delta_file: work_files::delta(lease),
            delta_hash: BlobHash::of(&bytes).0.to_vec(),
            delta_bytes: bytes.len() as u64,
            weights_file: work_files::weights(Version(base)),
            steps: train.steps,
            samples: train.steps * spec.inner.batch_samples,
            train_ms: 1,
            loss_first: 2.7,
            loss_last: 2.6,
            ..Trained::default()
        })))
    }
}

/// Asks, one request after the other, until the connection ends; says why it did.
async fn converse(
    link: Link,
    mut control: Control,
    mut waiting: mpsc::Receiver<DeviceMessage>,
    serial: u64,
    events: &mpsc::Sender<(u64, Event)>,
    shared: &Shared,
) -> String {
    loop {
        let message = tokio::select! {
            message = waiting.recv() => message,
            why = link.closed() => return why,
        };
        let Some(message) = message else { return "hung up".into() };
        let begun = Instant::now();
        let answer = match control.ask(&message).await {
            Ok(answer) => answer,
            Err(error) => return error.to_string(),
        };
        if matches!(message.body, Some(device_message::Body::LeaseRequest(_))) {
            let took_us = begun.elapsed().as_micros() as u32;
            shared.note(|figures| {
                figures.requests_us.push(took_us);
                figures.granted += u64::from(matches!(answer.body, Some(coordinator_message::Body::Lease(_))));
            });
        }
        if let Some(coordinator_message::Body::Refusal(refusal)) = &answer.body {
            shared.note(|figures| {
                figures.refused += 1;
                figures.why.clone_from(&refusal.sentence);
            });
        }
        if let Some(body) = answer.body {
            let _ = events.send((serial, Event::Answered { request: answer.request, body })).await;
        }
    }
}

/// A made-up delta, another for each device and lease.
fn delta(spec: &RunSpec, number: usize, lease: LeaseId) -> Vec<u8> {
    let n = spec.model.parameters();
    let gradient: Vec<f32> = (0..n as u64).map(|i| rng::normal(lease.0, number as u64, i) as f32 * 1e-4).collect();
    delta::encode(&spec.model, &spec.delta, &gradient, &mut vec![0.0; n])
}

/// Uploads a delta, from where the coordinator's copy ends.
async fn put(link: &Link, lease: LeaseId, blob: BlobRef, bytes: &[u8]) -> Result<(), Fault> {
    let broken = |error: &dyn std::fmt::Display| Fault::Broken(error.to_string());
    let put = BlobPut { blob: Some(blob.to_wire()), lease_id: lease.0 };
    let (mut send, mut receive) = link.open(Kind::Put(put)).await.map_err(|e| broken(&e))?;
    let head: BlobHead = message(&mut receive).await?;
    if let Some(refusal) = head.refusal {
        return Err(Fault::Refused(refusal));
    }
    send.write_all(bytes.get(head.offset as usize..).unwrap_or_default()).await.map_err(|e| broken(&e))?;
    // Fails only where the coordinator has heard enough; its answer tells why.
    let _ = send.finish();
    let stored: BlobStored = message(&mut receive).await?;
    stored.refusal.map_or(Ok(()), |refusal| Err(Fault::Refused(refusal)))
}

async fn message<M: Message + Default>(from: &mut RecvStream) -> Result<M, Fault> {
    let broken = |error: &dyn std::fmt::Display| Fault::Broken(error.to_string());
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.map_err(|e| broken(&e))?;
    let mut body = vec![0; frame::length(prefix, MESSAGE_BYTES_MAX).map_err(|e| broken(&e))?];
    from.read_exact(&mut body).await.map_err(|e| broken(&e))?;
    frame::decode(&body).map_err(|e| broken(&e))
}
