//! Text from a model: one token at a time, drawn at a temperature from the k most likely.

use crate::model::{Model, ModelError};
use nightjar_shared::rng;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f64,
    /// Draws from this many most likely tokens; 0 is all.
    pub top_k: usize,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: 40, seed: 0 }
    }
}

/// Continues `prompt` by up to `count` tokens and hands each to `each` as soon as it is drawn. It stops before a token
/// of
/// `ends`, and when `each` says false. The model sees at most its context; an empty prompt starts behind the end of
/// another text, or else from token 0.
pub fn generate<E: From<ModelError>>(
    model: &Model,
    prompt: &[u32],
    count: usize,
    sampling: &Sampling,
    ends: &[u32],
    mut each: impl FnMut(u32) -> Result<bool, E>,
) -> Result<(), E> {
    let longest = model.spec().max_position_embeddings as usize;
    let vocabulary = model.spec().vocab_size;
    let start = ends.iter().copied().find(|end| *end < vocabulary).unwrap_or(0);
    let mut tokens = if prompt.is_empty() { vec![start] } else { prompt.to_vec() };
    for i in 0..count {
        let window = &tokens[tokens.len().saturating_sub(longest)..];
        let token = draw(&model.next_logits(window)?, sampling, i as u64);
        if ends.contains(&token) || !each(token)? {
            break;
        }
        tokens.push(token);
    }
    Ok(())
}

/// Token number `i`, drawn from its logits.
fn draw(logits: &[f32], sampling: &Sampling, i: u64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    if sampling.temperature.is_nan() || sampling.temperature <= 0.0 {
        return order[0] as u32;
    }
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let largest = f64::from(logits[order[0]]);
    let weights: Vec<f64> =
        order.iter().map(|t| ((f64::from(logits[*t]) - largest) / sampling.temperature).exp()).collect();
    let mut left = rng::unit(sampling.seed, rng::stream::SAMPLE, i) * weights.iter().sum::<f64>();
    for (token, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return *token as u32;
        }
    }
    order[0] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities_of_the_k_most_likely() {
        let logits = [0.0, 1.0f32, 2.0, -1.0].map(|x| x * std::f32::consts::LN_2);
        let sampling = Sampling { temperature: 1.0, top_k: 3, seed: 7 };
        let mut counts = [0; 4];
        (0..7000).for_each(|i| counts[draw(&logits, &sampling, i) as usize] += 1);
        for (count, want) in counts.iter().zip([1000, 2000, 4000, 0]) {
            assert!(i32::abs(count - want) < 150, "{counts:?}");
        }
        assert_eq!(draw(&logits, &Sampling { temperature: 0.0, ..sampling }, 0), 2);
        assert_eq!(draw(&logits, &Sampling { top_k: 1, ..sampling }, 5), 2);
    }
}
