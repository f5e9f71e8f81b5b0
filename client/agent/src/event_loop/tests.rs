//! The loop's parts with a worker that is not there: what is done to it, and what of that counts as its fault.

mod holds;
mod joining;

use super::*;
use crate::{
    control::{self, Command, Deed, State},
    journal::Run,
    lease::Lease,
    policy::{Limits, Observation, ProfileName, Reading, ReasonKind},
    worker::{Crash, Order, Worker},
};
use nightjar_shared::{
    disk::Disk,
    ids::{BlobHash, RunId},
    invite,
    model_spec::ModelSpec,
    wire::{
        self,
        worker::{Failed, Progress, Ready, Trained, from_worker, to_worker},
    },
};
use std::sync::Mutex;

/// What the sensors say, for the test to change.
#[derive(Clone, Default)]
struct FakeSensors(Arc<Mutex<bool>>);

impl Sense for FakeSensors {
    fn observe(&mut self) -> Observation {
        Observation { sleeping: *self.0.lock().unwrap(), ..Observation::unknown("there are no sensors") }
    }
}

/// What was done to the worker.
type Done = Arc<Mutex<Vec<&'static str>>>;

struct FakeWorker(Done);

impl Worker for FakeWorker {
    fn send(&mut self, _: to_worker::Body) -> bool {
        true
    }

    fn freeze(&mut self) {
        self.0.lock().unwrap().push("frozen");
    }

    fn thaw(&mut self) {
        self.0.lock().unwrap().push("thawed");
    }

    fn allow(&mut self, _: &Limits) -> bool {
        true
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("ended");
    }
}

struct FakeLauncher(Done);

impl Launcher for FakeLauncher {
    fn start(&mut self, _: &Order, _: mpsc::Sender<WorkerEvent>) -> io::Result<Box<dyn Worker>> {
        Ok(Box::new(FakeWorker(self.0.clone())))
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    agent: Agent,
    sensors: FakeSensors,
    done: Done,
    events: mpsc::Receiver<Event>,
}

/// A crash in these words.
fn crash(words: &str) -> Crash {
    Crash::Device(words.into())
}

/// An invite that ends then; 0: never. At its address nobody listens.
fn invite_until(expires_unix_ms: u64) -> String {
    let coordinator = Identity::generate().unwrap();
    let invite = wire::Invite {
        addresses: vec!["127.0.0.1:9".into()],
        public_keys: vec![coordinator.public_key().to_vec()],
        expires_unix_ms,
        ..Default::default()
    };
    invite::to_link(&invite::seal(&invite, |message| coordinator.sign(message)))
}

impl Fixture {
    /// An agent that may train, with a worker on a GPU or on the processor.
    fn new(gpu: bool) -> Self {
        let mut fixture = Fixture::of(Membership::from_link(&invite_until(0), "den", 0));
        let agent = &mut fixture.agent;
        agent.work(to_worker::Body::Stop(wire::worker::Stop {}));
        agent.worker_event(WorkerEvent::Says(from_worker::Body::Ready(Ready {
            gpu,
            device: "A".into(),
            ..Ready::default()
        })));
        agent.waiting.clear();
        fixture
    }

    /// The same, and the worker is at work on lease 7, which takes 10 steps.
    fn at_work(gpu: bool) -> Self {
        let hash = BlobHash::of(b"blob");
        let spec = serde_json::json!({ "name": "x", "token_budget": 9, "model": ModelSpec::tiny() });
        let lease = wire::Lease {
            id: 7,
            kind: LeaseKind::Train.to_wire(),
            base_digest: hash.0.to_vec(),
            keyframe: Some(wire::Blob::new(hash, 4)),
            shard: Some(wire::Blob::new(hash, 4)),
            shard_samples: 40,
            samples: 40,
            steps: 10,
            codec: 1,
            ..Default::default()
        };
        let lease = Lease::from_wire(&lease, false).unwrap();
        let run = Run { id: RunId([1; 32]), spec_json: spec.to_string(), keep_alive_ms: 20_000 };
        let mut fixture = Fixture::new(gpu);
        fixture.agent.home.disk().write(&lease.keyframe.unwrap().file(), b"blob").unwrap();
        let journal = Journal { run: Some(run), lease: Some(lease), ..Journal::default() };
        journal.store(&*fixture.agent.home.disk()).unwrap();
        let membership = Membership::from_link(&invite_until(0), "den", 0).unwrap();
        fixture.agent.take_up(Member::of(membership, &fixture.agent.device.identity).unwrap()).unwrap();
        fixture.agent.look(clock::mono_now());
        fixture.agent.settle();
        assert!(fixture.agent.session.is_at_work());
        fixture
    }

