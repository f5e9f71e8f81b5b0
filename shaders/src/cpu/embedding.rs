//! Embedding lookup and its gradient, a scatter-add.

use rayon::prelude::*;

/// Copies row `tokens[i]` of `table` to row `i` of `y`.
pub fn forward(table: &[f32], width: usize, tokens: &[u32], y: &mut [f32]) {
    if width == 0 {
        return;
    }
    for (token, y) in tokens.iter().zip(y.chunks_exact_mut(width)) {
        let at = *token as usize * width;
        y.copy_from_slice(&table[at..at + width]);
    }
}

/// Adds row `i` of `dy` to row `tokens[i]` of `dtable`, in the order of `i` for every row.
pub fn backward(dy: &[f32], width: usize, tokens: &[u32], dtable: &mut [f32]) {
    if width == 0 {
        return;
    }
    // Each task owns a span of the table's rows and walks all tokens: no two write the same row.
    let rows = dtable.len() / width;
    let span = rows.div_ceil(rayon::current_num_threads()).max(1);
    dtable.par_chunks_mut(span * width).enumerate().for_each(|(task, dtable)| {
        let first = task * span;
        for (token, dy) in tokens.iter().zip(dy.chunks_exact(width)) {
            let Some(row) = (*token as usize).checked_sub(first).filter(|row| row * width < dtable.len()) else {
                continue;
            };
            dtable[row * width..][..width].iter_mut().zip(dy).for_each(|(sum, x)| *sum += x);
        }
    });
}
