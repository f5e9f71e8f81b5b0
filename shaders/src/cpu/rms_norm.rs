//! RMSNorm: `y = gain · x / √(mean(x²) + ε)`, and its gradient.

use super::{rows_per_task, vector, wide};
use rayon::prelude::*;

/// Writes `y` and, for the gradient, each row's `1/√(mean(x²) + ε)`.
pub fn forward(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32]) {
    let rows = rows_per_task(gain.len());
    let at_once = (rows * gain.len()).max(1);
    (x.par_chunks(at_once), y.par_chunks_mut(at_once), inverse.par_chunks_mut(rows))
        .into_par_iter()
        .for_each(|(x, y, inverse)| forward_rows(x, gain, eps, y, inverse));
}

wide! {
    fn forward_rows(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32]) {
        let d = gain.len();
        for ((x, y), inverse) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inverse) {
            let r = 1.0 / (vector::dot(x, x) / d as f32 + eps).sqrt();
            *inverse = r;
            for i in 0..d {
                y[i] = x[i] * r * gain[i];
            }
        }
    }
}

/// Adds the gradient in `x` to `dx` (which holds what flows past the norm), replaces `dy` by `y`, and returns the
/// gradient in
/// `gain`.
///
/// With `h = x·r`: `dx = r·(g·dy − h·mean(g·dy·h))`, `dgain = Σ_rows dy·h`.
pub fn backward(dy: &mut [f32], x: &[f32], gain: &[f32], inverse: &[f32], dx: &mut [f32]) -> Vec<f32> {
    let (d, rows) = (gain.len(), rows_per_task(gain.len()));
    let at_once = (rows * d).max(1);
    // One partial sum a task, added in order: the same result whatever the number of threads.
    let parts: Vec<Vec<f32>> =
        (dy.par_chunks_mut(at_once), x.par_chunks(at_once), inverse.par_chunks(rows), dx.par_chunks_mut(at_once))
            .into_par_iter()
            .map(|(dy, x, inverse, dx)| {
                let mut dgain = vec![0.0; d];
                backward_rows(dy, x, gain, inverse, dx, &mut dgain);
                dgain
            })
            .collect();
    let mut dgain = vec![0.0; d];
    for part in parts {
        dgain.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    dgain
}

wide! {
    fn backward_rows(dy: &mut [f32], x: &[f32], gain: &[f32], inverse: &[f32], dx: &mut [f32], dgain: &mut [f32]) {
        let d = gain.len();
        let dgain = &mut dgain[..d];
        for (((dy, x), r), dx) in dy.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse).zip(dx.chunks_exact_mut(d)) {
            let along = vector::dot3(dy, x, gain) * r * r * r / d as f32;
            for i in 0..d {
                dx[i] += dy[i] * gain[i] * r - x[i] * along;
                dgain[i] += dy[i] * x[i] * r;
                dy[i] = x[i] * r * gain[i];
            }
        }
    }
}
