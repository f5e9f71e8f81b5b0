//! A device, as small as can be: it speaks the protocol and trains nothing.

use crate::{
    bed::Bed,
    page::{self, Trust},
};
use nightjar_shared::{
    delta::{self, CodecId},
    ids::BlobHash,
    invite::spki_of_ed25519,
    model_spec::ModelSpec,
    rng,
    run_spec::DeltaSpec,
    wire::{
        ALPN, Blob, BlobGet, BlobHead, BlobPut, BlobStored, ControlOpen, CoordinatorMessage, DeltaOffer, DeviceMessage,
        Hello, Lease, LeaseRequest, Refusal, RefusalAction, RefusalCode, Role, StreamOpen, close::CloseCode,
        coordinator_message as answer, device_message as ask, frame, stream_open::Kind,
    },
};
use prost::Message;
use quinn::{Connection, ConnectionError, Endpoint, TransportConfig, crypto::rustls::QuicClientConfig};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair, signature::KeyPair};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        ring::default_provider, ring::sign::any_eddsa_type, verify_tls13_signature, verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    sign::CertifiedKey,
};
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};
use web_transport_quinn::{ClientError, RecvStream, SendStream, Session, SessionError, WebTransportError};

/// How a device connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Native,
    Page,
}

impl Way {
    pub const ALL: [Way; 2] = [Way::Native, Way::Page];
}

/// A key of a device.
pub struct Device {
    pkcs8: Vec<u8>,
    pinned: Vec<u8>,
    transport: Arc<TransportConfig>,
    /// What it knows of the coordinator, where it is a page.
    page: Option<Trust>,
}

/// A device's connection, with its control stream.
pub struct Link {
    pub connection: Session,
    send: SendStream,
    receive: RecvStream,
    requests: u64,
    _endpoint: Endpoint,
}

impl Device {
    /// A new device that pins the coordinator's key.
    pub fn new(bed: &Bed) -> Self {
        Self::pinning(bed.identity().public_key())
    }

    /// One that connects so.
    pub fn by(way: Way, bed: &Bed) -> Self {
        match way {
            Way::Native => Self::new(bed),
            Way::Page => Device { page: Some(Trust::of(bed)), ..Self::new(bed) },
        }
    }

    pub fn pinning(key: [u8; 32]) -> Self {
        Self::with_key(drawn_key(), key)
    }

    /// A device that was there before.
    pub fn with_key(pkcs8: Vec<u8>, pinned: [u8; 32]) -> Self {
        Device { pkcs8, pinned: spki_of_ed25519(&pinned), transport: Arc::default(), page: None }
    }

    /// That keeps its connection alive, whatever else it does not do.
    pub fn dawdling(self) -> Self {
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        Device { transport: Arc::new(transport), ..self }
    }

    pub async fn connect(&self, to: SocketAddr) -> Result<Session, ConnectionError> {
        Ok(self.connect_from(to).await?.1)
    }

    async fn connect_from(&self, to: SocketAddr) -> Result<(Endpoint, Session), ConnectionError> {
        if let Some(trust) = &self.page {
            let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
            return match page::enter(trust, self, &endpoint, to).await {
                Ok((session, _)) => Ok((endpoint, session)),
                Err(ClientError::Connection(error)) => Err(error),
                Err(error) => panic!("{error}"),
            };
        }
        let spki = spki_of_ed25519(self.key().public_key().as_ref().try_into().unwrap());
        let (endpoint, connection) = self.connect_showing(to, spki, &[ALPN]).await?;
        Ok((endpoint, Session::raw(connection)))
    }

    pub fn key(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(&self.pkcs8).unwrap()
    }

    /// How it speaks QUIC.
    pub fn quic(&self, tls: rustls::ClientConfig) -> quinn::ClientConfig {
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(self.transport.clone());
        config
    }

