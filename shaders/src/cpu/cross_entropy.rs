//! Softmax cross-entropy over the vocabulary, and the gradient in the logits, in one pass.

use super::{rows_per_task, vector, wide};
use rayon::prelude::*;

/// Writes each row's loss in nats, and, if `scale` is given, replaces the logits by `scale · d(loss)/d(logits)`.
pub fn forward(logits: &mut [f32], targets: &[u32], scale: Option<f32>, nats: &mut [f32]) {
    let Some(vocabulary) = logits.len().checked_div(targets.len()) else { return };
    let rows = rows_per_task(vocabulary);
    (logits.par_chunks_mut(rows * vocabulary), targets.par_chunks(rows), nats.par_chunks_mut(rows))
        .into_par_iter()
        .for_each(|(logits, targets, nats)| forward_rows(logits, targets, scale, nats));
}

wide! {
    fn forward_rows(logits: &mut [f32], targets: &[u32], scale: Option<f32>, nats: &mut [f32]) {
        let vocabulary = logits.len() / targets.len();
        for ((logits, target), nats) in logits.chunks_exact_mut(vocabulary).zip(targets).zip(nats) {
            let target = *target as usize;
            let largest = vector::max(logits);
            let at_target = logits[target] - largest;
            for x in logits.iter_mut() {
                *x = vector::exp(*x - largest);
            }
            let total = vector::sum(logits);
            *nats = total.ln() - at_target;
            if let Some(scale) = scale {
                let factor = scale / total;
                for x in logits.iter_mut() {
                    *x *= factor;
                }
                logits[target] -= scale;
            }
        }
    }
}
