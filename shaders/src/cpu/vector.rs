//! Sums, maxima and exponentials that the compiler turns into vector instructions.

const LANES: usize = 16;

#[inline(always)]
fn fold<const N: usize>(
    rows: [&[f32]; N],
    start: f32,
    each: impl Fn(f32, [f32; N]) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let n = rows[0].len();
    let rows = rows.map(|r| &r[..n]);
    let mut lanes = [start; LANES];
    let whole = n - n % LANES;
    let mut i = 0;
    while i < whole {
        let chunk = rows.map(|r| &r[i..i + LANES]);
        for l in 0..LANES {
            lanes[l] = each(lanes[l], chunk.map(|c| c[l]));
        }
        i += LANES;
    }
    for l in 0..n - whole {
        lanes[l] = each(lanes[l], rows.map(|r| r[whole + l]));
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = join(lanes[l], lanes[l + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of a row.
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    fold([a], 0.0, |s, [x]| s + x, |x, y| x + y)
}

/// Sum of products of two rows.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold([a, b], 0.0, |s, [x, y]| s + x * y, |x, y| x + y)
}

/// Sum of products of three rows.
#[inline(always)]
pub fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    fold([a, b, c], 0.0, |s, [x, y, z]| s + x * y * z, |x, y| x + y)
}

/// Largest element; minus infinity for an empty row.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let larger = |x: f32, y: f32| if y > x { y } else { x };
    fold([a], f32::NEG_INFINITY, |s, [x]| larger(s, x), larger)
}

/// `e^x` within two units in the last place for finite `x` up to 88; 0 below -87, `e^88` above. NaN stays NaN.
///
/// Cephes' `expf`: `x = n·ln 2 + r`, a polynomial for `e^r`, `2^n` by the exponent's bits. The standard library's is a
/// call that no loop can be vectorised around.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    // Adding 1.5·2²³ rounds to an integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * (r * r) + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127).wrapping_shl(23));
    let y = e * scale;
    if x < -87.0 { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -86.9 + 174.8 * (i as f32 / 2_000_000.0);
            let want = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - want) / want).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(500.0).is_finite());
    }

    #[test]
    fn folds_cover_odd_lengths() {
        for n in [1, 15, 16, 17, 33] {
            let a: Vec<f32> = (1..=n).map(|x| x as f32).collect();
            assert_eq!(sum(&a), (n * (n + 1) / 2) as f32);
            assert_eq!(max(&a), n as f32);
            assert_eq!(dot(&a, &a), (n * (n + 1) * (2 * n + 1) / 6) as f32);
            assert_eq!(dot3(&a, &a, &vec![1.0; n]), dot(&a, &a));
        }
    }
}
