//! Where a run keeps what is not in its state folder, as the folder remembers it: the ledger's database, the blobs'
//! bucket. Neither note holds a password or a key.

use super::{BUCKET, LEDGER, PLACE, StateError, StateFolder, failed};
use crate::store::{Blobs, Bucket, BucketUrl, DatabaseUrl, LedgerPlace};
use nightjar_shared::{disk::Disk, mark::Mark};
use std::{fmt::Display, fs, io, path::Path};

impl StateFolder {
    /// Where the run's ledger is; `given` is where somebody says it is, with a password perhaps.
    pub fn ledger(&self, given: Option<&DatabaseUrl>) -> Result<LedgerPlace, StateError> {
        ledger(&self.folder, given)
    }

    /// The bucket that the run's blobs are in, or a new run's will be; `None`: they are in this folder. `given` is
    /// where somebody says they are.
    pub fn bucket(&self, given: Option<&BucketUrl>) -> Result<Option<BucketUrl>, StateError> {
        let folder = &self.folder;
        match (noted(folder, BUCKET)?, given) {
            // The store may have another address now. The mark in it tells whether it is the right one.
            (Some(_), Some(given)) => Ok(Some(given.clone())),
            (Some(noted), None) => match noted.parse() {
                Ok(url) => Ok(Some(url)),
                Err(error) => Err(StateError::BadBucket { folder: folder.clone(), error }),
            },
            (None, Some(_)) if self.has_run()? => Err(StateError::BlobsHere { folder: folder.clone() }),
            (None, given) => Ok(given.cloned()),
        }
    }

    /// Whether a run has begun here, and not only the first start of one.
    fn has_run(&self) -> Result<bool, StateError> {
        Ok(Self::has_ledger(&self.folder) && Mark::read(&self.folder)?.is_none_or(|mark| mark.is_whole))
    }

    /// The run's blobs, for a coordinator that serves.
    pub fn blobs_to_serve(&self, bucket: Option<&BucketUrl>) -> Result<Blobs, StateError> {
        self.blobs_in(bucket.map(|url| Bucket::to_serve(url, self.disk.clone())))
    }

    /// The run's blobs, for a command.
    pub fn blobs_to_read(&self, bucket: Option<&BucketUrl>) -> Result<Blobs, StateError> {
        self.blobs_in(bucket.map(|url| Bucket::to_read(url, self.disk.clone())))
    }

    fn blobs_in(&self, bucket: Option<io::Result<Bucket>>) -> Result<Blobs, StateError> {
        let bucket = bucket.transpose().map_err(|error| StateError::Io { folder: self.folder.clone(), error })?;
        Ok(bucket.map_or_else(|| Blobs::new(self.disk.clone()), Blobs::in_bucket))
    }

    /// Notes that the ledger is in a database, so that nobody needs to say it again.
    pub fn note_ledger(&self, place: &LedgerPlace) -> Result<(), StateError> {
        place.database().map_or(Ok(()), |url| self.note(PLACE, url))
    }

    /// Notes that the blobs are in a bucket.
    pub fn note_bucket(&self, bucket: Option<&BucketUrl>) -> Result<(), StateError> {
        bucket.map_or(Ok(()), |url| self.note(BUCKET, url))
    }

    /// The ledger's file, whether it is the run's or not.
    pub fn ledger_file(&self) -> LedgerPlace {
        LedgerPlace::File(self.folder.join(LEDGER))
    }

    /// From now on the ledger is there.
    pub fn switch_ledger(&self, place: &LedgerPlace) -> Result<(), StateError> {
        match place.database() {
            Some(url) => self.note(PLACE, url),
            None => self.disk.remove(PLACE).map_err(failed(&self.folder)),
        }
    }

    /// From now on the blobs are in this bucket, or in the folder.
    pub fn switch_bucket(&self, bucket: Option<&BucketUrl>) -> Result<(), StateError> {
        match bucket {
            Some(url) => self.note(BUCKET, url),
            None => self.disk.remove(BUCKET).map_err(failed(&self.folder)),
        }
    }

    fn note(&self, file: &str, url: &impl Display) -> Result<(), StateError> {
        let line = format!("{url}\n");
        if fs::read(self.folder.join(file)).is_ok_and(|noted| noted == line.as_bytes()) {
            return Ok(());
        }
        self.disk.write(file, line.as_bytes()).map_err(failed(&self.folder))
    }
}

/// What a note says.
fn noted(folder: &Path, file: &str) -> Result<Option<String>, StateError> {
    match fs::read_to_string(folder.join(file)) {
        Ok(noted) => Ok(Some(noted.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(folder)(error)),
    }
}

/// Where the ledger of a state folder is, or of a new one would be.
pub(super) fn ledger(folder: &Path, given: Option<&DatabaseUrl>) -> Result<LedgerPlace, StateError> {
    match (noted(folder, PLACE)?, given) {
        // The database may have moved. Its run and key tell whether it is the right one.
        (Some(_), Some(given)) => Ok(LedgerPlace::Database(given.clone())),
        (Some(noted), None) => match noted.parse() {
            Ok(url) => Ok(LedgerPlace::Database(url)),
            Err(error) => Err(StateError::BadPlace { folder: folder.to_owned(), error }),
        },
        (None, Some(_)) if folder.join(LEDGER).exists() => Err(StateError::OtherPlace { folder: folder.to_owned() }),
        (None, Some(given)) => Ok(LedgerPlace::Database(given.clone())),
        (None, None) => Ok(LedgerPlace::File(folder.join(LEDGER))),
    }
}
