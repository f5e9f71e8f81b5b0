//! The weights of a version from what was published: a keyframe or a checkpoint, and the updates and squashes since.
//! Where a blob is damaged or missing, another way is taken, as long as there is one.

use crate::{
    engine::{merge::Merger, record::VersionRecord},
    store::{BlobError, Blobs},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Version},
    run_spec::RunSpec,
    version::{Weights, keyframe, update},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// No way leads to a version.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// The ledger has no such version.
    #[error("there is no version {0}")]
    Unknown(Version),
    /// Blobs on all ways are lost.
    #[error("the weights of version {version} cannot be put together: {lost}")]
    NoWay {
        /// The version.
        version: Version,
        /// What is damaged or missing.
        lost: String,
    },
    /// The disk fails.
    #[error(transparent)]
    Disk(BlobError),
}

/// Whether a blob is gone for good, or its disk fails for now.
pub(super) fn is_lost(error: &BlobError) -> bool {
    match error {
        BlobError::NotFound(_) | BlobError::Corrupt(_) => true,
        // A folder or a link in its place is no blob.
        BlobError::Io { error, .. } if error.kind() == io::ErrorKind::InvalidData => true,
        BlobError::Io { error, .. } => {
            cfg!(unix) && error.raw_os_error().is_some_and(|code| UNREADABLE.contains(&code))
        }
        BlobError::Gap { .. } | BlobError::DiskFull | BlobError::Folder(_) | BlobError::Store(_) => false,
    }
}

/// What the system says of a sector that cannot be read (EIO), and of a file system that finds its own bytes damaged
/// (EBADMSG and EUCLEAN, which are Linux's; other systems have other meanings for these numbers).
const UNREADABLE: &[i32] = if cfg!(target_os = "linux") { &[5, 74, 117] } else { &[5] };

struct Search<'a> {
    spec: &'a RunSpec,
    versions: &'a [VersionRecord],
    blobs: &'a Blobs,
    /// What was found lost on the way.
    lost: BTreeMap<BlobHash, String>,
    /// What came out otherwise than the ledger says.
    unlike: BTreeSet<Version>,
}

/// The weights of a version, as they were published; and what of the ways to it is lost.
pub fn weights(
    spec: &RunSpec,
    versions: &[VersionRecord],
    blobs: &Blobs,
    target: Version,
) -> Result<(Weights, Vec<String>), PublishedError> {
    let upto = &versions[..versions.partition_point(|v| v.version <= target)];
    if upto.last().is_none_or(|v| v.version != target) {
        return Err(PublishedError::Unknown(target));
    }
    let mut search = Search { spec, versions: upto, blobs, lost: BTreeMap::new(), unlike: BTreeSet::new() };
    let found = search.go(target).map_err(PublishedError::Disk)?;
    let lost: Vec<String> = search.lost.into_values().collect();
    match found {
        Some(weights) => Ok((weights, lost)),
        None => {
            let unlike = search
                .unlike
                .iter()
                .map(|v| format!("the weights of version {v} are not those that the ledger's row names"));
            let gap = gap(upto).map(|version| format!("the ledger has no row of version {version}"));
            let mut why: Vec<String> = lost.into_iter().chain(unlike).chain(gap).collect();
            if why.is_empty() {
                why.push("the ledger's rows name nothing that leads there".to_owned());
            }
            Err(PublishedError::NoWay { version: target, lost: why.join("; ") })
        }
    }
}

/// The newest version that the ledger has no row of, among those that it should have.
fn gap(versions: &[VersionRecord]) -> Option<Version> {
    let before = |version: Version| version.0.checked_sub(1).map(Version);
    let missing = |at: usize| before(versions[at].version).filter(|v| at == 0 || versions[at - 1].version != *v);
    (0..versions.len()).rev().find_map(missing)
}

