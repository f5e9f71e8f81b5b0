//! Pages as devices: browsers that come by WebTransport to the port of all others ([`by_protocol`]). Once a page has
//! proven its key, what serves devices serves it too, and nobody else knows the difference.

mod by_protocol;
mod client_hello;

pub use by_protocol::ByProtocol;

use super::{
    clock::wall_now,
    context::Context,
    session::{Session, close},
    stream::{self, StreamError},
};
use crate::{
    certificate::{CertificateKey, Period},
    identity::{self, Identity},
};
use nightjar_shared::{
    ids::DeviceId,
    invite::spki_of_ed25519,
    time::Wall,
    web::{CHALLENGE_BYTES, CertificateHash, PATH, PROTOCOL, proof},
    wire::{
        PageAdmitted, PageChallenge, PageHello, PageProof, StreamOpen, close::CloseCode, limits::HELLO_BYTES_MAX,
        stream_open::Kind,
    },
};
use quinn::Connection;
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, UnparsedPublicKey},
};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateSec1KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use web_transport_quinn::{Request, ServerError, SessionError, http::StatusCode, proto::ConnectResponse};

/// Certificates that a page is told of: this one, and those of the next eight months. A page that was away for less
/// comes back by what it knows.
const CERTIFICATES_TOLD: u64 = 24;
/// Streams of one way that HTTP/3 takes: its control stream, two for the compression of headers, and one of a kind that
/// nobody knows, which some send for exercise.
pub const UNI_STREAMS: u32 = 4;
/// Streams of both ways that a session takes beside those of devices: the one that it is.
pub const SESSION_STREAMS: u32 = 1;
/// Bytes of datagrams that may wait. HTTP/3 asks that they be allowed; nobody reads them.
pub const DATAGRAM_BYTES: usize = 2 << 10;

/// What pages know the coordinator by.
pub struct Web {
    key: CertificateKey,
    shown: Mutex<Option<Arc<Shown>>>,
}

/// The certificate of a period.
struct Shown {
    period: Period,
    certified: Arc<CertifiedKey>,
    /// It, and those that follow.
    hashes: Vec<CertificateHash>,
}

impl Web {
    /// Of a coordinator.
    pub fn new(identity: &Identity) -> Self {
        Web { key: CertificateKey::of(identity), shown: Mutex::default() }
    }

    /// What is shown at a moment; made anew once a period.
    fn shown(&self, now: Wall) -> Result<Arc<Shown>, rustls::Error> {
        // It is replaced as a whole.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let period = Period::at(now);
        if let Some(shown) = shown.as_ref().filter(|shown| shown.period == period) {
            return Ok(shown.clone());
        }
        let certificate = self.key.certificate(period);
        let key = any_ecdsa_type(&PrivateSec1KeyDer::from(certificate.sec1).into())?;
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(certificate.der)], key));
        let hashes = self.key.hashes(now, CERTIFICATES_TOLD);
        Ok(shown.insert(Arc::new(Shown { period, certified, hashes })).clone())
    }

    /// The hashes of what is shown now and from then on.
    pub fn hashes(&self, now: Wall) -> Result<Vec<CertificateHash>, rustls::Error> {
        Ok(self.shown(now)?.hashes.clone())
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Web")
    }
}

/// So the certificate of the moment is shown, however long a process runs.
impl ResolvesServerCert for Web {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown(wall_now())
            .inspect_err(|error| tracing::error!(%error, "no certificate for pages"))
            .ok()
            .map(|shown| shown.certified.clone())
    }
}

/// A page that is not let in.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// HTTP/3, or the session's request.
    #[error("no session: {0}")]
    Session(#[from] ServerError),
    /// The connection is gone.
    #[error("the page is gone: {0}")]
    Gone(#[from] SessionError),
    /// It asks for something else.
    #[error("a request for {0}, which is not served here")]
    Elsewhere(String),
    /// Its first stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Its signature is not that of its key.
    #[error("the page does not hold the key that it shows")]
    NotItsKey,
    /// This side.
    #[error("no challenge can be made: {0}")]
    Internal(String),
}

/// Lets a page in: its session, then the proof of its key. Until then it is nobody's device. Whoever calls bounds how
/// long it may take.
pub async fn enter(connection: Connection, context: &Context) -> Result<(Session, DeviceId), EnterError> {
    let web = context.web.as_deref().ok_or_else(|| EnterError::Internal("pages are not served".into()))?;
    // The session's own stream, and one that the page opens.
    connection.set_max_concurrent_bi_streams((SESSION_STREAMS + 1).into());
    let request = Request::accept(connection).await?;
    let speaks = request.protocols.iter().any(|protocol| protocol == PROTOCOL);
    if request.url.path() != PATH || !speaks {
        let asked = request.url.path().to_owned();
        request.reject(StatusCode::NOT_FOUND).await?;
        return Err(EnterError::Elsewhere(asked));
    }
    let session = request.respond(ConnectResponse::OK.with_protocol(PROTOCOL)).await?;
    match prove(&session, web, context).await {
        Ok(device) => Ok((session, device)),
        Err(error) => {
            // The page hears of it by its session, and then this is over.
            close(&session, CloseCode::Malformed, &error.to_string());
            session.closed().await;
            Err(error)
        }
    }
}

/// The page signs a challenge with its key, and is told which certificates to trust from now on.
async fn prove(session: &Session, web: &Web, context: &Context) -> Result<DeviceId, EnterError> {
    let internal = |why: &dyn fmt::Display| EnterError::Internal(why.to_string());
    let (send, receive) = session.accept_bi().await?;
    let (mut up, mut down) = stream::split(send, receive, &context.traffic, &context.budget);
    let open: StreamOpen = up.first_message(HELLO_BYTES_MAX).await?;
    let Some(Kind::Page(PageHello { public_key })) = open.kind else {
        return Err(StreamError::OutOfTurn("a page proves its key first").into());
    };
    let public_key: identity::PublicKey = public_key.try_into().map_err(|_| EnterError::NotItsKey)?;
    let hashes = web.hashes(wall_now()).map_err(|error| internal(&error))?;
    let [certificate, ..] = hashes[..] else { return Err(internal(&"no certificate")) };
    let mut challenge = [0; CHALLENGE_BYTES];
    SystemRandom::new().fill(&mut challenge).map_err(|error| internal(&error))?;
    down.message(&PageChallenge { challenge: challenge.to_vec(), certificate: certificate.to_vec() }).await?;
    let PageProof { signature } = up.first_message(HELLO_BYTES_MAX).await?;
    let signed = UnparsedPublicKey::new(&ED25519, public_key).verify(&proof(&certificate, &challenge), &signature);
    signed.map_err(|_| EnterError::NotItsKey)?;
    down.message(&PageAdmitted { certificates: context.identity.seal_certificates(&hashes) }).await?;
    down.finish();
    Ok(DeviceId::of_spki(&spki_of_ed25519(&public_key)))
}
