//! One port for devices and pages. rustls says once a configuration whether keys are raw (RFC 7250) and whether a
//! client must show one, so each kind needs a configuration of its own; and QUIC begins a session before the first
//! bytes are there. So this session holds back until the ClientHello is whole, and goes on as the session of what that
//! offers.

use super::client_hello::{ClientHello, HelloError};
use nightjar_shared::{web, wire};
use quinn::{
    ConnectionId, TransportErrorCode,
    crypto::{
        ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
        rustls::QuicServerConfig,
    },
};
use quinn_proto::{Side, TransportError, transport_parameters::TransportParameters};
use std::{any::Any, mem, sync::Arc};

/// The server's side of the handshake, by the protocol that a client offers.
pub struct ByProtocol {
    /// For devices, and for the doors of this coordinator.
    pub native: Arc<QuicServerConfig>,
    /// For browsers.
    pub page: Arc<QuicServerConfig>,
}

impl ServerConfig for ByProtocol {
    // Initial keys and retry tags follow from QUIC's version alone.
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.native.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.native.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        let hello = ClientHello::default();
        let undecided = Undecided { configs: self, version, parameters: *parameters, hello };
        Box::new(Chosen::NotYet(Box::new(undecided)))
    }
}

enum Chosen {
    NotYet(Box<Undecided>),
    Session(Box<dyn Session>),
}

struct Undecided {
    configs: Arc<ByProtocol>,
    version: u32,
    parameters: TransportParameters,
    hello: ClientHello,
}

impl Undecided {
    /// The session of what the ClientHello offers, which must be whole.
    fn begin(&mut self) -> Result<Box<dyn Session>, HelloError> {
        let offered = self.hello.protocols()?;
        // No browser offers both. Whoever offers neither is refused by the handshake itself.
        let is_page = offered.contains(&web::ALPN) && !offered.contains(&wire::ALPN);
        let config = if is_page { &self.configs.page } else { &self.configs.native };
        Ok(config.clone().start_session(self.version, &self.parameters))
    }
}

impl Chosen {
    fn session(&self) -> Option<&dyn Session> {
        match self {
            Chosen::NotYet(_) => None,
            Chosen::Session(session) => Some(&**session),
        }
    }

    fn session_mut(&mut self) -> Option<&mut Box<dyn Session>> {
        match self {
            Chosen::NotYet(_) => None,
            Chosen::Session(session) => Some(session),
        }
    }
}

fn refused(error: HelloError) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(error.alert()), frame: None, reason: error.to_string() }
}

impl Session for Chosen {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let undecided = match self {
            Chosen::Session(session) => return session.read_handshake(bytes),
            Chosen::NotYet(undecided) => undecided,
        };
        if !undecided.hello.take(bytes).map_err(refused)? {
            return Ok(false);
        }
        let mut session = undecided.begin().map_err(refused)?;
        let hello = mem::take(&mut undecided.hello).into_bytes();
        let is_ready = session.read_handshake(&hello);
        *self = Chosen::Session(session);
        is_ready
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.session_mut()?.write_handshake(bytes)
    }

    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        match self {
            Chosen::Session(session) => session.initial_keys(id, side),
            Chosen::NotYet(undecided) => {
                let Undecided { configs, version, parameters, .. } = &**undecided;
                configs.native.clone().start_session(*version, parameters).initial_keys(id, side)
            }
        }
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session()?.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session()?.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session()?.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session()?.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session().is_none_or(Session::is_handshaking)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session().map_or(Ok(None), Session::transport_parameters)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session_mut()?.next_1rtt_keys()
    }

    // Only clients are sent retries.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session().ok_or(ExportKeyingMaterialError)?.export_keying_material(output, label, context)
    }
}
