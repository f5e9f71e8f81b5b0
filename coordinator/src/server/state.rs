//! The state folder: whose it is, one coordinator at a time has it, and what no fact in the ledger names is cleared away.

use super::room::RESERVE_FILE;
use crate::{
    identity,
    store::{
        BlobError, Blobs, Facts, LedgerError,
        look::{self, Look},
    },
};
use nightjar_shared::{
    disk::FolderDisk,
    ids::{BlobHash, Version},
    mark::{self, EntryKind, Kind, Mark, MarkError},
};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

const LEDGER: &str = "ledger.sqlite";
/// All that a state folder has besides its mark.
const FILES: [&str; 7] =
    ["lock", identity::FILE, RESERVE_FILE, LEDGER, "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite-journal"];
const FOLDERS: [&str; 3] = ["blobs", "checkpoints", "incoming"];

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
    /// Something else has the name.
    #[error("{0} is no folder; choose another --state")]
    NotAFolder(PathBuf),
    /// It holds what no coordinator wrote.
    #[error("{folder} holds {entry}, which is not a coordinator's: move it away, or choose another --state folder")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is not ours.
        entry: String,
    },
    /// It was made for something else.
    #[error("{folder} is {kind}, and no coordinator's state: choose another --state folder")]
    OtherKind {
        /// The folder.
        folder: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A run's state without its ledger.
    #[error(
        "the state folder {folder} has no ledger ({LEDGER}), but {holds}: put the run's ledger back, from a backup if need be; \
         for a new run choose another --state folder. Nothing was changed"
    )]
    NoLedger {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        holds: String,
    },
    /// A ledger that knows nothing of what is there.
    #[error(
        "the ledger ({LEDGER}) in the state folder {folder} is empty, but there is {holds}: put the run's own ledger back, from \
         a backup if need be; for a new run choose another --state folder. Nothing was changed"
    )]
    EmptyLedger {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        holds: String,
    },
    /// A run's state without its key.
    #[error(
        "the state folder {folder} has a ledger, but not the run's key ({key}): put it back from a backup, since no device \
         accepts another; for a new run choose another --state folder. Nothing was changed",
        key = identity::FILE
    )]
    NoKey {
        /// The folder.
        folder: PathBuf,
    },
    /// Its mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Its blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Its ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What there is in a state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or the beginning of a first start that was cut short: no device has ever seen anything of it.
    New,
    /// A run.
    Run,
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

fn failed(folder: &Path) -> impl Fn(io::Error) -> StateError {
    move |error| StateError::Io { folder: folder.to_owned(), error }
}

impl StateFolder {
    /// Opens a folder that is there.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        if !folder.is_dir() {
            return Err(StateError::Missing(folder.to_owned()));
        }
        Ok(StateFolder { disk: Arc::new(FolderDisk::open(folder).map_err(failed(folder))?), folder: folder.to_owned() })
    }

    /// Takes a folder for this process alone, to serve the run in it or a new one. What is not a coordinator's, or not all
    /// of it, is left as it is.
    pub fn take(folder: &Path) -> Result<(Self, StateLock, Found), StateError> {
        find(folder)?;
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let state = Self::open(folder)?;
        let lock = state.lock()?;
        // Now that nobody else changes it.
        let found = find(folder)?;
        Ok((state, lock, found))
    }

    /// Whether a run has begun in a folder.
    pub fn has_ledger(folder: &Path) -> bool {
        folder.join(LEDGER).exists()
    }

    /// Whether a run in a folder has a version, so that it needs no start. Of a ledger that cannot be looked at, whoever
    /// opens it tells more.
    pub async fn has_begun(folder: &Path) -> bool {
        look::look(&folder.join(LEDGER)).await.is_ok_and(|look| look.versions > 0)
    }

    /// Takes the folder for this process alone.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let failed = failed(&self.folder);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.folder.join("lock"));
        let file = file.map_err(&failed)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(self.folder.clone())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Marks a new folder as a coordinator's, before anything is written to it.
    pub fn begin(&self) -> Result<(), StateError> {
        Mark::begun(Kind::State).write(&*self.disk).map_err(failed(&self.folder))
    }

    /// Marks the folder as one that has a ledger and a key: from here on neither is ever made anew.
    pub fn finish(&self) -> Result<(), StateError> {
        let whole = Mark::whole(Kind::State);
        if Mark::read(&self.folder)?.as_ref() == Some(&whole) {
            return Ok(());
        }
        whole.write(&*self.disk).map_err(failed(&self.folder))
    }

    /// Holds the ledger against what else there is.
    pub fn check_ledger(&self, look: &Look) -> Result<(), StateError> {
        if look.has_run && look.versions > 0 {
            return Ok(());
        }
        let blobs = self.blobs();
        let mut others = 0;
        for hash in blobs.list()? {
            // A start that was cut short may have stored version 0 already.
            let is_first = look.has_run && blobs.version_of(hash)? == Some(Version(0));
            others += usize::from(!is_first);
        }
        if look.has_run && others == 0 {
            return Ok(());
        }
        Err(StateError::EmptyLedger { folder: self.folder.clone(), holds: holds(&self.folder)? })
    }

    /// Its blobs.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.disk.clone())
    }

    /// Where the ledger is.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join(LEDGER)
    }
}

