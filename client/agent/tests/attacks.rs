//! A worker that somebody has taken over, and the whole agent around it: processes, pipes and a link to a coordinator
//! in this process. The worker speaks its protocol and is up to something; whatever that is, the coordinator gets
//! nothing but the delta of its lease, the owner's files stay as they are, and the agent serves on.
//!
//! The attack worker is this very program, started by a shell that puts the protocol's pipe beside the test's own
//! output.

#![cfg(target_os = "linux")]

mod common;

use common::{receive, send};
use nightjar_agent::{
    event_loop::{self, Setup},
    home::Home,
    identity::Identity,
    membership::Membership,
    policy::Observation,
    preferences::PreferencesFile,
    sensor::Sense,
    worker::Processes,
};
use nightjar_shared::{
    delta,
    ids::BlobHash,
    invite,
    lease::LeaseKind,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    wire::{
        self, BlobHead, BlobStored, CoordinatorMessage, DeviceMessage, Done, Refusal, RefusalCode, StreamOpen,
        coordinator_message, device_message, frame,
        stream_open::Kind,
        worker::{FromWorker, Progress, Ready, ToWorker, Trained, from_worker::Body, to_worker},
    },
};
use quinn::{RecvStream, SendStream};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// What the attack worker is told by the shell that starts it.
const ATTACK: &str = "ATTACK";
const HOME: &str = "ATTACKED_HOME";
/// Longer than anything here takes on a busy computer.
const PATIENCE: Duration = Duration::from_secs(120);
const LEASE: u64 = 7;

fn model() -> ModelSpec {
    ModelSpec { vocab_size: 16, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, ..ModelSpec::tiny() }
}

fn spec_json() -> String {
    serde_json::json!({ "name": "night", "token_budget": 1000, "model": model() }).to_string()
}

/// The delta that an honest worker would make.
fn right_delta() -> Vec<u8> {
    let spec: RunSpec = serde_json::from_str(&spec_json()).unwrap();
    let gradient = spec.model.draw_all(3);
    delta::encode(&spec.model, &spec.delta, &gradient, &mut vec![0.0; gradient.len()])
}

/// The home of the agent that is attacked, and what lies beside it.
struct Place {
    home: PathBuf,
    /// A file of the owner's that the coordinator would take.
    owner: PathBuf,
}

