//! The chain of checkpoints: each link names a checkpoint by the hash of its bytes, the ledger's rows since the link
//! before by theirs, and that link. Whoever knows the newest link's hash knows that no row up to it was changed since, and
//! which bytes a checkpoint had whose blobs are long gone.

use super::pass::KeepError;
use crate::{
    engine::{
        merge,
        record::{DeltaRecord, VersionRecord},
    },
    store::{Blobs, Ledger},
};
use nightjar_shared::{
    blob::BlobRef,
    fail,
    ids::{BlobHash, Version},
};

/// Rows in memory at once.
pub const ROWS_AT_ONCE: usize = 1024;

/// What the hashes are of, and of nothing else.
const ROWS: &str = "nightjar 2026 ledger rows of a link";
const LINK: &str = "nightjar 2026 link of checkpoints";

/// A link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The checkpoint's version.
    pub version: Version,
    /// All deltas up to this one are in it.
    pub through_seq: u64,
    /// Tokens of all of those.
    pub tokens: u64,
    /// BLAKE3 of the checkpoint's bytes.
    pub checkpoint: BlobHash,
    /// BLAKE3 of the rows since the link before.
    pub rows: [u8; 32],
    /// BLAKE3 of all that, and of the link before.
    pub hash: [u8; 32],
}

impl Link {
    /// The link of a checkpoint after another.
    pub fn after(before: Option<&Link>, version: &VersionRecord, checkpoint: BlobHash, rows: Rows) -> Self {
        let tokens = before.map_or(0, |link| link.tokens).saturating_add(rows.tokens);
        let (through_seq, rows) = (version.through_seq, rows.hash());
        let mut link = Link { version: version.version, through_seq, tokens, checkpoint, rows, hash: [0; 32] };
        link.hash = link.hash_after(before);
        link
    }

    /// What the link's hash has to be.
    pub fn hash_after(&self, before: Option<&Link>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(LINK);
        hasher.update(&before.map_or([0; 32], |link| link.hash));
        for number in [self.version.0, self.through_seq, self.tokens] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.checkpoint.0).update(&self.rows);
        *hasher.finalize().as_bytes()
    }
}

/// The rows between two links, hashed as they come: deltas, versions with their squashes, and what was lost.
pub struct Rows {
    hasher: blake3::Hasher,
    tokens: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Rows { hasher: blake3::Hasher::new_derive_key(ROWS), tokens: 0 }
    }
}

impl Rows {
    fn numbers(&mut self, tag: u8, numbers: &[u64]) {
        self.hasher.update(&[tag]);
        for number in numbers {
            self.hasher.update(&number.to_le_bytes());
        }
    }

    fn blob(&mut self, blob: Option<BlobRef>) {
        self.numbers(b'b', &[u64::from(blob.is_some()), blob.map_or(0, |blob| blob.bytes)]);
        self.hasher.update(&blob.map_or([0; 32], |blob| blob.hash.0));
    }

    /// The next delta.
    pub fn delta(&mut self, d: &DeltaRecord) {
        self.tokens = self.tokens.saturating_add(d.tokens);
        // A database may give back 0 for −0.
        let [weight, norm, first, last] = [d.weight, d.norm, d.loss_first, d.loss_last].map(|v| (v + 0.0).to_bits());
        let counts = [d.seq, d.lease.0, u64::from(d.steps), d.tokens, d.staleness, weight, norm];
        self.numbers(b'd', &counts);
        self.numbers(b't', &[d.train_ms, d.wall_ms, first, last, d.merged_at.unix_ms]);
        self.hasher.update(&d.device.0);
        self.blob(Some(d.blob));
    }

    /// The next version.
    pub fn version(&mut self, v: &VersionRecord) {
        self.numbers(b'v', &[v.version.0, v.through_seq, v.published_at.unix_ms, v.squashes.len() as u64]);
        self.hasher.update(&v.digest);
        self.blob(v.update);
        self.blob(v.keyframe);
        // Chains of earlier versions know of none.
        if v.given.is_some() {
            self.blob(v.given);
        }
        for squash in &v.squashes {
            self.numbers(b's', &[squash.from.0]);
            self.blob(Some(squash.blob));
        }
    }

    /// What was lost on the way from a link to a version: restarts since the link's version, and lost deltas after its
    /// last.
    pub fn losses(&mut self, before: Option<&Link>, to: &VersionRecord, restarts: &[Version], lost: &[u64]) {
        let (from, after) = (before.map_or(Version(0), |link| link.version), before.map_or(0, |link| link.through_seq));
        for restart in restarts.iter().filter(|v| (from..to.version).contains(v)) {
            self.numbers(b'r', &[restart.0]);
        }
        for seq in lost.iter().filter(|seq| (after + 1..=to.through_seq).contains(seq)) {
            self.numbers(b'l', &[*seq]);
        }
    }

    fn hash(self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// Adds a link for each checkpoint that has none and is newer than the last. The checkpoint of a version that the ledger
/// does not have, or one that is damaged, gets none.
pub async fn extend(ledger: &dyn Ledger, blobs: &Blobs) -> Result<(), KeepError> {
    let mut checkpoints = blobs.checkpoints()?;
    checkpoints.reverse();
    let mut last = ledger.standing().await?.last_link;
    for version in checkpoints.into_iter().map(Version) {
        if last.is_some_and(|link| version <= link.version) {
            continue;
        }
        let Some(record) = ledger.versions_from(version, 1).await?.into_iter().find(|v| v.version == version) else {
            continue;
        };
        let Some(checkpoint) = hash_of(blobs, version).await? else {
            tracing::warn!("the checkpoint of version {version} is damaged, and no link of the chain");
            continue;
        };
        let rows = rows_between(ledger, last.as_ref(), &record).await?;
        let link = Link::after(last.as_ref(), &record, checkpoint, rows);
        ledger.add_link(&link).await?;
        fail::point("keep.linked");
        last = Some(link);
    }
    Ok(())
}

/// The hash of a checkpoint's bytes; `None` if they are not there, or damaged.
pub async fn hash_of(blobs: &Blobs, version: Version) -> Result<Option<BlobHash>, KeepError> {
    let blobs = blobs.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        let bytes = blobs.checkpoint(version.0)?;
        Ok::<_, KeepError>(bytes.filter(|bytes| merge::is_whole_checkpoint(bytes)).map(|bytes| BlobHash::of(&bytes)))
    });
    hashed.await?
}

async fn rows_between(ledger: &dyn Ledger, from: Option<&Link>, to: &VersionRecord) -> Result<Rows, KeepError> {
    let (mut rows, mut seq) = (Rows::default(), from.map_or(0, |link| link.through_seq));
    while seq < to.through_seq {
        let page = ledger.deltas_after(seq, ROWS_AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        seq = last.seq;
        page.iter().filter(|d| d.seq <= to.through_seq).for_each(|d| rows.delta(d));
    }
    let mut next = from.map_or(Version(0), |link| link.version.next());
    while next <= to.version {
        let page = ledger.versions_from(next, ROWS_AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        next = last.version.next();
        page.iter().filter(|v| v.version <= to.version).for_each(|v| rows.version(v));
    }
    let (restarts, lost) = ledger.losses().await?;
    rows.losses(from, to, &restarts, &lost);
    Ok(rows)
}
