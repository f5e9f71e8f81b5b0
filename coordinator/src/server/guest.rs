//! A connection's standing, and its share of this process's memory. Before a valid hello it has one stream and a few
//! KiB; afterwards what control streams need; and while a blob travels as much as keeps its line busy. All blobs and
//! messages under way are paid for from one budget, so what devices hold of memory is bounded however many there are.

use super::{connection::close, gate::Place, stream::StreamError};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        Refusal, RefusalCode,
        close::CloseCode,
        limits::{
            BUFFER_BYTES_MAX, BUFFER_SHARE_OF_ADDRESS, CHUNK_BYTES, CONTROL_WINDOW_BYTES, HELLO_BYTES_MAX,
            REQUEST_BYTES_MAX, ROOM_S_MAX, STRANGER_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX, TRANSFER_WINDOW_BYTES,
            TRANSFERS_PER_CONNECTION_BYTES,
        },
    },
};
use quinn::Connection;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

/// The budget is counted in units of so many bytes.
const UNIT_BYTES: u32 = 1 << 10;

/// Bytes of memory for what travels.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    /// What each address has taken for blobs, and may at most, in bytes.
    by_place: Arc<Mutex<HashMap<Place, u64>>>,
    of_place: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(BUFFER_BYTES_MAX)
    }
}

impl Budget {
    /// So many bytes.
    pub fn of(bytes: usize) -> Self {
        let units = Arc::new(Semaphore::new(bytes / UNIT_BYTES as usize));
        Budget { units, by_place: Arc::default(), of_place: (bytes / BUFFER_SHARE_OF_ADDRESS) as u64 }
    }

    /// Takes some of it for a blob, of the address's share. `None` if that is used up, or if it takes too long.
    async fn take_for(&self, place: Place, bytes: u32) -> Option<Share> {
        let mut share = self.reserve(place, bytes.into())?;
        share.paid = Some(self.take(bytes).await?);
        Some(share)
    }

