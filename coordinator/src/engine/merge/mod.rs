//! The merger: deltas are added to a buffer, averaged, stepped along, and published as the next version. Arithmetic in
//! a fixed order, so that merging the same deltas again yields the same bits, on any machine.

pub mod agreement;
mod anew;
mod buffer;
mod checkpoint;
pub mod delayed_nesterov;
pub mod heloco;
pub mod needs;
pub mod nesterov;
pub mod outer;
pub mod robust;

pub use anew::{GivenError, given_bytes, read_given};
pub use checkpoint::is_whole_checkpoint;

use super::event::{Measured, MergeOrder};
use agreement::Agreement;
use buffer::Buffer;
use nightjar_shared::{
    delta::{self, DeltaError, Lengths},
    ids::Version,
    run_spec::{Correction, Robust, RunSpec},
    version::{VersionError, Weights, keyframe, update},
};
use outer::Outer;
use std::collections::VecDeque;

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
    /// Weights that an operator gave, and that are none for this model.
    #[error("given weights cannot be taken: {0}")]
    Given(#[from] GivenError),
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
    /// The share of signal in the deltas of late, 0 to 1; `None` as long as no version was made of several.
    pub agreement: Option<f64>,
}

/// The run's weights, and what waits to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Merger {
    spec: RunSpec,
    weights: Weights,
    /// Change wanted but not published yet: what rounding took (error feedback).
    feedback: Vec<f32>,
    /// Deltas that wait for the next version.
    buffer: Buffer,
    /// Turns their average into a step.
    outer: Outer,
    /// What deltas are corrected or clipped towards, in a run that does so and whose rule has no momentum; else empty.
    direction: Vec<f32>,
    /// Tokens of the newest deltas, newest last: what the cap is measured by.
    recent_tokens: VecDeque<u64>,
    /// How far deltas agree.
    agreement: Agreement,
    /// The last delta merged.
    last_seq: u64,
}

/// Reads a delta through once and measures it; an error says why it is none for this run.
pub fn measure(spec: &RunSpec, bytes: &[u8]) -> Result<Measured, DeltaError> {
    delta::check_head(&spec.model, &spec.delta, bytes)?;
    let Lengths { squares, largest } = delta::measure(&spec.model, bytes)?;
    Ok(Measured { norm: squares.iter().sum::<f64>().sqrt(), largest: f64::from(largest) })
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
        let (n, merge) = (spec.model.parameters(), &spec.merge);
        let outer = Outer::new(merge, n);
        let needs_direction = looks_back(&spec) && outer.momentum().is_none();
        Merger {
            weights,
            feedback: vec![0.0; n],
            buffer: Buffer::new(&spec),
            outer,
            direction: if needs_direction { vec![0.0; n] } else { vec![] },
            recent_tokens: VecDeque::new(),
            agreement: Agreement::default(),
            last_seq: 0,
            spec,
        }
    }

    /// The run's spec.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
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
        let tokens = self.counted(order.tokens);
        let momentum = self.outer.momentum().unwrap_or(&self.direction);
        self.buffer.add(tokens, order.weight, bytes, momentum)?;
        self.recent_tokens.push_back(order.tokens);
        if self.recent_tokens.len() > RECENT {
            self.recent_tokens.pop_front();
        }
        self.last_seq = order.seq;
        Ok(())
    }

    /// The tokens that a delta counts as: its own, or the cap.
    fn counted(&self, tokens: u64) -> u64 {
        if self.spec.merge.tokens_cap == 0.0 {
            return tokens;
        }
        let mut sorted: Vec<u64> = self.recent_tokens.iter().copied().chain([tokens]).collect();
        sorted.sort_unstable();
        let median = sorted[(sorted.len() - 1) / 2];
        tokens.min((median as f64 * self.spec.merge.tokens_cap) as u64)
    }

    /// Makes a version of what is in the buffer, or, at the start of a run, publishes version 0 as it is.
    pub fn publish(&mut self, version: Version, as_keyframe: bool) -> Result<PublishedBytes, MergeError> {
        let have = self.weights.version;
        let is_first = version == Version(0) && have == version && self.last_seq == 0;
        if !is_first && version != have.next() {
            return Err(MergeError::WrongVersion { have, got: version });
        }
        if !is_first {
            self.outer_step()?;
        }
        let publish =
            || update::publish(&self.spec.model, self.spec.publish.codec, &mut self.weights, &mut self.feedback);
        let update = (!is_first).then(publish);
        let keyframe = (as_keyframe || is_first).then(|| {
            keyframe::redefine(&mut self.weights, &mut self.feedback);
            keyframe::encode(&self.spec.model, &self.weights)
        });
        let (digest, agreement) = (self.weights.digest(), self.agreement.share());
        Ok(PublishedBytes { version, update, keyframe, digest, through_seq: self.last_seq, agreement })
    }

    /// Averages the buffer, and adds the step that the rule makes of it to the change that is wanted.
    fn outer_step(&mut self) -> Result<(), MergeError> {
        let merge = &self.spec.merge;
        self.buffer.settle(self.outer.momentum().unwrap_or(&self.direction))?;
        self.agreement.learn(self.buffer.square_of_sum(), self.buffer.lengths, self.buffer.squares);
        let average = self.buffer.average();
        self.outer.step(merge.learning_rate as f32, average, &mut self.feedback);
        for (direction, g) in self.direction.iter_mut().zip(average) {
            *direction = heloco::FADE * *direction + g;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// Whether deltas are held against what came before them.
fn looks_back(spec: &RunSpec) -> bool {
    spec.merge.correction == Correction::Heloco || spec.robust() == Robust::Clip
}

/// Deltas whose tokens are remembered.
pub const RECENT: usize = 32;

#[cfg(test)]
mod tests;
