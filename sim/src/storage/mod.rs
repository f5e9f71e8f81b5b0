//! What the coordinator has beside its process: ledger and blobs. They survive a kill. In cost mode both are tallies.

pub mod tally;

pub use tally::Tally;

use crate::{dataset::Dataset, disk::SimDisk, setup::Setup};
use nightjar_coordinator::{
    engine::{record::Record, snapshot::Snapshot},
    store::{Blobs, MemoryLedger, Shards},
};
use nightjar_shared::{
    disk::Disk,
    ids::{BlobHash, Generation},
};
use std::sync::Arc;

/// Ledger and blobs.
pub enum Storage {
    /// As they ship.
    Bytes(Whole),
    /// Names and lengths.
    Sizes(Box<Tally>),
}

/// A ledger in memory, and blobs on a simulated disk.
pub struct Whole {
    /// Committed facts.
    pub ledger: MemoryLedger,
    /// Blobs, uploads and checkpoints.
    pub disk: Arc<SimDisk>,
    /// The dataset, which nothing changes.
    pub dataset: Dataset,
}

impl Whole {
    /// The blob folder.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.disk.clone())
    }

    /// Looks at the bytes of any blob that a device may fetch.
    pub fn with_blob<T>(&self, hash: BlobHash, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        match self.dataset.shards.get(&hash) {
            Some(bytes) => Some(look(bytes)),
            None => self.disk.with(&format!("blobs/{hash}"), look),
        }
    }
}

impl Storage {
    /// Of a run that has not begun.
    pub fn new(setup: &Setup, has_bytes: bool) -> Self {
        if has_bytes {
            let dataset = setup.dataset.clone();
            Storage::Bytes(Whole { ledger: MemoryLedger::new(), disk: Arc::new(SimDisk::default()), dataset })
        } else {
            Storage::Sizes(Box::new(Tally::new(&setup.spec, &setup.dataset.manifest)))
        }
    }

    /// A coordinator starts.
    pub fn open(&mut self, unix_s: u64) -> Generation {
        match self {
            Storage::Bytes(whole) => {
                whole.ledger = whole.ledger.open(unix_s);
                whole.ledger.generation()
            }
            Storage::Sizes(tally) => tally.raise(unix_s),
        }
    }

    /// What an engine starts from.
    pub fn snapshot(&self, shards: &Shards) -> Snapshot {
        match self {
            Storage::Bytes(whole) => whole.ledger.snapshot(shards),
            // A tally is never restarted from.
            Storage::Sizes(_) => Snapshot::default(),
        }
    }

    /// Writes records.
    pub fn commit(&mut self, records: &[Record]) {
        match self {
            Storage::Bytes(whole) => whole.ledger.commit(records).expect("no other coordinator, no full disk"),
            Storage::Sizes(tally) => tally.commit(records),
        }
    }

    /// The length of a blob that a device may fetch.
    pub fn length(&self, hash: BlobHash) -> Option<u64> {
        match self {
            Storage::Bytes(whole) => whole.with_blob(hash, |bytes| bytes.len() as u64),
            Storage::Sizes(tally) => tally.length(hash),
        }
    }

    /// Bytes of an upload that are here.
    pub fn incoming(&self, hash: BlobHash) -> u64 {
        match self {
            Storage::Bytes(whole) => whole.blobs().incoming(hash).expect("the simulated disk never fails"),
            Storage::Sizes(tally) => tally.incoming(hash),
        }
    }

    /// An upload has arrived up to `end` of `bytes`; an error says why it is not stored. `delta` are the whole's bytes,
    /// where there are any.
    pub fn receive(&mut self, hash: BlobHash, bytes: u64, delta: &[u8], end: u64) -> Result<(), String> {
        match self {
            Storage::Sizes(tally) => {
                tally.receive(hash, end);
                Ok(())
            }
            Storage::Bytes(whole) => {
                let blobs = whole.blobs();
                let store = || {
                    let have = blobs.incoming(hash)?.min(end);
                    blobs.append(hash, have, &delta[have as usize..end as usize])?;
                    if end == bytes { blobs.finish(hash, bytes) } else { Ok(()) }
                };
                store().map_err(|error| error.to_string())
            }
        }
    }

    /// A delta is in a published version and will not be needed again, unless to prove it.
    pub fn forget(&mut self, hash: BlobHash) {
        if let Storage::Bytes(whole) = self {
            whole.disk.remove(&format!("blobs/{hash}")).expect("the simulated disk never fails");
        }
    }

    /// The power is cut.
    pub fn crash(&self, seed: u64) {
        if let Storage::Bytes(whole) = self {
            whole.disk.crash(seed);
        }
    }
}
