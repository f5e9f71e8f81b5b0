//! Causal attention over packed rows `[queries | keys | values]` that are rotated already, with grouped heads: the twin
//! of the `attention_*` kernels. It keeps the logarithm of each row's sum and nothing else; the gradient computes the
//! probabilities anew.
//!
//! The `flex` device does not run this: there [`crate::op::attention`] takes a block of queries at a time through
//! matrix products, which is several times faster on a processor, with [`super::softmax`] between them.

use super::{heads::Heads, vector, wide};
use rayon::prelude::*;

/// Writes each row's result (`[tokens, heads·size]`) and `ln Σ exp(scale · score)` (`[batch, heads, context]`).
pub fn forward(packed: &[f32], shape: Heads, scale: f32, out: &mut [f32], lse: &mut [f32]) {
    let Heads { context, heads, size, .. } = shape;
    (
        packed.par_chunks(context * shape.packed_width()),
        out.par_chunks_mut(context * heads * size),
        lse.par_chunks_mut(heads * context),
    )
        .into_par_iter()
        .for_each(|(packed, out, lse)| forward_sequence(packed, shape, scale, out, lse));
}

/// Where head `head`'s query, key and value start in a packed row.
fn columns(shape: Heads, head: usize) -> [usize; 3] {
    let Heads { heads, kv, size, .. } = shape;
    let group = head / (heads / kv);
    [head * size, (heads + group) * size, (heads + kv + group) * size]
}

wide! {
    fn forward_sequence(packed: &[f32], shape: Heads, scale: f32, out: &mut [f32], lse: &mut [f32]) {
        let Heads { context, heads, size, .. } = shape;
        let row = |token: usize, column: usize| &packed[token * shape.packed_width() + column..][..size];
        for head in 0..heads {
            let [q, k, v] = columns(shape, head);
            for t in 0..context {
                let out = &mut out[(t * heads + head) * size..][..size];
                out.fill(0.0);
                let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0);
                for u in 0..=t {
                    let score = scale * vector::dot(row(t, q), row(u, k));
                    // A larger score than any before: what was summed counts for less.
                    if score > largest {
                        let fade = vector::exp(largest - score);
                        total *= fade;
                        out.iter_mut().for_each(|o| *o *= fade);
                        largest = score;
                    }
                    let p = vector::exp(score - largest);
                    total += p;
                    out.iter_mut().zip(row(u, v)).for_each(|(o, v)| *o += p * v);
                }
                out.iter_mut().for_each(|o| *o /= total);
                lse[head * context + t] = largest + total.ln();
            }
        }
    }
}

/// The gradient of [`forward`] in its packed rows. With `p = exp(scale·q·k − lse)` and `ds = scale·p·(dout·v −
/// Σ dout·out)`: `dq = Σ ds·k`, `dk = Σ ds·q`, `dv = Σ p·dout`.
pub fn backward(packed: &[f32], out: &[f32], lse: &[f32], dout: &[f32], shape: Heads, scale: f32, dpacked: &mut [f32]) {
    let Heads { context, heads, size, .. } = shape;
    let (wide, narrow) = (context * shape.packed_width(), context * heads * size);
    (
        packed.par_chunks(wide),
        out.par_chunks(narrow),
        lse.par_chunks(heads * context),
        dout.par_chunks(narrow),
        dpacked.par_chunks_mut(wide),
    )
        .into_par_iter()
        .for_each(|(packed, out, lse, dout, dpacked)| backward_sequence(packed, out, lse, dout, shape, scale, dpacked));
}

wide! {
    fn backward_sequence(
        packed: &[f32], out: &[f32], lse: &[f32], dout: &[f32], shape: Heads, scale: f32, dpacked: &mut [f32],
    ) {
        let Heads { context, heads, size, .. } = shape;
        let width = shape.packed_width();
        let row = |token: usize, column: usize| &packed[token * width + column..][..size];
        dpacked.fill(0.0);
        let mut add = |token: usize, column: usize, by: f32, x: &[f32]| {
            dpacked[token * width + column..][..size].iter_mut().zip(x).for_each(|(d, x)| *d += by * x);
        };
        for head in 0..heads {
            let [q, k, v] = columns(shape, head);
            for t in 0..context {
                let at = (t * heads + head) * size;
                let dout = &dout[at..][..size];
                let along = vector::dot(dout, &out[at..][..size]);
                for u in 0..=t {
                    let p = vector::exp(scale * vector::dot(row(t, q), row(u, k)) - lse[head * context + t]);
                    let ds = scale * p * (vector::dot(dout, row(u, v)) - along);
                    add(t, q, ds, row(u, k));
                    add(u, k, ds, row(t, q));
                    add(u, v, p, dout);
                }
            }
        }
    }
}
