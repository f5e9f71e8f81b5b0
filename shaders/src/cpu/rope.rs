//! Rotary embedding in place, in packed rows `[queries | keys | values]` (rotate-half: the pairs are `i` and `i +
//! size/2`).

use super::{heads::Heads, wide};
use rayon::prelude::*;

/// Rotates the heads of queries and keys of each row by `cos`, `sin` (`[context, size/2]`); `direction` −1 turns back,
/// which is also the gradient.
pub fn rotate(packed: &mut [f32], shape: Heads, cos: &[f32], sin: &[f32], direction: f32) {
    packed
        .par_chunks_mut((shape.context * shape.packed_width()).max(1))
        .for_each(|sequence| rotate_sequence(sequence, shape, cos, sin, direction));
}

wide! {
    fn rotate_sequence(sequence: &mut [f32], shape: Heads, cos: &[f32], sin: &[f32], direction: f32) {
        let half = shape.size / 2;
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (row, (cos, sin)) in sequence.chunks_exact_mut(shape.packed_width()).zip(angles) {
            for head in row[..(shape.heads + shape.kv) * shape.size].chunks_exact_mut(shape.size) {
                let (a, b) = head.split_at_mut(half);
                for i in 0..half {
                    let s = sin[i] * direction;
                    (a[i], b[i]) = (a[i] * cos[i] - b[i] * s, b[i] * cos[i] + a[i] * s);
                }
            }
        }
    }
}
