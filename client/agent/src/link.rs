//! The link to the coordinator: QUIC, with raw ed25519 keys on both sides of the TLS handshake (RFC 7250). The device
//! shows its own key and accepts no coordinator but those that the invite pins.

mod race;

use crate::identity::Identity;
use nightjar_shared::{
    invite,
    wire::{
        self, CoordinatorMessage, DeviceMessage,
        frame::{self, FrameError},
        limits, stream_open,
    },
};
use prost::Message;
use quinn::{
    ClientConfig, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, crypto::rustls::QuicClientConfig,
};
use race::Way;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    sign::CertifiedKey,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// A connection that says nothing for this long is gone.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// So it says something this often.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Each address is given this long.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A UDP datagram's headers, with IPv4's.
const DATAGRAM_OVERHEAD_BYTES: u64 = 28;
/// Raw keys have no names; TLS wants one all the same.
const SERVER_NAME: &str = "coordinator.nightjar";

/// A link that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// This device's key does not work, or no socket can be opened.
    #[error("cannot open a network socket: {0}")]
    Local(String),
    /// An address that is none.
    #[error("the coordinator's address `{0}` is none: it takes a name or number, a colon and a port")]
    Address(String),
    /// A name that leads nowhere.
    #[error("the name in the coordinator's address `{0}` is unknown: it is wrong, or this computer is offline")]
    UnknownHost(String),
    /// Nobody answers there, with anything.
    #[error("nobody answers at {0}: the coordinator is away, this computer is offline, or its network blocks UDP ({ports})", ports = ports(.0))]
    Silent(String),
    /// Somebody answers, but with a key that the invite does not pin.
    #[error("who answers at {0} is not the coordinator of your invite: its key is another; ask for a new invite")]
    WrongKey(String),
    /// Somebody answers, but not in this protocol; or there is no way there.
    #[error("no connection to the coordinator at {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Bytes that are no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The ports of addresses with commas between, in words.
fn ports(addresses: &str) -> String {
    let mut ports: Vec<&str> = addresses.split(", ").filter_map(|address| Some(address.rsplit_once(':')?.1)).collect();
    ports.sort_unstable();
    ports.dedup();
    format!("{} {}", if ports.len() == 1 { "port" } else { "ports" }, ports.join(", "))
}

impl LinkError {
    pub(crate) fn broken(e: impl std::fmt::Display) -> Self {
        LinkError::Broken(e.to_string())
    }
}

/// What it takes to connect.
#[derive(Clone)]
pub struct Dialer {
    addresses: Vec<String>,
    config: ClientConfig,
}

impl Dialer {
    /// To the coordinator of an invite, as this device.
    pub fn new(identity: &Identity, invite: &wire::Invite) -> Result<Self, LinkError> {
        let local = |e: rustls::Error| LinkError::Local(e.to_string());
        let pins = invite.public_keys.iter().filter_map(|k| <&[u8; 32]>::try_from(k.as_slice()).ok());
        let pins = pins.map(invite::spki_of_ed25519).collect();
        let key = PrivatePkcs8KeyDer::from(identity.pkcs8().to_vec());
        let key = provider::sign::any_eddsa_type(&key).map_err(local)?;
        let shown = CertifiedKey::new(vec![CertificateDer::from(identity.spki())], key);
        let provider = Arc::new(provider::default_provider());
        let verifier = PinnedKeys { pins, algorithms: provider.signature_verification_algorithms };
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(local)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(shown))));
        tls.alpn_protocols = vec![wire::ALPN.to_vec()];
        let quic = QuicClientConfig::try_from(tls).map_err(|e| LinkError::Local(e.to_string()))?;
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        // The coordinator opens no streams.
        transport.max_concurrent_bidi_streams(0u32.into()).max_concurrent_uni_streams(0u32.into());
        let mut config = ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport));
        Ok(Dialer { addresses: invite.addresses.clone(), config })
    }

    /// Connects to the first address that answers with a pinned key; all of them are in the race.
    pub async fn connect(&self) -> Result<Link, LinkError> {
        race::first(&self.addresses, |way| connect_by(way, self.config.clone())).await
    }

    /// Connects to this address, over a socket that others may use too.
    pub async fn connect_from(&self, endpoint: &Endpoint, to: SocketAddr) -> Result<Link, LinkError> {
        connect_from(endpoint.clone(), Way { address: to.to_string(), to }, self.config.clone()).await
    }
}

