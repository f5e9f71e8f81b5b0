//! Connections: who is let in, and what each stream of theirs is for. A fault ends the connection that it came over,
//! with a code that says why, and nothing else.

use super::{
    catalog::Catalog,
    desk::Desk,
    gate::{Gate, Knock, Place, Ticket},
    guest::{Budget, Guest},
    members::Members,
    rates::Rates,
    room::Room,
    stream::{self, Down, StreamError, Traffic, Up},
    tls, transfer,
    uploads::Uploads,
    wall_now,
};
use crate::{identity::Identity, store::Blobs};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        CoordinatorMessage, DeviceMessage, Refusal, RefusalAction, RefusalCode, StreamOpen,
        close::CloseCode,
        coordinator_message as answer, device_message as ask,
        limits::{CONNECTIONS_MAX, DEVICES_PER_ADDRESS_MAX, HELLO_BYTES_MAX, HELLO_S_MAX, STRANGERS_MAX},
        request,
        stream_open::Kind,
    },
};
use quinn::{Connection, Endpoint, Incoming};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// From a connection's first packet to its valid hello, handshake included.
const HELLO_MAX: Duration = Duration::from_secs(HELLO_S_MAX);
/// Who asks too often is answered a little later, so that asking faster gains nothing.
const TOO_OFTEN_PAUSE: Duration = Duration::from_millis(250);

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
    /// Lets connections in.
    pub gate: Gate,
    /// Memory for what travels.
    pub budget: Budget,
    /// How often devices may ask.
    pub rates: Rates,
    /// What is uploaded for which lease.
    pub uploads: Arc<Uploads>,
    /// Places for those who read or write files.
    pub files: Arc<Semaphore>,
    /// Room on the disk.
    pub room: Arc<Room>,
}

/// The devices that are connected now, each once.
#[derive(Default)]
pub struct Present {
    connections: Mutex<HashMap<DeviceId, (Connection, Place)>>,
}

impl Present {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, (Connection, Place)>> {
        // A map of handles is whole after any panic.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a device is connected.
    pub fn has(&self, device: DeviceId) -> bool {
        self.lock().contains_key(&device)
    }

    /// A device has one connection: the newest. What lingers of an older one, after a change of networks, say, is
    /// closed.
    fn enter(&self, device: DeviceId, place: Place, connection: &Connection) {
        if let Some((older, _)) = self.lock().insert(device, (connection.clone(), place)) {
            close(&older, CloseCode::Replaced, "the device has connected again");
        }
    }

    /// Whether there is a place for one more, and for one more from there.
    fn has_room_for(&self, device: DeviceId, place: Place) -> bool {
        let connections = self.lock();
        let here = connections.values().filter(|(_, from)| *from == place).count();
        let is_crowded = here >= DEVICES_PER_ADDRESS_MAX && !place.is_this_machine();
        (connections.len() < CONNECTIONS_MAX - STRANGERS_MAX && !is_crowded) || connections.contains_key(&device)
    }

    fn leave(&self, device: DeviceId, connection: &Connection) {
        let mut connections = self.lock();
        if connections.get(&device).is_some_and(|(c, _)| c.stable_id() == connection.stable_id()) {
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
        let address = incoming.remote_address().ip();
        match porch.gate.knock(address, incoming.remote_address_validated(), Instant::now().into_std()) {
            Knock::Enter(ticket) => {
                tokio::spawn(welcome(incoming, ticket, porch.clone()));
            }
            // Fails only for an address that is proven, and those are not asked.
            Knock::Prove => drop(incoming.retry()),
            Knock::Refuse => incoming.refuse(),
        }
    }
}

async fn welcome(incoming: Incoming, mut ticket: Ticket, porch: Arc<Porch>) {
    let address = incoming.remote_address();
    let latest = Instant::now() + HELLO_MAX;
    let handshake = timeout_at(latest, async { incoming.accept()?.await });
    let connection = tokio::select! {
        done = handshake => match done {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "a handshake failed"),
            Err(_) => return tracing::debug!(%address, "a handshake took too long"),
        },
        () = ticket.evicted() => return tracing::debug!(%address, "a newer connection took its place"),
    };
    let Some(device) = tls::device_of(&connection) else { return close(&connection, CloseCode::Malformed, "no key") };
    tracing::debug!(%address, device = device.short(), "connected");
    let guest = Arc::new(Guest::new(device, ticket.place, connection));
    let mut streams = serve(&guest, ticket, latest, &porch).await;
    porch.present.leave(device, guest.connection());
    // They find out by themselves; an upload first writes down what has arrived.
    while streams.join_next().await.is_some() {}
}

type Streams = JoinSet<Result<(), StreamError>>;

/// Serves a connection's streams until it ends; gives back those that are not done. Their number is bounded by the
/// transport. Without a valid hello by `latest` it is closed.
async fn serve(guest: &Arc<Guest>, ticket: Ticket, mut latest: Instant, porch: &Arc<Porch>) -> Streams {
    let (mut streams, mut greeted, mut ticket) = (Streams::new(), guest.greeted(), Some(ticket));
    loop {
        let is_stranger = !*greeted.borrow_and_update();
        if !is_stranger {
            ticket = None;
        }
        tokio::select! {
            opened = guest.connection().accept_bi() => match opened {
                Ok((send, receive)) => {
                    let (up, down) = stream::split(send, receive, &porch.traffic, &porch.budget);
                    let (guest, porch) = (guest.clone(), porch.clone());
                    streams.spawn(async move { serve_stream(&guest, up, down, &porch).await });
                }
                Err(error) => {
                    tracing::debug!(device = guest.device.short(), %error, "disconnected");
                    return streams;
                }
            },
            Some(ended) = streams.join_next() => {
                let error = match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error,
                    Err(panic) => StreamError::Internal(panic.to_string()),
                };
                tracing::debug!(device = guest.device.short(), %error, "a stream failed");
                if let Some(code) = error.close_code() {
                    guest.close(code, &error.to_string());
                }
            }
            // The guest holds the sender. Who has left may say hello again.
            Ok(()) = greeted.changed() => latest = Instant::now() + HELLO_MAX,
            () = sleep_until(latest), if is_stranger => {
                guest.close(CloseCode::Slow, "no valid hello came in time");
                return streams;
            }
            () = evicted(&mut ticket), if is_stranger => {
                guest.close(CloseCode::Full, "a newer connection took its place");
                return streams;
            }
        }
    }
}

