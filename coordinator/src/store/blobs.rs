//! A run's blobs: immutable, named by their BLAKE3 hash, in the state folder or in a bucket. What is being uploaded lies in
//! `incoming/` until it is whole and verified; what a device was told is stored has been synced and renamed, or put into
//! the bucket, before.

use super::bucket::{Bucket, StoreError};
use crate::engine::{event::Measured, merge};
use nightjar_shared::{
    blob::BlobRef,
    disk::{Disk, Found},
    fail,
    ids::{BlobHash, Version},
    run_spec::RunSpec,
    version,
    wire::limits::CHUNK_BYTES,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// A blob that cannot be had or stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none of this name.
    #[error("blob {0} is missing")]
    NotFound(BlobHash),
    /// The file's bytes are not those that its name promises.
    #[error("blob {0} is damaged: its bytes do not match its name")]
    Corrupt(BlobHash),
    /// An upload that skips bytes, or is longer than announced.
    #[error("the upload of blob {hash} goes on at byte {offset}, but {have} bytes are here")]
    Gap {
        /// The blob.
        hash: BlobHash,
        /// Where the upload would go on.
        offset: u64,
        /// How much is here.
        have: u64,
    },
    /// No space.
    #[error("the disk is full: free some space, nothing was lost")]
    DiskFull,
    /// Anything else that the file system says.
    #[error("blob {hash} could not be read or written: {error}")]
    Io {
        /// The blob.
        hash: BlobHash,
        /// What the file system says.
        #[source]
        error: io::Error,
    },
    /// The object store that they are in.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder itself.
    #[error("the state folder could not be read or written: {0}")]
    Folder(#[source] io::Error),
}

impl BlobError {
    /// Whether it may pass by itself: the disk is full, or does not answer for a moment.
    pub fn may_pass(&self) -> bool {
        !matches!(self, BlobError::Gap { .. }) && !self.is_loss()
    }

    /// Whether the store as a whole cannot be used: it tells nothing of the blob.
    pub fn is_of_store(&self) -> bool {
        matches!(self, BlobError::Store(_))
    }

    /// Whether the blob is lost, unless somebody puts it back.
    pub fn is_loss(&self) -> bool {
        matches!(self, BlobError::NotFound(_) | BlobError::Corrupt(_))
    }
}

/// What is known of an offered delta.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// It is to be uploaded, from this offset.
    Missing {
        /// Bytes that are here already.
        have: u64,
    },
    /// It is here, and this is what decoding it shows.
    Done(Result<Measured, String>),
}

/// A run's blobs, uploads and checkpoints. Clones are the same.
#[derive(Clone)]
pub struct Blobs {
    disk: Arc<dyn Disk>,
    /// The same, where it is one.
    bucket: Option<Arc<Bucket>>,
    reads: Arc<AtomicU64>,
}

fn stored(hash: BlobHash) -> String {
    format!("blobs/{hash}")
}

fn incoming(hash: BlobHash) -> String {
    format!("incoming/{hash}")
}

fn of(hash: BlobHash) -> impl Fn(io::Error) -> BlobError {
    move |error| match error.kind() {
        _ if StoreError::of(&error).is_some() => folder(error),
        io::ErrorKind::NotFound => BlobError::NotFound(hash),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::DiskFull,
        _ => BlobError::Io { hash, error },
    }
}

fn folder(error: io::Error) -> BlobError {
    if let Some(error) = StoreError::of(&error) {
        return error.clone().into();
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::DiskFull,
        _ => BlobError::Folder(error),
    }
}

