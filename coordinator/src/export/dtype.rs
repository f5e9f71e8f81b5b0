//! The numbers that weights are written as.

use clap::ValueEnum;

/// A type of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits: what was trained, bit for bit
    #[default]
    F32,
    /// 16 bits with the range of 32: half the size, and what most models are published as
    Bf16,
    /// 16 bits of IEEE 754: finer than bf16, up to 65504
    F16,
}

/// The first number that f16 has no place for: it would be rounded to infinity.
const F16_LIMIT: f32 = 65_520.0;

impl Dtype {
    /// As config.json and safetensors' readers call it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// A value that it has no place for, if there is one.
    pub fn too_large(self, values: &[f32]) -> Option<f32> {
        let has_place = |value: f32| match self {
            Dtype::F32 => true,
            Dtype::Bf16 => bf16(value) & 0x7FFF < 0x7F80,
            Dtype::F16 => value.abs() < F16_LIMIT,
        };
        values.iter().copied().find(|value| !has_place(*value))
    }

    /// Appends finite values, each rounded to the nearest, ties to even; little-endian.
    pub fn write(self, values: &[f32], out: &mut Vec<u8>) {
        out.reserve(values.len() * self.bytes());
        match self {
            Dtype::F32 => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
            Dtype::Bf16 => values.iter().for_each(|value| out.extend(bf16(*value).to_le_bytes())),
            Dtype::F16 => values.iter().for_each(|value| out.extend(f16(*value).to_le_bytes())),
        }
    }
}

fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

fn f16(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16 & 0x8000) as u16;
    let size = value.to_bits() & 0x7FFF_FFFF;
    let rounded = if size >= F16_LIMIT.to_bits() {
        0x7C00
    } else if size < 0x3880_0000 {
        // Below 2^-14 they are whole numbers of 2^-24, which f32 rounds to exactly.
        (f32::from_bits(size) * 16_777_216.0).round_ties_even() as u16
    } else {
        // The exponent's bias is 112 less, and 13 bits of the fraction go.
        let moved = size - (112 << 23);
        (moved.wrapping_add(0xFFF + (moved >> 13 & 1)) >> 13) as u16
    };
    sign | rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IEEE 754 half precision by its definition.
    fn widened(half: u16) -> f64 {
        let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 1023));
        let size = match exponent {
            0 => fraction * 2f64.powi(-24),
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        if half >> 15 == 1 { -size } else { size }
    }

    #[test]
    fn every_half_comes_back_and_between_two_the_nearest_is_taken() {
        for half in (0..0x7C00u16).chain(0x8000..0xFC00) {
            assert_eq!(f16(widened(half) as f32), half, "{half:#x}");
        }
        for half in 0..0x7BFFu16 {
            let (below, above) = (widened(half), widened(half + 1));
            let middle = ((below + above) / 2.0) as f32;
            let even = if half.is_multiple_of(2) { half } else { half + 1 };
            assert_eq!(f16(middle), even, "{half:#x}");
            assert_eq!(f16(f32::from_bits(middle.to_bits() + 1)), half + 1);
            assert_eq!(f16(f32::from_bits(middle.to_bits() - 1)), half);
        }
    }

    #[test]
    fn bf16_rounds_to_the_nearest_and_ties_to_even() {
        let cases = [
            (0x3F80_0000, 0x3F80),
            (0x3F80_8000, 0x3F80),
            (0x3F80_8001, 0x3F81),
            (0x3F81_8000, 0x3F82),
            (0xBF80_FFFF, 0xBF81),
            (0x0000_0000, 0x0000),
        ];
        for (wide, narrow) in cases {
            assert_eq!(bf16(f32::from_bits(wide)), narrow, "{wide:#x}");
        }
    }

    #[test]
    fn what_has_no_place_is_found() {
        let values = [1.0, -65_519.0, 65_521.0];
        assert_eq!(Dtype::ALL.map(|dtype| dtype.too_large(&values)), [None, None, Some(65_521.0)]);
        assert_eq!(Dtype::Bf16.too_large(&[f32::MAX]), Some(f32::MAX));
        let mut out = vec![];
        Dtype::Bf16.write(&[1.0, -2.0], &mut out);
        assert_eq!(out, [0x80, 0x3F, 0x00, 0xC0]);
    }

    impl Dtype {
        const ALL: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];
    }
}
