//! The leader's side of its doors: it answers what they ask as if their devices had come to it, and tells them what is
//! new in the ledger.

use crate::server::{
    context::Context,
    feed::Devices,
    news::News,
    session::{Session, close},
    stream::{self, Down, StreamError, Traffic, Up},
    transfer::blocking,
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Generation, LeaseId},
    wire::{
        CoordinatorMessage,
        close::CloseCode,
        door::{self, ask::Kind, news},
        frame,
    },
};
use quinn::Connection;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{sync::broadcast, task::JoinSet};

/// Questions of one door that are being answered: as many as devices ask at once through it, and those that wait for a
/// round's end.
pub const ASKS_MAX: u32 = 40_000;
/// Longest question: a report names every device of a door.
const ASK_BYTES_MAX: usize = 2 << 20;
/// What a link may have in flight each way.
pub const LINK_WINDOW_BYTES: u32 = 8 << 20;
/// News that a door may be behind; one that is further behind begins anew.
const NEWS_MAX: usize = 16_384;

/// See the module.
pub struct Doors {
    news: broadcast::Sender<Arc<[u8]>>,
    links: Mutex<HashMap<u64, HashSet<DeviceId>>>,
    last_link: AtomicU64,
    /// Where the pages show who is connected.
    shown: Arc<Devices>,
}

impl Doors {
    /// None yet.
    pub fn new(shown: Arc<Devices>) -> Self {
        let news = broadcast::Sender::new(NEWS_MAX);
        Doors { news, links: Mutex::default(), last_link: AtomicU64::new(0), shown }
    }

    /// Tells all doors what was written.
    pub fn tell(&self, news: &News) {
        if self.news.receiver_count() > 0 {
            // Fails only where the last door has just gone.
            let _ = self.news.send(frame::encode(&news.to_wire()).into());
        }
    }

    /// How many doors there are, and how many devices are connected to them.
    pub fn count(&self) -> (usize, usize) {
        let links = self.lock();
        (links.len(), links.values().map(HashSet::len).sum())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, HashSet<DeviceId>>> {
        // Sets that are replaced as wholes are whole after any panic.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A door's place among the others; it is empty once this is dropped.
struct Place {
    doors: Arc<Doors>,
    link: u64,
}

impl Place {
    fn take(doors: Arc<Doors>) -> Self {
        let link = doors.last_link.fetch_add(1, Ordering::Relaxed);
        let place = Place { doors, link };
        place.holds(HashSet::new());
        place
    }

    fn holds(&self, devices: HashSet<DeviceId>) {
        let shown = &self.doors.shown;
        let mut links = self.doors.lock();
        let before = links.insert(self.link, HashSet::new()).unwrap_or_default();
        before.difference(&devices).for_each(|device| shown.connected(*device, false));
        devices.difference(&before).for_each(|device| shown.connected(*device, true));
        links.insert(self.link, devices);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.doors.lock().remove(&self.link).unwrap_or_default();
        gone.into_iter().for_each(|device| self.doors.shown.connected(device, false));
    }
}

/// Answers a door until its connection ends. Whoever calls has seen that it holds the run's key.
pub async fn serve(connection: Connection, context: Arc<Context>) {
    connection.set_max_concurrent_bi_streams(ASKS_MAX.into());
    connection.set_receive_window(LINK_WINDOW_BYTES.into());
    connection.set_send_window(LINK_WINDOW_BYTES.into());
    let (address, session) = (connection.remote_address(), Session::raw(connection));
    tracing::info!(%address, "a door has come");
    // What doors say is no device's traffic.
    let (place, apart) = (Arc::new(Place::take(context.doors.clone())), Arc::new(Traffic::default()));
    let mut asks = JoinSet::new();
    loop {
        tokio::select! {
            opened = session.accept_bi() => match opened {
                Ok((send, receive)) => {
                    let (up, down) = stream::split(send, receive, &apart, &context.budget);
                    let (context, place) = (context.clone(), place.clone());
                    asks.spawn(async move { answer(up, down, &context, &place).await });
                }
                Err(error) => return tracing::info!(%address, %error, "a door has gone"),
            },
            Some(ended) = asks.join_next() => {
                if let Ok(Err(error)) = ended
                    && let Some(code @ CloseCode::Malformed) = error.close_code()
                {
                    close(&session, code, &error.to_string());
                }
            }
        }
    }
}

async fn answer(mut up: Up, mut down: Down, context: &Context, place: &Place) -> Result<(), StreamError> {
    let nonsense = || StreamError::OutOfTurn("a door asks what makes no sense");
    let named = |device: &[u8]| DeviceId::from_bytes(device).ok_or_else(nonsense);
    let door::Ask { kind } = up.first_message(ASK_BYTES_MAX).await?;
    let mut answer = door::Answer::default();
    match kind.ok_or_else(nonsense)? {
        Kind::Follow(_) => return follow(down, &context.doors).await,
        Kind::Request(door::Request { device, message, invite }) => {
            let body = message.and_then(|message| message.body).ok_or_else(nonsense)?;
            let body = Some(context.handle.request(named(&device)?, body, invite).await?);
            answer.message = Some(CoordinatorMessage { request: 0, body });
        }
        Kind::MayUpload(door::MayUpload { device, lease_id, bytes }) => {
            answer.refusal = context.handle.may_upload(named(&device)?, LeaseId(lease_id), bytes).await?.err();
        }
        Kind::GiveUp(door::GiveUp { device, lease_id, generation }) => {
            context.handle.give_up(named(&device)?, LeaseId(lease_id), Generation(generation)).await;
        }
        Kind::Damaged(door::Damaged { hash }) => {
            let hash = BlobHash::from_bytes(&hash).ok_or_else(nonsense)?;
            if let Some(entry) = context.catalog.get(hash) {
                // Where it is so, it is made anew as if it had been found here.
                blocking(&context.files, move || entry.look_again()).await?;
            }
        }
        Kind::Report(door::Report { bytes_up, bytes_down, devices, refused }) => {
            context.traffic.add(bytes_up, bytes_down);
            let now = Instant::now();
            refused.iter().for_each(|door::Refused { limit, times }| context.rates.add(limit, *times, now));
            place.holds(devices.iter().map(|device| named(device)).collect::<Result<_, _>>()?);
        }
    }
    down.message(&answer).await?;
    down.finish();
    Ok(())
}

/// Tells a door all that is new, until it is gone or too far behind.
async fn follow(mut down: Down, doors: &Doors) -> Result<(), StreamError> {
    let mut newest = doors.news.subscribe();
    down.message(&door::News { kind: Some(news::Kind::Following(door::Following {})) }).await?;
    while let Ok(news) = newest.recv().await {
        down.bytes(&news).await?;
    }
    Ok(())
}
