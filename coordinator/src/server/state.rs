//! The state folder: one coordinator at a time has it, and what no fact in the ledger names is cleared away.

use crate::store::{BlobError, Blobs, Facts};
use nightjar_shared::{disk::FolderDisk, ids::BlobHash};
use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A state folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("another coordinator is running on the state folder {0}; stop it first, or choose another --state")]
    Locked(PathBuf),
    /// There is none.
    #[error("there is no state folder {0}; name the --state folder that `nightjar-coordinator serve` was started with")]
    Missing(PathBuf),
    /// It cannot be created or written.
    #[error("the state folder {folder} cannot be used: {error}; check the path and its permissions")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

/// An open state folder.
pub struct StateFolder {
    /// Its files.
    pub disk: Arc<FolderDisk>,
    folder: PathBuf,
}

/// Held by the coordinator that serves; the system lets go of it when the process ends, however it ends.
pub struct StateLock {
    _file: File,
}

impl StateFolder {
    /// Opens a folder that is there.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        if !folder.is_dir() {
            return Err(StateError::Missing(folder.to_owned()));
        }
        Self::create_or_open(folder)
    }

    /// Opens a folder, creating it.
    pub fn create_or_open(folder: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::Io { folder: folder.to_owned(), error };
        Ok(StateFolder { disk: Arc::new(FolderDisk::open(folder).map_err(failed)?), folder: folder.to_owned() })
    }

    /// Takes the folder for this process alone.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let failed = |error| StateError::Io { folder: self.folder.clone(), error };
        let file = File::create(self.folder.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(self.folder.clone())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Its blobs.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.disk.clone())
    }

    /// Where the ledger is.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.sqlite")
    }
}

/// Removes blobs and uploads that nothing in the ledger names: deltas that were screened out, uploads given up. While
/// there are no more of them than open leases they stay: a device may be about to offer them. Returns how many went.
pub fn clear_away(facts: &Facts, blobs: &Blobs) -> Result<usize, BlobError> {
    let of_versions = facts.versions.iter().flat_map(|v| v.blobs()).map(|(hash, _)| hash);
    let named: BTreeSet<BlobHash> = of_versions.chain(facts.deltas.iter().map(|d| d.blob)).collect();
    let open_leases = facts.leases.iter().filter(|lease| lease.closed.is_none()).count();
    let mut removed = 0;
    let unnamed: Vec<BlobHash> = blobs.list()?.into_iter().filter(|hash| !named.contains(hash)).collect();
    if unnamed.len() > open_leases {
        removed += unnamed.len();
        unnamed.into_iter().try_for_each(|hash| blobs.remove(hash))?;
    }
    let uploads = blobs.list_incoming()?;
    if uploads.len() > open_leases {
        removed += uploads.len();
        uploads.into_iter().try_for_each(|hash| blobs.discard(hash))?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_coordinator_has_the_folder() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(StateFolder::open(&root.path().join("none")), Err(StateError::Missing(_))));
        let state = StateFolder::create_or_open(&root.path().join("new")).unwrap();
        let lock = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::Locked(_))));
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    fn what_nothing_names_goes_once_it_cannot_be_wanted() {
        let root = tempfile::tempdir().unwrap();
        let blobs = StateFolder::create_or_open(root.path()).unwrap().blobs();
        let named = blobs.put(b"named").unwrap();
        blobs.put(b"screened out").unwrap();
        blobs.append(BlobHash::of(b"whole"), 0, b"who").unwrap();
        let version = crate::engine::record::VersionRecord {
            version: nightjar_shared::ids::Version(0),
            update: None,
            keyframe: Some((named, 5)),
            digest: [0; 32],
            through_seq: 0,
            published_at: Default::default(),
            squashes: vec![],
        };
        let facts = Facts { versions: vec![version], ..Facts::default() };
        assert_eq!(clear_away(&facts, &blobs).unwrap(), 2);
        assert_eq!((blobs.list().unwrap(), blobs.list_incoming().unwrap()), (vec![named], vec![]));
        assert_eq!(clear_away(&facts, &blobs).unwrap(), 0);
    }
}
