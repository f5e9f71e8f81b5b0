//! The model's passes as launches: a Llama-family decoder forward and backward, the gradient's norm, and AdamW. What
//! `client/train/src/model.rs` says on Burn's tensors, launch by launch; a trial whose answer the native trainer gave
//! (`nightjar_work::trial`) holds the two together.

use super::{
    buffers::{BlockBuffers, Buffers, PlanError, Sizes, Tape},
    program::{ALIGNMENT, Buffer, Part, Program},
};
use nightjar_shared::model_spec::{Layout, ModelSpec, Role};
use nightjar_wgsl::*;
use nightjar_work::Update;

/// How a model is trained with buffers of one size.
#[derive(Clone, Debug)]
pub struct Passes {
    spec: ModelSpec,
    layout: Layout,
    sizes: Sizes,
    /// What they work in.
    pub buffers: Buffers,
}

/// How a product's factors lie in memory.
#[derive(Clone, Copy)]
enum Turned {
    /// `x·wᵀ`: a matrix makes rows of rows.
    Right,
    /// `dy·w`: the gradient in the rows.
    Neither,
    /// `dyᵀ·x`: the gradient in the matrix.
    Left,
}

/// Where a product goes.
#[derive(Clone, Copy, PartialEq)]
enum Onto {
    /// In place of what is there.
    Nothing,
    /// On top of it.
    Past,
}

/// One micro-batch on its way.
struct Pass<'p> {
    passes: &'p Passes,
    samples: usize,
    program: Program,
}

impl Passes {
    /// Of a model of which at most so many samples go through at once.
    pub fn of(spec: &ModelSpec, samples: usize) -> Result<Self, PlanError> {
        let sizes = Sizes::of(spec)?;
        let buffers = Buffers::of(spec, &sizes, samples.max(1));
        Ok(Passes { spec: spec.clone(), layout: Layout::of(spec), sizes, buffers })
    }

    /// The sizes that they go by.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Makes the gradient zero.
    pub fn begin(&self) -> Program {
        let mut program = Program::default();
        self.buffers.blocks.iter().for_each(|block| program.clear(block.gradient));
        program
    }

    /// Adds the gradient of `scale` times the sum of nats of so many samples, whose tokens are in the buffers.
    pub fn gradient(&self, samples: usize, scale: f32) -> Program {
        let mut pass = Pass { passes: self, samples, program: Program::default() };
        pass.forward();
        pass.loss(Some(scale));
        pass.final_norm_backward();
        for l in (0..self.sizes.layers).rev() {
            pass.layer_backward(l, &self.buffers.tapes[l]);
        }
        pass.embedding_backward();
        pass.program
    }

    /// The nats of so many samples alone.
    pub fn nats(&self, samples: usize) -> Program {
        let mut pass = Pass { passes: self, samples, program: Program::default() };
        pass.forward();
        pass.loss(None);
        pass.program
    }

    /// Sums the squares of each block's gradient.
    pub fn norms(&self) -> Program {
        let mut program = Program::default();
        for (i, block) in self.buffers.blocks.iter().enumerate() {
            let (values, spans) = (block.gradient.numbers, block.squares.numbers);
            let shape = SpanShape { values: values as u32, span: GRAD_NORM_SPAN as u32 };
            program.launch(&GRAD_NORM, &[], &shape, [block.gradient, block.squares].map(Part::from), spread(spans));
            let shape = SpanShape { values: spans as u32, span: spans as u32 };
            let sum = self.buffers.norms.part(i * ALIGNMENT, 1);
            program.launch(&GRAD_NORM, &[("SQUARE", 0)], &shape, [block.squares.into(), sum], [1, 1, 1]);
        }
        program
    }

