//! A lease as it comes over the wire; and a whole session that hears whatever a coordinator and a worker may say.

use nightjar_agent::{
    journal::Journal,
    lease::Lease,
    session::{Action, Event, Fault, Permission, Profile, Session},
};
use nightjar_shared::{
    blob::BlobRef,
    delta,
    ids::{BlobHash, DeviceId, LeaseId, Version},
    lease::LeaseKind,
    run_spec::{DeltaSpec, RunSpec},
    time::Mono,
    wire::{self, coordinator_message as answer, frame, limits, worker},
    work_files,
};
use prost::Message;

/// A lease that is taken keeps what the session counts on, and survives the journal.
pub fn lease(bytes: &[u8]) {
    let Ok(message) = frame::decode::<wire::Lease>(bytes) else { return };
    for holds_weights in [false, true] {
        let Ok(lease) = Lease::from_wire(&message, holds_weights) else { continue };
        assert!(lease.samples > 0 && lease.samples <= lease.shard_samples - lease.first_sample, "{lease:?}");
        assert!(holds_weights || lease.keyframe.is_some(), "it starts from nothing");
        assert!(lease.blobs().all(|blob| blob.bytes <= limits::BLOB_BYTES_MAX), "{lease:?}");
        assert!(!lease.kind.trains() || lease.steps > 0, "{lease:?}");
        let kept = serde_json::to_vec(&lease).expect("plain data");
        assert_eq!(serde_json::from_slice::<Lease>(&kept).expect("what was written is read"), lease);
    }
}

/// What happens next, in a first byte; two bytes of length and so many bytes follow.
const COORDINATOR: u8 = 0;
const WORKER: u8 = 1;
const OWNER: u8 = 2;
const TIME: u8 = 3;
const CUT: u8 = 4;
const BLOBS: u8 = 5;
const KINDS: u8 = 6;

