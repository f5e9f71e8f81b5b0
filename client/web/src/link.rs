//! The link to the coordinator: one session, of which this device has proven its key, and framed messages on its
//! streams.

use crate::{
    browser::{
        key::{self, DeviceKey, KeyError},
        transport::{Broken, Session, Stream},
    },
    membership::Membership,
};
use nightjar_shared::{
    web::{self, CHALLENGE_BYTES, CertificateHash, HASH_BYTES, proof},
    wire::{
        ControlOpen, CoordinatorMessage, DeviceMessage, PageAdmitted, PageChallenge, PageHello, PageProof, StreamOpen,
        frame::{self, FrameError},
        limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX},
        stream_open::Kind,
    },
};
use prost::Message;

/// What keeps a link from being made, or ends it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers as the coordinator at any of its addresses.
    #[error(
        "no coordinator answers at {addresses} ({why}); its network may not let this page's connection (UDP) through"
    )]
    Unreachable {
        /// Those that were tried.
        addresses: String,
        /// What the browser says of the last.
        why: String,
    },
    /// Nothing is known that a coordinator could be recognised by.
    #[error(
        "the invite does not say how this page recognises the coordinator; ask for a link that is meant for browsers"
    )]
    NoCertificates,
    /// It shows a certificate that nobody has vouched for.
    #[error("whoever answers is not the coordinator of the invite")]
    NotTheCoordinator,
    /// The session is over.
    #[error("the connection to the coordinator broke: {0}")]
    Broken(#[from] Broken),
    /// What came is no message.
    #[error("the coordinator sent what cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// This browser's key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A session that stands.
#[derive(Clone)]
pub struct Link {
    session: Session,
}

impl Link {
    /// Connects to the first address that answers, proves this device's key, and gives what is to be trusted from now
    /// on.
    pub async fn connect(
        membership: &Membership,
        key: &DeviceKey,
    ) -> Result<(Link, Option<Vec<CertificateHash>>), LinkError> {
        let trusted = &membership.certificates;
        if trusted.is_empty() {
            return Err(LinkError::NoCertificates);
        }
        let mut last = Broken("it names none".into());
        for address in &membership.invite.addresses {
            match Session::connect(address, trusted).await {
                Ok(session) => {
                    let link = Link { session };
                    let proven = link.prove(membership, key).await;
                    if proven.is_err() {
                        link.close();
                    }
                    return Ok((link, proven?));
                }
                Err(broken) => last = broken,
            }
        }
        let addresses = membership.invite.addresses.join(", ");
        Err(LinkError::Unreachable { addresses, why: last.0 })
    }

    async fn prove(&self, membership: &Membership, key: &DeviceKey) -> Result<Option<Vec<CertificateHash>>, LinkError> {
        let mut stream = self.open(Kind::Page(PageHello { public_key: key.public.to_vec() })).await?;
        let PageChallenge { challenge, certificate } = stream.receive().await?;
        let challenge: Option<[u8; CHALLENGE_BYTES]> = challenge.try_into().ok();
        let certificate: Option<[u8; HASH_BYTES]> = certificate.try_into().ok();
        let certificate = certificate.filter(|shown| membership.certificates.contains(shown));
        let (challenge, certificate) = challenge.zip(certificate).ok_or(LinkError::NotTheCoordinator)?;
        stream.send(&PageProof { signature: key.sign(&proof(&certificate, &challenge)).await? }).await?;
        let PageAdmitted { certificates } = stream.receive().await?;
        vouched(membership, &certificates).await
    }

    /// Opens a stream and says what it is for.
    pub async fn open(&self, kind: Kind) -> Result<Exchange, LinkError> {
        let mut exchange = Exchange { stream: self.session.open().await? };
        exchange.send(&StreamOpen { kind: Some(kind) }).await?;
        Ok(exchange)
    }

    /// Opens the stream of requests and answers.
    pub async fn control(&self) -> Result<Control, LinkError> {
        Ok(Control(self.open(Kind::Control(ControlOpen {})).await?))
    }

    /// Waits until the session is over; says why.
    pub async fn closed(&self) -> String {
        self.session.closed().await.to_string()
    }

    /// Says goodbye.
    pub fn close(&self) {
        self.session.close();
    }
}

/// The certificates of a statement that one of the coordinator's keys has signed; `None` where none did.
pub async fn vouched(membership: &Membership, sealed: &[u8]) -> Result<Option<Vec<CertificateHash>>, LinkError> {
    let Some(claim) = web::certificates(sealed) else { return Ok(None) };
    for pinned in membership.pins() {
        if key::verifies(&pinned, &claim.covered, &claim.signature).await? {
            return Ok(Some(claim.hashes));
        }
    }
    Ok(None)
}

/// Messages and raw bytes on a stream.
pub struct Exchange {
    stream: Stream,
}

impl Exchange {
    /// Sends a message.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), LinkError> {
        Ok(self.stream.send(&frame::encode(message)).await?)
    }

    /// Receives a message, within the protocol's bound.
    pub async fn receive<M: Message + Default>(&mut self) -> Result<M, LinkError> {
        let prefix = self.stream.exactly(4).await?;
        let prefix = prefix.try_into().unwrap_or_default(); // four bytes
        let length = frame::length(prefix, MESSAGE_BYTES_MAX)?;
        Ok(frame::decode(&self.stream.exactly(length).await?)?)
    }

    /// Sends raw bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.stream.send(chunk).await?;
        }
        Ok(())
    }

    /// The next raw bytes; `None` at the end.
    pub async fn bytes(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        Ok(self.stream.chunk().await?)
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self) -> Result<(), LinkError> {
        Ok(self.stream.finish().await?)
    }
}

/// The stream of requests and answers.
pub struct Control(Exchange);

impl Control {
    /// Asks, and waits for the answer.
    pub async fn ask(&mut self, message: &DeviceMessage) -> Result<CoordinatorMessage, LinkError> {
        self.0.send(message).await?;
        self.0.receive().await
    }
}