    fn reserve(&self, place: Place, bytes: u64) -> Option<Share> {
        let mut by_place = self.lock();
        let taken = by_place.get(&place).copied().unwrap_or(0) + bytes;
        if taken > self.of_place && !place.is_this_machine() {
            return None;
        }
        by_place.insert(place, taken);
        Some(Share { budget: self.clone(), place, bytes, paid: None })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, u64>> {
        // Counts are whole after any panic.
        self.by_place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some of it, once there is room; `None` if that takes too long.
    pub async fn take(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let units = self.units.clone().acquire_many_owned(bytes.div_ceil(UNIT_BYTES));
        // The semaphore is never closed.
        timeout(Duration::from_secs(ROOM_S_MAX), units).await.ok()?.ok()
    }

    /// Takes what a message of so many bytes needs.
    pub async fn for_message(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, StreamError> {
        if bytes <= SMALL_MESSAGE_BYTES {
            return Ok(None);
        }
        self.take(bytes as u32).await.map(Some).ok_or(StreamError::Slow)
    }
}

/// A part of an address's share.
struct Share {
    budget: Budget,
    place: Place,
    bytes: u64,
    paid: Option<OwnedSemaphorePermit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.paid = None;
        let mut by_place = self.budget.lock();
        if let Some(taken) = by_place.get_mut(&self.place) {
            *taken -= self.bytes;
            if *taken == 0 {
                by_place.remove(&self.place);
            }
        }
    }
}

/// Messages up to so many bytes are not counted one by one: they are paid for with the connection.
const SMALL_MESSAGE_BYTES: usize = 2 << 10;

/// Which way a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the device.
    Up,
    /// To it.
    Down,
}

#[derive(Default)]
struct InFlight {
    up: u32,
    down: u32,
}

impl InFlight {
    fn of(&mut self, way: Way) -> &mut u32 {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Bytes that one more blob may have in flight, of which so many are to travel.
    fn window(&mut self, way: Way, bytes: u64) -> u32 {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(TRANSFER_WINDOW_BYTES);
        let left = TRANSFERS_PER_CONNECTION_BYTES.saturating_sub(*self.of(way));
        wanted.min(left.max(CHUNK_BYTES as u32))
    }

    /// A blob begins that has paid for so many bytes. While it waited for room, others of its connection may have
    /// begun.
    fn begin(&mut self, way: Way, bytes: u64, paid: u32) -> u32 {
        let window = paid.min(self.window(way, bytes));
        *self.of(way) += window;
        window
    }
}

/// See the module.
pub struct Guest {
    /// Who, by the key that the handshake has proven.
    pub device: DeviceId,
    /// From where.
    pub place: Place,
    connection: Connection,
    greeted: watch::Sender<bool>,
    in_flight: Mutex<InFlight>,
}

impl Guest {
    /// A stranger.
    pub fn new(device: DeviceId, place: Place, connection: Connection) -> Self {
        Guest { device, place, connection, greeted: watch::Sender::new(false), in_flight: Mutex::default() }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether its valid hello has come; changes are to be waited for.
    pub fn greeted(&self) -> watch::Receiver<bool> {
        self.greeted.subscribe()
    }

    /// Whether its valid hello has come.
    pub fn is_greeted(&self) -> bool {
        *self.greeted.borrow()
    }

    /// Longest message that it may send now.
    pub fn message_bytes_max(&self) -> usize {
        if self.is_greeted() { REQUEST_BYTES_MAX } else { HELLO_BYTES_MAX }
    }

    /// Its hello was good: it is served like a device. Or it has left: it is a stranger again.
    pub fn greet(&self, is_good: bool) {
        let streams = if is_good { STREAMS_PER_CONNECTION_MAX } else { 1 };
        self.connection.set_max_concurrent_bi_streams(streams.into());
        self.greeted.send_replace(is_good);
        self.set_windows(&self.lock());
    }

    /// Ends the connection.
    pub fn close(&self, code: CloseCode, reason: &str) {
        close(&self.connection, code, reason);
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        // Two numbers are whole after any panic.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_windows(&self, in_flight: &InFlight) {
        let for_control = if self.is_greeted() { CONTROL_WINDOW_BYTES } else { STRANGER_WINDOW_BYTES };
        self.connection.set_receive_window((for_control + in_flight.up).into());
        self.connection.set_send_window(u64::from(CONTROL_WINDOW_BYTES + in_flight.down));
    }

    /// Room for a blob of which so many bytes are to travel, for as long as what is given back lives.
    pub async fn pass(self: &Arc<Self>, way: Way, bytes: u64, budget: &Budget) -> Result<Pass, Refusal> {
        let asked = self.lock().window(way, bytes);
        // A chunk is in this process's hands besides what is in QUIC's.
        let paid = budget.take_for(self.place, asked + CHUNK_BYTES as u32).await.ok_or_else(|| {
            let sentence = "The coordinator is sending and receiving as much as it can at the moment.";
            Refusal::retry(RefusalCode::Busy, sentence, Duration::from_secs(ROOM_S_MAX))
        })?;
        let mut in_flight = self.lock();
        let window = in_flight.begin(way, bytes, asked);
        self.set_windows(&in_flight);
        drop(in_flight);
        Ok(Pass { guest: self.clone(), way, window, _paid: paid })
    }
}

/// Room for a blob on its way.
pub struct Pass {
    guest: Arc<Guest>,
    way: Way,
    window: u32,
    _paid: Share,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut in_flight = self.guest.lock();
        *in_flight.of(self.way) -= self.window;
        self.guest.set_windows(&in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it without waiting for anything.
    async fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn all_that_travels_is_paid_for_from_one_budget() {
        let budget = Budget::of(16 << 10);
        let message = budget.for_message(12 << 10).await.unwrap();
        assert!(message.is_some());
        assert!(at_once(budget.take(6 << 10)).await.is_none(), "it waits until there is room");
        assert!(at_once(budget.take(4 << 10)).await.flatten().is_some());
        let small = at_once(budget.for_message(SMALL_MESSAGE_BYTES)).await.expect("it waits for nothing").unwrap();
        assert!(small.is_none(), "it is paid for with the connection");
        drop(message);
        assert!(at_once(budget.take(16 << 10)).await.flatten().is_some(), "what has arrived gives its room back");
    }

    #[tokio::test]
    async fn one_address_takes_a_part_of_it() {
        let budget = Budget::of(16 << 10);
        let [slow, other] = [1, 2].map(|n| Place::of([192, 0, 2, n].into()));
        let share = budget.take_for(slow, 4 << 10).await.unwrap();
        assert!(at_once(budget.take_for(slow, 1)).await.expect("it waits for nothing").is_none());
        assert!(budget.take_for(other, 4 << 10).await.is_some());
        drop(share);
        assert!(budget.take_for(slow, 4 << 10).await.is_some());
        assert!(budget.lock().is_empty(), "of those who hold nothing nothing is kept");
        let here = Place::of([127, 0, 0, 1].into());
        assert!(budget.take_for(here, 16 << 10).await.is_some());
    }

    #[test]
    fn blobs_of_one_connection_share_what_it_may_have_in_flight() {
        let mut in_flight = InFlight::default();
        assert_eq!(in_flight.window(Way::Up, 1000), 1000, "no more than is to travel");
        // All of them ask, and wait for room, before the first begins.
        let all = (0..STREAMS_PER_CONNECTION_MAX).map(|_| in_flight.window(Way::Down, u64::MAX)).collect::<Vec<_>>();
        for asked in all {
            in_flight.begin(Way::Down, u64::MAX, asked);
        }
        let most = TRANSFERS_PER_CONNECTION_BYTES + STREAMS_PER_CONNECTION_MAX * CHUNK_BYTES as u32;
        assert!((TRANSFERS_PER_CONNECTION_BYTES..=most).contains(&in_flight.down), "{} bytes", in_flight.down);
        let asked = in_flight.window(Way::Up, u64::MAX);
        assert_eq!(in_flight.begin(Way::Up, u64::MAX, asked), TRANSFER_WINDOW_BYTES, "the other way is free");
        for _ in 0..STREAMS_PER_CONNECTION_MAX {
            let asked = in_flight.window(Way::Up, u64::MAX);
            in_flight.begin(Way::Up, u64::MAX, asked);
        }
        assert!(in_flight.up <= most, "{} bytes, one after the other", in_flight.up);
    }
}
