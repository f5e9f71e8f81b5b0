//! Carries a run from one store to another: what is there and right is not carried again, so that it goes on after a
//! kill; what was carried is read back and compared. The store that it comes from is only read, until its ledger is
//! marked at the very end. A backup copies a database's rows in the same way, and a restoration puts them back.

mod blobs;
mod ledger;
#[cfg(test)]
mod tests;

pub use blobs::{CarriedBlobs, carry_blobs, several};
pub use ledger::{carry_ledger, copy_ledger, mark_moved};

use super::{
    BlobError, LedgerError, LedgerPlace,
    bucket::ClaimError,
    postgres::leadership::{Leadership, Standing},
};
use nightjar_shared::ids::BlobHash;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// How far it is. Bytes for blobs, rows for a ledger, each counted when it is carried and again when it is compared.
#[derive(Debug, Default)]
pub struct Progress {
    /// In all; 0 until it is known.
    pub all: AtomicU64,
    /// So far.
    pub done: AtomicU64,
}

impl Progress {
    fn begin(&self, all: u64) {
        self.all.store(all, Ordering::Relaxed);
    }

    fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }
}

/// Does something to a run that nobody serves meanwhile. Of a ledger in a file the state folder's lock makes sure of it;
/// of one in a database, whoever is to lead.
pub async fn alone<T>(ledger: &LedgerPlace, work: impl Future<Output = T>) -> Result<T, CarryError> {
    let LedgerPlace::Database(url) = ledger else { return Ok(work.await) };
    let mut leadership = Leadership::of(url.clone());
    if leadership.stand().await? != Standing::Leads {
        return Err(CarryError::Served);
    }
    // It leads nobody: no door learns an address.
    let (_tell, address) = watch::channel(None);
    tokio::select! {
        done = work => Ok(done),
        () = leadership.keep(address) => Err(CarryError::Served),
    }
}

/// A run that could not be carried. It is where it was.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// A ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A bucket.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// No run is there.
    #[error("there is no run in {0}")]
    NoRun(String),
    /// Another run is there.
    #[error("{0} holds another run: name an empty database, or an empty prefix. Nothing was changed")]
    Taken(String),
    /// The run is there already, as it was at another time.
    #[error(
        "{0} holds this run already, as it was at another time: put that aside, and begin again. Nothing was changed"
    )]
    OtherTime(String),
    /// Rows that are not the same.
    #[error("{place} has other rows of {table} than the ledger that is copied there: empty it, and begin again")]
    Differs {
        /// Where.
        place: String,
        /// The table.
        table: String,
    },
    /// A table or column that the other side does not have.
    #[error("{place} has no place for {what}: start this program's `serve` on the run once, and begin again")]
    Form {
        /// Where.
        place: String,
        /// Table and column.
        what: String,
    },
    /// Somebody serves it.
    #[error("a coordinator serves the run, or has begun to: stop it, and begin again")]
    Served,
    /// What was stored is not what is read back.
    #[error("blob {0} reads back otherwise than it was stored: begin again; if it comes again, the store is at fault")]
    Unlike(BlobHash),
}
