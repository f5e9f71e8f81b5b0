//! Makes blobs anew that were found damaged or missing when a device asked for them. What cannot be made anew is gone
//! round: the engine leads devices another way, if there is one, and leases nothing of a lost shard; the operator is
//! told. Shards are looked at again and again: somebody may have put them back.

use super::{
    catalog::{Catalog, Damaged, Location},
    handle::ShellHandle,
    trouble::{Troubles, Who},
};
use crate::{
    replay::{self, ReplayError},
    store::{BlobError, Blobs, Ledger, Lineage},
};
use nightjar_shared::{
    ids::{BlobHash, Version},
    run_spec::RunSpec,
};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::interval,
};

/// Blobs that have to be made anew for one: as many as a squash can be made of, and a few.
const ON_THE_WAY_MAX: usize = 80;

/// How often lost shards are looked at again.
const FOUND_AGAIN: Duration = Duration::from_secs(10);

/// What repairing takes.
pub struct Repairer {
    /// What each blob is.
    pub ledger: Arc<dyn Ledger>,
    /// The run.
    pub spec: Arc<RunSpec>,
    /// Where blobs are made.
    pub blobs: Blobs,
    /// Where the dataset is.
    pub data: PathBuf,
    /// Whom to tell that a blob is whole again.
    pub catalog: Arc<Catalog>,
    /// Whom to tell that one is not to be had any more.
    pub handle: ShellHandle,
    /// Where the operator is told of it.
    pub troubles: Arc<Troubles>,
}

/// Mends what comes, one after the other.
pub async fn run(repairer: Repairer, mut damaged: mpsc::Receiver<Damaged>) {
    let mut lost = BTreeSet::new();
    let mut look_again = interval(FOUND_AGAIN);
    loop {
        tokio::select! {
            found = damaged.recv() => match found {
                Some(Damaged { hash, location: Location::Dataset }) => {
                    if lost.insert(hash) {
                        tracing::error!("shard {hash} in {} is missing or has other bytes", repairer.data.display());
                        repairer.handle.blob_is_lost(hash).await;
                    }
                }
                Some(Damaged { hash, location: Location::State }) => repairer.repair(hash).await,
                None => return,
            },
            _ = look_again.tick(), if !lost.is_empty() => {
                for hash in lost.clone() {
                    if repairer.is_sound(hash).await {
                        lost.remove(&hash);
                        tracing::warn!("shard {hash} is whole again");
                        repairer.handle.blob_is_found(hash).await;
                    }
                }
            }
        }
        repairer.troubles.set(Who::Data, repairer.of_shards(&lost));
    }
}

impl Repairer {
    /// What the operator is told of lost shards.
    fn of_shards(&self, lost: &BTreeSet<BlobHash>) -> Option<String> {
        let first = lost.first()?;
        let (count, folder) = (lost.len(), self.data.display());
        let shards = if count == 1 { "a shard is".to_owned() } else { format!("{count} shards are") };
        Some(format!(
            "{shards} missing or damaged in {folder}, and nothing of it is leased: put blobs/{first} back from a copy, or from the \
             same texts prepared in another folder; it is taken up again by itself"
        ))
    }

    /// Whether a blob has its bytes, looked at again.
    async fn is_sound(&self, hash: BlobHash) -> bool {
        let entry = self.catalog.get(hash);
        tokio::task::spawn_blocking(move || entry.is_some_and(|entry| entry.look_again())).await.unwrap_or(false)
    }

    async fn repair(&self, hash: BlobHash) {
        // Removed by the rule [keep] while it was being sent: it is to stay away.
        if self.catalog.get(hash).is_none() {
            return;
        }
        let lineage = match replay::since(&self.blobs) {
            Ok(since) => self.ledger.lineage(since).await.map_err(ReplayError::from),
            Err(error) => Err(error.into()),
        };
        let lineage = match lineage {
            Ok(lineage) => lineage,
            Err(error) => return tracing::error!(%error, "blob {hash} is damaged, and the ledger cannot be read"),
        };
        let what = what_it_is(&lineage, hash);
        tracing::warn!("{what} (blob {hash}) is missing or damaged on this disk; it is made anew");
        let (spec, blobs) = (self.spec.clone(), self.blobs.clone());
        let (done, outcome) = oneshot::channel();
        // Replaying may take long. A thread of its own does not keep a process that is to stop.
        let (ledger, runtime) = (self.ledger.clone(), Handle::current());
        std::thread::spawn(move || {
            let whole = || runtime.block_on(ledger.lineage(Version(0)));
            let anew = |lineage: &Lineage| make_anew(&spec, lineage, &blobs, hash);
            done.send(replay::reaching_back(&lineage, whole, anew))
        });
        match outcome.await {
            Ok(Ok(())) => {
                if self.is_sound(hash).await {
                    tracing::warn!("{what} was made anew, bit for bit");
                }
            }
            // It is found damaged again, and made anew, when the store is back.
            Ok(Err(ReplayError::Blob(error))) if error.is_of_store() => {
                tracing::warn!("{what} is not made anew yet: {error}")
            }
            Ok(Err(error)) => {
                tracing::error!("{what} cannot be made anew: {error}. Devices are led another way, where there is one");
                self.handle.blob_is_lost(hash).await;
            }
            // The thread has said why it ended.
            Err(_) => self.handle.blob_is_lost(hash).await,
        }
    }
}

fn what_it_is(lineage: &Lineage, hash: BlobHash) -> String {
    let of = lineage.versions.iter().find(|v| v.published().any(|blob| blob.hash == hash));
    match of {
        Some(v) if v.keyframe.is_some_and(|blob| blob.hash == hash) => format!("the keyframe of version {}", v.version),
        Some(v) if v.update.is_some_and(|blob| blob.hash == hash) => format!("the update to version {}", v.version),
        Some(v) => format!("a squash that leads to version {}", v.version),
        None => "a blob".to_owned(),
    }
}

/// Makes a blob anew, and before it those that it is made of, where they are lost too.
fn make_anew(spec: &RunSpec, lineage: &Lineage, blobs: &Blobs, hash: BlobHash) -> Result<(), ReplayError> {
    let mut wanted = vec![hash];
    for _ in 0..ON_THE_WAY_MAX {
        let Some(next) = wanted.last().copied() else { return Ok(()) };
        match replay::rebuild(spec, lineage, blobs, next) {
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
