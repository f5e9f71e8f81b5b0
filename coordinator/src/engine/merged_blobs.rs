//! The names of merged deltas: none is taken for another lease. The newest are remembered, by eight bytes each; to make
//! one that is taken for another's, somebody would have to find a collision of BLAKE3, and would only lose by it.

use super::snapshot::BLOBS_KEPT;
use nightjar_shared::ids::BlobHash;
use std::collections::{HashSet, VecDeque};

/// See the module's words.
#[derive(Default)]
pub(super) struct MergedBlobs {
    newest: VecDeque<u64>,
    known: HashSet<u64>,
}

impl MergedBlobs {
    pub fn restore(blobs: &[BlobHash]) -> Self {
        let mut merged = MergedBlobs::default();
        blobs.iter().for_each(|blob| merged.add(*blob));
        merged
    }

    pub fn add(&mut self, blob: BlobHash) {
        if self.known.insert(short(blob)) {
            self.newest.push_back(short(blob));
            if self.newest.len() > BLOBS_KEPT
                && let Some(oldest) = self.newest.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    pub fn contains(&self, blob: BlobHash) -> bool {
        self.known.contains(&short(blob))
    }
}

fn short(blob: BlobHash) -> u64 {
    u64::from_le_bytes(*blob.0.first_chunk().unwrap_or(&[0; 8]))
}
