//! The merger's state as bytes, as it is right after publishing, when the buffer is empty.
//!
//! Layout, little-endian: magic `NJC2`, four zero bytes; last delta merged (u64); the agreement's two sums (f64 each);
//! arrivals since a delayed momentum moved (u64); the recent deltas' tokens, newest last (32 u64, zero where there are
//! fewer); the weights as [`Weights::write`] has them; feedback, the rule's vectors, the correction's momentum (f32
//! each); BLAKE3 of all that.

use super::{Merger, RECENT};
use nightjar_shared::{
    bytes::Reader,
    run_spec::RunSpec,
    version::{VersionError, Weights},
};

const MAGIC: &[u8; 8] = b"NJC2\0\0\0\0";
const HASH_BYTES: usize = 32;

/// Whether bytes are those of a checkpoint as it was written, of whatever run.
pub fn is_whole_checkpoint(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<HASH_BYTES>().is_some_and(|(body, hash)| blake3::hash(body).as_bytes() == hash)
}

impl Merger {
    /// The merger's whole state, as it is right after publishing: the buffer is empty then, and is not part of it.
    pub fn checkpoint(&self) -> Vec<u8> {
        debug_assert!(self.buffer.is_empty(), "a checkpoint is of a version, not of what waits for the next");
        let mut out = Vec::with_capacity(self.checkpoint_bytes());
        out.extend(MAGIC);
        out.extend(self.last_seq.to_le_bytes());
        out.extend([self.agreement.common, self.agreement.whole].iter().flat_map(|v| v.to_le_bytes()));
        out.extend(u64::from(self.outer.arrived()).to_le_bytes());
        let none = RECENT - self.recent_tokens.len();
        out.extend(std::iter::repeat_n(&0, none).chain(&self.recent_tokens).flat_map(|tokens| tokens.to_le_bytes()));
        self.weights.write(&mut out);
        for vector in self.vectors() {
            out.extend(vector.iter().flat_map(|v| v.to_le_bytes()));
        }
        out.extend(blake3::hash(&out).as_bytes());
        out
    }

    /// From a checkpoint; `None` if the bytes are not a whole and undamaged one of this run.
    pub fn restore(spec: RunSpec, bytes: &[u8]) -> Option<Self> {
        let (body, _) = bytes.split_last_chunk::<HASH_BYTES>().filter(|_| is_whole_checkpoint(bytes))?;
        Self::read(spec, &mut Reader::new(body)).ok().flatten()
    }

    fn read(spec: RunSpec, r: &mut Reader<'_>) -> Result<Option<Self>, VersionError> {
        if &r.array::<8>()? != MAGIC {
            return Ok(None);
        }
        let last_seq = r.u64()?;
        let [common, whole] = [f64::from_bits(r.u64()?), f64::from_bits(r.u64()?)];
        let arrived = r.u64()?;
        let recent = (0..RECENT).map(|_| r.u64()).collect::<Result<Vec<u64>, _>>()?;
        let weights = Weights::read(&spec.model, r)?;
        // What no merger has written, and none could go on from.
        let has_next = last_seq < u64::MAX && weights.version.0 < u64::MAX;
        if !has_next || !common.is_finite() || !whole.is_finite() {
            return Ok(None);
        }
        let mut merger = Self::holding(spec, weights);
        if !merger.outer.set_arrived(arrived) {
            return Ok(None);
        }
        if r.remaining() != 4 * merger.vectors().iter().map(|v| v.len()).sum::<usize>() {
            return Ok(None);
        }
        for v in merger.vectors_mut().into_iter().flatten() {
            *v = r.f32()?;
        }
        merger.last_seq = last_seq;
        (merger.agreement.common, merger.agreement.whole) = (common, whole);
        merger.recent_tokens = recent.into_iter().filter(|tokens| *tokens > 0).collect();
        Ok(Some(merger))
    }

    fn vectors(&self) -> Vec<&[f32]> {
        let first: [&[f32]; 1] = [&self.feedback];
        first.into_iter().chain(self.outer.vectors()).chain([self.direction.as_slice()]).collect()
    }

    fn vectors_mut(&mut self) -> Vec<&mut [f32]> {
        let first: [&mut [f32]; 1] = [&mut self.feedback];
        first.into_iter().chain(self.outer.vectors_mut()).chain([self.direction.as_mut_slice()]).collect()
    }

    fn checkpoint_bytes(&self) -> usize {
        let vectors: usize = self.vectors().iter().map(|v| v.len()).sum();
        let weights = 8 + self.weights.tensors.iter().map(|t| 4 + 4 * t.integers.len()).sum::<usize>();
        MAGIC.len() + 32 + 8 * RECENT + weights + 4 * vectors + HASH_BYTES
    }
}
