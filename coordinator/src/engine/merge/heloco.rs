//! HeLoCo's correction: a tensor of a delta that goes against the momentum, or hardly along it, is turned towards it
//! before it is averaged (Al Asif et al., arXiv 2606.00271).
//!
//! With c = cos(Δ, m) and conf = ‖Δ‖ / (‖Δ‖ + κ‖m‖):
//! - c ≥ c_ok: Δ stays;
//! - c < 0: Δ − β·c·‖Δ‖·m/‖m‖ with β = min(k_s·(−c)·conf, β_max): the opposing part shrinks;
//! - else: the direction (1 − λ)·Δ/‖Δ‖ + λ·m/‖m‖ at Δ's length, with λ = k_d·(c_ok − c)·conf.
//!
//! The form is the paper's, read second-hand; its λ and constants were not to be had, so they are ours: all are 1 but
//! c_ok, and λ ends at 0 where c reaches c_ok.

use super::buffer::LENGTH_MIN;

/// c_ok: a tensor at least so well aligned is left alone.
const COS_OK: f64 = 0.2;
/// k_s.
const SHRINK: f64 = 1.0;
/// β_max.
const SHRINK_MAX: f64 = 1.0;
/// k_d.
const TURN: f64 = 1.0;
/// κ.
const KAPPA: f64 = 1.0;
/// Beside a delta so many times as long, a momentum has no say.
const SHARE_MIN: f64 = 1e-6;
/// A run whose rule has no momentum keeps one for the correction, that fades so at every version.
pub const FADE: f32 = 0.9;

/// A corrected tensor as a sum: `of_delta`·Δ + `of_momentum`·m.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// How much of Δ.
    pub of_delta: f64,
    /// How much of m.
    pub of_momentum: f64,
}

impl Correction {
    /// Δ as it is.
    pub const NONE: Correction = Correction { of_delta: 1.0, of_momentum: 0.0 };
}

/// The correction of one tensor, given ‖Δ‖, ‖m‖ and Δ·m.
pub fn correct(delta: f64, momentum: f64, dot: f64) -> Correction {
    if delta < LENGTH_MIN || momentum < LENGTH_MIN || momentum < SHARE_MIN * delta {
        return Correction::NONE;
    }
    let cos = (dot / (delta * momentum)).clamp(-1.0, 1.0);
    let confidence = delta / (delta + KAPPA * momentum);
    if cos >= COS_OK {
        Correction::NONE
    } else if cos < 0.0 {
        let shrink = (SHRINK * -cos * confidence).min(SHRINK_MAX);
        Correction { of_delta: 1.0, of_momentum: -shrink * cos * delta / momentum }
    } else {
        let turn = (TURN * (COS_OK - cos) * confidence).min(1.0);
        let stay = 1.0 - turn;
        let length = (stay * stay + turn * turn + 2.0 * stay * turn * cos).sqrt();
        Correction { of_delta: stay / length, of_momentum: turn * delta / (momentum * length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrected(delta: [f64; 2], m: [f64; 2]) -> [f64; 2] {
        let norm = |v: [f64; 2]| (v[0] * v[0] + v[1] * v[1]).sqrt();
        let Correction { of_delta, of_momentum } = correct(norm(delta), norm(m), delta[0] * m[0] + delta[1] * m[1]);
        [0, 1].map(|i| of_delta * delta[i] + of_momentum * m[i])
    }

    #[test]
    fn what_is_aligned_stays() {
        assert_eq!(corrected([3.0, 4.0], [1.0, 0.0]), [3.0, 4.0]);
        assert_eq!(corrected([3.0, 4.0], [0.0, 0.0]), [3.0, 4.0], "no momentum yet");
        assert_eq!(corrected([0.0, 0.0], [1.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn what_opposes_shrinks() {
        // cos = −0.6, conf = 5/(5 + 5) = 0.5, β = 0.3: 0.3 of the −3 along m is taken away.
        let [along, across] = corrected([-3.0, 4.0], [5.0, 0.0]);
        assert!((along + 2.1).abs() < 1e-12 && across == 4.0, "{along} {across}");
    }

    #[test]
    fn what_is_hardly_aligned_turns_and_keeps_its_length() {
        // cos = 0, conf = 1/(1 + 1), λ = 0.2 · 0.5 = 0.1: the direction (0.1, 0.9), at length 1.
        let [along, across] = corrected([0.0, 1.0], [1.0, 0.0]);
        let length = 0.82f64.sqrt();
        assert!((along - 0.1 / length).abs() < 1e-12 && (across - 0.9 / length).abs() < 1e-12, "{along} {across}");
    }
}
