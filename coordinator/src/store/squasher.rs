//! Makes squashes as versions are published: several updates in one, for devices that were away. The last 4 at every
//! version, the last 16 at every fourth, the last 64 at every sixteenth; each of the four below it, so that making one
//! reads four blobs, and a device that missed n versions finds a way of about log n steps.
//!
//! Measured (Gaussian changes, momentum 0.9, `blocks2`): 4 updates of 8.1 bits a parameter become one of 4.5, 16 of 32
//! one of 6.5. Squashes are for convenience: the updates alone lead to every version, too, and give every squash again.

use super::{BlobError, Blobs, PublishError};
use crate::engine::record::{Squash, VersionRecord};
use nightjar_shared::{blob::BlobRef, ids::Version, model_spec::ModelSpec, version::update};
use std::collections::VecDeque;

/// How many updates a squash is made of.
pub const SPANS: [u64; 3] = [4, 16, 64];
/// A squash is made of so many of the next shorter ones.
const PARTS: u64 = 4;

/// The spans of the squashes that are due at a version, shortest first, as far back as the run goes.
pub fn due(version: Version) -> impl Iterator<Item = u64> {
    SPANS.into_iter().filter(move |span| version.0 >= *span && version.0.is_multiple_of(span / PARTS))
}

/// The versions that a squash may begin at, and what leads on from them.
#[derive(Debug, Default)]
pub struct Squasher {
    /// Oldest first, without a gap.
    recent: VecDeque<Known>,
}

#[derive(Debug)]
struct Known {
    version: Version,
    update: Option<BlobRef>,
    redefined: bool,
    squashes: Vec<Squash>,
}

impl Squasher {
    /// Takes note of versions that the ledger has, oldest first.
    pub fn remember(&mut self, versions: &[VersionRecord]) {
        for v in versions {
            self.push(v.version, v.update, v.keyframe.is_some());
            if let Some(known) = self.recent.back_mut() {
                known.squashes.clone_from(&v.squashes);
            }
        }
    }

