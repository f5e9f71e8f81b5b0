//! What training a model takes of a device's memory, reckoned from its layout.

use super::{ModelSpec, Role};

/// What the program, Burn and a driver take before there is a model.
const RUNTIME_BYTES: u64 = 192 << 20;
/// Numbers kept for each parameter at the worst moment, a checkpoint in the middle of a step: weights, two moments, a
/// gradient, the base and a flat copy of the weights while it trains, and what is saved: weights, moments, the sum of
/// the step's gradients, and the file's bytes of one of them at a time. At the lease's ends it is about as many.
/// Measured on the processor, with 4 × 128 tokens at once: 2225 MiB at the peak of 2278 reckoned for 40 M parameters,
/// 597 of 793 for 10 M.
const STATE_FLOATS: u64 = 12;
/// Queries that attention takes at once on a processor: their scores stay in the cache, and the half above the diagonal
/// is left out.
pub const HOST_BLOCK: usize = 256;
/// Logits held at once on a processor: 32 MiB. With half of that a step with a vocabulary of 32k takes a twentieth
/// longer, since the head's gradient passes through memory once a chunk.
pub const HOST_LOGITS: usize = 1 << 23;
/// Fewest tokens of a chunk of logits, whatever the vocabulary: below, the matrix products lose more than memory gains.
const CHUNK_MIN: usize = 64;

/// Tokens of a chunk where so many logits are held at once.
pub fn chunk_tokens(vocabulary: usize, logits: usize) -> usize {
    (logits / vocabulary.max(1)).max(CHUNK_MIN)
}

impl ModelSpec {
    /// Bytes of memory that a device needs to train it at all: its state, and one sample of which each layer keeps its
    /// input only, as a processor computes it. More samples come on top, as many as there is room for.
    pub fn training_bytes(&self) -> u64 {
        let context = u64::from(self.max_position_embeddings);
        let vocabulary = self.vocab_size as usize;
        let logits = 2 * 4 * context.min(chunk_tokens(vocabulary, HOST_LOGITS) as u64) * vocabulary as u64;
        // Those of the only block are kept.
        let at_once = context.min(HOST_BLOCK as u64);
        let kept = if at_once == context { context } else { 0 };
        self.state_bytes() + self.sample_bytes(context, true, [kept, at_once]) + logits
    }

    /// Bytes before the first sample: the program, and at the worst moment a dozen numbers for each parameter.
    pub fn state_bytes(&self) -> u64 {
        RUNTIME_BYTES + 4 * STATE_FLOATS * self.parameters() as u64
    }

    /// Bytes that one sample's activations take between forward and backward pass, in f32; `recompute`: layers keep
    /// their input only. For each query of a head there are so many `scores`, kept and at once.
    pub fn sample_bytes(&self, context: u64, recompute: bool, scores: [u64; 2]) -> u64 {
        // Numbers that a matrix makes of a token.
        let made = |role: Role| role.shape(self)[0] as u64;
        let layers = u64::from(self.num_hidden_layers);
        let [hidden, attended, intermediate] = [Role::Down, Role::Query, Role::Up].map(made);
        let packed = [Role::Query, Role::Key, Role::Value].map(made).iter().sum::<u64>();
        // Per token, a layer keeps its input, what is attended and what flows past the middle, the packed rows, gate
        // and up, and what attention keeps; beside them it works with two gradients, that of the packed rows, what gate
        // and up make, and some of the scores. At the end of the layers there are rows normed and not, and their
        // gradients.
        let [kept, at_once] = scores.map(|scores| u64::from(self.num_attention_heads) * scores);
        let tape = 2 * hidden + attended + packed + 2 * intermediate + kept;
        let work = 2 * hidden + packed + intermediate + 3 * at_once;
        let kept = if recompute { (layers - 1) * hidden + tape } else { layers * tape };
        4 * context * (kept + work + 4 * hidden)
    }
}
