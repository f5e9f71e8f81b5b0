//! The merge's arithmetic: a buffer of a quorum of deltas (FedBuff, Nguyen et al., arXiv 2106.06639), each weighted by
//! its tokens (PAPAYA, Huba et al., arXiv 2111.04877) and its staleness, then SGD with Nesterov momentum as DiLoCo has it
//! (Douillard et al., arXiv 2311.08105).

use nightjar_shared::run_spec::MergeSpec;

/// What a delta's values are multiplied by in the buffer: tokens · s(τ).
pub fn share(tokens: u64, staleness_weight: f64) -> f32 {
    (tokens as f64 * staleness_weight) as f32
}

/// Adds a run of a delta's values to the buffer.
pub fn accumulate(buffer: &mut [f32], share: f32, values: &[f32]) {
    for (sum, v) in buffer.iter_mut().zip(values) {
        *sum += share * v;
    }
}

/// The outer step. `buffer` is Σ tokensᵢ·s(τᵢ)·Δᵢ; what is left of it is of no use afterwards. It adds the change of the
/// weights, −η(Δ + μm) with Δ = buffer / Σ tokensᵢ and m ← μm + Δ, to `change`.
///
/// The denominator leaves staleness out: stale deltas make a smaller step, not the same step by others' votes.
pub fn outer_step(spec: &MergeSpec, buffer: &mut [f32], tokens: u64, momentum: &mut [f32], change: &mut [f32]) {
    let (rate, mu) = (spec.learning_rate as f32, spec.momentum as f32);
    let tokens = tokens.max(1) as f32;
    for delta in buffer.iter_mut() {
        *delta /= tokens;
    }
    // Without momentum the vector is empty, and Δ is the whole step.
    for (m, delta) in momentum.iter_mut().zip(buffer.iter_mut()) {
        *m = mu * *m + *delta;
        *delta += mu * *m;
    }
    for (change, step) in change.iter_mut().zip(buffer) {
        *change -= rate * *step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(learning_rate: f64, momentum: f64) -> MergeSpec {
        MergeSpec { learning_rate, momentum, ..MergeSpec::default() }
    }

    #[test]
    fn tokens_decide_each_deltas_share() {
        // 300 tokens say 1, 100 tokens say 5: (300·1 + 100·5) / 400 = 2.
        let mut buffer = [0.0];
        accumulate(&mut buffer, share(300, 1.0), &[1.0]);
        accumulate(&mut buffer, share(100, 1.0), &[5.0]);
        let mut change = [10.0];
        outer_step(&spec(1.0, 0.0), &mut buffer, 400, &mut [], &mut change);
        assert_eq!(change, [8.0]);
    }

    #[test]
    fn a_stale_delta_makes_a_smaller_step() {
        // Three versions stale: (1 + 3)^-0.5 = 0.5. (100·1 + 100·0.5·1) / 200 = 0.75.
        let weight = MergeSpec::default().staleness.weight(3);
        let mut buffer = [0.0];
        accumulate(&mut buffer, share(100, 1.0), &[1.0]);
        accumulate(&mut buffer, share(100, weight), &[1.0]);
        let mut change = [0.0];
        outer_step(&spec(1.0, 0.0), &mut buffer, 200, &mut [], &mut change);
        assert_eq!(change, [-0.75]);
    }

    #[test]
    fn nesterov_momentum_by_hand() {
        // μ = 0.5, η = 0.5, Δ = 1 twice. Step 1: m = 1, step = 1 + 0.5 = 1.5. Step 2: m = 1.5, step = 1 + 0.75 = 1.75.
        let (mut momentum, mut change) = ([0.0], [0.0]);
        outer_step(&spec(0.5, 0.5), &mut [10.0], 10, &mut momentum, &mut change);
        assert_eq!((momentum, change), ([1.0], [-0.75]));
        outer_step(&spec(0.5, 0.5), &mut [10.0], 10, &mut momentum, &mut change);
        assert_eq!((momentum, change), ([1.5], [-1.625]));
    }
}
