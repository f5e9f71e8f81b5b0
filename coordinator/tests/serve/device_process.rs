//! A device that is a process of its own, so that it can be killed at any moment: this test program, started once more.
//! What it must not forget lies in its folder, as an agent's does in its journal.

use crate::{
    bed::Bed,
    device::{Device, Link, drawn_key, hello, trained, try_message, try_open},
};
use nightjar_shared::{
    ids::BlobHash,
    model_spec::ModelSpec,
    rng,
    wire::{
        Blob, BlobHead, BlobPut, BlobStored, Lease, LeaseRequest, Refusal, RefusalAction, Role,
        coordinator_message as answer, device_message as ask, stream_open::Kind,
    },
};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Names the folder to the process.
const FOLDER: &str = "NIGHTJAR_DEVICE";
/// Longest attempt over one connection: whoever is silent may be stopped.
const ATTEMPT_MAX: Duration = Duration::from_secs(8);
/// Between two attempts, and between two questions.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// The device dawdles for up to so long at every step, so that a kill hits each of them.
const DAWDLE_MS_MAX: u64 = 25;

/// A merged delta: its blob, and the tokens that it was trained on.
pub type Merged = (String, u64);

/// The process, as whoever kills it sees it.
pub struct DeviceProcess {
    folder: PathBuf,
    child: Option<Child>,
}

/// What a device is told once.
#[derive(Serialize, Deserialize)]
struct Orders {
    addresses: Vec<SocketAddr>,
    pinned: [u8; 32],
    invite: Vec<u8>,
    key: Vec<u8>,
    model: ModelSpec,
    tokens_per_sample: u64,
    seed: u64,
}

impl DeviceProcess {
    pub fn start(bed: &Bed, addresses: &[SocketAddr], number: u64) -> Self {
        let orders = Orders {
            addresses: addresses.to_vec(),
            pinned: bed.identity().public_key(),
            invite: bed.invite(Role::Volunteer),
            key: drawn_key(),
            model: bed.spec.model.clone(),
            tokens_per_sample: bed.spec.tokens_per_sample(),
            seed: number,
        };
        let folder = bed.path(&format!("device-{number}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("orders.json"), serde_json::to_vec(&orders).unwrap()).unwrap();
        let mut device = DeviceProcess { folder, child: None };
        device.start_again();
        device
    }

    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut program = Command::new(env::current_exe().unwrap());
        program.args(["--ignored", "--exact", "device_process::a_device", "--nocapture"]).env(FOLDER, &self.folder);
        program.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(program.spawn().unwrap());
    }

    /// SIGKILL. Says at which step of its work it was.
    pub fn kill(&mut self) -> String {
        if let Some(mut child) = self.child.take() {
            // It may have ended, which is noticed otherwise.
            let _ = child.kill();
            child.wait().unwrap();
        }
        fs::read_to_string(self.folder.join("step")).unwrap_or_else(|_| "start".into())
    }

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        Some(format!("{}: {status}: {}", self.folder.display(), self.said()))
    }

    /// Has it end once it has nothing at hand.
    pub fn ask_to_stop(&self) {
        fs::write(self.folder.join("stop"), "").unwrap();
    }

    /// Whether it has ended in order.
    pub fn has_stopped(&mut self) -> bool {
        let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
        let ended = ended.expect("it runs");
        assert!(ended.is_none_or(|status: ExitStatus| status.success()), "{ended:?}: {}", self.said());
        ended.is_some()
    }

    /// The leases of which it was told that their deltas count.
    pub fn acknowledged(&self) -> BTreeMap<u64, Merged> {
        let noted = fs::read_to_string(self.folder.join("acknowledged")).unwrap_or_default();
        let of_line = |line: &str| {
            let mut words = line.split(' ');
            let (lease, blob, tokens) = (words.next()?, words.next()?, words.next()?);
            Some((lease.parse().ok()?, (blob.to_owned(), tokens.parse().ok()?)))
        };
        noted.lines().map(|line| of_line(line).expect("a line is written at once")).collect()
    }

    /// Why it dropped leases, each time.
    pub fn dropped(&self) -> Vec<String> {
        self.said().lines().filter_map(|line| line.strip_prefix("dropped: ")).map(str::to_owned).collect()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for DeviceProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Not a test: what a device's process does.
#[tokio::test]
#[ignore = "a device's process, which other tests start"]
async fn a_device() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let orders: Orders = serde_json::from_slice(&fs::read(folder.join("orders.json")).unwrap()).unwrap();
    let device = Device::with_key(orders.key.clone(), orders.pinned);
    let mut agent = Agent { folder, device, draws: u64::from(std::process::id()), orders };
    let mut way = agent.orders.seed as usize;
    while agent.at_hand().is_some() || !agent.folder.join("stop").exists() {
        let address = agent.orders.addresses[way % agent.orders.addresses.len()];
        if timeout(ATTEMPT_MAX, agent.work(address)).await.ok().flatten().is_none() {
            way += 1;
            sleep(AGAIN).await;
        }
    }
}

/// A device at work.
struct Agent {
    folder: PathBuf,
    device: Device,
    orders: Orders,
    draws: u64,
}

/// What a refusal asks of a device that goes on.
enum Advice {
    Again,
    Drop,
}

impl Agent {
    /// The lease that it has not settled.
    fn at_hand(&self) -> Option<Lease> {
        let bytes = fs::read(self.folder.join("lease")).ok()?;
        Some(Lease::decode(&bytes[..]).expect("it was given its name once it was whole"))
    }

