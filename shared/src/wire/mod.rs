//! The messages, their framing and their bounds. A frame is a length (u32, little-endian), then that many bytes of
//! protobuf. The exchange is described in docs/protocol.md.

pub mod close;
pub mod frame;
pub mod limits;
pub mod refusal;
pub mod request;

mod generated {
    #![allow(missing_docs, clippy::all)] // generated from proto/, where the fields are explained
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/nightjar.v1.rs"));
    }
    pub mod worker {
        include!(concat!(env!("OUT_DIR"), "/nightjar.worker.rs"));
    }
    pub mod door {
        include!(concat!(env!("OUT_DIR"), "/nightjar.door.rs"));
    }
}

pub use generated::v1::*;
/// What agent and worker say to each other.
pub mod worker {
    pub use super::generated::worker::*;
}
/// What the processes of one coordinator say to each other.
pub mod door {
    pub use super::generated::door::*;
}

use crate::ids::BlobHash;

/// The application protocol of the TLS handshake. A change that old devices cannot follow gets a new number.
pub const ALPN: &[u8] = b"nightjar/1";
/// The same, between the processes of one coordinator.
pub const DOOR_ALPN: &[u8] = b"nightjar-door/1";

impl Blob {
    /// A blob of this name and length.
    pub fn new(hash: BlobHash, bytes: u64) -> Self {
        Blob { hash: hash.0.to_vec(), bytes }
    }

    /// Its name; `None` if what was sent is no hash.
    pub fn name(&self) -> Option<BlobHash> {
        BlobHash::from_bytes(&self.hash)
    }
}
