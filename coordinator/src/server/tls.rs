//! The handshake: raw ed25519 keys on both sides (RFC 7250). The device pins the coordinator's key; whatever key a
//! device shows is its identity, and the signature proves that it holds it. Whether it may take part is the engine's to
//! say. A door and its leader hold the same key: each shows it and pins it. A browser can do none of this: it is shown a
//! certificate, and proves its key once the connection stands ([`super::web`]).

use super::web::{ByProtocol, Web};
use crate::identity::Identity;
use nightjar_shared::{
    ids::DeviceId,
    invite::spki_of_ed25519,
    web,
    wire::{ALPN, DOOR_ALPN},
};
use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{ring::default_provider, ring::sign::any_eddsa_type, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::sync::Arc;

/// A handshake that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key is refused, or the protocol version is not there.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] Error),
    /// The provider lacks what QUIC starts with.
    #[error("TLS cannot be set up for QUIC: {0}")]
    Quic(#[from] NoInitialCipherSuite),
}

/// The server's side of the handshake.
pub fn server_config(identity: &Identity) -> Result<QuicServerConfig, TlsError> {
    // The provider is named, never the process's default: with two in the build, the default panics.
    let shown = shown(identity)?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyDevice))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(shown)));
    config.alpn_protocols = vec![ALPN.to_vec(), DOOR_ALPN.to_vec()];
    // Every connection proves its key anew: nothing is resumed, nothing comes before the handshake's end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(QuicServerConfig::try_from(config)?)
}

/// The same, for devices and for pages.
pub fn server_config_with_pages(identity: &Identity, web: Arc<Web>) -> Result<ByProtocol, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(web);
    config.alpn_protocols = vec![web::ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let page = Arc::new(QuicServerConfig::try_from(config)?);
    Ok(ByProtocol { native: Arc::new(server_config(identity)?), page })
}

fn shown(identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = any_eddsa_type(&identity.pkcs8().into())?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(identity.spki())], key)))
}

/// A door's side of the handshake with its leader.
pub fn door_config(identity: &Identity) -> Result<QuicClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SameKey(identity.spki())))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(shown(identity)?)));
    config.alpn_protocols = vec![DOOR_ALPN.to_vec()];
    Ok(QuicClientConfig::try_from(config)?)
}

/// As what the other end came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// A device.
    Device,
    /// A process of this coordinator.
    Door,
    /// A page.
    Page,
}

/// As what the other end of an established connection came.
pub fn guest(connection: &quinn::Connection) -> Guest {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    match data.and_then(|data| data.protocol).as_deref() {
        Some(DOOR_ALPN) => Guest::Door,
        Some(web::ALPN) => Guest::Page,
        // The handshake lets in nobody else.
        _ => Guest::Device,
    }
}

/// Who is at the other end of an established connection.
pub fn device_of(connection: &quinn::Connection) -> Option<DeviceId> {
    let keys = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(DeviceId::of_spki(keys.first()?))
}

/// How both sides check a handshake's signature: ed25519 by a raw key, TLS 1.3 alone.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = default_provider().signature_verification_algorithms;
            verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key.as_ref()),
                signature,
                &algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// Accepts every ed25519 key that signs the handshake.
#[derive(Debug)]
struct AnyDevice;

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // One spelling only: an id is the hash of these bytes.
        let is_ed25519 = key.last_chunk::<32>().is_some_and(|raw| spki_of_ed25519(raw) == key.as_ref());
        if is_ed25519 { Ok(ClientCertVerified::assertion()) } else { Err(CertificateError::BadEncoding.into()) }
    }

    signatures!();
}

/// Accepts this key alone.
#[derive(Debug)]
struct SameKey(Vec<u8>);

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key.as_ref() == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    signatures!();
}
