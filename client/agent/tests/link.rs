//! The link against a small coordinator in this process: pinned keys, requests, and blobs that resume.

mod common;

use common::{receive, send};
use nightjar_agent::{
    identity::Identity,
    join::{Answer, Member},
    link::{Dialer, Link, LinkError},
    transfer::{self, Outgoing, TransferError},
};
use nightjar_shared::{
    blob::BlobRef,
    delta::{self, CodecId},
    disk::{Disk, FolderDisk},
    ids::{DeviceId, LeaseId},
    invite,
    model_spec::ModelSpec,
    run_spec::DeltaSpec,
    time::Wall,
    wire::{
        self, BlobHead, BlobStored, CoordinatorMessage, DeviceMessage, Done, StreamOpen, coordinator_message,
        device_message, stream_open::Kind,
    },
};
use quinn::{Endpoint, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// What the coordinator serves, and what it has seen.
#[derive(Default)]
struct Coordinator {
    blob: Vec<u8>,
    /// Bytes of the upload that it has already.
    has: usize,
    devices: Mutex<Vec<DeviceId>>,
    offsets: Mutex<Vec<u64>>,
    received: Mutex<Vec<u8>>,
    /// Whether an upload was begun.
    asked_to_take: AtomicBool,
}

impl Coordinator {
    /// Listens with a key; gives back the address.
    fn listen(self: &Arc<Self>, key: &Identity) -> (Endpoint, String) {
        let (endpoint, address) = common::endpoint(key);
        let (this, accepting) = (self.clone(), endpoint.clone());
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let Ok(connection) = incoming.await else { continue };
                let keys = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
                this.devices.lock().unwrap().push(DeviceId::of_spki(&keys[0]));
                while let Ok((to, from)) = connection.accept_bi().await {
                    this.serve(to, from).await;
                }
            }
        });
        (endpoint, address)
    }

    async fn serve(&self, mut to: SendStream, mut from: RecvStream) {
        match receive::<StreamOpen>(&mut from).await.kind.unwrap() {
            Kind::Control(_) => {
                let request: DeviceMessage = receive(&mut from).await;
                let done = coordinator_message::Body::Done(Done { version: 9, merged: true, note: String::new() });
                send(&mut to, &CoordinatorMessage { request: request.request, body: Some(done) }).await;
            }
            Kind::Get(get) => {
                self.offsets.lock().unwrap().push(get.offset);
                send(&mut to, &BlobHead { bytes: self.blob.len() as u64, offset: get.offset, refusal: None }).await;
                to.write_all(&self.blob[get.offset as usize..]).await.unwrap();
                to.finish().unwrap();
            }
            Kind::Put(put) => {
                self.asked_to_take.store(true, Ordering::Relaxed);
                let blob = put.blob.unwrap();
                send(&mut to, &BlobHead { bytes: blob.bytes, offset: self.has as u64, refusal: None }).await;
                let rest = from.read_to_end(1 << 20).await.unwrap();
                *self.received.lock().unwrap() = rest;
                send(&mut to, &BlobStored { refusal: None }).await;
            }
            Kind::Page(_) => panic!("a native device has shown its key already"),
        }
    }
}

/// A device that was invited with these keys.
fn dialer(device: &Identity, addresses: &[String], pins: &[&Identity]) -> Dialer {
    let public_keys = pins.iter().map(|k| k.public_key().to_vec()).collect();
    Dialer::new(device, &wire::Invite { addresses: addresses.to_vec(), public_keys, ..Default::default() }).unwrap()
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|i| nightjar_shared::rng::draw(1, 2, i) as u8).collect()
}

/// A connected device with a folder.
async fn connected(coordinator: &Arc<Coordinator>) -> (Endpoint, Link, tempfile::TempDir, FolderDisk) {
    let (key, device) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (endpoint, address) = coordinator.listen(&key);
    let link = dialer(&device, &[address], &[&key]).connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    (endpoint, link, folder, disk)
}

#[tokio::test]
async fn the_coordinator_is_known_by_its_key_or_its_spare_and_the_device_by_its_own() {
    let [key, spare, stranger, device] = [(); 4].map(|()| Identity::generate().unwrap());
    let coordinator = Arc::new(Coordinator::default());
    let (_endpoint, address) = coordinator.listen(&key);
    for pins in [[&key, &spare], [&spare, &key]] {
        let link = dialer(&device, std::slice::from_ref(&address), &pins).connect().await.unwrap();
        let ask = DeviceMessage { request: 3, body: Some(device_message::Body::Leave(wire::Leave {})) };
        assert_eq!(link.control().await.unwrap().ask(&ask).await.unwrap().request, 3);
        link.close().await;
    }
    assert_eq!(*coordinator.devices.lock().unwrap(), [device.device(); 2]);

    let refused = dialer(&device, std::slice::from_ref(&address), &[&stranger, &spare]).connect().await;
    let told = refused.err().unwrap();
    assert!(matches!(told, LinkError::WrongKey(_)), "{told}");
    assert!(told.to_string().contains("ask for a new invite"));
}

