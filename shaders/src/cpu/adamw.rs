//! One AdamW update of one tensor, in place.

use super::{vector, wide};
use rayon::prelude::*;

const CHUNK: usize = 16_384;

/// The numbers of one update, the same for every tensor of a step except `decay`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// What the gradient is multiplied by first (clipping by global norm).
    pub gradient_scale: f32,
    /// `1 − lr·weight_decay`, or 1 where no decay applies.
    pub decay: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `lr / (1 − beta1^t)`.
    pub step_size: f32,
    /// `1 / (1 − beta2^t)`.
    pub second_correction: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

/// `w ← decay·w − step_size · m / (√(v·second_correction) + ε)`, the moments updated first.
pub fn update(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], u: Update) {
    (w.par_chunks_mut(CHUNK), m.par_chunks_mut(CHUNK), v.par_chunks_mut(CHUNK), g.par_chunks(CHUNK))
        .into_par_iter()
        .for_each(|(w, m, v, g)| update_chunk(w, m, v, g, u));
}

wide! {
    fn update_chunk(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], u: Update) {
        let n = w.len();
        let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
        for i in 0..n {
            let g = g[i] * u.gradient_scale;
            m[i] = m[i] * u.beta1 + g * (1.0 - u.beta1);
            v[i] = v[i] * u.beta2 + g * g * (1.0 - u.beta2);
            w[i] = w[i] * u.decay - u.step_size * m[i] / ((v[i] * u.second_correction).sqrt() + u.epsilon);
        }
    }
}

/// Sum of squares, chunk by chunk in order, the chunks' sums in `f64`.
pub fn sum_of_squares(g: &[f32]) -> f64 {
    let parts: Vec<f32> = g.par_chunks(CHUNK).map(square_chunk).collect();
    parts.into_iter().map(f64::from).sum()
}

wide! {
    fn square_chunk(g: &[f32]) -> f32 {
        vector::dot(g, g)
    }
}
