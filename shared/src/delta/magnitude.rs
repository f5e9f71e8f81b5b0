//! Magnitudes on a log scale, in 8 bits: code 0 is zero, code c is 2^((c − 231) / 8), so from 2.2e-9 to 8 in steps of 9
//! %. Rounding is to nearest on that scale, at most 4.4 % off; what it loses stays in the residual.

/// 2^(i / 8).
const STEPS: [f32; 8] =
    [1.0, 1.090_507_7, 1.189_207_1, 1.296_839_6, std::f32::consts::SQRT_2, 1.542_210_8, 1.681_792_9, 1.834_008_1];
/// 2^((2i + 1) / 16): half-way from each step to the next.
const BETWEEN: [f32; 8] =
    [1.044_273_8, 1.138_788_6, 1.241_857_8, 1.354_255_5, 1.476_826_2, 1.610_490_3, 1.756_252_2, 1.915_206_6];
/// The code of 1.
const ONE: i32 = 231;

/// The code nearest to `magnitude`. What is below the scale, or no number, is zero; what is above is its end.
pub fn code(magnitude: f32) -> u8 {
    if magnitude.is_nan() || magnitude < f32::MIN_POSITIVE {
        return 0;
    }
    let bits = magnitude.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x7f_ffff | 0x3f80_0000);
    let steps = BETWEEN.iter().filter(|b| **b <= mantissa).count() as i32;
    (8 * exponent + steps + ONE).clamp(0, 255) as u8
}

/// The magnitude of a code.
pub fn value(code: u8) -> f32 {
    if code == 0 {
        return 0.0;
    }
    let steps = i32::from(code) - ONE;
    let power = f32::from_bits(((steps.div_euclid(8) + 127) as u32) << 23);
    STEPS[steps.rem_euclid(8) as usize] * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_nearest_and_a_power_of_two() {
        for c in 0..=255 {
            assert_eq!(code(value(c)), c);
        }
        for c in 1..=255u8 {
            let want = libm::exp2((f64::from(c) - 231.0) / 8.0);
            assert!((f64::from(value(c)) / want - 1.0).abs() < 1e-7, "{c}");
        }
    }

    #[test]
    fn rounding_is_to_nearest_on_the_log_scale() {
        let mut m = 3e-9f32;
        while m < 8.0 {
            let off = libm::log2(f64::from(value(code(m))) / f64::from(m)).abs();
            assert!(off <= 1.0 / 16.0 + 1e-6, "{m} {off}");
            m *= 1.003;
        }
    }

    #[test]
    fn what_is_outside_the_scale_goes_to_its_ends() {
        assert_eq!([0.0, -1.0, 1e-40, 1e-10, f32::NAN].map(code), [0; 5]);
        assert_eq!([8.0, 1e30, f32::INFINITY].map(code), [255; 3]);
    }
}
