//! The blobs that devices may have: the dataset's shards and what versions were published as. Nothing else is ever sent,
//! whatever lies in the state folder.

use crate::{
    dataset::Dataset,
    engine::event::Published,
    store::{BlobError, Blobs},
};
use nightjar_shared::{disk::FolderDisk, ids::BlobHash};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, RwLock},
};

/// Where a blob lies.
#[derive(Clone, Copy)]
enum Shelf {
    Dataset,
    State,
}

/// See the module.
pub struct Catalog {
    dataset: Blobs,
    state: Blobs,
    entries: RwLock<HashMap<BlobHash, (Shelf, u64)>>,
}

/// A blob that may be sent.
#[derive(Clone)]
pub struct Entry {
    /// Its length.
    pub bytes: u64,
    hash: BlobHash,
    folder: Blobs,
}

impl Entry {
    /// Up to `length` bytes from `offset`. Blocks.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        self.folder.read_range(self.hash, offset, length)
    }
}

impl Catalog {
    /// With the dataset's shards; versions are added as they are published.
    pub fn new(dataset: &Dataset, state: Blobs) -> io::Result<Self> {
        let entries = dataset.blobs().map(|(hash, bytes)| (hash, (Shelf::Dataset, bytes))).collect();
        let dataset = Blobs::new(Arc::new(FolderDisk::open(dataset.folder())?));
        Ok(Catalog { dataset, state, entries: RwLock::new(entries) })
    }

    /// Adds what a version was published as.
    pub fn publish(&self, published: &Published) {
        let squashes = published.squashes.iter().map(|s| s.blob);
        self.add(published.update.into_iter().chain(published.keyframe).chain(squashes));
    }

    /// Adds blobs of the state folder.
    pub fn add(&self, blobs: impl Iterator<Item = (BlobHash, u64)>) {
        // Whoever panicked while holding the lock left a whole map behind: inserts are all that is done to it.
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.extend(blobs.map(|(hash, bytes)| (hash, (Shelf::State, bytes))));
    }

    /// The blob of this name, if devices may have it.
    pub fn get(&self, hash: BlobHash) -> Option<Entry> {
        let (shelf, bytes) = *self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&hash)?;
        let folder = match shelf {
            Shelf::Dataset => &self.dataset,
            Shelf::State => &self.state,
        };
        Some(Entry { bytes, hash, folder: folder.clone() })
    }
}
