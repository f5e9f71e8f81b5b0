//! A run copied to another folder while it is served, and put back from there.
//!
//! A backup's folder holds `blobs/`, as a state folder does, `files/` for all else, each under its hash, and
//! `backup.json` ([`Contents`]), which says what is whose. That file is written last, in one step: a backup that is cut
//! short leaves the one before it as it was. Blobs never change, so the next backup into the same folder brings only
//! what is new, and where the disk allows, both folders share them as hard links.
//!
//! The ledger of a backup needs no blob that the backup does not have. Blobs are brought first, since that takes long,
//! then the ledger is copied, then the few blobs that came in between; what was removed meanwhile is noticed, and the
//! ledger is copied again.
//!
//! Where a run keeps its ledger and its blobs makes no difference to its backup: rows of a database are copied into
//! SQLite's file, in one transaction that sees one state, and objects of a bucket into files. So a backup can be put
//! back into either.

mod bring;
mod contents;
mod restore;
mod shown;
mod take;

pub use contents::Contents;
pub use restore::{Restored, Target, restore};
pub use take::{Options, Taken, take};

use crate::{
    identity::IdentityError,
    server::state::StateError,
    store::{BlobError, LedgerError, StoreError, bucket::ClaimError, carry::CarryError},
};
use nightjar_shared::mark::MarkError;
use std::{io, path::PathBuf};

/// A run that cannot be backed up or put back. Nothing that was there before is lost.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else has the name.
    #[error("{0} is no folder; name another")]
    NotAFolder(PathBuf),
    /// Something else is in it.
    #[error("{folder} holds {entry}, which is no backup's: name an empty folder, or one that `backup` made")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is not ours.
        entry: String,
    },
    /// It was made for something else.
    #[error("{folder} is {kind}, not a backup of a run; name another folder")]
    OtherKind {
        /// The folder.
        folder: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// There is no backup in it.
    #[error("there is no whole backup in {0}: name a folder that `backup` has finished")]
    NoBackup(PathBuf),
    /// It cannot be read, or a newer version has written it.
    #[error(
        "{0} cannot be read: it is damaged, or a newer version of Nightjar has written it; upgrade, or take another backup"
    )]
    Unreadable(PathBuf),
    /// Another backup is at work there.
    #[error("another backup is being made in {0}, or restored from it; wait for it to end")]
    Locked(PathBuf),
    /// The folder holds a backup of another run.
    #[error("{folder} holds a backup of the run \"{run}\": name another folder for this one")]
    OtherRun {
        /// The folder.
        folder: PathBuf,
        /// The other run's name.
        run: String,
    },
    /// The folder holds what the run does not know any more.
    #[error(
        "{folder} holds a backup of version {version} as this run does not have it: the run went on from an older copy. Name \
         another folder, and keep this one until you are sure that you need it no more"
    )]
    Ahead {
        /// The folder.
        folder: PathBuf,
        /// The newest version that the backup holds.
        version: u64,
    },
    /// The object store.
    #[error("{0}; run the same command again: it goes on where it stopped")]
    Store(StoreError),
    /// A new run's folder has something in it.
    #[error("{0} is not empty: a run is restored into a new folder, so that nothing is lost; name another --state")]
    NotEmpty(PathBuf),
    /// Where the run's ledger or blobs are to be, there is something.
    #[error(
        "{0} holds a run, or something else: a run is restored into an empty database and an empty prefix, so that nothing is \
         lost; name others. Nothing was changed there"
    )]
    TakenPlace(String),
    /// A file of the backup that nothing can do without.
    #[error("{file} of the backup {folder} is missing or damaged: it cannot be restored; use another backup")]
    Damaged {
        /// The backup.
        folder: PathBuf,
        /// What it holds, by its name in a state folder.
        file: String,
    },
    /// The key of the backup is not its ledger's.
    #[error("the key of this backup is not the one that its ledger was begun with; use another backup")]
    OtherKey,
    /// No space.
    #[error(
        "the disk of {0} is full; free some space there, and run the same command again: it goes on where it stopped"
    )]
    DiskFull(PathBuf),
    /// Anything else that the file system says.
    #[error("{path} could not be read or written: {error}; run the same command again: it goes on where it stopped")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// A mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The run's state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The run's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The bucket.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Rows or blobs on their way.
    #[error(transparent)]
    Carry(#[from] CarryError),
}

/// Names the folder in what the system says.
fn failed(folder: &std::path::Path) -> impl Fn(io::Error) -> BackupError {
    let path = folder.to_owned();
    move |error| match (error.kind(), StoreError::of(&error)) {
        (_, Some(error)) => BackupError::Store(error.clone()),
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, None) => BackupError::DiskFull(path.clone()),
        _ => BackupError::Io { path: path.clone(), error },
    }
}
