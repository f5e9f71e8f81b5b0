//! All that lasts: the ledger of facts, the folder of blobs, the press that turns merged deltas into stored versions,
//! and the squasher that shortens the way to them.

pub mod blobs;
pub mod error;
mod facts;
pub mod ledger;
pub mod look;
pub mod memory;
pub mod press;
mod rows;
pub mod samples;
pub mod squasher;

pub use blobs::{BlobError, Blobs, Measure};
pub use error::{BadRow, LedgerError};
pub use facts::{Closed, Facts, LeaseFacts};
pub use ledger::{Counters, RunIdentity, SqliteLedger};
pub use memory::MemoryLedger;
pub use press::{Press, PressError};
pub use samples::Shards;
pub use squasher::Squasher;
