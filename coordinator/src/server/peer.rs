//! A connection's standing, and its share of this process's memory. Before a valid hello it has one stream and a few
//! KiB; afterwards what control streams need; and while a blob travels as much as keeps its line busy. All blobs and
//! messages under way are paid for from one budget, so what devices hold of memory is bounded however many there are.

use super::{
    budget::{Budget, Share},
    session::{self, Session},
    subnet::Subnet,
    web::SESSION_STREAMS,
};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        Refusal, RefusalCode,
        close::CloseCode,
        limits::{
            CHUNK_BYTES, CONTROL_WINDOW_BYTES, HELLO_BYTES_MAX, REQUEST_BYTES_MAX, ROOM_S_MAX, STRANGER_WINDOW_BYTES,
            STREAMS_PER_CONNECTION_MAX, TRANSFER_WINDOW_BYTES, TRANSFERS_PER_CONNECTION_BYTES,
        },
    },
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

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
pub struct Peer {
    /// Who, by the key that it has proven.
    pub device: DeviceId,
    /// From where.
    pub subnet: Subnet,
    session: Session,
    greeted: watch::Sender<bool>,
    in_flight: Mutex<InFlight>,
}

impl Peer {
    /// A stranger.
    pub fn new(device: DeviceId, subnet: Subnet, session: Session) -> Self {
        Peer { device, subnet, session, greeted: watch::Sender::new(false), in_flight: Mutex::default() }
    }

    /// The connection.
    pub fn session(&self) -> &Session {
        &self.session
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
        let of_device = if is_good { STREAMS_PER_CONNECTION_MAX } else { 1 };
        let of_session = if session::is_page(&self.session) { SESSION_STREAMS } else { 0 };
        self.session.set_max_concurrent_bi_streams((of_device + of_session).into());
        self.greeted.send_replace(is_good);
        self.set_windows(&self.lock());
    }

    /// Ends the connection.
    pub fn close(&self, code: CloseCode, reason: &str) {
        session::close(&self.session, code, reason);
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        // Two numbers are whole after any panic.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_windows(&self, in_flight: &InFlight) {
        let for_control = if self.is_greeted() { CONTROL_WINDOW_BYTES } else { STRANGER_WINDOW_BYTES };
        self.session.set_receive_window((for_control + in_flight.up).into());
        self.session.set_send_window(u64::from(CONTROL_WINDOW_BYTES + in_flight.down));
    }

    /// Room for a blob of which so many bytes are to travel, for as long as what is given back lives.
    pub async fn permit(self: &Arc<Self>, way: Way, bytes: u64, budget: &Budget) -> Result<Permit, Refusal> {
        let asked = self.lock().window(way, bytes);
        // A chunk is in this process's hands besides what is in QUIC's.
        let paid = budget.take_for(self.subnet, asked + CHUNK_BYTES as u32).await.ok_or_else(|| {
            let sentence = "The coordinator is sending and receiving as much as it can at the moment.";
            Refusal::retry(RefusalCode::Busy, sentence, Duration::from_secs(ROOM_S_MAX))
        })?;
        let mut in_flight = self.lock();
        let window = in_flight.begin(way, bytes, asked);
        self.set_windows(&in_flight);
        drop(in_flight);
        Ok(Permit { peer: self.clone(), way, window, _paid: paid })
    }
}

/// Room for a blob on its way.
pub struct Permit {
    peer: Arc<Peer>,
    way: Way,
    window: u32,
    _paid: Share,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut in_flight = self.peer.lock();
        *in_flight.of(self.way) -= self.window;
        self.peer.set_windows(&in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
