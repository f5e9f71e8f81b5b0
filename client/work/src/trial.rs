//! A trial with a known answer: two steps of a tiny model, whose losses and norms the native trainer gave. It holds every
//! description of the passes to one: heads that share keys, a head of its own, a batch in two micro-batches, a context
//! of more than a tile.

use crate::batches::Batch;
use nightjar_shared::{model_spec::ModelSpec, rng};

/// The model.
pub fn spec() -> ModelSpec {
    ModelSpec {
        vocab_size: 67,
        hidden_size: 64,
        intermediate_size: 88,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 72,
        tie_word_embeddings: false,
        ..ModelSpec::tiny()
    }
}

/// Its weights, large enough that everything has a part in the loss.
pub fn weights() -> Vec<f32> {
    spec().tensors().iter().flat_map(|t| spec().draw(t, SEED)).map(|x| if x == 1.0 { x } else { 4.0 * x }).collect()
}

/// Samples of the batch, and how many of them go through at once.
pub const SAMPLES: usize = 3;
/// The rest is another size.
pub const AT_ONCE: usize = 2;
/// The learning rate.
pub const RATE: f64 = 3e-3;
const SEED: u64 = 20;

/// The batch, the same for both steps.
pub fn batch() -> Batch {
    let spec = spec();
    let context = spec.max_position_embeddings as usize;
    let token = |i| rng::below(SEED, 1, i, u64::from(spec.vocab_size)) as u32;
    Batch::new((0..(SAMPLES * (context + 1)) as u64).map(token).collect(), context).unwrap_or_else(|e| panic!("{e}"))
}

/// Loss and gradient norm of each step.
pub const ANSWER: [[f64; 2]; 2] = [[4.423134, 2.111551], [3.858144, 2.305917]];
/// How far off each may be, as a share of it.
pub const TOLERANCE: f64 = 1e-4;

/// What is wrong with an answer; `None` if nothing is.
pub fn mistake(steps: &[[f64; 2]]) -> Option<String> {
    let is_off = |(got, want): (&f64, &f64)| {
        let off = (got / want - 1.0).abs();
        off.is_nan() || off > TOLERANCE
    };
    let wrong = steps.len() != ANSWER.len() || steps.iter().flatten().zip(ANSWER.as_flattened()).any(is_off);
    wrong.then(|| format!("losses and norms of the trial are {steps:?} instead of {ANSWER:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_off_or_none_is_a_mistake() {
        let [first, second] = ANSWER;
        assert_eq!(mistake(&ANSWER), None);
        assert_eq!(mistake(&[[first[0] * 1.00005, first[1]], second]), None);
        for wrong in [vec![], vec![first], vec![first, [second[0] * 1.001, second[1]]], vec![[f64::NAN; 2], second]] {
            assert!(mistake(&wrong).is_some(), "{wrong:?}");
        }
    }
}