impl Place {
    fn of(home: &Path) -> Self {
        let owners = home.parent().unwrap().join("owner");
        Place { home: home.to_owned(), owner: owners.join("lease-7.delta") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn delta(&self) -> PathBuf {
        self.file("work/lease-7.delta")
    }
}

// ---- The attack worker.

struct Attacker {
    place: Place,
    voice: File,
}

impl Attacker {
    fn say(&mut self, body: Body) {
        self.write(&frame::encode(&FromWorker { body: Some(body) }));
    }

    fn write(&mut self, bytes: &[u8]) {
        // Whoever is ended for what it said hears of it here.
        if self.voice.write_all(bytes).is_err() {
            std::process::exit(0);
        }
    }

    /// Until it is given its lease.
    fn waits_for_its_lease(&mut self) {
        let mut stdin = io::stdin().lock();
        loop {
            let mut prefix = [0; 4];
            if stdin.read_exact(&mut prefix).is_err() {
                std::process::exit(0);
            }
            let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
            stdin.read_exact(&mut body).unwrap();
            if let Some(to_worker::Body::Train(train)) = frame::decode::<ToWorker>(&body).unwrap().body {
                assert_eq!(train.lease_id, LEASE);
                return;
            }
        }
    }

    fn trained(&self) -> Trained {
        let delta = right_delta();
        Trained {
            lease_id: LEASE,
            delta_file: "work/lease-7.delta".into(),
            delta_hash: BlobHash::of(&delta).0.to_vec(),
            delta_bytes: delta.len() as u64,
            steps: 10,
            samples: 40,
            loss_first: 3.0,
            loss_last: 2.0,
            ..Trained::default()
        }
    }

    fn attacks(&mut self, attack: &str) {
        if attack == "it works before it is ready" {
            return self.say(Body::Trained(self.trained()));
        }
        self.say(Body::Ready(Ready { device: "attack".into(), ..Ready::default() }));
        self.waits_for_its_lease();
        fs::create_dir_all(self.place.file("work")).unwrap();
        let (delta, mut said) = (right_delta(), self.trained());
        let place = &self.place;
        let own = place.delta();
        match attack {
            "none" => fs::write(own, delta).unwrap(),
            "an absolute path" => said.delta_file = place.owner.display().to_string(),
            "a way out" => said.delta_file = "work/../../owner/lease-7.delta".into(),
            "the agent's own key" => said.delta_file = "identity.pk8".into(),
            "a link" => symlink(&place.owner, own).unwrap(),
            "a link within" => symlink("../identity.pk8", own).unwrap(),
            "a second name" => fs::hard_link(&place.owner, own).unwrap(),
            "its folder is a link" => {
                fs::rename(place.file("work"), place.file("work-no-more")).unwrap();
                symlink(place.owner.parent().unwrap(), place.file("work")).unwrap();
            }
            "a pipe" => mknodat(CWD, own, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            "a folder" => fs::create_dir(own).unwrap(),
            "a huge file" => File::create(own).unwrap().set_len(1 << 29).unwrap(),
            "nothing" => {}
            "other bytes" => fs::write(own, vec![7; delta.len()]).unwrap(),
            "no delta" => {
                let secret = vec![7; delta.len()];
                fs::write(own, &secret).unwrap();
                said.delta_hash = BlobHash::of(&secret).0.to_vec();
            }
            "it swaps the file after it has answered" => {
                fs::write(&own, &delta).unwrap();
                self.say(Body::Trained(said));
                let mut file = File::options().write(true).open(own).unwrap();
                loop {
                    for bytes in [vec![7; delta.len()], delta.clone()] {
                        io::Seek::rewind(&mut file).unwrap();
                        file.write_all(&bytes).unwrap();
                    }
                }
            }
            "another lease" => said.lease_id = LEASE + 1,
            "absurd time" => said.train_ms = u64::MAX,
            "absurd counts" => (said.steps, said.samples) = (u32::MAX, u32::MAX),
            "a loss that is no number" => said.loss_last = f64::NAN,
            "absurd progress" => {
                let tokens = u64::MAX;
                return self.say(Body::Progress(Progress { lease_id: LEASE, tokens, ..Progress::default() }));
            }
            "an endless message" => {
                self.write(&u32::MAX.to_le_bytes());
                loop {
                    self.write(&[0; 4096]);
                }
            }
            "garbage" => return self.write(b"\x05\0\0\0hello"),
            "the same twice" => {
                fs::write(own, delta).unwrap();
                self.say(Body::Trained(said.clone()));
            }
            "folders without end" => {
                let mut at = place.file("work");
                for _ in 0..200 {
                    at = at.join("d");
                    fs::create_dir(&at).unwrap();
                }
                File::create(at.join("film")).unwrap().set_len(1 << 30).unwrap();
                symlink(&place.owner, place.file("work/d/link")).unwrap();
                fs::write(own, delta).unwrap();
            }
            other => panic!("no such attack: {other}"),
        }
        self.say(Body::Trained(said));
    }
}

#[test]
#[ignore = "the attack worker itself, which the other tests start"]
fn attack_worker() {
    let Some(attack) = std::env::var(ATTACK).ok() else { return };
    let place = Place::of(Path::new(&std::env::var(HOME).unwrap()));
    let voice = File::options().write(true).open("/proc/self/fd/3").unwrap();
    let mut attacker = Attacker { place, voice };
    attacker.attacks(&attack);
    // Until it is ended.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    std::process::exit(0);
}

/// What starts the attack worker in the worker's place.
fn launcher(attack: &str, place: &Place) -> Processes {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let script = format!(
        "{ATTACK}={} {HOME}={} exec {} --exact attack_worker --ignored --nocapture 3>&1 >&2",
        quoted(attack),
        quoted(&place.home.display().to_string()),
        quoted(&std::env::current_exe().unwrap().display().to_string()),
    );
    let log = place.home.parent().unwrap().join("worker.log");
    Processes { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], log }
}

// ---- The coordinator.

/// Grants one lease, and takes what comes.
#[derive(Default)]
struct Coordinator {
    granted: Mutex<bool>,
    uploads: Mutex<Vec<Vec<u8>>>,
    returned: Mutex<Vec<String>>,
    merged: Mutex<u32>,
}

impl Coordinator {
    async fn serve(self: Arc<Self>, mut to: SendStream, mut from: RecvStream) {
        match receive::<StreamOpen>(&mut from).await.kind.unwrap() {
            Kind::Control(_) => loop {
                let request: DeviceMessage = receive(&mut from).await;
                let body = Some(self.answer(request.body.unwrap()));
                send(&mut to, &CoordinatorMessage { request: request.request, body }).await;
            },
            Kind::Get(get) => {
                send(&mut to, &BlobHead { bytes: 4, offset: get.offset, refusal: None }).await;
                to.write_all(&b"blob"[get.offset as usize..]).await.unwrap();
                to.finish().unwrap();
            }
            Kind::Put(put) => {
                send(&mut to, &BlobHead { bytes: put.blob.unwrap().bytes, offset: 0, refusal: None }).await;
                let bytes = from.read_to_end(1 << 20).await.unwrap_or_default();
                self.uploads.lock().unwrap().push(bytes);
                send(&mut to, &BlobStored { refusal: None }).await;
            }
            Kind::Page(_) => panic!("a native device has shown its key already"),
        }
    }

    fn answer(&self, asked: device_message::Body) -> coordinator_message::Body {
        use coordinator_message::Body as Answer;
        use device_message::Body as Ask;
        match asked {
            Ask::Hello(_) => Answer::Welcome(wire::Welcome {
                run_id: vec![1; 32],
                generation: 5,
                run_spec_json: spec_json(),
                codec: 2,
                keep_alive_ms: 20_000,
                public_keys: vec![],
            }),
            Ask::LeaseRequest(_) if !std::mem::replace(&mut *self.granted.lock().unwrap(), true) => {
                let blob = || Some(wire::Blob::new(BlobHash::of(b"blob"), 4));
                Answer::Lease(wire::Lease {
                    id: LEASE,
                    generation: 5,
                    kind: LeaseKind::Train.to_wire(),
                    base_digest: vec![9; 32],
                    keyframe: blob(),
                    shard: blob(),
                    shard_samples: 40,
                    samples: 40,
                    steps: 10,
                    remaining_ms: 600_000,
                    codec: 2,
                    ..Default::default()
                })
            }
            Ask::LeaseRequest(_) => {
                Answer::Refusal(Refusal::retry(RefusalCode::NoWork, "later", Duration::from_secs(3600)))
            }
            Ask::LeaseReturn(back) => {
                self.returned.lock().unwrap().push(back.why);
                Answer::Done(Done::default())
            }
            Ask::DeltaOffer(_) => {
                *self.merged.lock().unwrap() += 1;
                Answer::Done(Done { version: 1, merged: true, note: String::new() })
            }
            _ => Answer::Done(Done::default()),
        }
    }
}

/// Sees nobody at the computer.
struct Blind;

impl Sense for Blind {
    fn observe(&mut self) -> Observation {
        Observation::unknown("there are no sensors")
    }
}

/// An agent whose worker makes this attack.
struct Attacked {
    place: Place,
    coordinator: Arc<Coordinator>,
    said: Arc<Mutex<Vec<String>>>,
    agent: tokio::task::JoinHandle<()>,
    _endpoint: quinn::Endpoint,
    _folder: tempfile::TempDir,
}

impl Attacked {
    fn by(attack: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of(&folder.path().join("home"));
        fs::create_dir(place.owner.parent().unwrap()).unwrap();
        fs::write(&place.owner, right_delta()).unwrap();
        let (key, coordinator) = (Identity::generate().unwrap(), Arc::new(Coordinator::default()));
        let (endpoint, address) = common::endpoint(&key);
        let (serving, accepting) = (coordinator.clone(), endpoint.clone());
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let Ok(connection) = incoming.await else { continue };
                while let Ok((to, from)) = connection.accept_bi().await {
                    tokio::spawn(serving.clone().serve(to, from));
                }
            }
        });
        let sent = wire::Invite {
            addresses: vec![address],
            public_keys: vec![key.public_key().to_vec()],
            ..Default::default()
        };
        let link = invite::to_link(&invite::seal(&sent, |message| key.sign(message)));
        let home = Home::open(Some(place.home.clone())).unwrap();
        let mut preferences = PreferencesFile::load(&home.config_path("prefs.toml"), &home.path("good"), &[]).unwrap();
        preferences.set("policy", "always").unwrap();
        let said = Arc::new(Mutex::new(vec![]));
        let heard = said.clone();
        let setup = Setup {
            identity: Identity::load_or_create(&home).unwrap(),
            membership: Membership::from_link(&link, "den", 0),
            preferences,
            kinds: vec![LeaseKind::Train],
            start_sensors: Box::new(|_, _| Box::new(Blind)),
            launcher: Box::new(launcher(attack, &place)),
            say: Box::new(move |line| heard.lock().unwrap().push(line.to_owned())),
            tray: false,
            leave: false,
            stays: true,
            home,
        };
        let agent = tokio::spawn(async move {
            let ending = event_loop::run(setup).await;
            panic!("the agent ended: {ending:?}");
        });
        Attacked { place, coordinator, said, agent, _endpoint: endpoint, _folder: folder }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                assert!(!self.agent.is_finished(), "{what}: the agent ended; it said {:?}", self.said.lock().unwrap());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        let log = || fs::read_to_string(self.place.home.parent().unwrap().join("worker.log"));
        assert!(
            in_time.is_ok(),
            "{what} did not come; the agent said {:?}, the worker {:?}",
            self.said.lock().unwrap(),
            log()
        );
    }

    fn has_said(&self, words: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.contains(words))
    }

    /// What must hold whatever the worker does.
    fn nothing_is_lost(&self, attack: &str) {
        for bytes in &*self.coordinator.uploads.lock().unwrap() {
            assert_eq!(*bytes, right_delta(), "{attack}: something else went up");
        }
        assert_eq!(fs::read(&self.place.owner).unwrap(), right_delta(), "{attack}");
        assert!(self.place.file("identity.pk8").exists(), "{attack}");
        assert_eq!(fs::read_dir(self.place.owner.parent().unwrap()).unwrap().count(), 1, "{attack}");
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// What the others are compared with: this worker means well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_worker_delivers() {
    let device = Attacked::by("none");
    device.until("a merged delta", |device| *device.coordinator.merged.lock().unwrap() > 0).await;
    assert_eq!(device.coordinator.uploads.lock().unwrap().len(), 1);
    device.nothing_is_lost("none");
    assert!(!device.has_said("trouble"), "{:?}", device.said.lock().unwrap());
}

