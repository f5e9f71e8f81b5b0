//! Centred clipping (Karimireddy, He and Jaggi, arXiv 2012.10333): what is far from where the run was heading is drawn
//! towards it, v + (Δ − v)·min(1, τ/‖Δ − v‖), before it is averaged. So no delta moves the average by more than τ over
//! their number, whatever it says.
//!
//! The centre v is the momentum as an average, a version's usual step; one iteration a version, as in the paper. It is
//! done tensor by tensor, and τ comes from the version itself: the median of ‖Δ − v‖, each to the root of its tokens,
//! since longer leases lead further.

use super::{super::heloco::Correction, FEWEST, middle};

/// τ of deltas of so many tokens each, given their distances; infinite of few.
pub fn radii(distances: &[f64], tokens: &[u64]) -> Vec<f64> {
    if distances.len() < FEWEST {
        return vec![f64::INFINITY; distances.len()];
    }
    let root = |tokens: &u64| (*tokens.max(&1) as f64).sqrt();
    let each = distances.iter().zip(tokens).map(|(distance, tokens)| distance / root(tokens));
    let usual = middle(each).unwrap_or(f64::INFINITY);
    tokens.iter().map(|tokens| usual * root(tokens)).collect()
}

/// What becomes of a tensor at this distance from the centre c·m.
pub fn clip(distance: f64, radius: f64, centre: f64) -> Correction {
    if distance <= radius {
        return Correction::NONE;
    }
    let stays = radius / distance;
    Correction { of_delta: stays, of_momentum: (1.0 - stays) * centre }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_ends_at_the_radius_from_the_centre() {
        // Δ = (−3, 4), m = (10, 0), of which a tenth is the centre (1, 0): √(16 + 16) away.
        let Correction { of_delta, of_momentum } = clip(32f64.sqrt(), 32f64.sqrt() / 4.0, 0.1);
        // A quarter of the way from (1, 0) to (−3, 4): (0, 1).
        let end = [of_delta * -3.0 + of_momentum * 10.0, of_delta * 4.0];
        assert!(end[0].abs() < 1e-12 && (end[1] - 1.0).abs() < 1e-12, "{end:?}");
        assert_eq!(clip(1.0, 1.0, 0.1), Correction::NONE);
    }

    #[test]
    fn longer_leases_may_lead_further_and_few_are_left_alone() {
        // To the root of their tokens: 1, 2, 1 and 8; the lower middle is 1.
        assert_eq!(radii(&[1.0, 4.0, 3.0, 8.0], &[1, 4, 9, 1]), [1.0, 2.0, 3.0, 1.0]);
        assert_eq!(radii(&[1.0, 1.0, 9.0], &[1, 1, 1]), [f64::INFINITY; 3]);
    }
}