    /// An agent that may train, and has not joined a run.
    fn in_no_run() -> Self {
        Fixture::of(Err(MembershipError::None))
    }

    fn of(membership: Result<Membership, MembershipError>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().into())).unwrap();
        let mut preferences = PreferencesFile::load(&home.config_path("prefs.toml"), &home.path("good"), &[]).unwrap();
        preferences.set("policy", "always").unwrap();
        let (sensors, done) = (FakeSensors::default(), Done::default());
        let (seen, launcher) = (sensors.clone(), FakeLauncher(done.clone()));
        let setup = Setup {
            identity: Identity::load_or_create(&home).unwrap(),
            membership,
            preferences,
            kinds: vec![LeaseKind::Train],
            start_sensors: Box::new(move |_, _| Box::new(seen)),
            launcher: Box::new(launcher),
            say: Box::new(|_| {}),
            tray: false,
            leave: false,
            stays: false,
            home,
        };
        let (queue, events) = mpsc::channel(16);
        let mut agent = Agent::new(setup, queue, mpsc::channel(1).0, &Arc::new(Notify::new())).unwrap();
        agent.look(clock::mono_now());
        Fixture { folder, agent, sensors, done, events }
    }

    fn sleeps(&mut self, sleeping: bool) {
        *self.sensors.0.lock().unwrap() = sleeping;
        self.agent.look(clock::mono_now());
    }

    /// Whether the session was told that another worker goes on from the checkpoint.
    fn is_replaced(&self) -> bool {
        self.agent.waiting.iter().any(|event| matches!(event, session::Event::WorkerReplaced))
    }

    fn done(&self) -> Vec<&'static str> {
        self.done.lock().unwrap().clone()
    }
}

/// Drivers lose devices when the computer wakes up, and what dies of that would count as a crash.
#[tokio::test]
async fn over_sleep_a_worker_on_a_gpu_is_ended_and_one_on_the_processor_frozen() {
    let mut fixture = Fixture::new(true);
    fixture.sleeps(true);
    assert_eq!(fixture.done(), ["ended"]);
    assert!(fixture.is_replaced());

    let mut fixture = Fixture::new(false);
    fixture.sleeps(true);
    fixture.sleeps(false);
    assert_eq!(fixture.done(), ["frozen", "thawed"]);
}

#[tokio::test]
async fn what_ends_while_it_is_frozen_is_no_crash() {
    let mut fixture = Fixture::new(false);
    fixture.agent.freeze();
    fixture.agent.worker_event(WorkerEvent::Exited(crash("this system cannot freeze")));
    assert_eq!((fixture.agent.worker.crashes.since_start(), fixture.done()), (0, vec!["frozen", "ended"]));
    assert!(fixture.is_replaced());

    let mut fixture = Fixture::new(false);
    fixture.agent.worker_event(WorkerEvent::Exited(crash("device lost")));
    assert_eq!(fixture.agent.worker.crashes.since_start(), 1);
}

/// A service manager ends the agent, and may end its worker with it.
#[tokio::test]
async fn what_ends_with_its_agent_is_no_crash() {
    let mut fixture = Fixture::new(false);
    fixture.agent.session.handle(session::Event::Shutdown, clock::mono_now());
    fixture.agent.worker_event(WorkerEvent::Exited(crash("signal 15")));
    assert_eq!(fixture.agent.worker.crashes.since_start(), 0);
}

