//! The link against a small coordinator in this process: pinned keys, requests, and blobs that resume.

use nightjar_agent::{
    identity::Identity,
    join::{Answer, Member},
    lease::BlobRef,
    link::{Dialer, Link, LinkError},
    transfer::{self, TransferError},
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    ids::{BlobHash, DeviceId, LeaseId},
    invite,
    time::Wall,
    wire::{
        self, BlobHead, BlobStored, CoordinatorMessage, DeviceMessage, Done, StreamOpen, coordinator_message, device_message,
        frame, stream_open::Kind,
    },
};
use prost::Message;
use quinn::{Endpoint, RecvStream, SendStream, ServerConfig, crypto::rustls::QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{ring as provider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::sync::{Arc, Mutex};

/// Admits every device; who it is shows in its key.
#[derive(Debug)]
struct AnyDevice;

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("QUIC is TLS 1.3")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(spki.as_ref()), signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What the coordinator serves, and what it has seen.
#[derive(Default)]
struct Coordinator {
    blob: Vec<u8>,
    /// Bytes of the upload that it has already.
    has: usize,
    devices: Mutex<Vec<DeviceId>>,
    offsets: Mutex<Vec<u64>>,
    received: Mutex<Vec<u8>>,
}

async fn receive<M: Message + Default>(from: &mut RecvStream) -> M {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.unwrap();
    let mut body = vec![0; frame::length(prefix, 1 << 20).unwrap()];
    from.read_exact(&mut body).await.unwrap();
    frame::decode(&body).unwrap()
}

async fn send(to: &mut SendStream, message: &impl Message) {
    to.write_all(&frame::encode(message)).await.unwrap();
}

impl Coordinator {
    /// Listens with a key; gives back the address.
    fn listen(self: &Arc<Self>, key: &Identity) -> (Endpoint, String) {
        let signing = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.pkcs8().to_vec())).unwrap();
        let shown = CertifiedKey::new(vec![CertificateDer::from(key.spki())], signing);
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyDevice))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(shown))));
        tls.alpn_protocols = vec![wire::ALPN.to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
        let address = endpoint.local_addr().unwrap().to_string();
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
                let blob = put.blob.unwrap();
                send(&mut to, &BlobHead { bytes: blob.bytes, offset: self.has as u64, refusal: None }).await;
                let rest = from.read_to_end(1 << 20).await.unwrap();
                *self.received.lock().unwrap() = rest;
                send(&mut to, &BlobStored { refusal: None }).await;
            }
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

fn blob_of(bytes: &[u8]) -> BlobRef {
    BlobRef { hash: BlobHash::of(bytes), bytes: bytes.len() as u64 }
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

/// An address where nobody answers stands neither for the coordinator nor in the way of the next; and what is wrong is told.
#[tokio::test]
async fn a_dead_first_address_does_not_stand_for_the_coordinator() {
    let [key, device] = [(); 2].map(|()| Identity::generate().unwrap());
    // Takes what comes, and says nothing.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let hole = deaf.local_addr().unwrap().to_string();
    let coordinator = Arc::new(Coordinator::default());
    let (_endpoint, right) = coordinator.listen(&key);
    let knock = async |addresses: Vec<String>| {
        let invite = wire::Invite { addresses, public_keys: vec![key.public_key().to_vec()], ..Default::default() };
        let link = invite::to_link(&invite::seal(&invite, |message| key.sign(message)));
        Member::new(&link, None, &device, Wall { unix_ms: 0 }).unwrap().knock().await.unwrap()
    };
    assert_eq!(knock(vec![hole.clone(), right]).await, Answer::Later, "this coordinator says no more");
    let Answer::Silence(why) = knock(vec![hole.clone()]).await else { panic!("nobody is there") };
    let port = hole.rsplit_once(':').unwrap().1;
    assert!(why.contains(&format!("blocks UDP (port {port})")), "{why}");
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
    let blob = blob_of(&bytes);
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
    let blob = blob_of(&bytes);
    let coordinator = Arc::new(Coordinator { blob: bytes, ..Default::default() });
    let (_endpoint, link, _folder, disk) = connected(&coordinator).await;
    disk.write_at(&blob.partial_file(), 0, b"not what was sent").unwrap();
    let told = transfer::get(&link, &disk, blob).await.unwrap_err();
    assert!(matches!(told, TransferError::Damaged(_)), "{told}");
    transfer::get(&link, &disk, blob).await.unwrap();
    assert_eq!(*coordinator.offsets.lock().unwrap(), [17, 0]);
}

#[tokio::test]
async fn an_upload_sends_only_what_is_not_there() {
    let bytes = noise(200_000);
    let coordinator = Arc::new(Coordinator { has: 150_000, ..Default::default() });
    let (_endpoint, link, _folder, disk) = connected(&coordinator).await;
    disk.write("work/delta", &bytes).unwrap();
    transfer::put(&link, &disk, LeaseId(1), blob_of(&bytes), "work/delta").await.unwrap();
    assert_eq!(*coordinator.received.lock().unwrap(), bytes[150_000..]);
    let gone = transfer::put(&link, &disk, LeaseId(1), blob_of(&bytes), "work/other").await.unwrap_err();
    assert!(matches!(gone, TransferError::FileGone(_)));
}
