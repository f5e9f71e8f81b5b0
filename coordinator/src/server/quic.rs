//! The endpoint: one UDP socket, and the bounds of what any device may take of this process.

use super::tls::{self, TlsError};
use crate::identity::Identity;
use nightjar_shared::wire::limits::{CONNECTIONS_MAX, STREAMS_PER_CONNECTION_MAX};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// A connection that is silent for this long is over. Devices that stay keep it alive.
const IDLE_MS: u32 = 30_000;
/// Bytes in flight on one stream: enough for 10 MB/s at 100 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes in flight on all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Handshakes under way at once.
const HANDSHAKES_MAX: usize = 1024;

/// An endpoint that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The socket.
    #[error("UDP port {port} is in use by another program; stop it, or choose another address with --listen", port = address.port())]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The socket, for another reason.
    #[error("cannot listen on {address} (UDP): {error}; choose another address with --listen")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The handshake.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Opens the endpoint.
pub fn endpoint(address: SocketAddr, identity: &Identity) -> Result<Endpoint, EndpointError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => EndpointError::InUse { address },
        _ => EndpointError::Bind { address, error },
    };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server_config(identity)?));
    config.transport_config(Arc::new(transport()));
    config.max_incoming(HANDSHAKES_MAX);
    Endpoint::new(endpoint_config(identity), Some(config), socket, Arc::new(TokioRuntime)).map_err(failed)
}

/// Keys that follow from the coordinator's own. After a crash the next process recognises connections of the last one and
/// can tell devices at once that they are over (a stateless reset, RFC 9000 section 10.3); else each would find out by
/// its silence.
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let secret = |purpose: &str| blake3::derive_key(purpose, identity.pkcs8());
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &secret("nightjar 2026 QUIC stateless reset"));
    let [a, b, c, d, e, f, g, h, ..] = secret("nightjar 2026 QUIC connection ids");
    let id_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_PER_CONNECTION_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .keep_alive_interval(Some(Duration::from_millis(u64::from(IDLE_MS) / 3)))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))));
    transport
}

/// What to do with a connection that begins, by how many there are already.
pub enum Admission {
    /// Let it in.
    Accept,
    /// Let it prove its address first, at no cost to us: from half the bound on, so that forged addresses do not take
    /// the places of real ones.
    Prove,
    /// There is no place.
    Refuse,
}

/// See [`Admission`].
pub fn admission(open: usize, address_is_proven: bool) -> Admission {
    if open >= CONNECTIONS_MAX {
        Admission::Refuse
    } else if open >= CONNECTIONS_MAX / 2 && !address_is_proven {
        Admission::Prove
    } else {
        Admission::Accept
    }
}
