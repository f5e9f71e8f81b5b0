//! A page as a device: it comes by WebTransport and proves its key, as a browser would.

use crate::{
    bed::Bed,
    device::{Device, message, pinning},
};
use nightjar_coordinator::{certificate::CertificateKey, server::wall_now};
use nightjar_shared::{
    web::{ALPN, CertificateHash, PATH, PROTOCOL, proof},
    wire::{PageAdmitted, PageChallenge, PageHello, PageProof, StreamOpen, frame, stream_open::Kind},
};
use quinn::{Connection, Endpoint};
use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use std::net::SocketAddr;
use web_transport_quinn::{ClientError, RecvStream, SendStream, Session, SessionError, proto::ConnectRequest};

/// What a page knows of its coordinator.
#[derive(Clone)]
pub struct Trust {
    pub certificate: CertificateHash,
}

impl Trust {
    /// As an invite has it.
    pub fn of(bed: &Bed) -> Self {
        Trust { certificate: CertificateKey::of(&bed.identity()).hashes(wall_now(), 1)[0] }
    }

    fn tls(&self) -> rustls::ClientConfig {
        let known = self.certificate;
        let mut tls = pinning(move |shown| digest(&SHA256, shown).as_ref() == known, false).with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls
    }

    /// A connection of HTTP/3, before any session.
    pub async fn connect(
        &self,
        device: &Device,
        endpoint: &Endpoint,
        to: SocketAddr,
    ) -> Result<Connection, quinn::ConnectionError> {
        endpoint.connect_with(device.quic(self.tls()), to, "127.0.0.1").unwrap().await
    }

    /// A session on it.
    pub async fn session(&self, device: &Device, endpoint: &Endpoint, to: SocketAddr) -> Result<Session, ClientError> {
        let connection = self.connect(device, endpoint, to).await?;
        Session::connect(connection, request(to, PATH).with_protocol(PROTOCOL)).await
    }
}

/// What a page asks for first.
pub fn request(to: SocketAddr, path: &str) -> ConnectRequest {
    ConnectRequest::new(url::Url::parse(&format!("https://{to}{path}")).unwrap())
}

/// The stream of a proof, up to the challenge.
pub struct Challenged {
    pub send: SendStream,
    pub receive: RecvStream,
    pub challenge: PageChallenge,
}

/// Shows a key, and is challenged.
pub async fn challenged(session: &Session, public_key: &[u8]) -> Result<Challenged, SessionError> {
    let (mut send, mut receive) = session.open_bi().await?;
    let hello = StreamOpen { kind: Some(Kind::Page(PageHello { public_key: public_key.to_vec() })) };
    if send.write_all(&frame::encode(&hello)).await.is_err() {
        return Err(session.closed().await);
    }
    let mut prefix = [0; 4];
    if receive.read_exact(&mut prefix).await.is_err() {
        return Err(session.closed().await);
    }
    let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
    receive.read_exact(&mut body).await.unwrap();
    Ok(Challenged { send, receive, challenge: frame::decode(&body).unwrap() })
}

impl Challenged {
    /// What an honest page signs.
    pub fn signature(&self, key: &Ed25519KeyPair) -> Vec<u8> {
        let PageChallenge { challenge, certificate } = &self.challenge;
        let message = proof(certificate[..].try_into().unwrap(), challenge[..].try_into().unwrap());
        key.sign(&message).as_ref().to_vec()
    }

    /// Sends a signature.
    pub async fn answer(mut self, signature: Vec<u8>) -> RecvStream {
        // It may have been closed already.
        let _ = self.send.write_all(&frame::encode(&PageProof { signature })).await;
        self.receive
    }
}

/// Connects and proves the key.
pub async fn enter(
    trust: &Trust,
    device: &Device,
    endpoint: &Endpoint,
    to: SocketAddr,
) -> Result<(Session, PageAdmitted), ClientError> {
    let key = device.key();
    let session = trust.session(device, endpoint, to).await?;
    let challenged = challenged(&session, key.public_key().as_ref()).await.map_err(gone)?;
    assert_eq!(challenged.challenge.certificate, trust.certificate, "the one that was shown");
    let signature = challenged.signature(&key);
    let mut receive = challenged.answer(signature).await;
    let admitted = message(&mut receive).await;
    Ok((session, admitted))
}

fn gone(error: SessionError) -> ClientError {
    match error {
        SessionError::ConnectionError(error) => error.into(),
        // Its reason came by the session.
        other => panic!("{other}"),
    }
}