/// Said, and ended for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_cannot_be_end_the_worker() {
    for attack in [
        "it works before it is ready",
        "an absolute path",
        "a way out",
        "the agent's own key",
        "another lease",
        "absurd time",
        "absurd counts",
        "a loss that is no number",
        "absurd progress",
        "an endless message",
        "garbage",
    ] {
        let device = Attacked::by(attack);
        device.until(attack, |device| device.has_said("trouble: the worker failed")).await;
        assert!(device.coordinator.uploads.lock().unwrap().is_empty(), "{attack}");
        device.nothing_is_lost(attack);
    }
}

/// Said rightly, but not so: not a byte is sent, and the lease goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_the_delta_it_is_said_to_be_goes_nowhere() {
    for attack in ["a link", "a link within", "a second name", "a pipe", "a huge file", "other bytes", "no delta"] {
        let device = Attacked::by(attack);
        device.until(attack, |device| !device.coordinator.returned.lock().unwrap().is_empty()).await;
        assert!(device.coordinator.uploads.lock().unwrap().is_empty(), "{attack}");
        assert!(device.has_said("not the delta that it said"), "{attack}: {:?}", device.said.lock().unwrap());
        device.nothing_is_lost(attack);
    }
    // What is tidied up before it is looked at.
    for attack in ["nothing", "a folder", "its folder is a link"] {
        let device = Attacked::by(attack);
        device.until(attack, |device| device.has_said("given up")).await;
        assert!(device.coordinator.uploads.lock().unwrap().is_empty(), "{attack}");
        device.nothing_is_lost(attack);
    }
}

/// It may be quick, but what goes up is what was looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_swapped_meanwhile_goes_up_as_it_was_said_to_be_or_not_at_all() {
    let attack = "it swaps the file after it has answered";
    for _ in 0..5 {
        let device = Attacked::by(attack);
        device
            .until(attack, |device| {
                *device.coordinator.merged.lock().unwrap() > 0
                    || !device.coordinator.returned.lock().unwrap().is_empty()
            })
            .await;
        device.nothing_is_lost(attack);
    }
}

/// The first counts; the second ends the worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_counts_once() {
    let device = Attacked::by("the same twice");
    device.until("a merged delta", |device| *device.coordinator.merged.lock().unwrap() > 0).await;
    device.until("the worker's end", |device| device.coordinator.uploads.lock().unwrap().len() == 1).await;
    device.nothing_is_lost("the same twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_without_end_are_tidied_up() {
    let device = Attacked::by("folders without end");
    device.until("a merged delta", |device| *device.coordinator.merged.lock().unwrap() > 0).await;
    device.until("an empty folder", |device| fs::read_dir(device.place.file("work")).unwrap().count() == 0).await;
    device.nothing_is_lost("folders without end");
}
