//! A door's link to the leader: what it asks, and what it is told.

use crate::{
    identity::Identity,
    server::{
        doors::links::LINK_WINDOW_BYTES,
        handle::{Question, Request, busy},
        news::News,
        tls::{self, TlsError},
    },
    store::Blobs,
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId},
    wire::{
        DeviceMessage, UploadFrom, coordinator_message as answer, device_message as ask,
        door::{self, ask::Kind, news},
        frame::{self, FrameError},
    },
};
use prost::Message;
use quinn::{ClientConfig, Connection, Endpoint, IdleTimeout, RecvStream, TransportConfig, VarInt};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;

/// A leader that is silent for so long is gone.
const IDLE_MS: u32 = 5_000;
/// How often a link shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a leader may take to answer the first question.
const BEGIN_MAX: Duration = Duration::from_secs(5);
/// Longest answer: a welcome, with the run spec.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A leader that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The way there.
    #[error("the leader at {0} does not answer")]
    Silent(SocketAddr),
    /// The connection broke.
    #[error("the connection to the leader broke: {0}")]
    Broken(String),
    /// Bytes that are no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The handshake cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn broken(error: impl std::fmt::Display) -> LinkError {
    LinkError::Broken(error.to_string())
}

/// A connection to the leader. Clones are the same.
#[derive(Clone)]
pub struct Link {
    connection: Connection,
    _endpoint: Endpoint,
}

/// News as they come.
pub struct Newest(RecvStream);

impl Link {
    /// Connects as a process that holds the run's key, to one that does.
    pub async fn dial(leader: SocketAddr, identity: &Identity) -> Result<Link, LinkError> {
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
            .keep_alive_interval(Some(KEEP_ALIVE))
            .receive_window(LINK_WINDOW_BYTES.into())
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams(0u32.into());
        let mut config = ClientConfig::new(Arc::new(tls::door_config(identity)?));
        config.transport_config(Arc::new(transport));
        let any: SocketAddr = if leader.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let endpoint = Endpoint::client(any).map_err(broken)?;
        let connecting = endpoint.connect_with(config, leader, "coordinator").map_err(broken)?;
        match timeout(BEGIN_MAX, connecting).await {
            Ok(Ok(connection)) => Ok(Link { connection, _endpoint: endpoint }),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(LinkError::Silent(leader)),
        }
    }

    /// From here on all that is new is told.
    pub async fn follow(&self) -> Result<Newest, LinkError> {
        let mut newest = Newest(self.open(Kind::Follow(door::Follow {})).await?);
        let following = async {
            let door::News { kind } = message(&mut newest.0).await?;
            matches!(kind, Some(news::Kind::Following(_))).then_some(()).ok_or_else(|| broken("it tells nothing"))
        };
        timeout(BEGIN_MAX, following).await.map_err(|_| broken("it tells nothing"))??;
        Ok(newest)
    }

    /// Ends it: whoever waits for an answer hears that there is none.
    pub fn close(&self) {
        self.connection.close(0u32.into(), b"");
    }