    /// Connects with this in the place of its public key, and under these protocols.
    pub async fn connect_showing(
        &self,
        to: SocketAddr,
        spki: Vec<u8>,
        protocols: &[&[u8]],
    ) -> Result<(Endpoint, Connection), ConnectionError> {
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(self.pkcs8.clone())).unwrap();
        let shown = CertifiedKey::new(vec![CertificateDer::from(spki)], key);
        let pinned = self.pinned.clone();
        let mut tls = pinning(move |shown| shown == pinned, true)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(shown))));
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.set_default_client_config(self.quic(tls));
        let connection = endpoint.connect(to, "coordinator").unwrap().await?;
        Ok((endpoint, connection))
    }

    /// Connects and opens the control stream.
    pub async fn link(&self, to: SocketAddr) -> Link {
        self.try_link(to).await.unwrap()
    }

    /// The same, if somebody is there.
    pub async fn try_link(&self, to: SocketAddr) -> Option<Link> {
        let (endpoint, connection) = self.connect_from(to).await.ok()?;
        let (send, receive) = try_open(&connection, Kind::Control(ControlOpen {})).await?;
        Some(Link { connection, send, receive, requests: 0, _endpoint: endpoint })
    }

    /// Connects and says hello.
    pub async fn join(&self, to: SocketAddr, invite: Vec<u8>) -> Link {
        let mut link = self.link(to).await;
        match link.hello(invite, Role::Volunteer).await {
            answer::Body::Welcome(_) => link,
            other => panic!("{other:?}"),
        }
    }
}

/// A new device's key.
pub fn drawn_key() -> Vec<u8> {
    Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec()
}

/// Opens a stream for a purpose.
pub async fn open(connection: &Session, kind: Kind) -> (SendStream, RecvStream) {
    try_open(connection, kind).await.unwrap()
}

/// The same, if the connection stands.
pub async fn try_open(connection: &Session, kind: Kind) -> Option<(SendStream, RecvStream)> {
    let (mut send, receive) = connection.open_bi().await.ok()?;
    send.write_all(&frame::encode(&StreamOpen { kind: Some(kind) })).await.ok()?;
    Some((send, receive))
}

/// Why a connection was closed, which must be soon.
pub async fn closed(connection: &Session) -> SessionError {
    tokio::time::timeout(Duration::from_secs(10), connection.closed()).await.expect("the connection was to be closed")
}

/// The code that the coordinator closed it with.
pub fn close_code(error: &SessionError) -> Option<CloseCode> {
    match error {
        SessionError::WebTransportError(WebTransportError::Closed(code, _)) => CloseCode::from_number((*code).into()),
        _ => None,
    }
}

/// The next message of a stream.
pub async fn message<M: Message + Default>(receive: &mut RecvStream) -> M {
    try_message(receive).await.unwrap()
}

/// The same, if one comes.
pub async fn try_message<M: Message + Default>(receive: &mut RecvStream) -> Option<M> {
    let mut prefix = [0; 4];
    receive.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
    receive.read_exact(&mut body).await.ok()?;
    Some(M::decode(&body[..]).unwrap())
}

impl Link {
    /// Asks. An offer that comes sooner than anybody can have trained is made again when its time has come.
    pub async fn ask(&mut self, body: ask::Body) -> answer::Body {
        loop {
            match self.ask_once(body.clone()).await {
                answer::Body::Refusal(r)
                    if matches!(body, ask::Body::DeltaOffer(_)) && r.code() == RefusalCode::Busy =>
                {
                    tokio::time::sleep(Duration::from_millis(r.retry_ms)).await;
                }
                answer => return answer,
            }
        }
    }

    pub async fn ask_once(&mut self, body: ask::Body) -> answer::Body {
        self.try_ask(body).await.unwrap()
    }

    /// The answer, if one comes.
    pub async fn try_ask(&mut self, body: ask::Body) -> Option<answer::Body> {
        self.requests += 1;
        let message_up = DeviceMessage { request: self.requests, body: Some(body) };
        self.send.write_all(&frame::encode(&message_up)).await.ok()?;
        let answer: CoordinatorMessage = try_message(&mut self.receive).await?;
        assert_eq!(answer.request, self.requests);
        answer.body
    }

    pub async fn hello(&mut self, invite: Vec<u8>, role: Role) -> answer::Body {
        self.ask(ask::Body::Hello(hello(invite, role))).await
    }

