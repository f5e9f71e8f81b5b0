//! Connections: who is let in, and what each stream of theirs is for. A fault ends the connection that it came over,
//! with a code that says why, and nothing else.

use super::{
    clock::wall_now,
    context::Context,
    doors,
    members::Change,
    metrics::TurnedAway,
    peer::Peer,
    rates::Who,
    session::{Session, close, close_early},
    strangers::{Admission, Slot},
    stream::{self, Down, StreamError, Up},
    tls::{self, Guest},
    transfer, web,
};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        CoordinatorMessage, DeviceMessage, Refusal, RefusalAction, RefusalCode, StreamOpen,
        close::CloseCode,
        coordinator_message as answer, device_message as ask,
        limits::{HELLO_BYTES_MAX, HELLO_S_MAX},
        request,
        stream_open::Kind,
    },
};
use quinn::{Connection, Endpoint, Incoming};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// From a connection's first packet to its valid hello, handshake included.
const HELLO_MAX: Duration = Duration::from_secs(HELLO_S_MAX);
/// Who asks too often is answered a little later, so that asking faster gains nothing.
const TOO_OFTEN_PAUSE: Duration = Duration::from_millis(250);

/// Lets connections in until the endpoint is closed.
pub async fn accept(endpoint: Endpoint, context: Arc<Context>) {
    while let Some(incoming) = endpoint.accept().await {
        let address = incoming.remote_address().ip();
        match context.strangers.arrives(address, incoming.remote_address_validated(), Instant::now().into_std()) {
            Admission::Admit(slot) => {
                tokio::spawn(welcome(incoming, slot, context.clone()));
            }
            // Fails only for an address that is proven, and those are not asked.
            Admission::Validate => drop(incoming.retry()),
            Admission::Refuse => {
                context.metrics.turned_away(TurnedAway::Rate);
                incoming.refuse();
            }
        }
    }
}

async fn welcome(incoming: Incoming, mut slot: Slot, context: Arc<Context>) {
    let address = incoming.remote_address();
    let latest = Instant::now() + HELLO_MAX;
    let handshake = timeout_at(latest, async { incoming.accept()?.await });
    let turned_away = |why| context.metrics.turned_away(why);
    let connection = tokio::select! {
        done = handshake => match done {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                turned_away(TurnedAway::Handshake);
                return tracing::debug!(%address, %error, "a handshake failed");
            }
            Err(_) => {
                turned_away(TurnedAway::Slow);
                return tracing::debug!(%address, "a handshake took too long");
            }
        },
        () = slot.evicted() => {
            turned_away(TurnedAway::Evicted);
            return tracing::debug!(%address, "a newer connection took its place");
        }
    };
    let admitted = match tls::guest(&connection) {
        Guest::Door => return door(connection, slot, context).await,
        Guest::Device => device(connection),
        Guest::Page => page(connection, &mut slot, latest, &context).await,
    };
    let Some((session, device)) = admitted else { return };
    tracing::debug!(%address, device = device.short(), "connected");
    let peer = Arc::new(Peer::new(device, slot.subnet, session));
    let mut streams = serve(&peer, slot, latest, &context).await;
    context.present.leave(device, peer.session());
    // They find out by themselves; an upload first writes down what has arrived.
    while streams.join_next().await.is_some() {}
}

/// A device has shown its key in the handshake.
fn device(connection: Connection) -> Option<(Session, DeviceId)> {
    let (device, session) = (tls::device_of(&connection), Session::raw(connection));
    if device.is_none() {
        close(&session, CloseCode::Malformed, "no key");
    }
    Some((session, device?))
}

/// A page shows its key once the connection stands.
async fn page(
    connection: Connection,
    slot: &mut Slot,
    latest: Instant,
    context: &Arc<Context>,
) -> Option<(Session, DeviceId)> {
    let entered = tokio::select! {
        entered = timeout_at(latest, web::enter(connection.clone(), context)) => entered,
        () = slot.evicted() => {
            context.metrics.turned_away(TurnedAway::Evicted);
            close_early(&connection, CloseCode::Full, "a newer connection took its place");
            return None;
        }
    };
    let (why, code, error) = match entered {
        Ok(Ok(entered)) => return Some(entered),
        Ok(Err(error)) => (TurnedAway::Handshake, CloseCode::Malformed, error.to_string()),
        Err(_) => (TurnedAway::Slow, CloseCode::Slow, "no proof of a key came in time".to_owned()),
    };
    context.metrics.turned_away(why);
    tracing::debug!(address = %connection.remote_address(), error, "a page was not let in");
    close_early(&connection, code, &error);
    None
}

/// A door of this run holds the run's key.
async fn door(connection: Connection, slot: Slot, context: Arc<Context>) {
    if tls::device_of(&connection) != Some(context.identity.id()) {
        return close(&Session::raw(connection), CloseCode::Malformed, "no door of this run");
    }
    drop(slot);
    doors::links::serve(connection, context).await;
}

type Streams = JoinSet<Result<(), StreamError>>;