/// Whatever ends its run, the agent of a volunteer can say so, and be given another invite.
#[tokio::test]
async fn out_of_its_run_it_holds_and_takes_another_invite() {
    for (ending, words) in [
        (Ending::Refused("too old".into()), "refused this device: too old"),
        (Ending::RunOver("Thank you.".into()), "the run is over: Thank you."),
        (Ending::Left, "not joined"),
    ] {
        let mut fixture = Fixture::new(false);
        fixture.agent.stay_without_run(&ending).await;
        assert_eq!(fixture.done().last(), Some(&"ended"));
        let why = fixture.agent.why();
        assert!(why.kind == Some(ReasonKind::NotJoined) && why.reason.contains(words), "{why:?}");
        let (reply, answer) = oneshot::channel();
        fixture.agent.answer(Asked::Join { invite: invite_until(0), name: None, reply });
        let join_answered = fixture.events.recv().await.unwrap();
        fixture.agent.take(join_answered);
        answer.await.unwrap().unwrap();
        assert!(fixture.agent.why().allowed, "{:?}", fixture.agent.why());
    }
}

/// Between two leases a start anew costs a moment; submits that are too long are felt by the GPU's owner all the time.
#[tokio::test]
async fn a_worker_that_gives_its_gpu_too_much_at_once_begins_anew_after_its_lease() {
    let trained = |begin_anew| {
        WorkerEvent::Says(from_worker::Body::Trained(Trained { lease_id: 7, begin_anew, ..Trained::default() }))
    };
    let mut fixture = Fixture::at_work(true);
    fixture.agent.worker_event(trained(false));
    assert!(fixture.agent.worker.running.is_some());
    let mut fixture = Fixture::at_work(true);
    fixture.agent.worker_event(trained(true));
    assert_eq!((fixture.done().last(), fixture.agent.worker.running.is_some()), (Some(&"ended"), false));
    let told: Vec<bool> =
        fixture.agent.waiting.iter().map(|event| matches!(event, session::Event::WorkerReplaced)).collect();
    assert_eq!(told, [false, true], "what it trained is taken first");
    assert_eq!(fixture.agent.worker.crashes.since_start(), 0);
}

/// What a worker says that cannot be is not counted, not shown and not believed: it ends the worker, as a crash does.
#[tokio::test]
async fn a_worker_that_says_what_cannot_be_is_ended() {
    let progress =
        |tokens| from_worker::Body::Progress(Progress { lease_id: 7, tokens, loss: 4.0, ..Progress::default() });
    let trained = |lease_id| from_worker::Body::Trained(Trained { lease_id, ..Trained::default() });
    for said in [progress(u64::MAX), trained(8), from_worker::Body::Ready(Ready::default())] {
        let mut fixture = Fixture::at_work(false);
        fixture.agent.worker_event(WorkerEvent::Says(said.clone()));
        assert_eq!(
            (fixture.done().last(), fixture.agent.worker.crashes.since_start()),
            (Some(&"ended"), 1),
            "{said:?}"
        );
        fixture.agent.settle();
        let (what, _) = fixture.agent.session.obstacle().expect("it waits before it tries again");
        assert!(what.contains("what cannot be"), "{what}");
    }
    let mut fixture = Fixture::at_work(false);
    fixture.agent.worker_event(WorkerEvent::Says(progress(9)));
    assert_eq!(fixture.agent.worker.crashes.since_start(), 0);
    // Before it is ready it has nothing to report.
    fixture.agent.worker.running.as_mut().unwrap().forget_ready();
    fixture.agent.worker_event(WorkerEvent::Says(progress(9)));
    assert_eq!(fixture.agent.worker.crashes.since_start(), 1);
}

#[tokio::test]
async fn what_a_worker_calls_itself_is_tamed() {
    let mut fixture = Fixture::of(Membership::from_link(&invite_until(0), "den", 0));
    fixture.agent.work(to_worker::Body::Stop(wire::worker::Stop {}));
    let long = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let ready = Ready { device: long.clone(), sandbox: vec![long; 1000], gpu: false };
    fixture.agent.worker_event(WorkerEvent::Says(from_worker::Body::Ready(ready)));
    let status = fixture.agent.status();
    let texts: Vec<String> = status.worker.device.into_iter().chain(status.sandbox).collect();
    assert!(texts.len() <= 17 && texts.iter().all(|text| text.len() <= 256 && !text.contains('\u{1b}')), "{texts:?}");
}