async fn connect_by(Way { address, to }: Way, config: ClientConfig) -> Result<Link, LinkError> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = Endpoint::client(any).map_err(|e| LinkError::Local(e.to_string()))?;
    connect_from(endpoint, Way { address, to }, config).await
}

async fn connect_from(endpoint: Endpoint, Way { address, to }: Way, config: ClientConfig) -> Result<Link, LinkError> {
    let unreachable = |address: String, why: String| LinkError::Unreachable { address, why };
    let connecting = match endpoint.connect_with(config, to, SERVER_NAME) {
        Ok(connecting) => connecting,
        Err(e) => return Err(unreachable(address, e.to_string())),
    };
    match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(Ok(connection)) => Ok(Link { endpoint, connection }),
        Ok(Err(quinn::ConnectionError::TransportError(e))) if e.reason.contains(WRONG_KEY) => {
            Err(LinkError::WrongKey(address))
        }
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(LinkError::Silent(address)),
        Ok(Err(e)) => Err(unreachable(address, e.to_string())),
    }
}

/// A connection to the coordinator. Dropping the last clone closes it.
#[derive(Clone)]
pub struct Link {
    endpoint: Endpoint,
    connection: quinn::Connection,
}

impl Link {
    /// Opens a stream and says what it is for.
    pub async fn open(&self, kind: stream_open::Kind) -> Result<(SendStream, RecvStream), LinkError> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(LinkError::broken)?;
        send_frame(&mut send, &wire::StreamOpen { kind: Some(kind) }).await?;
        Ok((send, receive))
    }

    /// Opens the stream of requests and answers.
    pub async fn control(&self) -> Result<Control, LinkError> {
        let (send, receive) = self.open(stream_open::Kind::Control(wire::ControlOpen {})).await?;
        Ok(Control { send, receive })
    }

    /// Bytes that went over the network so far, up and down, with all that QUIC and UDP add.
    pub fn traffic(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        let bytes = |udp: quinn::UdpStats| udp.bytes + udp.datagrams * DATAGRAM_OVERHEAD_BYTES;
        (bytes(stats.udp_tx), bytes(stats.udp_rx))
    }

    /// Waits until the connection is gone; says why.
    pub async fn closed(&self) -> String {
        match self.connection.closed().await {
            quinn::ConnectionError::TimedOut => "the coordinator has fallen silent".into(),
            quinn::ConnectionError::Reset => "the coordinator was started anew".into(),
            other => other.to_string(),
        }
    }

    /// Says goodbye, and waits until that is sent.
    pub async fn close(self) {
        self.connection.close(0u32.into(), b"bye");
        self.endpoint.wait_idle().await;
    }
}

/// The stream of requests and answers.
pub struct Control {
    send: SendStream,
    receive: RecvStream,
}

impl Control {
    /// Asks, and waits for the answer.
    pub async fn ask(&mut self, message: &DeviceMessage) -> Result<CoordinatorMessage, LinkError> {
        send_frame(&mut self.send, message).await?;
        receive_frame(&mut self.receive).await
    }
}

/// Sends a message with its length.
pub(crate) async fn send_frame(to: &mut SendStream, message: &impl Message) -> Result<(), LinkError> {
    to.write_all(&frame::encode(message)).await.map_err(LinkError::broken)
}

/// Receives a message, within the protocol's bound.
pub(crate) async fn receive_frame<M: Message + Default>(from: &mut RecvStream) -> Result<M, LinkError> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.map_err(LinkError::broken)?;
    let mut body = vec![0; frame::length(prefix, limits::MESSAGE_BYTES_MAX)?];
    from.read_exact(&mut body).await.map_err(LinkError::broken)?;
    Ok(frame::decode(&body)?)
}

const WRONG_KEY: &str = "not a pinned key";

/// Accepts the coordinator's raw key if the invite pins it.
#[derive(Debug)]
struct PinnedKeys {
    pins: Vec<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedKeys {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pins.iter().any(|pin| pin.as_slice() == spki.as_ref()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(WRONG_KEY.into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC needs TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(spki.as_ref()),
            signed,
            &self.algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
