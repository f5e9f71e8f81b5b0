//! A merger that begins anew in the midst of a run: with weights as they were published, and nothing else. What it
//! takes when blobs on the way to those weights are lost.

use super::{Merger, RECENT};
use nightjar_shared::{run_spec::RunSpec, version::Weights};

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

    /// Goes on behind a delta that is lost.
    pub fn pass_over(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }
}
