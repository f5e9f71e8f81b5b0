//! SwiGLU: of each row `[gate | up]`, `silu(gate) · up`, and its gradient.

use super::{rows_per_task, vector, wide};
use rayon::prelude::*;

/// `y = gate·σ(gate)·up`; `gate_up` has rows of `2·width`, `y` of `width`.
pub fn forward(gate_up: &[f32], width: usize, y: &mut [f32]) {
    let values = (rows_per_task(width) * width).max(1);
    (gate_up.par_chunks(2 * values), y.par_chunks_mut(values))
        .into_par_iter()
        .for_each(|(gate_up, y)| forward_rows(gate_up, width, y));
}

wide! {
    fn forward_rows(gate_up: &[f32], width: usize, y: &mut [f32]) {
        for (gate_up, y) in gate_up.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
            let (gate, up) = gate_up.split_at(width);
            for i in 0..width {
                y[i] = gate[i] / (1.0 + vector::exp(-gate[i])) * up[i];
            }
        }
    }
}

/// Replaces `gate_up` by its gradient, and what is given of the result's, `dy`, by the result.
pub fn backward(gate_up: &mut [f32], dy: &mut [f32], width: usize) {
    let values = (rows_per_task(width) * width).max(1);
    (gate_up.par_chunks_mut(2 * values), dy.par_chunks_mut(values))
        .into_par_iter()
        .for_each(|(gate_up, dy)| backward_rows(gate_up, dy, width));
}

wide! {
    fn backward_rows(gate_up: &mut [f32], dy: &mut [f32], width: usize) {
        for (gate_up, dy) in gate_up.chunks_exact_mut(2 * width).zip(dy.chunks_exact_mut(width)) {
            let (gate, up) = gate_up.split_at_mut(width);
            for i in 0..width {
                let sigmoid = 1.0 / (1.0 + vector::exp(-gate[i]));
                let silu = gate[i] * sigmoid;
                let y = silu * up[i];
                gate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0 - sigmoid));
                up[i] = dy[i] * silu;
                dy[i] = y;
            }
        }
    }
}
