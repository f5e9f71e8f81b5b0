//! The endpoint: one UDP socket, and the bounds of what any device may take of this process.

use super::{
    tls::{self, TlsError},
    web::{self, Web},
};
use crate::identity::Identity;
use nightjar_shared::wire::{
    close::CloseCode,
    limits::{CONTROL_WINDOW_BYTES, STRANGER_WINDOW_BYTES, STRANGERS_MAX, TRANSFER_WINDOW_BYTES},
};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// A connection that is silent for this long is over. Devices that stay keep it alive; this side never does, or it
/// would hold those who only came to take a place.
const IDLE_MS: u32 = 30_000;
/// Bytes of a connection that begins, before it is looked at: its first packets.
const INCOMING_BYTES_MAX: u64 = 16 << 10;
/// The same, of all of them.
const INCOMING_BYTES_MAX_OF_ALL: u64 = 4 << 20;

/// Longest wait, when stopping, for devices to hear of it.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether the address is free.
const LET_GO_LOOK: Duration = Duration::from_millis(10);

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

fn failed(address: SocketAddr) -> impl Fn(io::Error) -> EndpointError {
    move |error| match error.kind() {
        io::ErrorKind::AddrInUse => EndpointError::InUse { address },
        _ => EndpointError::Bind { address, error },
    }
}

/// Opens the socket.
pub fn bind(address: SocketAddr) -> Result<UdpSocket, EndpointError> {
    UdpSocket::bind(address).map_err(failed(address))
}

/// Opens the endpoint: for devices, and for pages where there is what they know the coordinator by.
pub fn endpoint(address: SocketAddr, identity: &Identity, web: Option<&Arc<Web>>) -> Result<Endpoint, EndpointError> {
    let socket = bind(address)?;
    let crypto: Arc<dyn quinn::crypto::ServerConfig> = match web {
        Some(web) => Arc::new(tls::server_config_with_pages(identity, web.clone())?),
        None => Arc::new(tls::server_config(identity)?),
    };
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config.transport_config(Arc::new(transport(web.is_some())));
    config.max_incoming(STRANGERS_MAX);
    config.incoming_buffer_size(INCOMING_BYTES_MAX).incoming_buffer_size_total(INCOMING_BYTES_MAX_OF_ALL);
    Endpoint::new(endpoint_config(identity), Some(config), socket, Arc::new(TokioRuntime)).map_err(failed(address))
}

/// Keys that follow from the coordinator's own. After a crash the next process recognises connections of the last one
/// and can tell devices at once that they are over (a stateless reset, RFC 9000 section 10.3); else each would find out
/// by its silence.
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let secret = |purpose: &str| blake3::derive_key(purpose, identity.pkcs8());
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &secret("nightjar 2026 QUIC stateless reset"));
    let [a, b, c, d, e, f, g, h, ..] = secret("nightjar 2026 QUIC connection ids");
    let id_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

/// As a connection begins: a stranger's. [`super::peer`] widens it after a valid hello, and while blobs travel.
/// Whether it is a page's is not known yet: what HTTP/3 needs before its handshake is done, all are allowed, and it is
/// nothing of value.
fn transport(with_pages: bool) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let (uni_streams, datagrams) = if with_pages { (web::UNI_STREAMS, Some(web::DATAGRAM_BYTES)) } else { (0, None) };
    transport
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(uni_streams.into())
        .datagram_receive_buffer_size(datagrams)
        .stream_receive_window(TRANSFER_WINDOW_BYTES.into())
        .receive_window(STRANGER_WINDOW_BYTES.into())
        .send_window(u64::from(CONTROL_WINDOW_BYTES))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))));
    transport
}

/// Closes an endpoint, waits a moment for devices to hear of it, and lets go of its address.
///
/// A connection lasts for three times as long as an answer may take, even when it is closed (RFC 9000, section 10.2). If
/// this process was paused, that is a minute; the address is wanted sooner, by this process itself in another role.
pub async fn end(endpoint: Endpoint) {
    endpoint.close((CloseCode::Stopping as u32).into(), b"the coordinator is stopping");
    // Whoever does not hear of it finds out by silence.
    if timeout(GOODBYE_MAX, endpoint.wait_idle()).await.is_ok() {
        return;
    }
    let address = endpoint.local_addr();
    // The endpoint keeps the socket before the last one, too: so twice.
    for _ in 0..2 {
        let nowhere = endpoint.local_addr().and_then(|at| UdpSocket::bind((at.ip(), 0)));
        if let Err(error) = nowhere.and_then(|socket| endpoint.rebind(socket)) {
            tracing::warn!(%error, "the address of connections that are over is let go of only later");
        }
    }
    // Connections let go of it when they are next looked at.
    let is_free = || address.as_ref().is_ok_and(|address| UdpSocket::bind(address).is_ok());
    let until = Instant::now() + GOODBYE_MAX;
    while !is_free() && Instant::now() < until {
        sleep(LET_GO_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;
    use quinn::ClientConfig;

    #[tokio::test]
    async fn an_address_is_free_though_a_device_never_answers() {
        let home = tempfile::tempdir().unwrap();
        let identity = Identity::open_or_draw(&FolderDisk::open(home.path()).unwrap()).unwrap();
        let listening = endpoint("127.0.0.1:0".parse().unwrap(), &identity, None).unwrap();
        let address = listening.local_addr().unwrap();
        // Its first packet is all that ever comes of it, so its connection is waited for longer than a goodbye may take.
        let way = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let device = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = ClientConfig::new(Arc::new(tls::door_config(&identity).unwrap()));
        let _connecting = device.connect_with(config, way.local_addr().unwrap(), "coordinator").unwrap();
        let mut first = [0; 2048];
        let (length, _) = way.recv_from(&mut first).await.unwrap();
        way.send_to(&first[..length], address).await.unwrap();
        let _silent = listening.accept().await.unwrap().accept().unwrap();
        end(listening).await;
        bind(address).unwrap();
    }
}