/// An address where nobody answers stands neither for the coordinator nor in the way of the next; and what is wrong is
/// told.
#[tokio::test]
async fn a_dead_first_address_does_not_stand_for_the_coordinator() {
    let [key, device] = [(); 2].map(|()| Identity::generate().unwrap());
    // Takes what comes, and says nothing.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let hole = deaf.local_addr().unwrap().to_string();
    let coordinator = Arc::new(Coordinator::default());
    let (_endpoint, right) = coordinator.listen(&key);
    let say_hello = async |addresses: Vec<String>| {
        let invite = wire::Invite { addresses, public_keys: vec![key.public_key().to_vec()], ..Default::default() };
        let link = invite::to_link(&invite::seal(&invite, |message| key.sign(message)));
        Member::new(&link, None, &device, Wall { unix_ms: 0 }).unwrap().say_hello().await.unwrap()
    };
    assert_eq!(say_hello(vec![hole.clone(), right]).await, Answer::Later, "this coordinator says no more");
    let Answer::Silence(why) = say_hello(vec![hole.clone()]).await else { panic!("nobody is there") };
    let port = hole.rsplit_once(':').unwrap().1;
    assert!(why.contains(&format!("blocks UDP (port {port})")), "{why}");
}

/// A network that drops UDP looks just like a coordinator that is away.
#[tokio::test]
async fn where_nobody_answers_the_network_may_be_why() {
    let [key, device] = [(); 2].map(|()| Identity::generate().unwrap());
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let hole = deaf.local_addr().unwrap();
    let failure = dialer(&device, &[hole.to_string()], &[&key]).connect().await.err().expect("nobody is there");
    assert!(matches!(&failure, LinkError::Silent(address) if *address == hole.to_string()), "{failure:?}");
    assert!(failure.to_string().contains(&format!("blocks UDP (port {})", hole.port())), "{failure}");
}

#[tokio::test]
async fn addresses_are_tried_in_order() {
    let [key, impostor, device] = [(); 3].map(|()| Identity::generate().unwrap());
    let coordinator = Arc::new(Coordinator::default());
    let (_first, wrong) = coordinator.listen(&impostor);
    let (_second, right) = coordinator.listen(&key);
    dialer(&device, &["not an address".into(), wrong, right], &[&key]).connect().await.unwrap();
}

#[tokio::test]
async fn a_download_goes_on_where_it_ended() {
    let bytes = noise(300_000);
    let blob = BlobRef::of(&bytes);
    let coordinator = Arc::new(Coordinator { blob: bytes.clone(), ..Default::default() });
    let (_endpoint, link, _folder, disk) = connected(&coordinator).await;
    disk.write_at(&blob.partial_file(), 0, &bytes[..123_456]).unwrap();
    transfer::get(&link, &disk, blob).await.unwrap();
    assert_eq!(disk.read(&blob.file()).unwrap().unwrap(), bytes);
    assert_eq!(*coordinator.offsets.lock().unwrap(), [123_456]);
    assert_eq!(disk.length(&blob.partial_file()).unwrap(), None);
    assert!(transfer::present(&disk, blob).unwrap());
}

#[tokio::test]
async fn a_damaged_part_is_thrown_away_and_fetched_anew() {
    let bytes = noise(100_000);
    let blob = BlobRef::of(&bytes);
    let coordinator = Arc::new(Coordinator { blob: bytes, ..Default::default() });
    let (_endpoint, link, _folder, disk) = connected(&coordinator).await;
    disk.write_at(&blob.partial_file(), 0, b"not what was sent").unwrap();
    let told = transfer::get(&link, &disk, blob).await.unwrap_err();
    assert!(matches!(told, TransferError::Damaged(_)), "{told}");
    transfer::get(&link, &disk, blob).await.unwrap();
    assert_eq!(*coordinator.offsets.lock().unwrap(), [17, 0]);
}

/// A delta of a small model, and how it is to be uploaded as the worker's file of that name.
fn outgoing(file: &str) -> (Vec<u8>, Outgoing) {
    let (model, delta) = (ModelSpec::tiny(), DeltaSpec { codec: CodecId::Blocks8, ..DeltaSpec::default() });
    let gradient = model.draw_all(3);
    let bytes = delta::encode(&model, &delta, &gradient, &mut vec![0.0; gradient.len()]);
    let outgoing = Outgoing { lease: LeaseId(1), blob: BlobRef::of(&bytes), file: file.into(), model, delta };
    (bytes, outgoing)
}