    /// Updates weights and moments by the gradient.
    pub fn update(&self, update: &Update) -> Program {
        let mut program = Program::default();
        for (block, about) in self.buffers.blocks.iter().zip(&self.layout.blocks) {
            let BlockBuffers { weights, first, second, gradient, .. } = *block;
            let shape = AdamWShape {
                values: weights.numbers as u32,
                gradient_scale: update.gradient_scale,
                decay: if about.role.decays() { update.decay } else { 1.0 },
                beta1: update.beta1,
                beta2: update.beta2,
                step_size: update.step_size,
                second_correction: update.second_correction,
                epsilon: update.epsilon,
            };
            let groups = spread(weights.numbers.div_ceil(256));
            program.launch(&ADAMW, &[], &shape, [weights, first, second, gradient].map(Part::from), groups);
        }
        program
    }
}

impl<'p> Pass<'p> {
    fn tokens(&self) -> usize {
        self.samples * self.passes.sizes.context
    }

    fn block(&self, role: Role, layer: Option<usize>) -> &'p BlockBuffers {
        &self.passes.buffers.blocks[self.passes.layout.place(role, layer)]
    }

    fn head(&self) -> &'p BlockBuffers {
        &self.passes.buffers.blocks[self.passes.layout.head()]
    }

    fn forward(&mut self) {
        let Passes { sizes, buffers, .. } = self.passes;
        let (n, Sizes { width, inner, .. }) = (self.tokens(), *sizes);
        let table = self.block(Role::Embedding, None).weights;
        let shape = EmbeddingShape { values: (n * width) as u32, width: width as u32 };
        let first = buffers.tapes.first().map_or(buffers.last, |tape| tape.x);
        let parts = [table, buffers.tokens, first].map(Part::from);
        self.program.launch(&EMBEDDING, &[], &shape, parts, spread((n * width).div_ceil(256)));
        for (l, tape) in buffers.tapes.iter().enumerate() {
            let w = |role| self.block(role, Some(l)).weights;
            let [gain1, qkv, out, gain2, gate_up, down] = [
                Role::AttentionNorm,
                Role::Query,
                Role::AttentionOutput,
                Role::FeedForwardNorm,
                Role::Gate,
                Role::Down,
            ]
            .map(w);
            self.norm(tape.x, gain1, tape.inverse1);
            self.rows_by(buffers.rows, qkv, tape.packed, [sizes.packed(), width], Onto::Nothing);
            self.rope(tape.packed, 1.0);
            let attended = [tape.packed, tape.attended, tape.logarithms];
            self.attend(&ATTENTION_FORWARD, sizes.heads[0], &attended);
            self.program.copy(tape.x, tape.middle, n * width);
            self.rows_by(tape.attended, out, tape.middle, [width, width], Onto::Past);
            self.norm(tape.middle, gain2, tape.inverse2);
            self.rows_by(buffers.rows, gate_up, tape.gate_up, [2 * inner, width], Onto::Nothing);
            self.swiglu(&SWIGLU, tape.gate_up);
            let next = buffers.tapes.get(l + 1).map_or(buffers.last, |tape| tape.x);
            self.program.copy(tape.middle, next, n * width);
            self.rows_by(buffers.wide, down, next, [width, inner], Onto::Past);
        }
    }

    /// From the last layer to the loss and, with a scale, back to the rows, a chunk of tokens at a time, so that never all
    /// logits are held.
    fn loss(&mut self, scale: Option<f32>) {
        let Passes { sizes, buffers, .. } = self.passes;
        let (n, Sizes { width, vocabulary, chunk, .. }) = (self.tokens(), *sizes);
        let head = self.head();
        self.norm(buffers.last, self.block(Role::FinalNorm, None).weights, buffers.inverse);
        for first in (0..n).step_by(chunk) {
            let rows = chunk.min(n - first);
            let some = |buffer: Buffer, each: usize| buffer.part(first * each, rows * each);
            let (hidden, logits) = (some(buffers.rows, width), buffers.logits.part(0, rows * vocabulary));
            let weights = Part::from(head.weights);
            self.product(Turned::Right, [hidden, weights, logits], [rows, width, vocabulary], Onto::Nothing);
            let shape = CrossEntropyShape {
                rows: rows as u32,
                vocabulary: vocabulary as u32,
                scale: scale.unwrap_or(0.0),
                gradient: u32::from(scale.is_some()),
                nan: f32::NAN,
            };
            let parts = [logits, some(buffers.targets, 1), some(buffers.nats, 1)];
            self.program.launch(&CROSS_ENTROPY, &[], &shape, parts, spread(rows));
            if scale.is_none() {
                continue;
            }
            let gradient = Part::from(head.gradient);
            self.product(Turned::Left, [logits, hidden, gradient], [vocabulary, rows, width], Onto::Past);
            // The rows have done their part: their gradient takes their place.
            self.product(Turned::Neither, [logits, weights, hidden], [rows, vocabulary, width], Onto::Nothing);
        }
    }

    fn final_norm_backward(&mut self) {
        let Buffers { dx, last, inverse, .. } = self.passes.buffers;
        self.program.clear(dx);
        self.norm_backward(last, self.block(Role::FinalNorm, None), inverse);
    }

    /// Adds a layer's gradients; `dx` becomes that in its input.
    fn layer_backward(&mut self, l: usize, tape: &Tape) {
        let Passes { sizes, buffers, .. } = self.passes;
        let Sizes { width, inner, heads, .. } = *sizes;
        let Buffers { dx, rows, wide, dpacked, delta, .. } = *buffers;
        let of = |role| self.block(role, Some(l));
        let [gain1, qkv, out] = [Role::AttentionNorm, Role::Query, Role::AttentionOutput].map(of);
        let [gain2, gate_up, down] = [Role::FeedForwardNorm, Role::Gate, Role::Down].map(of);

        self.rows_back(dx, down.weights, wide, [width, inner]);
        // Gate and up become their gradient, and that of the result the result once more.
        self.swiglu(&SWIGLU_BACKWARD, tape.gate_up);
        self.matrix_back(dx, wide, down.gradient, [width, inner]);
        self.rows_back(tape.gate_up, gate_up.weights, rows, [2 * inner, width]);
        self.norm_backward(tape.middle, gain2, tape.inverse2);
        self.matrix_back(tape.gate_up, rows, gate_up.gradient, [2 * inner, width]);

        self.rows_back(dx, out.weights, rows, [width, width]);
        let queries = [tape.packed, tape.attended, tape.logarithms, rows, dpacked, delta];
        self.attend(&ATTENTION_BACKWARD_QUERIES, heads[0], &queries);
        self.attend(&ATTENTION_BACKWARD_KEYS, heads[1], &[tape.packed, tape.logarithms, rows, delta, dpacked]);
        self.rope(dpacked, -1.0);
        self.matrix_back(dx, tape.attended, out.gradient, [width, width]);
        self.rows_back(dpacked, qkv.weights, rows, [sizes.packed(), width]);
        self.norm_backward(tape.x, gain1, tape.inverse1);
        self.matrix_back(dpacked, rows, qkv.gradient, [sizes.packed(), width]);
    }

    fn embedding_backward(&mut self) {
        let Buffers { dx, tokens, order, .. } = self.passes.buffers;
        let (n, width) = (self.tokens(), self.passes.sizes.width);
        let table = self.block(Role::Embedding, None).gradient;
        let shape = EmbeddingBackwardShape { tokens: n as u32, width: width as u32 };
        let parts = [dx, tokens, order, table].map(Part::from);
        self.program.launch(&EMBEDDING_BACKWARD, &[], &shape, parts, spread(n));
    }

    /// Rows by a matrix `[out, in]`, onto `to`.
    fn rows_by(&mut self, x: Buffer, w: Buffer, to: Buffer, [out, inner]: [usize; 2], onto: Onto) {
        self.product(Turned::Right, [x, w, to].map(Part::from), [self.tokens(), inner, out], onto);
    }

    /// The gradient in the rows that a matrix `[out, in]` was given, of that in what it made.
    fn rows_back(&mut self, dy: Buffer, w: Buffer, to: Buffer, [out, inner]: [usize; 2]) {
        self.product(Turned::Neither, [dy, w, to].map(Part::from), [self.tokens(), out, inner], Onto::Nothing);
    }

    /// Adds to the gradient of a matrix `[out, in]` that made what `dy` is the gradient of, of rows `x`.
    fn matrix_back(&mut self, dy: Buffer, x: Buffer, gradient: Buffer, [out, inner]: [usize; 2]) {
        self.product(Turned::Left, [dy, x, gradient].map(Part::from), [out, self.tokens(), inner], Onto::Past);
    }

    fn product(&mut self, turned: Turned, parts: [Part; 3], [rows, inner, columns]: [usize; 3], onto: Onto) {
        let [turn_a, turn_b] = match turned {
            Turned::Right => [0, 1],
            Turned::Neither => [0, 0],
            Turned::Left => [1, 0],
        };
        let constants = [("TURN_A", turn_a), ("TURN_B", turn_b), ("ADD", u32::from(onto == Onto::Past))];
        let shape = ProductF32Shape { rows: rows as u32, inner: inner as u32, columns: columns as u32 };
        let groups = [columns.div_ceil(PRODUCT_F32_TILE) as u32, rows.div_ceil(PRODUCT_F32_TILE) as u32, 1];
        self.program.launch(&PRODUCT_F32, &constants, &shape, parts, groups);
    }

    /// Norms `x` into the rows.
    fn norm(&mut self, x: Buffer, gain: Buffer, inverse: Buffer) {
        let (n, eps) = (self.tokens(), self.passes.spec.rms_norm_eps as f32);
        let shape = RmsNormShape { rows: n as u32, width: self.passes.sizes.width as u32, eps };
        let parts = [x, gain, self.passes.buffers.rows, inverse].map(Part::from);
        self.program.launch(&RMS_NORM, &[], &shape, parts, spread(n));
    }

    /// Adds the gradient of a norm of `x`, given that of its result in the rows, to `dx` and to the gain's; the rows
    /// become the result once more.
    fn norm_backward(&mut self, x: Buffer, gain: &BlockBuffers, inverse: Buffer) {
        let Buffers { rows, dx, parts, .. } = self.passes.buffers;
        let (n, width) = (self.tokens(), self.passes.sizes.width);
        let each = rms_norm_backward_rows(n);
        let groups = n.div_ceil(each);
        let shape = RmsNormBackwardShape { rows: n as u32, width: width as u32 };
        let all = [rows, x, gain.weights, inverse, dx, parts].map(Part::from);
        self.program.launch(&RMS_NORM_BACKWARD, &[("ROWS", each as u32)], &shape, all, spread(groups));
        let shape = ColumnSumsShape { rows: groups as u32, width: width as u32 };
        let sums = [parts, gain.gradient].map(Part::from);
        self.program.launch(&COLUMN_SUMS, &[], &shape, sums, spread(width.div_ceil(64)));
    }

    /// Turns queries and keys by their places, or back.
    fn rope(&mut self, packed: Buffer, direction: f32) {
        let Sizes { heads, head, context, .. } = *self.passes.sizes();
        let (turned, half) = (heads[0] + heads[1], head / 2);
        let pairs = self.tokens() * turned * half;
        let shape = RopeShape {
            pairs: pairs as u32,
            context: context as u32,
            heads: turned as u32,
            half: half as u32,
            row: self.passes.sizes.packed() as u32,
            direction,
        };
        let Buffers { cosine, sine, .. } = self.passes.buffers;
        let parts = [packed, cosine, sine].map(Part::from);
        self.program.launch(&ROPE, &[], &shape, parts, spread(pairs.div_ceil(256)));
    }

    /// One kernel of attention, for so many heads.
    fn attend(&mut self, kernel: &'static Kernel, of_heads: usize, buffers: &[Buffer]) {
        let Sizes { heads: [heads, kv], head, context, .. } = *self.passes.sizes();
        let scale = 1.0 / (head as f32).sqrt();
        let shape = AttentionShape { context: context as u32, heads: heads as u32, kv: kv as u32, scale };
        let constants = [("HEAD", head as u32), ("GROUP", (heads / kv) as u32)];
        let groups = [context.div_ceil(ATTENTION_TILE) as u32, of_heads as u32, self.samples as u32];
        self.program.launch(kernel, &constants, &shape, buffers.iter().copied().map(Part::from), groups);
    }

    /// SwiGLU of packed gate and up, or its gradient.
    fn swiglu(&mut self, kernel: &'static Kernel, gate_up: Buffer) {
        let inner = self.passes.sizes.inner;
        let results = self.tokens() * inner;
        let shape = SwigluShape { results: results as u32, width: inner as u32 };
        let parts = [gate_up, self.passes.buffers.wide].map(Part::from);
        self.program.launch(kernel, &[], &shape, parts, spread(results.div_ceil(256)));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::program::Step, *};
    use nightjar_work::{AdamWConfig, trial};
    use std::collections::BTreeSet;

    fn programs(passes: &Passes) -> Vec<Program> {
        let samples = passes.buffers.samples;
        let update = AdamWConfig::default().update(1, 2.0, 1.0, 1e-3);
        let some = [passes.gradient(samples, 1.0), passes.gradient(1, 1.0), passes.nats(samples)];
        some.into_iter().chain([passes.begin(), passes.norms(), passes.update(&update)]).collect()
    }

    /// A large vocabulary's logits go through in several chunks.
    fn models() -> [ModelSpec; 3] {
        [ModelSpec::tiny(), trial::spec(), ModelSpec { vocab_size: 100_000, num_hidden_layers: 1, ..ModelSpec::tiny() }]
    }

    /// A browser takes no launch that has another number of bindings than its kernel, writes two parts of one buffer,
    /// or has more workgroups than it may.
    #[test]
    fn every_launch_is_one_that_a_browser_takes() {
        for spec in models() {
            let passes = Passes::of(&spec, 5).unwrap();
            for launch in programs(&passes).iter().flat_map(Program::launches) {
                let name = launch.kernel.name;
                assert_eq!(launch.parts.len() + 1, launch.kernel.source.matches("@binding(").count(), "{name}");
                let buffers: BTreeSet<usize> = launch.parts.iter().map(|part| part.buffer.id).collect();
                assert_eq!(buffers.len(), launch.parts.len(), "{name} has one buffer twice");
                assert!(
                    launch.groups.iter().all(|n| (1..=GROUPS_MAX as u32).contains(n)),
                    "{name}: {:?}",
                    launch.groups
                );
                assert!(launch.parts.iter().all(|part| part.numbers > 0 && part.first.is_multiple_of(ALIGNMENT)));
                // What is not in the file would be refused only when it is compiled.
                launch.kernel.text(&launch.constants, Elem::F32);
            }
        }
    }

    /// What a pass reads was written before by the same pass, by an update, or by the host: buffers are never cleared
    /// but by their program.
    #[test]
    fn every_block_has_a_gradient_and_an_update() {
        for spec in models() {
            let passes = Passes::of(&spec, 2).unwrap();
            let gradient = passes.gradient(2, 1.0);
            let last = |launch: &super::super::program::Launch| launch.parts.last().map(|part| part.buffer.id);
            let written: BTreeSet<usize> = gradient.launches().filter_map(last).collect();
            let cleared = passes.begin().steps.iter().filter(|step| matches!(step, Step::Clear(_))).count();
            assert_eq!(cleared, passes.buffers.blocks.len());
            for (block, about) in passes.buffers.blocks.iter().zip(&passes.layout.blocks) {
                assert!(written.contains(&block.gradient.id), "nothing adds to the gradient of {:?}", about.role);
            }
            let update = AdamWConfig::default().update(1, 1.0, 1.0, 1e-3);
            assert_eq!(passes.update(&update).launches().count(), passes.buffers.blocks.len());
        }
    }

    /// 100,000 tokens and 83 rows at a time are 32 MiB, but a chunk is a multiple of 64 rows.
    #[test]
    fn logits_go_through_in_chunks() {
        let [_, _, large] = models();
        let passes = Passes::of(&large, 2).unwrap();
        let losses = passes.nats(2).launches().filter(|launch| launch.kernel.name == "cross_entropy").count();
        assert_eq!((losses, passes.buffers.logits.numbers), (2, 128 * 100_000));
    }
}
