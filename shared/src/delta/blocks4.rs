//! 4-bit blocks: for each block of 256 values a bf16 scale, then a code of −7 to 7 a value, two to a byte. Byte i of a
//! block of n values holds value i in its low half and value i + ⌈n/2⌉ in its high half, so that both halves are packed
//! in straight lines.

use super::{
    DeltaError,
    dense::{self, Block},
};
use crate::bytes::Reader;

/// 4.0625 bits a parameter.
pub(super) enum Blocks4 {}

/// The largest code.
const MOST: f32 = 7.0;
/// What the largest magnitude is divided by. It rounds to 7 and is then half a step off, no more than any other value
/// may be; dividing by 7 would make every step 7 % wider for nothing.
const REACH: f32 = 7.5;

#[inline(always)]
fn quantise(v: f32, inverse: f32) -> (f32, u8) {
    dense::rounded((v * inverse).clamp(-MOST, MOST))
}

#[inline(always)]
fn low_of(code: u8) -> i8 {
    (code << 4) as i8 >> 4
}

#[inline(always)]
fn high_of(code: u8) -> i8 {
    code as i8 >> 4
}

/// The scale and the codes of a block of so many values.
#[inline(always)]
fn open(bytes: &[u8], values: usize) -> Result<(f32, &[u8]), DeltaError> {
    let mut r = Reader::new(bytes);
    let scale = dense::check_scale(dense::scale_from_bf16(u16::from_le_bytes(r.array()?)))?;
    let codes = r.take(r.remaining())?;
    if values % 2 == 1 && codes.last().is_some_and(|c| c >> 4 != 0) {
        return Err(DeltaError::Damaged);
    }
    Ok((scale, codes))
}

impl Block for Blocks4 {
    #[inline(always)]
    fn bytes(values: usize) -> usize {
        2 + values.div_ceil(2)
    }

    #[inline(always)]
    fn encode(values: &mut [f32], out: &mut [u8]) {
        let bits = dense::scale_to_bf16(dense::largest(values) / REACH);
        let scale = dense::scale_from_bf16(bits);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let (head, codes) = out.split_at_mut(2);
        head.copy_from_slice(&bits.to_le_bytes());
        let (low, high) = values.split_at_mut(values.len().div_ceil(2));
        for (v, code) in low.iter_mut().zip(codes.iter_mut()) {
            let (q, byte) = quantise(*v, inverse);
            *code = byte & 15;
            *v -= q * scale;
        }
        for (v, code) in high.iter_mut().zip(codes) {
            let (q, byte) = quantise(*v, inverse);
            *code |= byte << 4;
            *v -= q * scale;
        }
    }

    #[inline(always)]
    fn visit(bytes: &[u8], into: &mut [f32], put: impl Fn(&mut f32, f32)) -> Result<(), DeltaError> {
        let (scale, codes) = open(bytes, into.len())?;
        let (low, high) = into.split_at_mut(into.len().div_ceil(2));
        for (place, code) in low.iter_mut().zip(codes) {
            put(place, f32::from(low_of(*code)) * scale);
        }
        for (place, code) in high.iter_mut().zip(codes) {
            put(place, f32::from(high_of(*code)) * scale);
        }
        Ok(())
    }

    /// By the codes: a bf16 times one of them is exact, so nothing differs but the order of the sum.
    #[inline(always)]
    fn measure(bytes: &[u8], room: &mut [f32]) -> Result<(f64, f32), DeltaError> {
        let (scale, codes) = open(bytes, room.len())?;
        let (mut squares, mut most) = (0u32, 0u8);
        for code in codes {
            let (low, high) = (i32::from(low_of(*code)), i32::from(high_of(*code)));
            squares += (low * low + high * high) as u32;
            most = most.max(low_of(*code).unsigned_abs()).max(high_of(*code).unsigned_abs());
        }
        Ok((f64::from(squares) * f64::from(scale) * f64::from(scale), f32::from(most) * scale))
    }
}
