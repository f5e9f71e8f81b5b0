//! A merger that begins anew in the midst of a run: with weights as they were published, when blobs on the way to them
//! are lost; or with weights that an operator gives.

use super::{MergeError, Merger, PublishedBytes, RECENT};
use nightjar_shared::{
    ids::Version,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    version::{StartError, Weights, keyframe},
};

/// Bytes that are no weights for a run.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum GivenError {
    /// Too many or too few.
    #[error("weights of this run's model are {expected} bytes long, 4 a parameter; these are {got}")]
    Length {
        /// Bytes that the model's weights have.
        expected: u64,
        /// Bytes that were given.
        got: u64,
    },
    /// A value that cannot be trained from.
    #[error(transparent)]
    Value(#[from] StartError),
}

/// Bytes of given weights: f32, little-endian, in flat order.
pub fn given_bytes(model: &ModelSpec) -> u64 {
    4 * model.parameters() as u64
}

/// Reads given weights.
pub fn read_given(model: &ModelSpec, bytes: &[u8]) -> Result<Vec<f32>, GivenError> {
    let (expected, got) = (given_bytes(model), bytes.len() as u64);
    if expected != got {
        return Err(GivenError::Length { expected, got });
    }
    let flat: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    Weights::check_start(model, &flat)?;
    Ok(flat)
}

impl Merger {
    /// With published weights, in which all deltas up to `last_seq` are. `tokens` are those of the deltas up to there,
    /// newest last: what the cap is measured by. Error feedback, momenta and what was measured of agreement are as at
    /// the start.
    pub fn anew(spec: RunSpec, weights: Weights, last_seq: u64, tokens: impl DoubleEndedIterator<Item = u64>) -> Self {
        let mut merger = Self::holding(spec, weights);
        merger.last_seq = last_seq;
        for tokens in tokens.rev().take(RECENT) {
            merger.recent_tokens.push_front(tokens);
        }
        merger
    }

    /// Makes a version of given weights, and begins anew from them. What is in the buffer is dropped. Rounding takes
    /// nothing: what it leaves is wanted still.
    pub fn give(&mut self, version: Version, bytes: &[u8]) -> Result<PublishedBytes, MergeError> {
        let have = self.weights.version;
        if version != have.next() {
            return Err(MergeError::WrongVersion { have, got: version });
        }
        let flat = read_given(&self.spec.model, bytes)?;
        let weights = Weights { version, ..Weights::start(&self.spec.model, &flat) };
        let last_seq = self.last_seq;
        *self = Merger { last_seq, ..Self::holding(self.spec.clone(), weights) };
        let published = self.weights.tensors.iter().flat_map(|tensor| tensor.values());
        for ((unpublished, given), value) in self.feedback.iter_mut().zip(&flat).zip(published) {
            *unpublished = given - value;
        }
        let keyframe = Some(keyframe::encode(&self.spec.model, &self.weights));
        let digest = self.weights.digest();
        Ok(PublishedBytes { version, update: None, keyframe, digest, through_seq: last_seq, agreement: None })
    }

    /// The weights that are wanted, as one flat vector: as published, and what rounding has kept back of them.
    pub fn wanted(&self) -> Vec<f32> {
        let published = self.weights.tensors.iter().flat_map(|tensor| tensor.values());
        published.zip(&self.feedback).map(|(value, unpublished)| value + unpublished).collect()
    }

    /// Goes on behind a delta that is lost.
    pub fn pass_over(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }
}