#[tokio::test]
async fn an_upload_sends_only_what_is_not_there() {
    let (bytes, outgoing) = outgoing("work/lease-1.delta");
    let coordinator = Arc::new(Coordinator { has: 150_000, ..Default::default() });
    let (_endpoint, link, _folder, disk) = connected(&coordinator).await;
    disk.write("work/lease-1.delta", &bytes).unwrap();
    transfer::put(&link, &disk, &outgoing).await.unwrap();
    assert_eq!(*coordinator.received.lock().unwrap(), bytes[150_000..]);
    // It is the agent's own now, and goes up again from there, whatever lies in the worker's folder.
    disk.write("work/lease-1.delta", b"another").unwrap();
    transfer::put(&link, &disk, &outgoing).await.unwrap();
    assert_eq!(*coordinator.received.lock().unwrap(), bytes[150_000..]);
    let other =
        Outgoing { file: "work/lease-2.delta".into(), blob: BlobRef::of(&[&bytes[1..], b"x"].concat()), ..outgoing };
    let gone = transfer::put(&link, &disk, &other).await.unwrap_err();
    assert!(matches!(gone, TransferError::FileGone(_)), "{gone}");
}

/// Whatever a worker leaves in its delta's place, nothing but a delta of the run that has the hash it named is sent.
#[cfg(unix)]
#[tokio::test]
async fn nothing_is_sent_that_is_not_the_delta_it_is_said_to_be() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::{fs, os::unix::fs::symlink, path::Path};
    type Trap = fn(&Path, &mut Outgoing, &[u8]);
    let traps: [(&str, Trap); 12] = [
        ("an absolute path", |home, out, _| out.file = home.join("../owner").display().to_string()),
        ("a way out", |_, out, _| out.file = "work/../../owner".into()),
        ("a link", |home, out, _| symlink(home.join("../owner"), home.join(&out.file)).unwrap()),
        ("a folder behind a link", |home, out, bytes| {
            fs::create_dir(home.join("../owners")).unwrap();
            fs::write(home.join("../owners/delta"), bytes).unwrap();
            symlink(home.join("../owners"), home.join("work/folder")).unwrap();
            out.file = "work/folder/delta".into();
        }),
        ("a second name", |home, out, _| fs::hard_link(home.join("../owner"), home.join(&out.file)).unwrap()),
        ("a pipe", |home, out, _| {
            mknodat(CWD, home.join(&out.file), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        }),
        ("a folder", |home, out, _| fs::create_dir(home.join(&out.file)).unwrap()),
        ("a huge file", |home, out, _| fs::File::create(home.join(&out.file)).unwrap().set_len(1 << 40).unwrap()),
        ("a huge file that is said to be one", |home, out, _| {
            fs::File::create(home.join(&out.file)).unwrap().set_len(1 << 40).unwrap();
            out.blob.bytes = 1 << 40;
        }),
        ("other bytes", |home, out, bytes| {
            let mut bytes = bytes.to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(home.join(&out.file), bytes).unwrap();
        }),
        ("a delta that goes on where it should end", |home, out, bytes| {
            let bytes_max = *delta::bytes_allowed(&out.model, &out.delta).end() as usize;
            let mut longer = bytes.to_vec();
            longer.resize(bytes_max + 1, 0);
            fs::write(home.join(&out.file), &longer).unwrap();
            out.blob = BlobRef::of(&longer);
        }),
        ("no delta, under its right hash", |home, out, bytes| {
            let secret = noise(bytes.len());
            fs::write(home.join(&out.file), &secret).unwrap();
            out.blob = BlobRef::of(&secret);
        }),
    ];
    for (what, trap) in traps {
        let (bytes, mut outgoing) = outgoing("work/lease-1.delta");
        let coordinator = Arc::new(Coordinator::default());
        let (_endpoint, link, folder, _) = connected(&coordinator).await;
        let disk = FolderDisk::open(folder.path().join("home")).unwrap();
        // The owner's file is a delta that would be taken, had it been the worker's.
        fs::write(folder.path().join("owner"), &bytes).unwrap();
        fs::create_dir(disk.path("work")).unwrap();
        trap(&disk.path(""), &mut outgoing, &bytes);
        let told = transfer::put(&link, &disk, &outgoing).await.unwrap_err();
        assert!(matches!(told, TransferError::Untrue(_)), "{what}: {told}");
        assert!(!coordinator.asked_to_take.load(Ordering::Relaxed), "{what}: something was sent");
        assert_eq!(disk.list("blobs").unwrap(), Vec::<String>::new(), "{what}");
        assert_eq!(fs::read(folder.path().join("owner")).unwrap(), bytes, "{what}");
    }
}

/// What lies among the blobs was verified, but not as a delta: a worker may name a shard's hash.
#[tokio::test]
async fn a_blob_that_came_down_does_not_go_up() {
    let (bytes, outgoing) = outgoing("work/lease-1.delta");
    let coordinator = Arc::new(Coordinator::default());
    let (_endpoint, link, _folder, disk) = connected(&coordinator).await;
    let shard = noise(bytes.len());
    let blob = BlobRef::of(&shard);
    disk.write(&blob.file(), &shard).unwrap();
    let told = transfer::put(&link, &disk, &Outgoing { blob, ..outgoing }).await.unwrap_err();
    assert!(matches!(told, TransferError::Untrue(_)), "{told}");
    assert!(!coordinator.asked_to_take.load(Ordering::Relaxed));
}