    /// A version was stored: makes and stores the squashes that are due at it. None leads across a redefined version,
    /// and none is kept that is no smaller than what it replaces.
    pub fn published(
        &mut self,
        model: &ModelSpec,
        blobs: &Blobs,
        version: Version,
        update: Option<BlobRef>,
        redefined: bool,
    ) -> Result<Vec<Squash>, PublishError> {
        self.push(version, update, redefined);
        let mut made = vec![];
        for span in due(version) {
            let from = Version(version.0 - span);
            let Some(parts) = self.parts(from, version, span).filter(|_| !self.is_split(from, version)) else { break };
            let read = match parts.iter().map(|part| blobs.read(part.hash)).collect::<Result<Vec<_>, _>>() {
                // Devices take the longer way: no reason to stop a run.
                Err(error @ (BlobError::NotFound(_) | BlobError::Corrupt(_))) => {
                    tracing::warn!("{error}, so that no squash from version {from} to {version} is made");
                    break;
                }
                read => read?,
            };
            let bytes = update::squash(model, &read.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            if (bytes.len() as u64) < parts.iter().map(|part| part.bytes).sum() {
                let blob = BlobRef { hash: blobs.put(&bytes)?, bytes: bytes.len() as u64 };
                let squash = Squash { from, blob };
                made.push(squash);
                if let Some(newest) = self.recent.back_mut() {
                    newest.squashes.push(squash);
                }
            }
        }
        Ok(made)
    }

    fn push(&mut self, version: Version, update: Option<BlobRef>, redefined: bool) {
        // A version that could not be stored at once comes again.
        self.recent.pop_back_if(|newest| newest.version == version);
        if self.recent.back().is_some_and(|newest| newest.version.next() != version) {
            self.recent.clear();
        }
        self.recent.push_back(Known { version, update, redefined, squashes: vec![] });
        if self.recent.len() as u64 > SPANS[SPANS.len() - 1] + 1 {
            self.recent.pop_front();
        }
    }

    fn get(&self, version: Version) -> Option<&Known> {
        let oldest = self.recent.front()?.version.0;
        self.recent.get(usize::try_from(version.0.checked_sub(oldest)?).ok()?)
    }

    /// Whether a version between the two is redefined by a keyframe.
    fn is_split(&self, from: Version, to: Version) -> bool {
        (from.0 + 1..to.0).any(|v| self.get(Version(v)).is_none_or(|v| v.redefined))
    }

    /// What is there between two versions that lie `span` apart: the next shorter squashes, or what those are made of.
    fn parts(&self, from: Version, to: Version, span: u64) -> Option<Vec<BlobRef>> {
        if span == 1 {
            return Some(vec![self.get(to)?.update?]);
        }
        let mut parts = vec![];
        let part = span / PARTS;
        for end in (1..=PARTS).map(|k| Version(from.0 + k * part)) {
            let begin = Version(end.0 - part);
            match self.get(end)?.squashes.iter().find(|s| s.from == begin) {
                Some(squash) => parts.push(squash.blob),
                None => parts.extend(self.parts(begin, end, part)?),
            }
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{delta::CodecId, disk::FolderDisk, rng, version::Weights};
    use std::sync::Arc;

    fn model() -> ModelSpec {
        ModelSpec { vocab_size: 64, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, ..ModelSpec::tiny() }
    }

    /// Publishes versions 0 to `newest`, a keyframe every `keyframe_every`; gives what was squashed, by version.
    fn squashed(newest: u64, keyframe_every: u64, codec: CodecId, restarts_at: Option<u64>) -> Vec<Vec<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(Arc::new(FolderDisk::open(folder.path()).unwrap()));
        let model = model();
        let mut weights = Weights::start(&model, &model.draw_all(1));
        let mut feedback = vec![0f32; model.parameters()];
        let mut squasher = Squasher::default();
        let mut records: Vec<VersionRecord> = vec![];
        for v in (0..=newest).map(Version) {
            if restarts_at == Some(v.0) {
                squasher = Squasher::default();
                squasher.remember(&records);
            }
            let update = (v.0 > 0).then(|| {
                feedback.iter_mut().zip(0..).for_each(|(f, i)| *f += (1e-3 * rng::normal(3, v.0, i)) as f32);
                let bytes = update::publish(&model, codec, &mut weights, &mut feedback);
                BlobRef { hash: blobs.put(&bytes).unwrap(), bytes: bytes.len() as u64 }
            });
            let redefined = v.0.is_multiple_of(keyframe_every);
            let squashes = squasher.published(&model, &blobs, v, update, redefined).unwrap();
            let keyframe = redefined.then_some(BlobRef::of(b"whole"));
            let (digest, published_at) = (weights.digest(), Default::default());
            records.push(VersionRecord {
                version: v,
                update,
                given: None,
                keyframe,
                digest,
                through_seq: 0,
                published_at,
                squashes,
            });
        }
        records.iter().map(|r| r.squashes.iter().map(|s| r.version.0 - s.from.0).collect()).collect()
    }

    #[test]
    fn a_ladder_of_squashes_stands_at_the_newest_version() {
        let made = squashed(65, 1000, CodecId::Blocks2, None);
        assert_eq!((&made[3][..], &made[4][..], &made[5][..]), (&[][..], &[4][..], &[4][..]));
        assert_eq!((&made[16][..], &made[18][..], &made[20][..]), (&[4, 16][..], &[4][..], &[4, 16][..]));
        assert_eq!((&made[64][..], &made[65][..]), (&[4, 16, 64][..], &[4][..]));
        assert_eq!(squashed(65, 1000, CodecId::Blocks2, Some(33)), made, "a restart changes nothing");
    }

    #[test]
    fn none_leads_across_a_keyframe() {
        let made = squashed(22, 6, CodecId::Blocks4, None);
        let spans: Vec<usize> = made.iter().map(Vec::len).collect();
        // From 0 to 4, 1 to 5, 2 to 6; then from 6 on again.
        assert_eq!(spans, [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1]);
    }
}
