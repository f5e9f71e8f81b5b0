//! What all connections share, and which of them are devices'.

use super::{
    budget::Budget, catalog::Catalog, disk_reserve::DiskReserve, doors::Doors, handle::ShellHandle, health::Health,
    members::Members, metrics::Metrics, quic::close, rates::Rates, strangers::Strangers, stream::Traffic,
    subnet::Subnet, uploads::Uploads,
};
use crate::{identity::Identity, store::Blobs};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        close::CloseCode,
        limits::{CONNECTIONS_MAX, DEVICES_PER_ADDRESS_MAX, STRANGERS_MAX},
    },
};
use quinn::Connection;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;

/// What all connections share.
pub struct Context {
    /// Signs and checks invites.
    pub identity: Identity,
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
    pub present: Present,
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
    /// Whether leases can be granted.
    pub health: Arc<Health>,
}

/// The devices that are connected now, each once.
#[derive(Default)]
pub struct Present {
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    of: HashMap<DeviceId, (Connection, Subnet)>,
    /// How many come from where: whoever says hello asks, and there may be a hundred thousand of them.
    from: HashMap<Subnet, usize>,
}

impl Connections {
    fn insert(&mut self, device: DeviceId, subnet: Subnet, connection: Connection) -> Option<Connection> {
        let older = self.remove(device);
        *self.from.entry(subnet).or_default() += 1;
        self.of.insert(device, (connection, subnet));
        older
    }

    fn remove(&mut self, device: DeviceId) -> Option<Connection> {
        let (connection, subnet) = self.of.remove(&device)?;
        if let Some(here) = self.from.get_mut(&subnet) {
            *here -= 1;
            if *here == 0 {
                self.from.remove(&subnet);
            }
        }
        Some(connection)
    }
}

impl Present {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Maps of handles are whole after any panic.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether a device is connected.
    pub fn has(&self, device: DeviceId) -> bool {
        self.lock().of.contains_key(&device)
    }

    /// All that are connected.
    pub fn devices(&self) -> Vec<DeviceId> {
        self.lock().keys().copied().collect()
    }

    /// A device has one connection: the newest. What lingers of an older one, after a change of networks, say, is
    /// closed.
    pub fn enter(&self, device: DeviceId, subnet: Subnet, connection: &Connection) {
        let older = self.lock().insert(device, subnet, connection.clone());
        if let Some(older) = older {
            close(&older, CloseCode::Replaced, "the device has connected again");
        }
    }

    /// Whether there is a place for one more, and for one more from there.
    pub fn has_room_for(&self, device: DeviceId, subnet: Subnet) -> bool {
        let connections = self.lock();
        let here = connections.from.get(&subnet).copied().unwrap_or(0);
        let is_crowded = here >= DEVICES_PER_ADDRESS_MAX && !subnet.is_this_machine();
        (connections.of.len() < CONNECTIONS_MAX - STRANGERS_MAX && !is_crowded) || connections.of.contains_key(&device)
    }

    pub fn leave(&self, device: DeviceId, connection: &Connection) {
        let mut connections = self.lock();
        if connections.of.get(&device).is_some_and(|(c, _)| c.stable_id() == connection.stable_id()) {
            connections.remove(device);
        }
    }
}
