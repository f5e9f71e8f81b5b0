//! The publisher carries out the engine's orders to merge and to publish: the merger, with the blobs that it reads and
//! writes. Its work is done in order and blocks; it lives on a thread of its own.

use super::{BlobError, Blobs, Squasher};
use crate::engine::{
    event::{MergeOrder, Published},
    merge::{MergeError, Merger, PublishedBytes, needs},
    record::VersionRecord,
};
use nightjar_shared::{
    blob::BlobRef,
    fail,
    ids::Version,
    version::{VersionError, Weights},
};

/// An order that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
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

impl PublishError {
    /// Whether the same order may be carried out later: nothing of it was done that would be done twice.
    pub fn may_pass(&self) -> bool {
        matches!(self, PublishError::Blob(error) if error.may_pass())
    }

    /// Whether a delta is lost that is to be merged.
    pub fn is_loss(&self) -> bool {
        matches!(self, PublishError::Blob(error) if error.is_loss())
    }
}

/// A merger and its blobs.
pub struct Publisher {
    merger: Merger,
    blobs: Blobs,
    squasher: Squasher,
    /// A version that was made and is not stored yet.
    made: Option<PublishedBytes>,
    /// Whether older checkpoints are somebody else's to remove.
    keeps_checkpoints: bool,
}

impl Publisher {
    /// With a merger at the ledger's tip, as `replay::recover` gives it.
    pub fn new(merger: Merger, blobs: Blobs) -> Self {
        Publisher { merger, blobs, squasher: Squasher::default(), made: None, keeps_checkpoints: false }
    }

    /// With the ledger's versions: squashes can then begin at those that were published before this process was
    /// started.
    pub fn remembering(mut self, versions: &[VersionRecord]) -> Self {
        self.squasher.remember(versions);
        self
    }

    /// Leaves older checkpoints to whoever removes what the rule `[keep]` lets go.
    pub fn keeping_checkpoints(self) -> Self {
        Publisher { keeps_checkpoints: true, ..self }
    }

    /// Performs `Action::Merge`.
    pub fn merge(&mut self, order: &MergeOrder) -> Result<(), PublishError> {
        let bytes = self.blobs.read(order.delta)?;
        Ok(self.merger.add(order, &bytes)?)
    }

    /// Performs `Action::Publish`: stores the version's blobs, squashes that end at it and, with a keyframe, a
    /// checkpoint. The result is the event to answer with. After an error that may pass, the same order goes on from
    /// there.
    pub fn publish(
        &mut self,
        version: Version,
        keyframe: bool,
        given: Option<BlobRef>,
    ) -> Result<Published, PublishError> {
        let made = match (self.made.take().filter(|made| made.version == version), given) {
            (Some(made), _) => made,
            (None, Some(given)) => self.merger.give(version, &self.blobs.read(given.hash)?)?,
            (None, None) => self.merger.publish(version, keyframe)?,
        };
        let made = self.made.insert(made);
        let put = |bytes: &Option<Vec<u8>>| -> Result<Option<BlobRef>, BlobError> {
            bytes.as_ref().map(|b| Ok(BlobRef { hash: self.blobs.put(b)?, bytes: b.len() as u64 })).transpose()
        };
        let update = put(&made.update)?;
        fail::point("publish.update");
        let keyframe = put(&made.keyframe)?;
        let model = &self.merger.spec().model;
        let squashes = match self.squasher.published(model, &self.blobs, version, update, keyframe.is_some()) {
            // Devices are led over the updates themselves.
            Err(error) if error.is_loss() => {
                tracing::warn!(%error, "updates are not squashed");
                vec![]
            }
            squashes => squashes?,
        };
        fail::point("publish.blobs");
        if keyframe.is_some() {
            let bytes = self.merger.checkpoint();
            match self.keeps_checkpoints {
                true => self.blobs.add_checkpoint(version.0, &bytes)?,
                false => self.blobs.put_checkpoint(version.0, &bytes)?,
            }
        }
        let (digest, through_seq, agreement) = (made.digest, made.through_seq, made.agreement);
        self.made = None;
        Ok(Published { version, update, keyframe, digest, through_seq, agreement, squashes, given })
    }

    /// Whether there is any blob at all.
    pub fn has_blobs(&self) -> bool {
        self.blobs.list().is_ok_and(|names| !names.is_empty())
    }

    /// Bytes on the disk that a version may take.
    pub fn version_bytes(&self, keyframe: bool) -> u64 {
        needs::published_bytes(self.merger.spec(), keyframe)
    }

    /// The newest version's weights.
    pub fn weights(&self) -> &Weights {
        self.merger.weights()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{disk::FolderDisk, model_spec::ModelSpec, run_spec::RunSpec};
    use std::{fs, path::Path, sync::Arc};

    fn publisher(folder: &Path) -> Publisher {
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
        spec.model = ModelSpec { hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, ..ModelSpec::tiny() };
        let merger = Merger::start(spec.clone(), &spec.model.draw_all(1));
        Publisher::new(merger, Blobs::new(Arc::new(FolderDisk::open(folder).unwrap())))
    }

    /// Takes a folder of the state away and puts it back.
    fn take(folder: &Path, name: &str) {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::rename(folder.join(name), folder.join("away")).unwrap();
        fs::write(folder.join(name), b"no folder").unwrap();
    }

    fn put_back(folder: &Path, name: &str) {
        fs::remove_file(folder.join(name)).unwrap();
        fs::rename(folder.join("away"), folder.join(name)).unwrap();
    }

    #[test]
    fn a_version_that_could_not_be_stored_is_stored_later_and_is_the_same() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut troubled, mut untroubled) = (publisher(here.path()), publisher(there.path()));
        for version in (0..=8).map(Version) {
            let keyframe = version.0 % 8 == 0;
            let names: &[&str] = if keyframe { &["blobs", "checkpoints"] } else { &["blobs"] };
            for name in names {
                take(here.path(), name);
                assert!(troubled.publish(version, keyframe, None).unwrap_err().may_pass(), "{name}");
                put_back(here.path(), name);
            }
            let made = troubled.publish(version, keyframe, None).unwrap();
            assert_eq!(made, untroubled.publish(version, keyframe, None).unwrap());
        }
        assert_eq!(troubled.weights(), untroubled.weights());
    }

    #[test]
    fn a_delta_that_cannot_be_read_now_is_merged_later() {
        let here = tempfile::tempdir().unwrap();
        let mut publisher = publisher(here.path());
        let model = publisher.merger.spec().model.clone();
        let n = model.parameters();
        let bytes = nightjar_shared::delta::encode(&model, &Default::default(), &vec![1e-4; n], &mut vec![0.0; n]);
        let order = MergeOrder {
            seq: 1,
            lease: nightjar_shared::ids::LeaseId(1),
            delta: publisher.blobs.put(&bytes).unwrap(),
            tokens: 1,
            weight: 1.0,
        };
        take(here.path(), "blobs");
        let error = publisher.merge(&order).unwrap_err();
        assert!(error.may_pass() || error.is_loss() && !publisher.has_blobs(), "{error}");
        put_back(here.path(), "blobs");
        publisher.merge(&order).unwrap();
        assert_eq!(publisher.merger.last_seq(), 1);
    }
}
