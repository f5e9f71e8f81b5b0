//! The device's own ledger: what it delivered, a line each, newest last. A crash between the coordinator's answer and
//! the journal has the same delivery told twice; here it counts once.

use nightjar_shared::{disk::Disk, lease::LeaseKind};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, io};

const LEDGER_FILE: &str = "history/ledger.jsonl";
/// Beyond this the older half is let go: some thousand deliveries stay.
const BYTES_MAX: u64 = 1 << 20;

/// Something delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// When: RFC 3339 with the local offset.
    pub at: String,
    /// The run's name.
    pub run: String,
    /// The lease.
    pub lease: u64,
    /// What it was for.
    pub kind: LeaseKind,
    /// The version that it started from.
    pub version: u64,
    /// Inner steps.
    pub steps: u32,
    /// Samples.
    pub samples: u32,
    /// Tokens.
    pub tokens: u64,
    /// Loss of the first step, nats a token.
    pub loss_first: Option<f64>,
    /// Loss of the last step, nats a token.
    pub loss_last: Option<f64>,
    /// Whether it counts in the model.
    pub merged: bool,
    /// Why not; empty where it does.
    pub why_not: String,
}

/// Writes a delivery at the end.
pub(super) fn append(disk: &dyn Disk, delivery: &Delivery) -> io::Result<()> {
    let mut length = disk.length(LEDGER_FILE)?.unwrap_or(0);
    if length > BYTES_MAX {
        let all = deliveries(disk);
        let mut newer = Vec::new();
        for delivery in &all[all.len() / 2..] {
            newer.extend(serde_json::to_vec(delivery)?);
            newer.push(b'\n');
        }
        disk.write(LEDGER_FILE, &newer)?;
        length = newer.len() as u64;
    }
    // A line of its own, whatever a crash has left before it.
    let mut line = if length > 0 { b"\n".to_vec() } else { vec![] };
    line.extend(serde_json::to_vec(delivery)?);
    line.push(b'\n');
    disk.write_at(LEDGER_FILE, length, &line)?;
    disk.sync(LEDGER_FILE)
}

/// All deliveries that are remembered, oldest first, each once. What is no delivery is left out.
pub fn deliveries(disk: &dyn Disk) -> Vec<Delivery> {
    let bytes = disk.read_at(LEDGER_FILE, 0, 2 * BYTES_MAX as usize).unwrap_or_default();
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut all: Vec<Delivery> = vec![];
    let mut places = HashMap::new();
    for delivery in lines {
        let Delivery { run, lease, version, .. } = &delivery;
        match places.get(&(run.clone(), *lease, *version)) {
            Some(place) => all[*place] = delivery,
            None => {
                places.insert((run.clone(), *lease, *version), all.len());
                all.push(delivery);
            }
        }
    }
    all
}
