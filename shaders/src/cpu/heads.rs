//! Between the packed projections `[batch·context, (heads + 2·kv)·size]` and attention's blocks `[batch, heads,
//! context, size]`, with the rotary embedding applied on the way (rotate-half: the pairs are `i` and `i + size/2`).

use super::wide;
use rayon::prelude::*;

/// The shape of one attention call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Sequences.
    pub batch: usize,
    /// Tokens a sequence.
    pub context: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv: usize,
    /// Width of a head.
    pub size: usize,
}

impl Heads {
    /// Width of a packed row: queries, keys, values.
    pub fn packed_width(&self) -> usize {
        (self.heads + 2 * self.kv) * self.size
    }

    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.batch * self.context
    }

    /// What scores are multiplied by: 1/√size.
    pub fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }
}

/// Splits packed rows into queries, keys and values; queries and keys are rotated by `cos`, `sin` (`[context,
/// size/2]`).
pub fn split(packed: &[f32], shape: Heads, cos: &[f32], sin: &[f32], q: &mut [f32], k: &mut [f32], v: &mut [f32]) {
    let Heads { context, heads, kv, size, .. } = shape;
    let row = shape.packed_width();
    (
        packed.par_chunks(context * row),
        q.par_chunks_mut(heads * context * size),
        k.par_chunks_mut(kv * context * size),
        v.par_chunks_mut(kv * context * size),
    )
        .into_par_iter()
        .for_each(|(packed, q, k, v)| {
            gather(packed, shape, 0, Some((cos, sin)), q);
            gather(packed, shape, heads * size, Some((cos, sin)), k);
            gather(packed, shape, (heads + kv) * size, None, v);
        });
}

wide! {
    /// One sequence's heads, from column `first` on, each to its own block.
    fn gather(packed: &[f32], shape: Heads, first: usize, rotation: Option<(&[f32], &[f32])>, out: &mut [f32]) {
        let (context, size, row) = (shape.context, shape.size, shape.packed_width());
        let half = size / 2;
        for (head, out) in out.chunks_exact_mut(context * size).enumerate() {
            let column = first + head * size;
            for (t, out) in out.chunks_exact_mut(size).enumerate() {
                let x = &packed[t * row + column..][..size];
                match rotation {
                    None => out.copy_from_slice(x),
                    Some((cos, sin)) => rotate(x, &cos[t * half..][..half], &sin[t * half..][..half], 1.0, out),
                }
            }
        }
    }
}

/// `(a, b) → (a·cos − b·sin, b·cos + a·sin)`; `direction` −1 turns back, which is also the gradient.
#[inline(always)]
fn rotate(x: &[f32], cos: &[f32], sin: &[f32], direction: f32, out: &mut [f32]) {
    let half = cos.len();
    let (a, b) = x.split_at(half);
    let (out_a, out_b) = out.split_at_mut(half);
    let (b, sin, out_a, out_b) = (&b[..half], &sin[..half], &mut out_a[..half], &mut out_b[..half]);
    for i in 0..half {
        let s = sin[i] * direction;
        out_a[i] = a[i] * cos[i] - b[i] * s;
        out_b[i] = b[i] * cos[i] + a[i] * s;
    }
}

/// The gradient of [`split`]: packs the three gradients into rows, rotating back.
pub fn join(dq: &[f32], dk: &[f32], dv: &[f32], shape: Heads, cos: &[f32], sin: &[f32], dpacked: &mut [f32]) {
    let Heads { context, heads, kv, size, .. } = shape;
    let row = shape.packed_width();
    (
        dpacked.par_chunks_mut(context * row),
        dq.par_chunks(heads * context * size),
        dk.par_chunks(kv * context * size),
        dv.par_chunks(kv * context * size),
    )
        .into_par_iter()
        .for_each(|(dpacked, dq, dk, dv)| {
            scatter(dq, shape, row, 0, Some((cos, sin)), dpacked);
            scatter(dk, shape, row, heads * size, Some((cos, sin)), dpacked);
            scatter(dv, shape, row, (heads + kv) * size, None, dpacked);
        });
}

wide! {
    /// One sequence's blocks back into rows of width `row`, from column `first` on.
    fn scatter(blocks: &[f32], shape: Heads, row: usize, first: usize, rotation: Option<(&[f32], &[f32])>, packed: &mut [f32]) {
        let (context, size) = (shape.context, shape.size);
        let half = size / 2;
        for (head, block) in blocks.chunks_exact(context * size).enumerate() {
            let column = first + head * size;
            for (t, x) in block.chunks_exact(size).enumerate() {
                let out = &mut packed[t * row + column..][..size];
                match rotation {
                    None => out.copy_from_slice(x),
                    Some((cos, sin)) => rotate(x, &cos[t * half..][..half], &sin[t * half..][..half], -1.0, out),
                }
            }
        }
    }
}

/// Attention's result as rows: `[batch, heads, context, size]` to `[batch·context, heads·size]`.
pub fn merge(blocks: &[f32], shape: Heads, rows: &mut [f32]) {
    let width = shape.heads * shape.size;
    (rows.par_chunks_mut(shape.context * width), blocks.par_chunks(shape.context * width))
        .into_par_iter()
        .for_each(|(rows, blocks)| scatter(blocks, shape, width, 0, None, rows));
}

/// The gradient of [`merge`].
pub fn unmerge(rows: &[f32], shape: Heads, blocks: &mut [f32]) {
    let Heads { context, heads, size, .. } = shape;
    // A packed row of `heads` heads and no keys or values is what `gather` reads.
    let plain = Heads { kv: 0, ..shape };
    (rows.par_chunks(context * heads * size), blocks.par_chunks_mut(context * heads * size))
        .into_par_iter()
        .for_each(|(rows, blocks)| gather(rows, plain, 0, None, blocks));
}
