//! Numbers of safetensors as f32.

use safetensors::Dtype;

/// Bytes of a number; `None` for types that are not read.
pub(super) fn width(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Widens to f32, exactly.
pub(super) fn widen(dtype: Dtype, bytes: &[u8], into: &mut [f32]) {
    let pairs = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    match dtype {
        Dtype::F16 => into.iter_mut().zip(pairs).for_each(|(value, half)| *value = f32_of_f16(half)),
        Dtype::BF16 => {
            into.iter_mut().zip(pairs).for_each(|(value, half)| *value = f32::from_bits(u32::from(half) << 16))
        }
        _ => {
            let whole = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
            into.iter_mut().zip(whole).for_each(|(value, whole)| *value = whole);
        }
    }
}

/// IEEE 754 half precision, widened exactly.
fn f32_of_f16(half: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(half >> 15) << 31, u32::from(half >> 10 & 31), u32::from(half & 1023));
    let size = match exponent {
        // 2^-24 is the smallest.
        0 => fraction as f32 * f32::from_bits(0x3380_0000),
        31 => f32::from_bits(0x7F80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(sign | size.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_widened_exactly() {
        let cases = [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0x7BFF, 65504.0),
            (0x8000, -0.0),
            (0x7C00, f32::INFINITY),
        ];
        for (half, whole) in cases {
            assert_eq!(f32_of_f16(half).to_bits(), f32::to_bits(whole), "{half:#x}");
        }
        assert!(f32_of_f16(0x7C01).is_nan() && f32_of_f16(0xFE00).is_nan());
    }
}
