//! Causal softmax over a block of attention scores, in place, and its gradient. The rows are the last `rows` tokens
//! of `columns`, once a head: row `r` of them sees the columns `0..=columns − rows + r`; the rest become 0.

use super::{rows_per_task, vector, wide};
use rayon::prelude::*;

/// Replaces scores by probabilities, `softmax(scale · scores)` over what each row may see.
pub fn forward(scores: &mut [f32], rows: usize, columns: usize, scale: f32) {
    // A task takes rows in order; `first` keeps their position within the block.
    let count = rows_per_task(columns);
    scores
        .par_chunks_mut(count * columns)
        .enumerate()
        .for_each(|(task, scores)| forward_rows(scores, rows, columns, scale, task * count));
}

wide! {
    fn forward_rows(scores: &mut [f32], rows: usize, columns: usize, scale: f32, first: usize) {
        for (row, scores) in scores.chunks_exact_mut(columns).enumerate() {
            let (seen, hidden) = scores.split_at_mut(columns - rows + (first + row) % rows + 1);
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
pub fn backward(probabilities: &[f32], gradient: &mut [f32], columns: usize, scale: f32) {
    let count = rows_per_task(columns);
    (probabilities.par_chunks(count * columns), gradient.par_chunks_mut(count * columns))
        .into_par_iter()
        .for_each(|(p, g)| backward_rows(p, g, columns, scale));
}

wide! {
    fn backward_rows(probabilities: &[f32], gradient: &mut [f32], columns: usize, scale: f32) {
        for (p, g) in probabilities.chunks_exact(columns).zip(gradient.chunks_exact_mut(columns)) {
            let mean = vector::dot(p, g);
            for i in 0..columns {
                g[i] = scale * p[i] * (g[i] - mean);
            }
        }
    }
}
