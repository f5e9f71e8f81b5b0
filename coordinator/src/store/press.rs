//! The press carries out the engine's orders to merge and to publish: the merger, with the blobs that it reads and
//! writes. Its work is done in order and blocks; it lives on a thread of its own.

use super::{BlobError, Blobs, Squasher};
use crate::engine::{
    event::{MergeOrder, Published},
    merge::{MergeError, Merger},
    record::VersionRecord,
};
use nightjar_shared::{
    fail,
    ids::{BlobHash, Version},
    version::{VersionError, Weights},
};

/// An order that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PressError {
    /// A blob is missing, damaged, or could not be written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The merger refused.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Stored updates do not follow one another.
    #[error("updates cannot be squashed: {0}; restore the state folder from a backup")]
    Squash(#[from] VersionError),
}

/// A merger and its blobs.
pub struct Press {
    merger: Merger,
    blobs: Blobs,
    squasher: Squasher,
}

impl Press {
    /// With a merger at the ledger's tip, as `replay::recover` gives it.
    pub fn new(merger: Merger, blobs: Blobs) -> Self {
        Press { merger, blobs, squasher: Squasher::default() }
    }

    /// With the ledger's versions: squashes can then begin at those that were published before this process was started.
    pub fn remembering(mut self, versions: &[VersionRecord]) -> Self {
        self.squasher.remember(versions);
        self
    }

    /// Performs `Action::Merge`.
    pub fn merge(&mut self, order: &MergeOrder) -> Result<(), PressError> {
        let bytes = self.blobs.read(order.delta)?;
        Ok(self.merger.add(order, &bytes)?)
    }

    /// Performs `Action::Publish`: stores the version's blobs, squashes that end at it and, with a keyframe, a checkpoint.
    /// The result is the event to answer with.
    pub fn publish(&mut self, version: Version, keyframe: bool) -> Result<Published, PressError> {
        let made = self.merger.publish(version, keyframe)?;
        let put = |bytes: Option<Vec<u8>>| -> Result<Option<(BlobHash, u64)>, BlobError> {
            bytes.map(|b| Ok((self.blobs.put(&b)?, b.len() as u64))).transpose()
        };
        let update = put(made.update)?;
        fail::point("publish.update");
        let keyframe = put(made.keyframe)?;
        let model = &self.merger.spec().model;
        let squashes = self.squasher.published(model, &self.blobs, version, update, keyframe.is_some())?;
        fail::point("publish.blobs");
        if keyframe.is_some() {
            self.blobs.put_checkpoint(version.0, &self.merger.checkpoint())?;
        }
        let (digest, through_seq, agreement) = (made.digest, made.through_seq, made.agreement);
        Ok(Published { version, update, keyframe, digest, through_seq, agreement, squashes })
    }

    /// The newest version's weights.
    pub fn weights(&self) -> &Weights {
        self.merger.weights()
    }
}
