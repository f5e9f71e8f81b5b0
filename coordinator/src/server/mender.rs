//! Makes blobs anew that were found damaged or missing when a device asked for them. What cannot be made anew is gone round:
//! the engine leads devices another way, if there is one; and the operator is told.

use super::{
    catalog::{Catalog, Damaged, Shelf},
    desk::Desk,
};
use crate::{
    replay::{self, ReplayError},
    store::{BlobError, Blobs, Facts, SqliteLedger},
};
use nightjar_shared::{ids::BlobHash, run_spec::RunSpec};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// Blobs that have to be made anew for one: as many as a squash can be made of, and a few.
const ON_THE_WAY_MAX: usize = 80;

/// What mending takes.
pub struct Mender {
    /// What each blob is.
    pub ledger: SqliteLedger,
    /// The run.
    pub spec: Arc<RunSpec>,
    /// Where blobs are made.
    pub blobs: Blobs,
    /// Where the dataset is.
    pub data: PathBuf,
    /// Whom to tell that a blob is whole again.
    pub catalog: Arc<Catalog>,
    /// Whom to tell that one is not to be had any more.
    pub desk: Desk,
}

/// Mends what comes, one after the other.
pub async fn run(mender: Mender, mut damaged: mpsc::Receiver<Damaged>) {
    while let Some(Damaged { hash, shelf }) = damaged.recv().await {
        match shelf {
            Shelf::Dataset => tracing::error!(
                "the dataset in {} is damaged: its shard {hash} is missing or has other bytes. Put it back from a copy, or prepare \
                 the same texts in another folder and copy blobs/{hash} from there; until then devices wait for it",
                mender.data.display()
            ),
            Shelf::State => mender.mend(hash).await,
        }
    }
}

impl Mender {
    async fn mend(&self, hash: BlobHash) {
        let facts = match self.ledger.facts().await {
            Ok(facts) => facts,
            Err(error) => return tracing::error!(%error, "blob {hash} is damaged, and the ledger cannot be read"),
        };
        let what = what_it_is(&facts, hash);
        tracing::warn!("{what} (blob {hash}) is missing or damaged on this disk; it is made anew");
        let (spec, blobs) = (self.spec.clone(), self.blobs.clone());
        let (done, outcome) = oneshot::channel();
        // Replaying may take long. A thread of its own does not keep a process that is to stop.
        std::thread::spawn(move || done.send(make_anew(&spec, &facts, &blobs, hash)));
        match outcome.await {
            Ok(Ok(())) => {
                let entry = self.catalog.get(hash);
                let is_sound = tokio::task::spawn_blocking(move || entry.is_some_and(|entry| entry.look_again())).await;
                if is_sound.unwrap_or(false) {
                    tracing::warn!("{what} was made anew, bit for bit");
                }
            }
            Ok(Err(error)) => {
                tracing::error!("{what} cannot be made anew: {error}. Devices are led another way, where there is one");
                self.desk.blob_is_lost(hash).await;
            }
            // The thread has said why it ended.
            Err(_) => self.desk.blob_is_lost(hash).await,
        }
    }
}

fn what_it_is(facts: &Facts, hash: BlobHash) -> String {
    let of = facts.versions.iter().find(|v| v.blobs().any(|(name, _)| name == hash));
    match of {
        Some(v) if v.keyframe.is_some_and(|(name, _)| name == hash) => format!("the keyframe of version {}", v.version),
        Some(v) if v.update.is_some_and(|(name, _)| name == hash) => format!("the update to version {}", v.version),
        Some(v) => format!("a squash that leads to version {}", v.version),
        None => "a blob".to_owned(),
    }
}

/// Makes a blob anew, and before it those that it is made of, where they are lost too.
fn make_anew(spec: &RunSpec, facts: &Facts, blobs: &Blobs, hash: BlobHash) -> Result<(), ReplayError> {
    let mut wanted = vec![hash];
    for _ in 0..ON_THE_WAY_MAX {
        let Some(next) = wanted.last().copied() else { return Ok(()) };
        match replay::rebuild(spec, facts, blobs, next) {
            Ok(bytes) => {
                blobs.put(&bytes)?;
                wanted.pop();
            }
            Err(ReplayError::Blob(BlobError::NotFound(part) | BlobError::Corrupt(part))) if !wanted.contains(&part) => {
                wanted.push(part);
            }
            Err(error) => return Err(error),
        }
    }
    if wanted.is_empty() { Ok(()) } else { Err(BlobError::Corrupt(hash).into()) }
}
