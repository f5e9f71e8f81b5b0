//! The blobs that devices may have: the dataset's shards and what versions were published as. Nothing else is ever
//! sent, whatever lies in the state folder; and no blob is sent before it was read through once and has the bytes that
//! its name promises.

use crate::{
    dataset::Dataset,
    engine::event::Published,
    store::{BlobError, Blobs},
};
use nightjar_shared::{blob::BlobRef, disk::FolderDisk, ids::BlobHash};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// A damaged blob is read through again after so long: it may have been made anew, or put back.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Damaged blobs that wait to be mended. More are found again when they are asked for again.
pub const DAMAGED_MAX: usize = 64;

/// Where a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Among the dataset's shards.
    Dataset,
    /// Among the versions.
    State,
}

/// A blob that was found damaged or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which.
    pub hash: BlobHash,
    /// Where.
    pub location: Location,
}

/// What is known of a blob's bytes.
#[derive(Clone, Copy, Debug, Default)]
enum Health {
    #[default]
    Unknown,
    Sound,
    Damaged(Instant),
}

#[derive(Clone)]
struct Known {
    location: Location,
    bytes: u64,
    health: Arc<Mutex<Health>>,
}

/// See the module.
pub struct Catalog {
    dataset: Blobs,
    state: Blobs,
    entries: RwLock<HashMap<BlobHash, Known>>,
    damaged: mpsc::Sender<Damaged>,
}

/// A blob that may be sent.
#[derive(Clone)]
pub struct Entry {
    /// Its length.
    pub bytes: u64,
    hash: BlobHash,
    folder: Blobs,
    known: Known,
    damaged: mpsc::Sender<Damaged>,
}

impl Entry {
    /// Up to `length` bytes from `offset`. Blocks.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        self.folder.read_range(self.hash, offset, length)
    }

    /// Whether the blob has the bytes that its name promises, as far as is known: it is read through once a process,
    /// and again after a fault. One that has not is reported. Blocks.
    pub fn is_sound(&self) -> bool {
        // Whoever panicked left a whole value behind. Who comes while it is read through waits for the outcome.
        let mut health = self.known.health.lock().unwrap_or_else(PoisonError::into_inner);
        match *health {
            Health::Sound => return true,
            Health::Damaged(since) if since.elapsed() < LOOK_AGAIN => return false,
            Health::Unknown | Health::Damaged(_) => {}
        }
        let is_sound = match self.folder.is_sound(self.hash, self.bytes) {
            Ok(is_sound) => is_sound,
            // Nothing is known of the blob: it is looked at when the store is back.
            Err(error) if error.is_of_store() => return false,
            Err(error) => {
                tracing::warn!(%error, "a blob cannot be read");
                false
            }
        };
        *health = if is_sound { Health::Sound } else { Health::Damaged(Instant::now()) };
        if !is_sound {
            // A full queue is no loss: see DAMAGED_MAX.
            let _ = self.damaged.try_send(Damaged { hash: self.hash, location: self.known.location });
        }
        is_sound
    }

    /// Reads it through again, after a fault in sending it. Blocks.
    pub fn look_again(&self) -> bool {
        *self.known.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::Unknown;
        self.is_sound()
    }

    /// Where it lies.
    pub fn location(&self) -> Location {
        self.known.location
    }

    /// Whether these are the blob's bytes, by their hash.
    pub fn is(&self, hash: blake3::Hash) -> bool {
        hash == self.hash.0
    }
}

impl Catalog {
    /// With the dataset's shards; versions are added as they are published. What is found damaged goes to `damaged`.
    pub fn new(dataset: &Dataset, state: Blobs, damaged: mpsc::Sender<Damaged>) -> io::Result<Self> {
        let known = |bytes| Known { location: Location::Dataset, bytes, health: Arc::default() };
        let entries = dataset.blobs().map(|blob| (blob.hash, known(blob.bytes))).collect();
        let dataset = Blobs::new(Arc::new(FolderDisk::open(dataset.folder())?));
        Ok(Catalog { dataset, state, entries: RwLock::new(entries), damaged })
    }

    /// Adds what a version was published as.
    pub fn publish(&self, published: &Published) {
        let squashes = published.squashes.iter().map(|s| s.blob);
        self.add(published.update.into_iter().chain(published.keyframe).chain(squashes));
    }

    /// Adds blobs of the state folder.
    pub fn add(&self, blobs: impl Iterator<Item = BlobRef>) {
        let known = |bytes| Known { location: Location::State, bytes, health: Arc::default() };
        // Whoever panicked while holding the lock left a whole map behind: inserts are all that is done to it.
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.extend(blobs.map(|blob| (blob.hash, known(blob.bytes))));
    }

    /// Devices may not have these blobs any more: they are about to be removed.
    pub fn forget(&self, blobs: &[BlobHash]) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for hash in blobs {
            // A shard is never removed, whatever it is called.
            if entries.get(hash).is_some_and(|known| known.location == Location::State) {
                entries.remove(hash);
            }
        }
    }

    /// The blob of this name, if devices may have it.
    pub fn get(&self, hash: BlobHash) -> Option<Entry> {
        let known = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&hash)?.clone();
        let folder = match known.location {
            Location::Dataset => &self.dataset,
            Location::State => &self.state,
        };
        Some(Entry { bytes: known.bytes, hash, folder: folder.clone(), known, damaged: self.damaged.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_blob_is_noticed_before_it_is_sent_and_taken_again_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let state = Blobs::new(Arc::new(FolderDisk::open(folder.path()).unwrap()));
        let (damaged, mut reports) = mpsc::channel(DAMAGED_MAX);
        let catalog = Catalog { dataset: state.clone(), state: state.clone(), entries: RwLock::default(), damaged };
        let hash = state.put(b"a keyframe").unwrap();
        catalog.add([BlobRef { hash, bytes: 10 }].into_iter());
        assert!(catalog.get(hash).unwrap().is_sound());
        let file = folder.path().join(format!("blobs/{hash}"));
        for bytes in [&b"a keyfrome"[..], b"a key"] {
            std::fs::write(&file, bytes).unwrap();
            assert!(!catalog.get(hash).unwrap().look_again());
            assert!(!catalog.get(hash).unwrap().is_sound(), "it is not read through at every request");
            assert_eq!(reports.try_recv().unwrap(), Damaged { hash, location: Location::State });
            assert!(reports.try_recv().is_err());
        }
        std::fs::remove_file(&file).unwrap();
        assert!(!catalog.get(hash).unwrap().look_again());
        state.put(b"a keyframe").unwrap();
        assert!(catalog.get(hash).unwrap().look_again());
        assert!(catalog.get(hash).unwrap().is(blake3::hash(b"a keyframe")));
        catalog.forget(&[hash]);
        assert!(catalog.get(hash).is_none());
    }
}