    async fn open(&self, kind: Kind) -> Result<RecvStream, LinkError> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(broken)?;
        send.write_all(&frame::encode(&door::Ask { kind: Some(kind) })).await.map_err(broken)?;
        send.finish().map_err(broken)?;
        Ok(receive)
    }

    /// Asks, however long the answer takes: one is due at a round's end, perhaps.
    async fn ask(&self, kind: Kind) -> Result<door::Answer, LinkError> {
        message(&mut self.open(kind).await?).await
    }

    /// Tells what needs no answer. Where it is not heard, it is told again, or passes by itself.
    pub async fn tell(&self, kind: Kind) {
        if let Err(error) = self.ask(kind).await {
            tracing::debug!(%error, "the leader was not told");
        }
    }

    /// Hands a question on, and its answer back. Where the link breaks, the device comes again: nobody knows whether
    /// its request was heard, as if its own connection had broken.
    pub async fn forward(self, question: Question, blobs: Blobs) {
        match question {
            Question::Request(request) => {
                let Request { device, body, invite, answer, .. } = *request;
                let offered = match &body {
                    ask::Body::DeltaOffer(offer) => offer.delta.as_ref().and_then(|delta| delta.name()),
                    _ => None,
                };
                let message = Some(DeviceMessage { request: 0, body: Some(body) });
                let asked = self.ask(Kind::Request(door::Request { device: device.0.to_vec(), message, invite })).await;
                let body = asked.ok().and_then(|asked| asked.message?.body);
                let body = body.unwrap_or_else(|| answer::Body::Refusal(busy()));
                drop(answer.send(from_here(body, offered, blobs).await));
            }
            Question::MayUpload { device, lease, bytes, answer } => {
                let device = device.0.to_vec();
                let asked = self.ask(Kind::MayUpload(door::MayUpload { device, lease_id: lease.0, bytes })).await;
                drop(answer.send(match asked {
                    Ok(door::Answer { refusal: None, .. }) => Ok(()),
                    Ok(door::Answer { refusal: Some(refusal), .. }) => Err(refusal),
                    Err(_) => Err(busy()),
                }));
            }
            Question::GiveUp { device, lease, generation } => {
                let device = device.0.to_vec();
                self.tell(Kind::GiveUp(door::GiveUp { device, lease_id: lease.0, generation: generation.0 })).await;
            }
            // The leader finds out by its own look.
            Question::BlobLost(hash) | Question::BlobFound(hash) => self.tell(damaged(hash)).await,
            // What only the leader's own process asks; whoever asks here hears that nobody answers.
            Question::Status(_)
            | Question::Devices { .. }
            | Question::DevicesNamed { .. }
            | Question::Order { .. }
            | Question::Reload(..)
            | Question::GivenUp { .. } => {}
        }
    }

    /// What travelled through this door and which limits turned devices away since the last time, and who is here.
    pub async fn report(
        &self,
        (bytes_up, bytes_down): (u64, u64),
        refused: &[(&'static str, u64)],
        devices: &[DeviceId],
    ) -> Result<(), LinkError> {
        let devices = devices.iter().map(|device| device.0.to_vec()).collect();
        let refused = refused.iter().map(|&(limit, times)| door::Refused { limit: limit.to_owned(), times }).collect();
        self.ask(Kind::Report(door::Report { bytes_up, bytes_down, devices, refused })).await.map(drop)
    }
}

/// Has the leader look at a blob.
pub fn damaged(hash: BlobHash) -> Kind {
    Kind::Damaged(door::Damaged { hash: hash.0.to_vec() })
}

/// An upload goes on from what is here, not from what the leader has of it.
async fn from_here(body: answer::Body, offered: Option<BlobHash>, blobs: Blobs) -> answer::Body {
    match (body, offered) {
        (answer::Body::Upload(_), Some(hash)) => {
            let have = tokio::task::spawn_blocking(move || blobs.incoming(hash)).await;
            let offset = have.ok().and_then(Result::ok).unwrap_or(0);
            answer::Body::Upload(UploadFrom { offset })
        }
        (body, _) => body,
    }
}

impl Newest {
    /// The next; what this release does not know is passed over.
    pub async fn next(&mut self) -> Result<News, LinkError> {
        loop {
            if let Some(news) = News::from_wire(message(&mut self.0).await?) {
                return Ok(news);
            }
        }
    }
}

async fn message<M: Message + Default>(receive: &mut RecvStream) -> Result<M, LinkError> {
    let mut prefix = [0; 4];
    receive.read_exact(&mut prefix).await.map_err(broken)?;
    let mut body = vec![0; frame::length(prefix, ANSWER_BYTES_MAX)?];
    receive.read_exact(&mut body).await.map_err(broken)?;
    Ok(frame::decode(&body)?)
}
