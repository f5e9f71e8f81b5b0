//! The merger: deltas go into a buffer, a buffer becomes the next version. Plain f32 arithmetic in a fixed order, so
//! that merging the same deltas again yields the same bits, on any machine.

pub mod rules;

use super::event::{Measured, MergeOrder};
use nightjar_shared::{
    bytes::Reader,
    delta::{self, DeltaError},
    ids::Version,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    version::{VersionError, Weights, keyframe, update},
};

/// What the merger cannot do.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MergeError {
    /// The bytes are no delta for this model.
    #[error("a delta cannot be read: {0}")]
    Delta(#[from] DeltaError),
    /// Deltas are merged in their order.
    #[error("delta {got} is out of order: {expected} is next")]
    OutOfOrder {
        /// The sequence number that is next.
        expected: u64,
        /// The one given.
        got: u64,
    },
    /// Versions are published in their order.
    #[error("version {got} cannot be published, the weights are version {have}")]
    WrongVersion {
        /// The version of the weights.
        have: Version,
        /// The one asked for.
        got: Version,
    },
    /// A keyframe that is none for this model.
    #[error("a keyframe cannot be read: {0}")]
    Keyframe(#[from] VersionError),
}

/// A version as it is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedBytes {
    /// Its number.
    pub version: Version,
    /// The change from the version before; `None` for the run's first.
    pub update: Option<Vec<u8>>,
    /// The whole, where it was asked for.
    pub keyframe: Option<Vec<u8>>,
    /// Digest of the weights.
    pub digest: [u8; 32],
    /// All deltas up to this one are in it.
    pub through_seq: u64,
}

/// The run's weights, and what waits to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Merger {
    spec: RunSpec,
    weights: Weights,
    /// Change wanted but not published yet: what rounding took (error feedback).
    feedback: Vec<f32>,
    /// Sum of the buffered deltas, each times its tokens and its staleness weight.
    buffer: Vec<f32>,
    buffered_tokens: u64,
    /// The outer step's momentum; empty where the run has none.
    momentum: Vec<f32>,
    /// The last delta merged.
    last_seq: u64,
}

/// Reads a delta through once and measures it; an error says why it is none for this model.
pub fn measure(spec: &ModelSpec, bytes: &[u8]) -> Result<Measured, DeltaError> {
    let mut squares = 0f64;
    delta::decode(spec, bytes, |_, values| squares += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>())?;
    Ok(Measured { norm: squares.sqrt() })
}

impl Merger {
    /// At the start of a run, from initial weights as one flat vector.
    pub fn start(spec: RunSpec, flat: &[f32]) -> Self {
        let weights = Weights::start(&spec.model, flat);
        Self::holding(spec, weights)
    }

    /// At the start of a run, from its version 0 as it was published.
    pub fn start_from_keyframe(spec: RunSpec, bytes: &[u8]) -> Result<Self, MergeError> {
        let weights = keyframe::decode(&spec.model, bytes)?;
        if weights.version != Version(0) {
            return Err(MergeError::WrongVersion { have: weights.version, got: Version(0) });
        }
        Ok(Self::holding(spec, weights))
    }

    fn holding(spec: RunSpec, weights: Weights) -> Self {
        let n = spec.model.parameters();
        let momentum = if spec.merge.momentum > 0.0 { vec![0.0; n] } else { vec![] };
        Merger { weights, feedback: vec![0.0; n], buffer: vec![0.0; n], buffered_tokens: 0, momentum, last_seq: 0, spec }
    }

    /// The newest version's weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The last delta merged.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Adds a delta to the buffer.
    pub fn add(&mut self, order: &MergeOrder, bytes: &[u8]) -> Result<(), MergeError> {
        let expected = self.last_seq + 1;
        if order.seq != expected {
            return Err(MergeError::OutOfOrder { expected, got: order.seq });
        }
        // Before anything changes, so that a damaged delta leaves the buffer as it was.
        measure(&self.spec.model, bytes)?;
        let share = rules::share(order.tokens, order.weight);
        let buffer = &mut self.buffer;
        delta::decode(&self.spec.model, bytes, |at, values| {
            rules::accumulate(&mut buffer[at..at + values.len()], share, values)
        })?;
        self.buffered_tokens += order.tokens;
        self.last_seq = order.seq;
        Ok(())
    }

    /// Makes a version of what is in the buffer, or, at the start of a run, publishes version 0 as it is.
    pub fn publish(&mut self, version: Version, as_keyframe: bool) -> Result<PublishedBytes, MergeError> {
        let (model, have) = (&self.spec.model, self.weights.version);
        let is_first = version == Version(0) && have == version && self.last_seq == 0;
        if !is_first && version != have.next() {
            return Err(MergeError::WrongVersion { have, got: version });
        }
        let update = (!is_first).then(|| {
            let merge = &self.spec.merge;
            rules::outer_step(merge, &mut self.buffer, self.buffered_tokens, &mut self.momentum, &mut self.feedback);
            self.buffer.fill(0.0);
            self.buffered_tokens = 0;
            update::publish(model, &mut self.weights, &mut self.feedback)
        });
        let keyframe = (as_keyframe || is_first).then(|| {
            keyframe::redefine(&mut self.weights, &mut self.feedback);
            keyframe::encode(model, &self.weights)
        });
        Ok(PublishedBytes { version, update, keyframe, digest: self.weights.digest(), through_seq: self.last_seq })
    }

    /// The merger's whole state, as it is right after publishing: the buffer is empty then, and is not part of it.
    pub fn checkpoint(&self) -> Vec<u8> {
        debug_assert_eq!(self.buffered_tokens, 0, "a checkpoint is of a version, not of what waits for the next");
        let mut out = Vec::with_capacity(checkpoint_bytes(&self.spec));
        out.extend(MAGIC);
        out.extend(self.last_seq.to_le_bytes());
        self.weights.write(&mut out);
        out.extend(self.feedback.iter().chain(&self.momentum).flat_map(|v| v.to_le_bytes()));
        out.extend(blake3::hash(&out).as_bytes());
        out
    }

    /// From a checkpoint; `None` if the bytes are not a whole and undamaged one of this run.
    pub fn restore(spec: RunSpec, bytes: &[u8]) -> Option<Self> {
        let body = bytes.split_last_chunk::<HASH_BYTES>();
        let (body, hash) = body.filter(|_| bytes.len() == checkpoint_bytes(&spec))?;
        if blake3::hash(body).as_bytes() != hash {
            return None;
        }
        Self::read(spec, &mut Reader::new(body)).ok().flatten()
    }

    fn read(spec: RunSpec, r: &mut Reader<'_>) -> Result<Option<Self>, VersionError> {
        if &r.array::<8>()? != MAGIC {
            return Ok(None);
        }
        let last_seq = r.u64()?;
        let weights = Weights::read(&spec.model, r)?;
        let mut merger = Self::holding(spec, weights);
        for v in merger.feedback.iter_mut().chain(&mut merger.momentum) {
            *v = r.f32()?;
        }
        merger.last_seq = last_seq;
        Ok(Some(merger))
    }
}

const MAGIC: &[u8; 8] = b"NJC1\0\0\0\0";
const HASH_BYTES: usize = 32;

/// Length of a checkpoint of this run.
fn checkpoint_bytes(spec: &RunSpec) -> usize {
    let vectors = if spec.merge.momentum > 0.0 { 3 } else { 2 };
    MAGIC.len() + 16 + 4 * spec.model.tensors().len() + 4 * vectors * spec.model.parameters() + HASH_BYTES
}

#[cfg(test)]
mod tests;
