//! The press carries out the engine's orders to merge and to publish: the merger, with the blobs that it reads and
//! writes. Its work is done in order and blocks; it lives on a thread of its own.

use super::{BlobError, Blobs};
use crate::engine::{
    event::{MergeOrder, Published},
    merge::{MergeError, Merger},
};
use nightjar_shared::{
    fail,
    ids::{BlobHash, Version},
    version::Weights,
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
}

/// A merger and its blobs.
pub struct Press {
    merger: Merger,
    blobs: Blobs,
}

impl Press {
    /// With a merger at the ledger's tip, as `replay::recover` gives it.
    pub fn new(merger: Merger, blobs: Blobs) -> Self {
        Press { merger, blobs }
    }

    /// Performs `Action::Merge`.
    pub fn merge(&mut self, order: &MergeOrder) -> Result<(), PressError> {
        let bytes = self.blobs.read(order.delta)?;
        Ok(self.merger.add(order, &bytes)?)
    }

    /// Performs `Action::Publish`: stores the version's blobs and, with a keyframe, a checkpoint. The result is the
    /// event to answer with.
    pub fn publish(&mut self, version: Version, keyframe: bool) -> Result<Published, PressError> {
        let made = self.merger.publish(version, keyframe)?;
        let put = |bytes: Option<Vec<u8>>| -> Result<Option<(BlobHash, u64)>, BlobError> {
            bytes.map(|b| Ok((self.blobs.put(&b)?, b.len() as u64))).transpose()
        };
        let update = put(made.update)?;
        fail::point("publish.update");
        let keyframe = put(made.keyframe)?;
        fail::point("publish.blobs");
        if keyframe.is_some() {
            self.blobs.put_checkpoint(version.0, &self.merger.checkpoint())?;
        }
        Ok(Published { version, update, keyframe, digest: made.digest, through_seq: made.through_seq })
    }

    /// The newest version's weights.
    pub fn weights(&self) -> &Weights {
        self.merger.weights()
    }
}
