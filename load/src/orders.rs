//! What `measure` tells its crowds, and what they answer: a line of JSON each.

use serde::{Deserialize, Serialize};

/// To a crowd, on its stdin.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Order {
    /// Have so many devices connected, each with a lease that it keeps.
    Connect(usize),
    /// From now on so many of them deliver and lease again, after so many microseconds at each lease.
    Work {
        /// Devices.
        devices: usize,
        /// At a lease.
        think_us: u64,
    },
    /// Tell what happened since the last report, with the durations of all lease requests.
    Report,
}

/// Of a crowd, on its stdout.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// Devices that are connected and have, or had, a lease.
    pub connected: usize,
    /// Leases that were granted since the last report.
    pub granted: u64,
    /// Leases whose delta was merged.
    pub merged: u64,
    /// Requests for a lease that were refused, and deltas that came to nothing.
    pub refused: u64,
    /// Connections that broke.
    pub broken: u64,
    /// How long each lease request took, in microseconds.
    pub requests_us: Vec<u32>,
    /// The last sentence of a refusal or a fault.
    pub why: String,
}

impl Report {
    /// Adds what another crowd tells.
    pub fn add(&mut self, other: Report) {
        self.connected += other.connected;
        self.granted += other.granted;
        self.merged += other.merged;
        self.refused += other.refused;
        self.broken += other.broken;
        self.requests_us.extend(other.requests_us);
        if !other.why.is_empty() {
            self.why = other.why;
        }
    }
}
