//! The handshake: raw ed25519 keys on both sides (RFC 7250). The device pins the coordinator's key; whatever key a
//! device shows is its identity, and the signature proves that it holds it. Whether it may take part is the engine's to
//! say.

use crate::identity::Identity;
use nightjar_shared::{ids::DeviceId, invite::spki_of_ed25519, wire::ALPN};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{ring::default_provider, ring::sign::any_eddsa_type, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
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
    let key = any_eddsa_type(&identity.pkcs8().into())?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(identity.spki())], key);
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyDevice))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection proves its key anew: nothing is resumed, nothing comes before the handshake's end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(QuicServerConfig::try_from(config)?)
}

/// Who is at the other end of an established connection.
pub fn device_of(connection: &quinn::Connection) -> Option<DeviceId> {
    let keys = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(DeviceId::of_spki(keys.first()?))
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
}