/// It is ended, and its owner's disk is given back to them, but for what earlier leases left.
#[tokio::test]
async fn a_worker_that_fills_the_disk_is_ended() {
    let mut fixture = Fixture::at_work(false);
    fixture.agent.home.disk().write("work/checkpoint.0", b"saved").unwrap();
    let grown = fixture.folder.path().join("work/deep/down/film");
    std::fs::create_dir_all(grown.parent().unwrap()).unwrap();
    std::fs::File::create(&grown).unwrap().set_len(1 << 40).unwrap();
    let now = clock::mono_now();
    fixture.agent.worker_due(now);
    assert!(fixture.agent.worker.running.is_some(), "it was looked at a moment ago");
    fixture.agent.worker_due(now + Duration::from_secs(60));
    assert_eq!((fixture.done().last(), fixture.agent.worker.crashes.since_start()), (Some(&"ended"), 1));
    assert!(!fixture.folder.path().join("work/deep").exists());
}

/// It may have hung up for good without a word: what says nothing for hours holds the owner's memory for nothing.
#[tokio::test]
async fn a_worker_that_falls_silent_is_ended() {
    let mut fixture = Fixture::at_work(false);
    let hours = |hours: u64| clock::mono_now() + Duration::from_secs(hours * 3600);
    fixture.agent.worker_due(hours(5));
    assert!(fixture.agent.worker.running.is_some());
    fixture.agent.worker_due(hours(7));
    assert_eq!((fixture.done().last(), fixture.agent.worker.crashes.since_start()), (Some(&"ended"), 1));
    // What is frozen has no voice.
    let mut fixture = Fixture::at_work(false);
    fixture.agent.freeze();
    fixture.agent.worker_due(hours(7));
    assert!(fixture.agent.worker.running.is_some());
}

/// A worker with nothing to do that says again and again that its device has failed writes no file for each time.
#[tokio::test]
async fn a_device_that_fails_beside_a_lease_ends_the_worker() {
    let mut fixture = Fixture::new(false);
    let failed = Failed { sentence: "out of memory".into(), device_failed: true, ..Failed::default() };
    for _ in 0..3 {
        fixture.agent.worker_event(WorkerEvent::Says(from_worker::Body::Failed(failed.clone())));
    }
    assert_eq!(fixture.done().last(), Some(&"ended"));
    assert!(fixture.agent.worker.running.is_none());
}

/// What it says that it has written is what a disk could take since it was started, and no more.
#[tokio::test]
async fn no_worker_writes_more_than_a_disk_can_take() {
    let mut fixture = Fixture::at_work(false);
    for n in 0..10 {
        let progress = Progress { lease_id: 7, written_bytes: u64::MAX - n, ..Progress::default() };
        fixture.agent.worker_event(WorkerEvent::Says(from_worker::Body::Progress(progress)));
    }
    assert!(fixture.agent.status().today.bytes_written < 1 << 45, "{}", fixture.agent.status().today.bytes_written);
}

/// What training may take is what was free before it took any, but for the owner's floor (256 MiB) and within their
/// cap.
#[tokio::test]
async fn memory_that_the_worker_holds_is_no_less_for_the_next_lease() {
    let mut fixture = Fixture::new(false);
    let mut now = clock::mono_now();
    let mut told = |fixture: &mut Fixture, free_mib: Option<u64>, cap_mib: u64, after_s: u64| {
        now = now + Duration::from_secs(after_s);
        let unknown = Observation::unknown("there are no sensors");
        let memory_free = free_mib.map_or(unknown.memory_free.clone(), |mib| Reading::Known(mib << 20));
        let limits = Limits {
            duty: 1.0,
            threads: 1,
            memory_bytes: if cap_mib > 0 { cap_mib << 20 } else { u64::MAX },
            tokens_per_s_max: 0.0,
        };
        fixture.agent.decision = Decision::Run { limits, profile: ProfileName::Away };
        fixture.agent.count_memory(&Observation { memory_free, ..unknown }, now);
        fixture.agent.session.memory_bytes() >> 20
    };
    assert_eq!(told(&mut fixture, Some(1256), 0, 1), 1000, "an agent that found its worker there");
    assert_eq!(told(&mut fixture, Some(300), 0, 1), 1000, "the worker has taken some");
    assert_eq!(
        told(&mut fixture, Some(1456), 900, 1),
        900,
        "somebody else has given some back, and the owner allows less"
    );
    fixture.agent.end_worker();
    assert_eq!(told(&mut fixture, Some(300), 0, 3), 1200, "of when it still was there");
    assert_eq!(told(&mut fixture, Some(300), 0, 15), 44, "somebody else has taken it");
    assert_eq!(
        [told(&mut fixture, Some(100), 0, 1), told(&mut fixture, None, 0, 1), told(&mut fixture, None, 70, 1)],
        [0, 0, 70]
    );
    let mut fixture = Fixture::new(true);
    assert_eq!(
        [told(&mut fixture, Some(9000), 0, 1), told(&mut fixture, Some(9000), 70, 1)],
        [0, 70],
        "a GPU's own is not known"
    );
}

