//! Causal softmax over attention scores, in place, and its gradient. Row `t` of a block of `context` rows sees the
//! columns `0..=t`; the rest become 0.

use super::{rows_per_task, vector, wide};
use rayon::prelude::*;

/// Replaces scores by probabilities, `softmax(scale · scores)` over what each row may see.
pub fn forward(scores: &mut [f32], context: usize, scale: f32) {
    // A task takes whole blocks' rows in order; `first` keeps their position within the block.
    let rows = rows_per_task(context);
    scores
        .par_chunks_mut(rows * context)
        .enumerate()
        .for_each(|(task, scores)| forward_rows(scores, context, scale, task * rows));
}

wide! {
    fn forward_rows(scores: &mut [f32], context: usize, scale: f32, first: usize) {
        for (row, scores) in scores.chunks_exact_mut(context).enumerate() {
            let (seen, hidden) = scores.split_at_mut((first + row) % context + 1);
            hidden.fill(0.0);
            let largest = vector::max(seen);
            for x in seen.iter_mut() {
                *x = vector::exp((*x - largest) * scale);
            }
            let inverse = 1.0 / vector::sum(seen);
            for x in seen.iter_mut() {
                *x *= inverse;
            }
        }
    }
}

/// Replaces the gradient in the probabilities by that in the scores: `scale · p · (dp − Σ p·dp)`.
pub fn backward(probabilities: &[f32], gradient: &mut [f32], context: usize, scale: f32) {
    let rows = rows_per_task(context);
    (probabilities.par_chunks(rows * context), gradient.par_chunks_mut(rows * context))
        .into_par_iter()
        .for_each(|(p, g)| backward_rows(p, g, context, scale));
}

wide! {
    fn backward_rows(probabilities: &[f32], gradient: &mut [f32], context: usize, scale: f32) {
        for (p, g) in probabilities.chunks_exact(context).zip(gradient.chunks_exact_mut(context)) {
            let mean = vector::dot(p, g);
            for i in 0..context {
                g[i] = scale * p[i] * (g[i] - mean);
            }
        }
    }
}
