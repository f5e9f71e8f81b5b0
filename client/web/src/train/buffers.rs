//! The memory that training a model takes on a GPU: every buffer, with its size.

use super::program::{ALIGNMENT, Buffer};
use nightjar_shared::{
    model_spec::{Layout, ModelSpec, Role, chunk_tokens},
    run_spec::InnerOptimizer,
};
use nightjar_wgsl::{GRAD_NORM_SPAN, attention_holds, rms_norm_backward_rows};

/// Logits held at once: 32 MiB.
const LOGITS: usize = 1 << 23;

/// Why a GPU cannot train a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The kernels of attention hold other heads.
    #[error("the model's heads have {0} numbers; a page trains heads of a multiple of 4, up to 128")]
    Heads(usize),
    /// It is stepped otherwise.
    #[error("this run's inner.optimizer is {0:?}; a page steps by AdamW alone")]
    Optimizer(InnerOptimizer),
    /// A buffer is larger than the GPU lets one be.
    #[error("a matrix of the model takes {bytes} bytes; this browser's GPU allows {allowed} at once")]
    TooLarge {
        /// Bytes of the largest.
        bytes: u64,
        /// Bytes that one may have.
        allowed: u64,
    },
}

/// The sizes that a pass goes by.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of what gate and up make, each.
    pub inner: usize,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Heads of queries, and of keys.
    pub heads: [usize; 2],
    /// Width of a head.
    pub head: usize,
    /// Tokens of a sample.
    pub context: usize,
    /// Tokens whose logits are held at once.
    pub chunk: usize,
}

impl Sizes {
    /// Of a model.
    pub fn of(spec: &ModelSpec) -> Result<Self, PlanError> {
        let head = spec.head_size();
        if !attention_holds(head) {
            return Err(PlanError::Heads(head));
        }
        let of_role = |role: Role| role.shape(spec)[0];
        let vocabulary = spec.vocab_size as usize;
        Ok(Sizes {
            layers: spec.num_hidden_layers as usize,
            width: of_role(Role::Down),
            inner: of_role(Role::Gate),
            vocabulary,
            heads: [spec.num_attention_heads, spec.num_key_value_heads].map(|n| n as usize),
            head,
            context: spec.max_position_embeddings as usize,
            chunk: chunk_tokens(vocabulary, LOGITS).next_multiple_of(ALIGNMENT),
        })
    }

    /// Width of a packed row of queries, keys and values.
    pub fn packed(&self) -> usize {
        (self.heads[0] + 2 * self.heads[1]) * self.head
    }
}

/// Bytes of a GPU's memory that a model takes of which so many samples go through at once.
pub fn gpu_bytes(spec: &ModelSpec, samples: usize) -> Result<u64, PlanError> {
    Ok(Buffers::of(spec, &Sizes::of(spec)?, samples).bytes())
}

/// How many samples may go through at once, at most `most` and at least one, whose activations take no more than so many
/// bytes.
pub fn samples_within(spec: &ModelSpec, most: usize, bytes: u64) -> Result<usize, PlanError> {
    // Weights, two moments and a gradient are there anyway.
    let state = 4 * 4 * spec.parameters() as u64;
    for samples in (2..=most).rev() {
        if gpu_bytes(spec, samples)? <= state.saturating_add(bytes) {
            return Ok(samples);
        }
    }
    Ok(1)
}

/// What a layer keeps from the forward pass to the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Tape {
    pub x: Buffer,
    pub inverse1: Buffer,
    pub packed: Buffer,
    pub attended: Buffer,
    pub logarithms: Buffer,
    pub middle: Buffer,
    pub inverse2: Buffer,
    pub gate_up: Buffer,
}

/// What there is of a block of the model's tensors.
#[derive(Clone, Copy, Debug)]
pub struct BlockBuffers {
    pub weights: Buffer,
    pub first: Buffer,
    pub second: Buffer,
    pub gradient: Buffer,
    /// Sums of squares of its gradient, a span each.
    pub squares: Buffer,
}

/// All buffers of a model in training.
#[derive(Clone, Debug)]
pub struct Buffers {
    /// The numbers of each, by its id.
    pub numbers: Vec<usize>,
    /// Most samples that go through at once.
    pub samples: usize,
    /// In flat order.
    pub blocks: Vec<BlockBuffers>,
    /// One of each layer.
    pub tapes: Vec<Tape>,
    /// What the last layer gives, and the inverse roots of its norm.
    pub last: Buffer,
    pub inverse: Buffer,
    /// Rows of the residual stream's width: normed, and their gradient.
    pub rows: Buffer,
    /// The gradient that flows past the layers.
    pub dx: Buffer,
    /// What SwiGLU makes, and its gradient.
    pub wide: Buffer,
    /// The gradient of packed rows, and what its two kernels share.
    pub dpacked: Buffer,
    pub delta: Buffer,
    /// A gain's gradient before it is added up.
    pub parts: Buffer,
    pub logits: Buffer,
    /// A number for each token: its loss, the token, the next one, and the places sorted by token.
    pub nats: Buffer,
    pub tokens: Buffer,
    pub targets: Buffer,
    pub order: Buffer,
    pub cosine: Buffer,
    pub sine: Buffer,
    /// The sum of squares of each block's gradient, [`ALIGNMENT`] apart.
    pub norms: Buffer,
}

