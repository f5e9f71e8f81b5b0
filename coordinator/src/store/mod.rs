//! All that lasts: the ledger of facts, the blobs, the publisher that turns merged deltas into stored
//! versions, and the squasher that shortens the way to them.

pub mod blobs;
pub mod bucket;
pub mod carry;
pub mod copy;
pub mod desk;
pub mod error;
mod facts;
pub mod keeping;
pub mod ledger;
pub mod memory;
pub mod place;
pub mod postgres;
pub mod publisher;
pub mod samples;
pub mod sql;
pub mod sqlite;
pub mod squasher;
#[cfg(test)]
mod suite;

pub use blobs::{BlobError, Blobs, Measure};
pub use bucket::{Bucket, BucketUrl, StoreError};
pub use desk::{Access, Desk, Note, TokenRecord};
pub use error::{BadRow, LedgerError};
pub use facts::{Closed, Facts, LeaseFacts, LeaseOfDevice, Lineage};
pub use keeping::{Keeping, Kept, Point, Span, Standing, Weight, chain::Link};
pub use ledger::{Counters, Curves, Ledger, Merged, RunIdentity, Unnamed};
pub use memory::MemoryLedger;
pub use place::{DatabaseUrl, LedgerPlace, OpenLedger};
pub use postgres::PostgresLedger;
pub use publisher::{PublishError, Publisher};
pub use samples::Shards;
pub use sqlite::{SqliteLedger, look};
pub use squasher::Squasher;
