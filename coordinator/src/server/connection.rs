//! Connections: who is let in, and what each stream of theirs is for. A fault ends the connection that it came over, with a
//! code that says why, and nothing else.

use super::{
    catalog::Catalog,
    desk::Desk,
    members::Members,
    quic::{Admission, admission},
    stream::{self, Down, StreamError, Traffic, Up},
    tls, transfer, wall_now,
};
use crate::{identity::Identity, store::Blobs};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        CoordinatorMessage, DeviceMessage, Refusal, RefusalAction, RefusalCode, StreamOpen, close::CloseCode,
        coordinator_message as answer, device_message as ask, stream_open::Kind,
    },
};
use quinn::{Connection, Endpoint, Incoming};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};

/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What all connections share.
pub struct Porch {
    /// Signs and checks invites.
    pub identity: Identity,
    /// What may be downloaded.
    pub catalog: Arc<Catalog>,
    /// Where uploads go.
    pub blobs: Blobs,
    /// The way to the event loop.
    pub desk: Desk,
    /// Bytes over all streams.
    pub traffic: Arc<Traffic>,
    /// The devices that are enrolled.
    pub members: Arc<Members>,
    /// The devices that are connected.
    pub present: Present,
}

/// The devices that are connected now, each once.
#[derive(Default)]
pub struct Present {
    connections: Mutex<HashMap<DeviceId, Connection>>,
}

impl Present {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Connection>> {
        // A map of handles is whole after any panic.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a device is connected.
    pub fn has(&self, device: DeviceId) -> bool {
        self.lock().contains_key(&device)
    }

    /// A device has one connection: the newest. What lingers of an older one, after a change of networks, say, is closed.
    fn enter(&self, device: DeviceId, connection: &Connection) {
        if let Some(older) = self.lock().insert(device, connection.clone()) {
            close(&older, CloseCode::Replaced, "the device has connected again");
        }
    }

    fn leave(&self, device: DeviceId, connection: &Connection) {
        let mut connections = self.lock();
        if connections.get(&device).is_some_and(|c| c.stable_id() == connection.stable_id()) {
            connections.remove(&device);
        }
    }
}

/// Closes a connection with a code and a reason.
pub fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close((code as u32).into(), reason.as_bytes());
}

/// Lets connections in until the endpoint is closed.
pub async fn accept(endpoint: Endpoint, porch: Arc<Porch>) {
    while let Some(incoming) = endpoint.accept().await {
        match admission(endpoint.open_connections(), incoming.remote_address_validated()) {
            Admission::Accept => {
                tokio::spawn(welcome(incoming, porch.clone()));
            }
            // Fails only for an address that is proven, and those are not asked.
            Admission::Prove => drop(incoming.retry()),
            Admission::Refuse => incoming.refuse(),
        }
    }
}

async fn welcome(incoming: Incoming, porch: Arc<Porch>) {
    let address = incoming.remote_address();
    let connection = match timeout(HANDSHAKE_MAX, async { incoming.accept()?.await }).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%address, "a handshake took too long"),
    };
    let Some(device) = tls::device_of(&connection) else { return close(&connection, CloseCode::Malformed, "no key") };
    porch.present.enter(device, &connection);
    tracing::debug!(%address, device = device.short(), "connected");
    let mut streams = serve(device, &connection, &porch).await;
    porch.present.leave(device, &connection);
    // They find out by themselves; an upload first writes down what has arrived.
    while streams.join_next().await.is_some() {}
}

type Streams = JoinSet<Result<(), StreamError>>;

/// Serves a connection's streams until it ends; gives back those that are not done. Their number is bounded by the
/// transport.
async fn serve(device: DeviceId, connection: &Connection, porch: &Arc<Porch>) -> Streams {
    let mut streams = Streams::new();
    loop {
        tokio::select! {
            opened = connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    let (up, down) = stream::split(send, receive, &porch.traffic);
                    let porch = porch.clone();
                    streams.spawn(async move { serve_stream(device, up, down, &porch).await });
                }
                Err(error) => {
                    tracing::debug!(device = device.short(), %error, "disconnected");
                    return streams;
                }
            },
            Some(ended) = streams.join_next() => {
                let error = match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error,
                    Err(panic) => StreamError::Internal(panic.to_string()),
                };
                tracing::debug!(device = device.short(), %error, "a stream failed");
                if let Some(code) = error.close_code() {
                    close(connection, code, &error.to_string());
                }
            }
        }
    }
}

async fn serve_stream(device: DeviceId, mut up: Up, down: Down, porch: &Porch) -> Result<(), StreamError> {
    let open: StreamOpen = up.first_message().await?;
    match open.kind {
        Some(Kind::Control(_)) => control(device, up, down, porch).await,
        Some(Kind::Get(request)) => transfer::get(&porch.catalog, porch.members.has(device), request, down).await,
        Some(Kind::Put(request)) => transfer::put(device, &porch.blobs, &porch.desk, request, up, down).await,
        None => Err(StreamError::OutOfTurn("a stream for a purpose that this version does not know")),
    }
}

/// Answers one request after the other. A device that wants two answers at once opens two streams.
async fn control(device: DeviceId, mut up: Up, mut down: Down, porch: &Porch) -> Result<(), StreamError> {
    while let Some(DeviceMessage { request, body }) = up.message().await? {
        let body = match body {
            Some(body) => answer_to(device, body, porch).await?,
            None => answer::Body::Refusal(Refusal::with(
                RefusalCode::Unsupported,
                RefusalAction::Stop,
                "The coordinator does not know this request: it is of an older version.",
            )),
        };
        down.message(&CoordinatorMessage { request, body: Some(body) }).await?;
    }
    down.finish();
    Ok(())
}

async fn answer_to(device: DeviceId, body: ask::Body, porch: &Porch) -> Result<answer::Body, StreamError> {
    let token = match &body {
        ask::Body::Hello(hello) => hello.invite.as_slice(),
        _ => &[],
    };
    let checked = (!token.is_empty()).then(|| porch.identity.check_invite(token, wall_now())).transpose();
    // An invite that is no good matters only to a device that needs one: the engine knows which. Then this says what
    // is wrong with it.
    let (invite, fault) = match checked {
        Ok(invite) => (invite, None),
        Err(fault) => (None, Some(fault)),
    };
    let mut body = porch.desk.request(device, body, invite).await?;
    if let (answer::Body::Refusal(refusal), Some(fault)) = (&mut body, fault)
        && refusal.code() == RefusalCode::Invite
    {
        refusal.sentence = format!("This invite cannot be used: {fault}.");
    }
    Ok(body)
}