    /// Notes the lease, before the first byte of its delta goes up.
    fn take(&self, lease: &Lease) {
        self.write("lease", &lease.encode_to_vec());
    }

    /// As a whole, or not at all.
    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.join("new"), bytes).unwrap();
        fs::rename(self.folder.join("new"), self.folder.join(name)).unwrap();
    }

    fn settle(&self) {
        fs::remove_file(self.folder.join("lease")).unwrap();
    }

    fn acknowledged(&self, lease: &Lease, blob: BlobHash) {
        let tokens = u64::from(lease.samples) * self.orders.tokens_per_sample;
        let mut notes = File::options().create(true).append(true).open(self.folder.join("acknowledged")).unwrap();
        notes.write_all(format!("{} {blob} {tokens}\n", lease.id).as_bytes()).unwrap();
    }

    async fn step(&mut self, name: &str) {
        self.write("step", name.as_bytes());
        self.draws += 1;
        sleep(Duration::from_millis(rng::below(self.orders.seed, 0, self.draws, DAWDLE_MS_MAX))).await;
    }

    /// One lease over one connection, or what is left of it; `None` where the connection breaks.
    async fn work(&mut self, address: SocketAddr) -> Option<()> {
        self.step("connect").await;
        let mut link = self.device.try_link(address).await?;
        self.greet(&mut link).await?;
        while self.at_hand().is_some() || !self.folder.join("stop").exists() {
            let lease = match self.at_hand() {
                Some(lease) => lease,
                None => {
                    let lease = self.ask_for_lease(&mut link).await?;
                    self.take(&lease);
                    lease
                }
            };
            self.deliver(&mut link, &lease).await?;
        }
        Some(())
    }

    async fn greet(&self, link: &mut Link) -> Option<()> {
        loop {
            match link.try_ask(ask::Body::Hello(hello(self.orders.invite.clone(), Role::Volunteer))).await? {
                answer::Body::Welcome(_) => return Some(()),
                answer::Body::Refusal(refusal) if refusal.action() == RefusalAction::Retry => sleep(AGAIN).await,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask_for_lease(&mut self, link: &mut Link) -> Option<Lease> {
        loop {
            self.step("ask").await;
            match link.try_ask(ask::Body::LeaseRequest(LeaseRequest::default())).await? {
                answer::Body::Lease(lease) => return Some(lease),
                answer::Body::Refusal(refusal) => {
                    // Whatever it says, there is no lease to drop.
                    self.heed(link, refusal).await?;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn deliver(&mut self, link: &mut Link, lease: &Lease) -> Option<()> {
        let (delta, offer) = trained(&self.orders.model, lease, rng::mix(lease.id) ^ self.orders.seed);
        let blob = offer.delta.as_ref().and_then(|blob| blob.name()).unwrap();
        loop {
            self.step("offer").await;
            let refusal = match link.try_ask(ask::Body::DeltaOffer(offer.clone())).await? {
                answer::Body::Done(done) => {
                    self.step("note").await;
                    if done.merged {
                        self.acknowledged(lease, blob);
                    } else {
                        println!("dropped: {}", done.note);
                    }
                    self.step("settle").await;
                    self.settle();
                    return Some(());
                }
                answer::Body::Upload(_) => match self.upload(link, lease, &delta, blob).await? {
                    Ok(()) => continue,
                    Err(refusal) => refusal,
                },
                answer::Body::Refusal(refusal) => refusal,
                other => panic!("{other:?}"),
            };
            if let Advice::Drop = self.heed(link, refusal).await? {
                self.settle();
                return Some(());
            }
        }
    }

    /// In two goes.
    async fn upload(
        &mut self,
        link: &Link,
        lease: &Lease,
        delta: &[u8],
        blob: BlobHash,
    ) -> Option<Result<(), Refusal>> {
        self.step("upload").await;
        let put = BlobPut { blob: Some(Blob::new(blob, delta.len() as u64)), lease_id: lease.id };
        let (mut send, mut receive) = try_open(&link.connection, Kind::Put(put)).await?;
        let head: BlobHead = try_message(&mut receive).await?;
        if let Some(refusal) = head.refusal {
            return Some(Err(refusal));
        }
        let rest = &delta[head.offset as usize..];
        let (first, second) = rest.split_at(rest.len() / 2);
        send.write_all(first).await.ok()?;
        self.step("second half").await;
        send.write_all(second).await.ok()?;
        send.finish().ok()?;
        let stored: BlobStored = try_message(&mut receive).await?;
        Some(stored.refusal.map_or(Ok(()), Err))
    }

    /// Does what a refusal says; a device that has done nothing wrong is told nothing worse than this.
    async fn heed(&self, link: &mut Link, refusal: Refusal) -> Option<Advice> {
        match refusal.action() {
            RefusalAction::Retry => sleep(Duration::from_millis(refusal.retry_ms).clamp(AGAIN, AGAIN_MAX)).await,
            RefusalAction::HelloAgain => self.greet(link).await?,
            RefusalAction::DropLease => {
                println!("dropped: {}", refusal.sentence);
                return Some(Advice::Drop);
            }
            action => panic!("{action:?}: {}", refusal.sentence),
        }
        Some(Advice::Again)
    }
}
