//! A blob as everybody names it: what it is called, and how long it is.

use crate::{ids::BlobHash, wire};
use serde::{Deserialize, Serialize};

/// A blob's name and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Its name.
    pub hash: BlobHash,
    /// Its length.
    pub bytes: u64,
}

impl BlobRef {
    /// The blob that these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        BlobRef { hash: BlobHash::of(bytes), bytes: bytes.len() as u64 }
    }

    /// Reads a message; `None` if its name is no hash. How long a blob may be depends on what it is for, so that is for
    /// whoever takes it in to check.
    pub fn from_wire(blob: &wire::Blob) -> Option<Self> {
        Some(BlobRef { hash: blob.name()?, bytes: blob.bytes })
    }

    /// As a message.
    pub fn to_wire(self) -> wire::Blob {
        wire::Blob::new(self.hash, self.bytes)
    }

    /// Where a verified download lies, within a device's home folder.
    pub fn file(&self) -> String {
        format!("blobs/{}", self.hash)
    }

    /// Where it lies while it is incomplete.
    pub fn partial_file(&self) -> String {
        format!("blobs/{}.part", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_survives_a_message_and_needs_a_name() {
        let blob = BlobRef::of(b"abc");
        assert_eq!((blob.hash, blob.bytes), (BlobHash::of(b"abc"), 3));
        assert_eq!(BlobRef::from_wire(&blob.to_wire()), Some(blob));
        for name in [vec![], vec![7; 31], vec![7; 33]] {
            assert_eq!(BlobRef::from_wire(&wire::Blob { hash: name, bytes: 3 }), None);
        }
    }
}