    /// Asks for a lease, again where that is the advice.
    pub async fn lease(&mut self, request: LeaseRequest) -> Lease {
        for _ in 0..100 {
            match self.ask(ask::Body::LeaseRequest(request.clone())).await {
                answer::Body::Lease(lease) => return lease,
                answer::Body::Refusal(r) if r.action() == RefusalAction::Retry => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("no lease")
    }

    /// Downloads a blob in two goes and checks it.
    pub async fn fetch(&self, blob: &Blob) -> Vec<u8> {
        let middle = blob.bytes / 3;
        let (_send, mut receive) =
            open(&self.connection, Kind::Get(BlobGet { hash: blob.hash.clone(), offset: 0 })).await;
        let head: BlobHead = message(&mut receive).await;
        assert_eq!((head.bytes, head.offset, head.refusal), (blob.bytes, 0, None));
        let mut bytes = vec![0; middle as usize];
        receive.read_exact(&mut bytes).await.unwrap();
        receive.stop(0).unwrap();
        let (_send, mut receive) =
            open(&self.connection, Kind::Get(BlobGet { hash: blob.hash.clone(), offset: middle })).await;
        let head: BlobHead = message(&mut receive).await;
        assert_eq!((head.bytes, head.offset, head.refusal), (blob.bytes, middle, None));
        bytes.extend(receive.read_to_end(1 << 20).await.unwrap());
        assert_eq!(BlobHash::of(&bytes), blob.name().unwrap());
        bytes
    }

    /// Begins an upload: the offset from which it goes on, or a refusal.
    pub async fn put(&self, lease: u64, blob: Blob) -> (SendStream, RecvStream, Result<u64, Refusal>) {
        let (send, mut receive) =
            open(&self.connection, Kind::Put(BlobPut { blob: Some(blob), lease_id: lease })).await;
        let head: BlobHead = message(&mut receive).await;
        let start = match head.refusal {
            None => Ok(head.offset),
            Some(refusal) => Err(refusal),
        };
        (send, receive, start)
    }

    /// Uploads a blob to its end.
    pub async fn upload(&self, lease: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let (mut send, mut receive, start) = self.put(lease, Blob::new(BlobHash::of(bytes), bytes.len() as u64)).await;
        send.write_all(&bytes[start? as usize..]).await.unwrap();
        send.finish().unwrap();
        let stored: BlobStored = message(&mut receive).await;
        stored.refusal.map_or(Ok(()), Err)
    }
}

/// What a device says first.
pub fn hello(invite: Vec<u8>, role: Role) -> Hello {
    Hello {
        software: "test".into(),
        invite,
        role: role as i32,
        codecs: CodecId::ALL.iter().map(|c| *c as u32).collect(),
        kinds: vec![1],
        name: "a <b>device</b>".into(),
        device: "none".into(),
        ..Hello::default()
    }
}

/// A delta that is plausible, and its offer.
pub fn trained(model: &ModelSpec, lease: &Lease, seed: u64) -> (Vec<u8>, DeltaOffer) {
    let n = model.parameters();
    let gradient: Vec<f32> = (0..n as u64).map(|i| rng::normal(seed, 0, i) as f32 * 1e-4).collect();
    let bytes = delta::encode(model, &DeltaSpec::default(), &gradient, &mut vec![0.0; n]);
    let offer = DeltaOffer {
        lease_id: lease.id,
        generation: lease.generation,
        delta: Some(Blob::new(BlobHash::of(&bytes), bytes.len() as u64)),
        steps: lease.steps,
        samples: lease.samples,
        train_ms: 1,
        loss_first: 2.7,
        loss_last: 2.6,
    };
    (bytes, offer)
}

/// The beginning of a configuration that takes whom `is_known` takes, by what it shows: a raw key or a certificate.
pub fn pinning(
    is_known: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    raw: bool,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin { is_known: Box::new(is_known), raw }))
}

/// Whether a certificate or key is the right one.
type IsKnown = dyn Fn(&[u8]) -> bool + Send + Sync;

struct Pin {
    is_known: Box<IsKnown>,
    raw: bool,
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if (self.is_known)(shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("not the pinned key".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        if self.raw {
            let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
            verify_tls13_signature_with_raw_key(message, &key, signature, &algorithms)
        } else {
            verify_tls13_signature(message, shown, signature, &algorithms)
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}