/// A home whose mark is lost or empty is known by its files: by all that an agent and its owner's commands write.
#[tokio::test]
async fn a_home_that_lost_its_mark_is_known_by_its_files() {
    let mut fixture = Fixture::at_work(false);
    let agent = &mut fixture.agent;
    let _lock = agent.home.lock().unwrap();
    agent.answer(Asked::Do(Command::Pause(None), oneshot::channel().0));
    agent.records.tell("a line");
    agent.crashed(&crash("a crash"));
    agent.remember();
    agent.owner.preferences.set("idle_minutes", "5").unwrap();
    let server = control::serve(&agent.home, mpsc::channel(1).0, agent.api.tickets.clone()).await.unwrap();
    control::ControlFile::load(&agent.home).unwrap().write_open_file(&agent.home).unwrap();
    assert_eq!(control::unwritable(&agent.home), None);
    let folder = fixture.folder.path();
    std::fs::rename(folder.join("good"), folder.join("prefs.good.toml")).unwrap();
    std::fs::write(folder.join("journal.json.new"), "{").unwrap();
    std::fs::remove_file(folder.join(nightjar_shared::mark::MARK_FILE)).unwrap();
    assert!(folder.join("page-port").exists() && folder.join("open.html").exists());
    Home::open(Some(folder.into())).map(drop).unwrap();
    drop(server);
}

/// Where it says that it listens nothing can be written: a command that finds no agent says that, and not that it
/// hangs.
#[tokio::test]
async fn a_disk_that_takes_no_address_is_told() {
    let fixture = Fixture::new(false);
    std::fs::create_dir(fixture.folder.path().join("control.probe.new")).unwrap();
    let told = control::unwritable(&fixture.agent.home).unwrap();
    assert!(told.contains("control.json: the disk refuses"), "{told}");
}

/// The owner's cap is told where it is what makes training slow.
#[tokio::test]
async fn a_cap_on_tokens_is_told() {
    let mut fixture = Fixture::new(false);
    fixture.agent.owner.preferences.set("tokens_per_s_max", "2.5").unwrap();
    fixture.agent.look(clock::mono_now());
    let status = fixture.agent.status();
    assert_eq!(status.slowed.as_deref(), Some("your cap of 2.5 tokens a second"));
    assert!(matches!(fixture.agent.decision, Decision::Run { limits, .. } if limits.tokens_per_s_max == 2.5));
    for (key, value) in [("tokens_per_s_max", "0.001"), ("tokens_per_s_max", "1e-300"), ("tokens_per_s_max", "nan")] {
        assert!(fixture.agent.owner.preferences.set(key, value).is_err(), "{value}");
    }
    fixture.agent.owner.preferences.set("tokens_per_s_max", "0").unwrap();
    fixture.agent.look(clock::mono_now());
    assert_eq!(fixture.agent.status().slowed, None);
}

/// The owner wants their computer, and the disk is full.
#[tokio::test]
async fn a_pause_that_cannot_be_written_down_counts_all_the_same() {
    let mut fixture = Fixture::new(false);
    // In the way of the file that a write begins with.
    std::fs::create_dir(fixture.folder.path().join("pause.json.new")).unwrap();
    let (reply, answer) = oneshot::channel();
    fixture.agent.answer(Asked::Do(Command::Pause(None), reply));
    let status = answer.await.unwrap();
    assert_eq!((status.why.kind, status.owner.map(|word| word.kept)), (Some(ReasonKind::Paused), Some(false)));
    assert_eq!(fixture.done().first(), Some(&"frozen"));
}

/// A page that says "0 threads" helps nobody, and a worker is not replaced for want of a number.
#[tokio::test]
async fn half_of_the_cores_is_a_number() {
    let fixture = Fixture::new(false);
    assert!(fixture.agent.status().limits.unwrap().threads > 0);
}