impl Blobs {
    /// Over the state folder.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Blobs { disk, bucket: None, reads: Arc::default() }
    }

    /// In a bucket.
    pub fn in_bucket(bucket: Bucket) -> Self {
        let bucket = Arc::new(bucket);
        Blobs { disk: bucket.clone(), bucket: Some(bucket), reads: Arc::default() }
    }

    /// The bucket that they are in; `None`: the state folder.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.bucket.as_deref()
    }

    /// What is wrong with where they are, as far as is known. A folder is not asked.
    pub fn trouble(&self) -> Option<StoreError> {
        self.bucket()?.trouble()
    }

    /// Asks the object store, where there is one, whether it can be used. Blocks.
    pub fn probe(&self) -> Result<(), BlobError> {
        self.bucket().map_or(Ok(()), |bucket| bucket.probe().map_err(folder))
    }

    /// Stores bytes; they are durable on return.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobHash, BlobError> {
        let hash = BlobHash::of(bytes);
        self.disk.write(&stored(hash), bytes).map_err(of(hash))?;
        Ok(hash)
    }

    /// Blobs that were read as a whole so far: how far a replay is.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The whole blob, checked against its name.
    pub fn read(&self, hash: BlobHash) -> Result<Vec<u8>, BlobError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.disk.read(&stored(hash)).map_err(of(hash))?.ok_or(BlobError::NotFound(hash))?;
        if BlobHash::of(&bytes) == hash { Ok(bytes) } else { Err(BlobError::Corrupt(hash)) }
    }

    /// Up to `length` bytes from `offset`; fewer only at the end. Who puts them together checks the hash.
    pub fn read_range(&self, hash: BlobHash, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        self.disk.read_at(&stored(hash), offset, length).map_err(of(hash))
    }

    /// Whether a blob is there, of this length, with the bytes that its name promises; holds no more than a piece of
    /// it.
    pub fn is_sound(&self, hash: BlobHash, bytes: u64) -> Result<bool, BlobError> {
        if self.length(hash)? != Some(bytes) {
            return Ok(false);
        }
        let is_sound = || -> Result<bool, BlobError> {
            match self.hash_of(&stored(hash)).map_err(of(hash)) {
                Err(BlobError::NotFound(_)) => Ok(false),
                found => Ok(found? == hash),
            }
        };
        // What is kept of it beside a bucket may be what is damaged.
        Ok(is_sound()? || self.bucket().is_some_and(|bucket| bucket.forget(hash)) && is_sound()?)
    }

    /// The version that a blob leads to, as its first bytes say; `None` for a delta, a shard, or what cannot be read.
    pub fn version_of(&self, hash: BlobHash) -> Result<Option<Version>, BlobError> {
        let head = self.read_range(hash, 0, version::HEAD_BYTES)?;
        Ok(version::of_head(&head))
    }

    /// The blob's length; `None` if it is not stored.
    pub fn length(&self, hash: BlobHash) -> Result<Option<u64>, BlobError> {
        self.disk.length(&stored(hash)).map_err(of(hash))
    }

    /// When the blob was stored; `None` if it is not there, or nobody knows.
    pub fn stored_at(&self, hash: BlobHash) -> Result<Option<SystemTime>, BlobError> {
        self.disk.changed(&stored(hash)).map_err(of(hash))
    }

    /// All stored blobs.
    pub fn list(&self) -> Result<Vec<BlobHash>, BlobError> {
        Ok(self.disk.list("blobs").map_err(folder)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The same, each with its length.
    pub fn list_with_bytes(&self) -> Result<Vec<BlobRef>, BlobError> {
        if self.bucket.is_none() {
            let sized = |hash| Ok(BlobRef { hash, bytes: self.length(hash)?.unwrap_or(0) });
            return self.list()?.into_iter().map(sized).collect();
        }
        // A listing has all that there is to know.
        let files = self.disk.walk("blobs").map_err(folder)?.files;
        let named =
            |file: Found| Some(BlobRef { hash: file.name.strip_prefix("blobs/")?.parse().ok()?, bytes: file.bytes });
        Ok(files.into_iter().filter_map(named).collect())
    }

    /// Removes a blob, if it is there.
    pub fn remove(&self, hash: BlobHash) -> Result<(), BlobError> {
        self.disk.remove(&stored(hash)).map_err(of(hash))
    }

    /// Bytes of an upload that are here.
    pub fn incoming(&self, hash: BlobHash) -> Result<u64, BlobError> {
        Ok(self.disk.length(&incoming(hash)).map_err(of(hash))?.unwrap_or(0))
    }

    /// Uploads that were begun and not finished.
    pub fn list_incoming(&self) -> Result<Vec<BlobHash>, BlobError> {
        Ok(self.disk.list("incoming").map_err(folder)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Adds bytes to an upload, at its end.
    pub fn append(&self, hash: BlobHash, offset: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let have = self.incoming(hash)?;
        if offset != have {
            return Err(BlobError::Gap { hash, offset, have });
        }
        self.disk.write_at(&incoming(hash), offset, bytes).map_err(of(hash))
    }

    /// Ends an upload: syncs it, verifies it, and gives it its name among the blobs. What does not match is removed, so
    /// that the next try starts from nothing.
    pub fn finish(&self, hash: BlobHash, bytes: u64) -> Result<(), BlobError> {
        let name = incoming(hash);
        self.disk.sync_bytes(&name).map_err(of(hash))?;
        fail::point("blob.synced");
        if self.incoming(hash)? != bytes || self.hash_of(&name).map_err(of(hash))? != hash {
            self.discard(hash)?;
            return Err(BlobError::Corrupt(hash));
        }
        self.disk.rename(&name, &stored(hash)).map_err(of(hash))?;
        fail::point("blob.renamed");
        Ok(())
    }

    /// Gives an upload up.
    pub fn discard(&self, hash: BlobHash) -> Result<(), BlobError> {
        self.disk.remove(&incoming(hash)).map_err(of(hash))
    }

    fn hash_of(&self, name: &str) -> io::Result<BlobHash> {
        // Each is a request where nothing is kept beside a bucket.
        let piece = if self.bucket.is_some() { BUCKET_PIECE_BYTES } else { CHUNK_BYTES };
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        loop {
            let chunk = self.disk.read_at(name, at, piece)?;
            if chunk.is_empty() {
                return Ok(BlobHash(*hasher.finalize().as_bytes()));
            }
            hasher.update(&chunk);
            at += chunk.len() as u64;
        }
    }

    /// What `Action::MeasureDelta` asks for. A stored delta that is damaged is removed, to be uploaded again.
    pub fn measure(&self, spec: &RunSpec, delta: BlobRef) -> Result<Measure, BlobError> {
        let BlobRef { hash, bytes: offered } = delta;
        // What is written down of a delta is what is stored; and nothing longer than one is read.
        if let Some(length) = self.length(hash)?
            && length != offered
        {
            return Ok(Measure::Done(Err(format!("The delta is {length} bytes long, and was offered as {offered}."))));
        }
        match self.read(hash) {
            Ok(bytes) => {
                Ok(Measure::Done(merge::measure(spec, &bytes).map_err(|e| format!("The delta cannot be taken: {e}."))))
            }
            Err(BlobError::NotFound(_)) => Ok(Measure::Missing { have: self.incoming(hash)? }),
            Err(BlobError::Corrupt(_)) => {
                self.remove(hash)?;
                Ok(Measure::Missing { have: 0 })
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a checkpoint, beside all that are there.
    pub fn add_checkpoint(&self, version: u64, bytes: &[u8]) -> Result<(), BlobError> {
        self.disk.write(&checkpoint(version), bytes).map_err(folder)?;
        fail::point("checkpoint.written");
        Ok(())
    }

    /// Keeps a checkpoint, and those of the [`CHECKPOINTS_KEPT`] versions before it.
    pub fn put_checkpoint(&self, version: u64, bytes: &[u8]) -> Result<(), BlobError> {
        self.add_checkpoint(version, bytes)?;
        let mut older = self.checkpoints()?.into_iter().filter(|v| *v < version).skip(CHECKPOINTS_KEPT);
        older.try_for_each(|version| self.remove_checkpoint(version))
    }

    /// Removes a checkpoint, if it is there.
    pub fn remove_checkpoint(&self, version: u64) -> Result<(), BlobError> {
        self.disk.remove(&checkpoint(version)).map_err(folder)
    }

    /// Versions that have a checkpoint, newest first.
    pub fn checkpoints(&self) -> Result<Vec<u64>, BlobError> {
        let names = self.disk.list("checkpoints").map_err(folder)?;
        let mut versions: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".njc")?.parse().ok()).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(versions)
    }

    /// A version's checkpoint, as it was written; the reader checks it.
    pub fn checkpoint(&self, version: u64) -> Result<Option<Vec<u8>>, BlobError> {
        self.disk.read(&checkpoint(version)).map_err(folder)
    }
}

/// Bytes of a blob in a bucket that are hashed at once.
const BUCKET_PIECE_BYTES: usize = 4 << 20;

/// Checkpoints kept besides the newest: should that one turn out damaged, less has to be merged again.
const CHECKPOINTS_KEPT: usize = 1;

fn checkpoint(version: u64) -> String {
    format!("checkpoints/{version}.njc")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(Arc::new(FolderDisk::open(folder.path()).unwrap()));
        (folder, blobs)
    }

    #[test]
    fn an_upload_goes_on_where_it_stopped() {
        let (_folder, blobs) = blobs();
        let hash = BlobHash::of(b"hello");
        assert_eq!(blobs.incoming(hash).unwrap(), 0);
        blobs.append(hash, 0, b"he").unwrap();
        assert_eq!(blobs.incoming(hash).unwrap(), 2);
        assert!(matches!(blobs.append(hash, 4, b"o"), Err(BlobError::Gap { have: 2, .. })));
        assert!(matches!(blobs.read(hash), Err(BlobError::NotFound(_))), "not before it is whole");
        blobs.append(hash, 2, b"llo").unwrap();
        blobs.finish(hash, 5).unwrap();
        assert_eq!(blobs.read(hash).unwrap(), b"hello");
        assert_eq!(blobs.read_range(hash, 1, 3).unwrap(), b"ell");
        assert_eq!((blobs.list().unwrap(), blobs.list_incoming().unwrap()), (vec![hash], vec![]));
    }

    #[test]
    fn an_upload_of_other_bytes_is_thrown_away() {
        let (_folder, blobs) = blobs();
        let hash = BlobHash::of(b"hello");
        blobs.append(hash, 0, b"hallo").unwrap();
        assert!(matches!(blobs.finish(hash, 5), Err(BlobError::Corrupt(_))));
        assert_eq!(blobs.incoming(hash).unwrap(), 0);
        blobs.append(hash, 0, b"hello").unwrap();
        assert!(matches!(blobs.finish(hash, 6), Err(BlobError::Corrupt(_))), "of another length than announced");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let (folder, blobs) = blobs();
        let hash = blobs.put(b"hello").unwrap();
        std::fs::write(folder.path().join(stored(hash)), b"hellO").unwrap();
        assert!(matches!(blobs.read(hash), Err(BlobError::Corrupt(_))));
    }

    #[test]
    fn the_newest_checkpoints_are_kept() {
        let (_folder, blobs) = blobs();
        for version in [0, 16, 32, 48] {
            blobs.put_checkpoint(version, &[version as u8]).unwrap();
        }
        assert_eq!(blobs.checkpoints().unwrap(), [48, 32]);
        assert_eq!(blobs.checkpoint(32).unwrap(), Some(vec![32]));
    }
}
