//! What all connections share, and which of them are devices'.

use super::{
    budget::Budget,
    catalog::Catalog,
    disk_reserve::DiskReserve,
    doors::Doors,
    feed::Devices,
    handle::ShellHandle,
    health::Health,
    members::Members,
    metrics::Metrics,
    peer::Peer,
    rates::{Rates, Who},
    session::{Session, close},
    strangers::Strangers,
    stream::Traffic,
    subnet::Subnet,
    traces::Traces,
    uploads::Uploads,
    web::Web,
};
use crate::{
    identity::Identity,
    store::{Blobs, Ledger},
};
use nightjar_shared::{
    ids::DeviceId,
    run_spec::RunSpec,
    wire::{
        close::CloseCode,
        limits::{CONNECTIONS_MAX, STRANGERS_MAX},
    },
};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;

/// What all connections share.
pub struct Context {
    /// The run's, as it was when this process began.
    pub spec: Arc<RunSpec>,
    /// Signs and checks invites.
    pub identity: Identity,
    /// What pages know it by, where they are served.
    pub web: Option<Arc<Web>>,
    /// What may be downloaded.
    pub catalog: Arc<Catalog>,
    /// Where uploads go.
    pub blobs: Blobs,
    /// The way to the event loop.
    pub handle: ShellHandle,
    /// Bytes over all streams.
    pub traffic: Arc<Traffic>,
    /// The devices that are enrolled.
    pub members: Arc<Members>,
    /// The devices that are connected.
    pub present: Arc<Present>,
    /// The processes that hold connections for this one.
    pub doors: Arc<Doors>,
    /// Lets connections in.
    pub strangers: Strangers,
    /// Memory for what travels.
    pub budget: Budget,
    /// How often devices may ask.
    pub rates: Rates,
    /// What is uploaded for which lease.
    pub uploads: Arc<Uploads>,
    /// Places for those who read or write files.
    pub files: Arc<Semaphore>,
    /// Room on the disk.
    pub reserve: Arc<DiskReserve>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What becomes of each lease.
    pub traces: Traces,
    /// Whether leases can be granted.
    pub health: Arc<Health>,
    /// Tokens, invites and the audit log.
    pub ledger: Arc<dyn Ledger>,
}

impl Context {
    /// Who a peer is, where what it takes is counted.
    pub fn who(&self, peer: &Peer) -> Who {
        Who { device: peer.device, subnet: peer.subnet, nonce: self.members.nonce(peer.device) }
    }
}

/// The devices that are connected now, each once.
pub struct Present {
    all: Mutex<Connected>,
    /// Where the pages show it.
    shown: Arc<Devices>,
}

#[derive(Default)]
struct Connected {
    by_device: HashMap<DeviceId, (Session, Subnet, Option<Vec<u8>>)>,
    by_subnet: HashMap<Subnet, usize>,
    by_invite: HashMap<Vec<u8>, usize>,
}

impl Connected {
    fn insert(&mut self, who: &Who, session: &Session) -> Option<Session> {
        let older = self.remove(who.device);
        *self.by_subnet.entry(who.subnet).or_default() += 1;
        who.nonce.iter().for_each(|nonce| *self.by_invite.entry(nonce.clone()).or_default() += 1);
        self.by_device.insert(who.device, (session.clone(), who.subnet, who.nonce.clone()));
        older
    }

    fn remove(&mut self, device: DeviceId) -> Option<Session> {
        let (session, subnet, nonce) = self.by_device.remove(&device)?;
        one_less(&mut self.by_subnet, &subnet);
        nonce.iter().for_each(|nonce| one_less(&mut self.by_invite, nonce));
        Some(session)
    }
}

/// Of those of whom nobody is connected nothing is kept.
fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

impl Present {
    /// Nobody yet.
    pub fn new(shown: Arc<Devices>) -> Self {
        Present { all: Mutex::default(), shown }
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        // Counts and handles are whole after any panic.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.lock().by_device.len()
    }

    /// Whether a device is connected to this process.
    pub fn has(&self, device: DeviceId) -> bool {
        self.lock().by_device.contains_key(&device)
    }

    /// All that are connected.
    pub fn devices(&self) -> Vec<DeviceId> {
        self.lock().by_device.keys().copied().collect()
    }

    /// A device has one connection: the newest. What lingers of an older one, after a change of networks, say, is
    /// closed.
    pub fn enter(&self, who: &Who, session: &Session) {
        let mut all = self.lock();
        self.shown.connected(who.device, true);
        if let Some(older) = all.insert(who, session) {
            close(&older, CloseCode::Replaced, "the device has connected again");
        }
    }

    /// Ends a device's connection, if it has one.
    pub fn end(&self, device: DeviceId, code: CloseCode, reason: &str) {
        if let Some(session) = self.lock().remove(device) {
            self.shown.connected(device, false);
            close(&session, code, reason);
        }
    }

    /// How many are connected from the device's address, and with its invite; `None` if there is no place for one more,
    /// and all zero for one that is connected already.
    pub fn crowd(&self, who: &Who) -> Option<[usize; 2]> {
        let all = self.lock();
        if all.by_device.contains_key(&who.device) {
            return Some([0, 0]);
        }
        let of_invite = who.nonce.as_ref().and_then(|nonce| all.by_invite.get(nonce)).copied();
        let of_address = all.by_subnet.get(&who.subnet).copied();
        let has_room = all.by_device.len() < CONNECTIONS_MAX - STRANGERS_MAX;
        has_room.then(|| [of_address, of_invite].map(Option::unwrap_or_default))
    }

    pub fn leave(&self, device: DeviceId, session: &Session) {
        let mut all = self.lock();
        if all.by_device.get(&device).is_some_and(|(s, ..)| s.stable_id() == session.stable_id()) {
            all.remove(device);
            self.shown.connected(device, false);
        }
    }
}