impl Search<'_> {
    fn at(&self, version: Version) -> Option<&VersionRecord> {
        self.versions.binary_search_by_key(&version, |v| v.version).ok().map(|at| &self.versions[at])
    }

    /// The bytes of a blob; `None`, and noted, if it is lost.
    fn read(&mut self, hash: BlobHash, what: impl FnOnce() -> String) -> Result<Option<Vec<u8>>, BlobError> {
        if self.lost.contains_key(&hash) {
            return Ok(None);
        }
        match self.blobs.read(hash) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_lost(&error) => {
                self.lost.insert(hash, format!("{error} ({})", what()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Backwards from the target over whatever is whole, to the first version that can be begun from; and then
    /// forwards.
    fn go(&mut self, target: Version) -> Result<Option<Weights>, BlobError> {
        let checkpoints: BTreeSet<u64> = self.blobs.checkpoints()?.into_iter().collect();
        // The step on from each version that the target can be reached from.
        let mut onward: BTreeMap<Version, Option<(Version, BlobHash)>> = BTreeMap::from([(target, None)]);
        for record in self.versions.iter().rev() {
            let version = record.version;
            if !onward.contains_key(&version) {
                continue;
            }
            if let Some(weights) = self.begin(record, checkpoints.contains(&version.0))?
                && let Some(weights) = self.walk(weights, &onward)?
            {
                return Ok(Some(weights));
            }
            let update = record.update.and_then(|update| Some((Version(version.0.checked_sub(1)?), update.hash)));
            let steps = update.into_iter().chain(record.squashes.iter().map(|s| (s.from, s.blob.hash)));
            for (from, hash) in steps {
                let what = || format!("the change from version {from} to {version}");
                if !onward.contains_key(&from) && self.read(hash, what)?.is_some() {
                    onward.insert(from, Some((version, hash)));
                }
            }
        }
        Ok(None)
    }

    /// A version's weights from its own checkpoint or keyframe.
    fn begin(&mut self, record: &VersionRecord, has_checkpoint: bool) -> Result<Option<Weights>, BlobError> {
        let version = record.version;
        if let Some(BlobRef { hash, .. }) = record.keyframe
            && let Some(bytes) = self.read(hash, || format!("the keyframe of version {version}"))?
        {
            match keyframe::decode(&self.spec.model, &bytes) {
                Ok(weights) if weights.digest() == record.digest => return Ok(Some(weights)),
                Ok(_) => drop(self.unlike.insert(version)),
                Err(error) => self.lose(hash, format!("the keyframe of version {version} cannot be used: {error}")),
            }
        }
        if !has_checkpoint {
            return Ok(None);
        }
        let checkpoint = self.blobs.checkpoint(version.0)?.and_then(|bytes| Merger::restore(self.spec.clone(), &bytes));
        Ok(checkpoint.map(|merger| merger.weights().clone()).filter(|weights| weights.digest() == record.digest))
    }

    fn walk(
        &mut self,
        mut weights: Weights,
        onward: &BTreeMap<Version, Option<(Version, BlobHash)>>,
    ) -> Result<Option<Weights>, BlobError> {
        while let Some(Some((to, hash))) = onward.get(&weights.version) {
            let (from, to) = (weights.version, *to);
            let what = || format!("the change from version {from} to {to}");
            let (Some(bytes), Some(record)) = (self.read(*hash, what)?, self.at(to)) else { return Ok(None) };
            let (redefines, digest) = (record.keyframe.is_some(), record.digest);
            if let Err(error) = update::apply(&self.spec.model, &mut weights, &bytes) {
                self.lose(*hash, format!("the change from version {from} to {to} cannot be used: {error}"));
                return Ok(None);
            }
            if redefines {
                keyframe::round(&mut weights);
            }
            if weights.digest() != digest {
                self.unlike.insert(to);
                return Ok(None);
            }
        }
        Ok(Some(weights))
    }

    /// Notes a blob that is whole and of no use.
    fn lose(&mut self, hash: BlobHash, why: String) {
        self.lost.entry(hash).or_insert(why);
    }
}