fn is_ours(name: &str, kind: EntryKind) -> bool {
    match kind {
        EntryKind::File => FILES.contains(&name),
        EntryKind::Folder => FOLDERS.contains(&name),
        EntryKind::Other => false,
    }
}

/// Looks what a folder is, without touching it; an error if no coordinator may have it.
fn find(folder: &Path) -> Result<Found, StateError> {
    let io = failed(folder);
    match fs::metadata(folder) {
        Ok(about) if about.is_dir() => {}
        Ok(_) => return Err(StateError::NotAFolder(folder.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::New),
        Err(e) => return Err(io(e)),
    }
    if mark::is_empty(folder).map_err(&io)? {
        return Ok(Found::New);
    }
    let mark = Mark::read(folder)?;
    if let Some(mark) = mark.as_ref().filter(|mark| mark.kind != Kind::State) {
        return Err(StateError::OtherKind { folder: folder.to_owned(), kind: mark.kind.said() });
    }
    if let Some(entry) = mark::foreign(folder, is_ours).map_err(&io)? {
        // Beside a marked state others may keep things of theirs. Nothing may take the place of ours.
        let takes_a_place = FILES.contains(&&*entry) || FOLDERS.contains(&&*entry) || entry == mark::MARK_FILE;
        if mark.is_none() || takes_a_place {
            return Err(StateError::Foreign { folder: folder.to_owned(), entry });
        }
        tracing::warn!("{} holds {entry}, which is not the coordinator's; it is left alone", folder.display());
    }
    let has = |name: &str| folder.join(name).is_file();
    let is_begun = mark.as_ref().is_some_and(|mark| !mark.is_whole);
    match (has(LEDGER), has(identity::FILE)) {
        _ if is_begun && stored(folder)? == (0, 0) => Ok(Found::New),
        (true, true) => Ok(Found::Run),
        (true, false) => Err(StateError::NoKey { folder: folder.to_owned() }),
        (false, _) => Err(StateError::NoLedger { folder: folder.to_owned(), holds: holds(folder)? }),
    }
}

/// How many blobs and checkpoints there are.
fn stored(folder: &Path) -> Result<(usize, usize), StateError> {
    let count = |name: &str| mark::entries(&folder.join(name)).map(|entries| entries.len()).map_err(failed(folder));
    Ok((count("blobs")?, count("checkpoints")?))
}

/// What of a run is there, in words.
fn holds(folder: &Path) -> Result<String, StateError> {
    let (blobs, checkpoints) = stored(folder)?;
    let key = folder.join(identity::FILE).is_file().then(|| format!("the run's key ({})", identity::FILE));
    let blobs = (blobs > 0).then(|| format!("{blobs} blobs"));
    let checkpoints = (checkpoints > 0).then(|| format!("{checkpoints} checkpoints"));
    let all: Vec<String> = key.into_iter().chain(blobs).chain(checkpoints).collect();
    Ok(if all.is_empty() { "the folders of a run".to_owned() } else { all.join(", ") })
}

/// Removes blobs and uploads that nothing in the ledger names: deltas that were screened out, uploads given up. While
/// there are no more of them than open leases they stay: a device may be about to offer them. Returns how many went.
///
/// A ledger that knows less than the folder is no reason to remove anything: one without a version, and one that is older
/// than the blobs, as when a backup of it was put back.
pub fn clear_away(facts: &Facts, blobs: &Blobs) -> Result<usize, BlobError> {
    let Some(newest) = facts.versions.last().map(|v| v.version) else { return Ok(0) };
    let of_versions = facts.versions.iter().flat_map(|v| v.blobs()).map(|(hash, _)| hash);
    let named: BTreeSet<BlobHash> = of_versions.chain(facts.deltas.iter().map(|d| d.blob)).collect();
    let open_leases = facts.leases.iter().filter(|lease| lease.closed.is_none()).count();
    let mut removed = 0;
    let unnamed: Vec<BlobHash> = blobs.list()?.into_iter().filter(|hash| !named.contains(hash)).collect();
    for hash in &unnamed {
        // The version after the newest may have been made and not committed.
        if blobs.version_of(*hash)?.is_some_and(|version| version > newest.next()) {
            tracing::warn!(
                "{} blobs are of versions or deltas that the ledger does not know: it is older than they are. They are kept",
                unnamed.len()
            );
            return Ok(0);
        }
    }
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
mod tests;