/// A coordinator's answers and a worker's words, one after the other, with what owner, line and clock do in between.
pub fn session(mut bytes: &[u8]) {
    let mut play = Play::new();
    play.happens(Event::Permission(Permission::Allowed));
    while let Some(([kind, low, high], rest)) = bytes.split_first_chunk() {
        let (said, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
        bytes = rest;
        play.goes_on(kind % KINDS, said);
        if play.is_over {
            return;
        }
    }
}

/// A session, and what it waits for.
struct Play {
    session: Session,
    now: Mono,
    asked: Option<u64>,
    works: bool,
    /// Whether what is fetched or sent arrives.
    arrives: bool,
    is_over: bool,
}

impl Play {
    fn new() -> Self {
        let profile = Profile {
            device: DeviceId([7; 32]),
            token: vec![1; 80],
            role: wire::Role::Anchor,
            kinds: LeaseKind::ALL.to_vec(),
            name: "den".into(),
            hardware: "flex, 1 threads".into(),
            memory_bytes: 1 << 40,
            checkpoint_ms: 1000,
            checkpoint_bytes_day_max: Some(1 << 30),
            public_name: None,
        };
        let session = Session::new(profile, Journal::default());
        Play { session, now: Mono { ms: 1000 }, asked: None, works: false, arrives: true, is_over: false }
    }

    fn goes_on(&mut self, kind: u8, said: &[u8]) {
        let choice = said.first().copied().unwrap_or(0);
        match kind {
            COORDINATOR => {
                let Some(body) = frame::decode::<wire::CoordinatorMessage>(said).ok().and_then(|m| m.body) else {
                    return;
                };
                let Some(request) = self.asked.take() else { return };
                self.happens(Event::Answered { request, body });
            }
            WORKER if self.works => {
                let Some(body) = frame::decode::<worker::FromWorker>(said).ok().and_then(|m| m.body) else { return };
                self.happens(Event::Worker(body));
            }
            OWNER => self.happens(match choice % 8 {
                0 => Event::Permission(Permission::Allowed),
                1 => Event::Permission(Permission::Held("no".into())),
                free => Event::Permission(Permission::Yield { reason: "now".into(), free_memory: free == 2 }),
            }),
            TIME => {
                self.now = self.session.next_deadline().unwrap_or(self.now).max(self.now);
                self.happens(Event::Tick);
            }
            CUT if self.works && choice == 1 => {
                self.works = false;
                self.happens(Event::WorkerExited { why: "gone".into() });
            }
            CUT => {
                self.asked = None;
                self.happens(Event::Disconnected { why: "cut".into() });
            }
            BLOBS => self.arrives = choice != 1,
            _ => {}
        }
    }

    /// Something happens, and what the session wants done is done at once, with whatever comes of it.
    fn happens(&mut self, event: Event) {
        let mut events = vec![event];
        // Each answer may lead to another; a session that never came to rest would be caught by the fuzzer's clock.
        while let Some(event) = events.pop() {
            for action in self.session.handle(event, self.now) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        let broken = || Fault::Broken("cut".into());
        match action {
            Action::Connect => return Some(Event::Connected),
            Action::Disconnect => self.asked = None,
            Action::Ask { request, .. } => {
                assert_eq!(self.asked.replace(request), None, "one question at a time");
            }
            Action::Fetch(blob) => {
                assert!(blob.bytes <= limits::BLOB_BYTES_MAX, "{blob:?}");
                let hash = blob.hash;
                return Some(match self.arrives {
                    true => Event::Fetched { hash },
                    false => Event::FetchFailed { hash, fault: broken() },
                });
            }
            Action::Upload { file, .. } => {
                assert!(work_files::is_inside(&file), "{file}");
                return Some(if self.arrives { Event::Uploaded } else { Event::UploadFailed(broken()) });
            }
            Action::Work(job) => {
                self.works = true;
                let base = match &job {
                    worker::to_worker::Body::Train(train) => train.base.as_ref(),
                    worker::to_worker::Body::Evaluate(evaluate) => evaluate.base.as_ref(),
                    _ => None,
                };
                let from = base.map(|base| base.weights_file.clone()).filter(|file| !file.is_empty());
                assert!(from.is_none_or(|file| work_files::is_inside(&file)), "{job:?}");
            }
            Action::EndWorker => self.works = false,
            Action::WriteJournal(journal) => {
                let kept = serde_json::to_vec(&*journal).expect("plain data");
                let mut again: Journal = serde_json::from_slice(&kept).expect("what was written is read");
                // A loss is for people: as JSON it may be off in its last bit.
                if let (Some(read), Some(written)) = (&mut again.delta, &journal.delta) {
                    read.trained.loss_first = as_written(read.trained.loss_first, written.trained.loss_first);
                    read.trained.loss_last = as_written(read.trained.loss_last, written.trained.loss_last);
                }
                assert_eq!(again, *journal);
            }
            Action::Pin(keys) => assert!(!keys.is_empty()),
            Action::Exit(_) | Action::Forget => self.is_over = true,
            Action::StopWork | Action::Tidy { .. } | Action::Report(_) => {}
        }
        None
    }
}

fn as_written(read: f64, written: f64) -> f64 {
    assert!((read - written).abs() <= 2.0 * f64::EPSILON * written.abs(), "{read} is not {written}");
    written
}

fn a_lease(kind: LeaseKind) -> wire::Lease {
    wire::Lease {
        id: 5,
        generation: 1_700_000_000,
        kind: kind.to_wire(),
        base_version: 3,
        base_digest: vec![9; 32],
        keyframe: Some(BlobRef::of(b"keyframe").to_wire()),
        updates: vec![wire::UpdateStep { update: Some(BlobRef::of(b"update").to_wire()), redefines: true }],
        shard: Some(BlobRef::of(b"shard").to_wire()),
        shard_samples: 100,
        first_sample: 20,
        samples: 40,
        steps: 10,
        ahead_steps: 5,
        remaining_ms: 60_000,
        codec: 1,
        ..wire::Lease::default()
    }
}

pub fn leases() -> Vec<Vec<u8>> {
    let held = wire::Lease { keyframe: None, ahead_of: 4, ..a_lease(LeaseKind::Train) };
    [a_lease(LeaseKind::Train), a_lease(LeaseKind::Evaluate), held].iter().map(Message::encode_to_vec).collect()
}

fn step(kind: u8, said: &[u8]) -> Vec<u8> {
    [&[kind], &(said.len() as u16).to_le_bytes()[..], said].concat()
}

fn answered(body: answer::Body) -> Vec<u8> {
    step(COORDINATOR, &wire::CoordinatorMessage { request: 1, body: Some(body) }.encode_to_vec())
}

fn said(body: worker::from_worker::Body) -> Vec<u8> {
    step(WORKER, &worker::FromWorker { body: Some(body) }.encode_to_vec())
}

pub fn sessions() -> Vec<Vec<u8>> {
    use worker::from_worker::Body;
    let spec_json = r#"{"name":"night","token_budget":1000}"#;
    let spec: RunSpec = serde_json::from_str(spec_json).expect("a run spec");
    let welcome = answered(answer::Body::Welcome(wire::Welcome {
        run_id: vec![1; 32],
        generation: 1_700_000_000,
        run_spec_json: spec_json.into(),
        codec: 1,
        keep_alive_ms: 20_000,
        public_keys: vec![vec![7; 32], vec![8; 32]],
    }));
    let done = answered(answer::Body::Done(wire::Done { version: 4, merged: true, note: String::new() }));
    let granted = |kind| answered(answer::Body::Lease(a_lease(kind)));
    let delta = DeltaSpec { codec: delta::CodecId::Blocks8, ..spec.delta.clone() };
    let lease = LeaseId(5);
    let trained = worker::Trained {
        lease_id: lease.0,
        delta_file: work_files::delta(lease),
        delta_hash: BlobHash::of(b"delta").0.to_vec(),
        delta_bytes: *delta::bytes_allowed(&spec.model, &delta).end(),
        residual_file: work_files::residual(lease),
        optimizer_file: work_files::optimizer(lease),
        weights_file: work_files::weights(Version(3)),
        steps: 10,
        samples: 40,
        train_ms: 0,
        loss_first: 5.5,
        loss_last: 5.0,
        ..worker::Trained::default()
    };
    let evaluated = worker::Evaluated { lease_id: lease.0, nats: 4.5, tokens: 40 * 127, weights_file: String::new() };
    let upload = answered(answer::Body::Upload(wire::UploadFrom { offset: 3 }));
    let busy = answered(answer::Body::Refusal(wire::Refusal::lease_gone("The lease has ended.")));
    let train = [granted(LeaseKind::Train), said(Body::Trained(trained))].concat();
    let measure = [granted(LeaseKind::Evaluate), said(Body::Evaluated(evaluated))].concat();
    vec![
        // It renews its lease after the welcome only where it has one: here it is asked for at once.
        [welcome.clone(), train.clone(), done.clone(), granted(LeaseKind::Train), step(TIME, &[])].concat(),
        [welcome.clone(), measure, done.clone()].concat(),
        [welcome.clone(), train.clone(), upload, step(CUT, &[]), step(TIME, &[]), welcome.clone(), done].concat(),
        [welcome, step(BLOBS, &[1]), train, step(OWNER, &[1]), step(TIME, &[]), busy].concat(),
    ]
}