async fn evicted(ticket: &mut Option<Ticket>) {
    match ticket {
        Some(ticket) => ticket.evicted().await,
        None => std::future::pending().await,
    }
}

async fn serve_stream(guest: &Arc<Guest>, mut up: Up, down: Down, porch: &Porch) -> Result<(), StreamError> {
    let open: StreamOpen = up.first_message(HELLO_BYTES_MAX).await?;
    match open.kind {
        Some(Kind::Control(_)) => control(guest, up, down, porch).await,
        Some(Kind::Get(request)) => transfer::get(guest, porch, request, down).await,
        Some(Kind::Put(request)) => transfer::put(guest, porch, request, up, down).await,
        None => Err(StreamError::OutOfTurn("a stream for a purpose that this version does not know")),
    }
}

/// Answers one request after the other. A device that wants two answers at once opens two streams.
async fn control(guest: &Guest, mut up: Up, mut down: Down, porch: &Porch) -> Result<(), StreamError> {
    while let Some(DeviceMessage { request, body }) = up.message(guest.message_bytes_max()).await? {
        let body = match body {
            Some(body) => answer_to(guest, body, porch).await?,
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

async fn answer_to(guest: &Guest, body: ask::Body, porch: &Porch) -> Result<answer::Body, StreamError> {
    let now = Instant::now().into_std();
    if let Err(refusal) = porch.rates.asks(guest.device, now) {
        sleep(TOO_OFTEN_PAUSE).await;
        return Ok(answer::Body::Refusal(refusal));
    }
    if let Err(refusal) = request::check(&body) {
        return Ok(answer::Body::Refusal(refusal));
    }
    let (is_hello, is_leave) = (matches!(body, ask::Body::Hello(_)), matches!(body, ask::Body::Leave(_)));
    if is_hello && !porch.present.has_room_for(guest.device, guest.place) {
        let sentence = "The coordinator has as many devices as it can serve at once.";
        return Ok(answer::Body::Refusal(Refusal::retry(RefusalCode::Busy, sentence, Duration::from_secs(60))));
    }
    let answer = engine_answers(guest, body, porch).await?;
    if is_hello && matches!(answer, answer::Body::Welcome(_)) && !guest.is_greeted() {
        porch.present.enter(guest.device, guest.place, guest.connection());
        guest.greet(true);
    }
    if is_leave && matches!(answer, answer::Body::Done(_)) {
        porch.present.leave(guest.device, guest.connection());
        guest.greet(false);
    }
    Ok(answer)
}

async fn engine_answers(guest: &Guest, body: ask::Body, porch: &Porch) -> Result<answer::Body, StreamError> {
    let device = guest.device;
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
    if let ask::Body::Hello(hello) = &body {
        let change = porch.members.change(device, hello, invite.as_ref());
        if let Err(refusal) = porch.rates.changes(device, guest.place, &change, Instant::now().into_std()) {
            return Ok(answer::Body::Refusal(refusal));
        }
    }
    let mut body = porch.desk.request(device, body, invite).await?;
    if let (answer::Body::Refusal(refusal), Some(fault)) = (&mut body, fault)
        && refusal.code() == RefusalCode::Invite
    {
        refusal.sentence = format!("This invite cannot be used: {fault}.");
    }
    Ok(body)
}