impl Buffers {
    /// Those for a model of which at most so many samples go through at once.
    pub fn of(spec: &ModelSpec, sizes: &Sizes, samples: usize) -> Self {
        let mut numbers = vec![];
        let mut take = |count: usize| {
            let id = numbers.len();
            numbers.push(count);
            Buffer { id, numbers: count }
        };
        let Sizes { layers, width, inner, vocabulary, heads, head, context, chunk } = *sizes;
        let (tokens, scores) = (samples * context, samples * heads[0] * context);
        let layout = Layout::of(spec);
        let block = |take: &mut dyn FnMut(usize) -> Buffer, [height, width]: [usize; 2]| {
            let [weights, first, second, gradient] = [(); 4].map(|()| take(height * width));
            BlockBuffers { weights, first, second, gradient, squares: take((height * width).div_ceil(GRAD_NORM_SPAN)) }
        };
        let blocks: Vec<BlockBuffers> = layout.blocks.iter().map(|b| block(&mut take, b.shape)).collect();
        let tape = |take: &mut dyn FnMut(usize) -> Buffer| Tape {
            x: take(tokens * width),
            inverse1: take(tokens),
            packed: take(tokens * sizes.packed()),
            attended: take(tokens * heads[0] * head),
            logarithms: take(scores),
            middle: take(tokens * width),
            inverse2: take(tokens),
            gate_up: take(tokens * 2 * inner),
        };
        let tapes = (0..layers).map(|_| tape(&mut take)).collect();
        let norms = take(ALIGNMENT * blocks.len());
        Buffers {
            samples,
            blocks,
            tapes,
            last: take(tokens * width),
            inverse: take(tokens),
            rows: take(tokens * width),
            dx: take(tokens * width),
            wide: take(tokens * inner),
            dpacked: take(tokens * sizes.packed()),
            delta: take(scores),
            parts: take(tokens.div_ceil(rms_norm_backward_rows(tokens)) * width),
            logits: take(chunk.min(tokens) * vocabulary),
            nats: take(tokens),
            tokens: take(tokens),
            targets: take(tokens),
            order: take(tokens),
            cosine: take(context * head / 2),
            sine: take(context * head / 2),
            norms,
            numbers,
        }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.numbers.iter().map(|numbers| 4 * *numbers as u64).sum()
    }

    /// Whether a GPU that lets a buffer have so many bytes can hold each.
    pub fn fit(&self, allowed: u64) -> Result<(), PlanError> {
        let bytes = self.numbers.iter().map(|numbers| 4 * *numbers as u64).max().unwrap_or(0);
        if bytes > allowed { Err(PlanError::TooLarge { bytes, allowed }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/architecture/web.md has these figures.
    #[test]
    fn what_a_model_takes_is_what_the_page_on_it_says() {
        let spec = ModelSpec {
            vocab_size: 8192,
            hidden_size: 512,
            intermediate_size: 1376,
            num_hidden_layers: 8,
            num_attention_heads: 8,
            num_key_value_heads: 8,
            max_position_embeddings: 512,
            ..ModelSpec::tiny()
        };
        assert_eq!(spec.parameters(), 29_499_904);
        let mib = |samples| gpu_bytes(&spec, samples).unwrap() >> 20;
        assert_eq!([1, 4].map(mib), [567, 882]);
        let within = |mib: u64| samples_within(&spec, 8, mib << 20).unwrap();
        assert_eq!([0, 882 - 450, 883 - 450, 10_000].map(within), [1, 3, 4, 8]);
    }

    #[test]
    fn a_model_that_no_page_can_train_is_refused_in_words() {
        let wide = ModelSpec { hidden_size: 1024, num_attention_heads: 4, num_key_value_heads: 4, ..ModelSpec::tiny() };
        assert_eq!(gpu_bytes(&wide, 1), Err(PlanError::Heads(256)));
        let spec = ModelSpec::tiny();
        let buffers = Buffers::of(&spec, &Sizes::of(&spec).unwrap(), 1);
        assert_eq!(buffers.fit(1 << 20), Ok(()));
        let refused = buffers.fit(100_000).unwrap_err();
        assert!(refused.to_string().contains("100000 at once"), "{refused}");
    }
}
