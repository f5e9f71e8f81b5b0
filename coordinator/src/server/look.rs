//! What of a start can be looked at without starting anything.

use super::{
    http,
    quic::{self, EndpointError},
};
use crate::identity::Identity;
use nightjar_shared::{disk::Disk, ids::DeviceId};
use std::net::SocketAddr;

/// Whether a coordinator could listen at these addresses now: each, or why not.
pub fn addresses(listen: SocketAddr, http: SocketAddr) -> [Result<String, String>; 2] {
    let devices = quic::bind(listen).map(|_| format!("{listen} (UDP)"));
    let pages = http::listen(http).map(|_| format!("{http} (TCP)"));
    [devices.map_err(|error: EndpointError| error.to_string()), pages.map_err(|error| error.to_string())]
}

/// The key of a state folder, as a ledger knows it; none where it cannot be read.
pub fn key_of(disk: &dyn Disk) -> Option<DeviceId> {
    Identity::open(disk).ok().map(|identity| identity.id())
}
