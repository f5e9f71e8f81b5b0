//! Counter-based randomness: any draw is a pure function of (seed, stream, index), so every end, in any language and
//! any order, draws the same value. Splitmix64 (Steele, Lea, Flood, OOPSLA 2014) is the mixing function.
//!
//! A stream is one purpose. [`stream`] keeps their numbers in one place, so that no two purposes share draws.

use std::f64::consts::PI;

/// The purposes that draw from the run's seed. Group number `g` of the model's tensors draws from `TENSOR + g`.
pub mod stream {
    /// Initial weights: one stream a group of tensors, `TENSOR + g`.
    pub const TENSOR: u64 = 1000;
    /// Jitter of retries and reconnections.
    pub const JITTER: u64 = 1 << 32;
    /// What the simulator decides: speeds, losses, kills.
    pub const SIM: u64 = 2 << 32;
    /// Which document goes to which split and shard.
    pub const DATASET: u64 = 3 << 32;
    /// Tokens drawn while sampling from a model.
    pub const SAMPLE: u64 = 4 << 32;
}

/// Splitmix64's output function applied to one counter value.
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Draw number `i` of `stream` under `seed`: uniform over all of `u64`.
pub fn draw(seed: u64, stream: u64, i: u64) -> u64 {
    mix(mix(mix(seed) ^ stream).wrapping_add(i))
}

/// Draw number `i` as a number in `[0, 1)` with 53 random bits.
pub fn unit(seed: u64, stream: u64, i: u64) -> f64 {
    (draw(seed, stream, i) >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal number `i` of a stream (Box–Muller; it uses the uniform draws `2i` and `2i + 1`).
///
/// `libm` rather than the platform's functions: every coordinator must draw bit-identical weights.
pub fn normal(seed: u64, stream: u64, i: u64) -> f64 {
    let u1 = 1.0 - unit(seed, stream, 2 * i);
    let u2 = unit(seed, stream, 2 * i + 1);
    libm::sqrt(-2.0 * libm::log(u1)) * libm::cos(2.0 * PI * u2)
}

/// A number below `n` (`n` > 0), unbiased to within 2⁻⁶⁴·n (Lemire's multiply-shift).
pub fn below(seed: u64, stream: u64, i: u64, n: u64) -> u64 {
    ((u128::from(draw(seed, stream, i)) * u128::from(n)) >> 64) as u64
}

/// Shuffles in place (Fisher–Yates), drawing `items.len()` numbers from the stream, starting at draw 0.
pub fn shuffle<T>(items: &mut [T], seed: u64, stream: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(seed, stream, i as u64, i as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value that the PyTorch reference prints for `rnd(1, 2, 3)`.
    #[test]
    fn matches_the_reference() {
        assert_eq!(draw(1, 2, 3), 7_702_586_659_592_502_839);
    }

    #[test]
    fn shuffle_is_a_permutation_that_depends_on_the_seed() {
        let mut a: Vec<u32> = (0..100).collect();
        let mut b = a.clone();
        shuffle(&mut a, 1, stream::DATASET);
        shuffle(&mut b, 2, stream::DATASET);
        assert_ne!(a, b);
        a.sort_unstable();
        assert_eq!(a, (0..100).collect::<Vec<_>>());
    }
}
