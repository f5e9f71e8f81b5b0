//! A coordinator's end of a link, as far as tests need one.

use nightjar_agent::identity::Identity;
use nightjar_shared::wire::{self, frame};
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
use std::sync::Arc;

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

/// Listens with a key; gives back the address.
pub fn endpoint(key: &Identity) -> (Endpoint, String) {
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
    (endpoint, address)
}

/// The next message of a stream.
pub async fn receive<M: Message + Default>(from: &mut RecvStream) -> M {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.unwrap();
    let mut body = vec![0; frame::length(prefix, 1 << 20).unwrap()];
    from.read_exact(&mut body).await.unwrap();
    frame::decode(&body).unwrap()
}

/// Sends a message.
pub async fn send(to: &mut SendStream, message: &impl Message) {
    to.write_all(&frame::encode(message)).await.unwrap();
}