/// Serves a connection's streams until it ends; gives back those that are not done. Their number is bounded by the
/// transport. Without a valid hello by `latest` it is closed.
async fn serve(peer: &Arc<Peer>, slot: Slot, mut latest: Instant, context: &Arc<Context>) -> Streams {
    let (mut streams, mut greeted, mut slot) = (Streams::new(), peer.greeted(), Some(slot));
    loop {
        let is_stranger = !*greeted.borrow_and_update();
        if !is_stranger {
            slot = None;
        }
        tokio::select! {
            opened = peer.session().accept_bi() => match opened {
                Ok((send, receive)) => {
                    let (up, down) = stream::split(send, receive, &context.traffic, &context.budget);
                    let (peer, context) = (peer.clone(), context.clone());
                    streams.spawn(async move { serve_stream(&peer, up, down, &context).await });
                }
                Err(error) => {
                    tracing::debug!(device = peer.device.short(), %error, "disconnected");
                    return streams;
                }
            },
            Some(ended) = streams.join_next() => {
                let error = match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error,
                    Err(panic) => StreamError::Internal(panic.to_string()),
                };
                tracing::debug!(device = peer.device.short(), %error, "a stream failed");
                if let Some(code) = error.close_code() {
                    peer.close(code, &error.to_string());
                }
            }
            // The peer holds the sender. Who has left may say hello again.
            Ok(()) = greeted.changed() => latest = Instant::now() + HELLO_MAX,
            () = sleep_until(latest), if is_stranger => {
                context.metrics.turned_away(TurnedAway::Slow);
                peer.close(CloseCode::Slow, "no valid hello came in time");
                return streams;
            }
            () = evicted(&mut slot), if is_stranger => {
                context.metrics.turned_away(TurnedAway::Evicted);
                peer.close(CloseCode::Full, "a newer connection took its place");
                return streams;
            }
        }
    }
}

async fn evicted(slot: &mut Option<Slot>) {
    match slot {
        Some(slot) => slot.evicted().await,
        None => std::future::pending().await,
    }
}

async fn serve_stream(peer: &Arc<Peer>, mut up: Up, down: Down, context: &Context) -> Result<(), StreamError> {
    let open: StreamOpen = up.first_message(HELLO_BYTES_MAX).await?;
    match open.kind {
        Some(Kind::Control(_)) => control(peer, up, down, context).await,
        Some(Kind::Get(request)) => transfer::get(peer, context, request, down).await,
        Some(Kind::Put(request)) => transfer::put(peer, context, request, up, down).await,
        Some(Kind::Page(_)) => Err(StreamError::OutOfTurn("a key that is proven already")),
        None => Err(StreamError::OutOfTurn("a stream for a purpose that this version does not know")),
    }
}

/// Answers one request after the other. A device that wants two answers at once opens two streams.
async fn control(peer: &Peer, mut up: Up, mut down: Down, context: &Context) -> Result<(), StreamError> {
    while let Some(DeviceMessage { request, body }) = up.message(peer.message_bytes_max()).await? {
        let body = match body {
            Some(body) => answer_to(peer, body, context).await?,
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

async fn answer_to(peer: &Peer, body: ask::Body, context: &Context) -> Result<answer::Body, StreamError> {
    let now = Instant::now().into_std();
    let mut who = context.who(peer);
    if let Err(refusal) = context.rates.asks(&who, now) {
        sleep(TOO_OFTEN_PAUSE).await;
        return Ok(answer::Body::Refusal(refusal));
    }
    if let Err(refusal) = request::check(&body) {
        return Ok(answer::Body::Refusal(refusal));
    }
    let (is_hello, is_leave) = (matches!(body, ask::Body::Hello(_)), matches!(body, ask::Body::Leave(_)));
    let answer = engine_answers(&who, body, context).await?;
    if is_hello && matches!(answer, answer::Body::Welcome(_)) && !peer.is_greeted() {
        // By now it may be enrolled, by another invite than before.
        who.nonce = context.members.nonce(peer.device);
        context.present.enter(&who, peer.session());
        peer.greet(true);
    }
    if is_leave && matches!(answer, answer::Body::Done(_)) {
        context.present.leave(peer.device, peer.session());
        peer.greet(false);
    }
    Ok(answer)
}

/// Whether a device that says hello is within the limits: of those who are connected, and of what changes.
fn has_room(who: &Who, change: &Change, context: &Context) -> Result<(), Refusal> {
    let now = Instant::now().into_std();
    let nonce = match change {
        Change::Enrols(nonce) => Some(nonce.clone()),
        Change::Nothing | Change::Name => who.nonce.clone(),
    };
    let who = Who { nonce, ..who.clone() };
    let crowd = context.present.crowd(&who).ok_or_else(|| {
        let sentence = "The coordinator has as many devices as it can serve at once.";
        Refusal::retry(RefusalCode::Busy, sentence, Duration::from_secs(60))
    })?;
    context.rates.connects(&who, crowd, now)?;
    context.rates.changes(&who, change, now)
}

async fn engine_answers(who: &Who, body: ask::Body, context: &Context) -> Result<answer::Body, StreamError> {
    let device = who.device;
    let token = match &body {
        ask::Body::Hello(hello) => hello.invite.as_slice(),
        _ => &[],
    };
    let checked = (!token.is_empty()).then(|| context.identity.check_invite(token, wall_now())).transpose();
    // An invite that is no good matters only to a device that needs one: the engine knows which. Then this says what
    // is wrong with it.
    let (invite, fault) = match checked {
        Ok(invite) => (invite, None),
        Err(fault) => (None, Some(fault)),
    };
    if let ask::Body::Hello(hello) = &body {
        let change = context.members.change(device, hello, invite.as_ref());
        if let Err(refusal) = has_room(who, &change, context) {
            return Ok(answer::Body::Refusal(refusal));
        }
    }
    let mut body = context.handle.request(device, body, invite).await?;
    if let answer::Body::Welcome(welcome) = &mut body {
        welcome.public_keys = context.identity.pins().iter().map(|key| key.to_vec()).collect();
    }
    if let (answer::Body::Refusal(refusal), Some(fault)) = (&mut body, fault)
        && refusal.code() == RefusalCode::Invite
    {
        refusal.sentence = format!("This invite cannot be used: {fault}.");
    }
    Ok(body)
}
