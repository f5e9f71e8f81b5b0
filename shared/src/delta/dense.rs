//! What the dense codecs share: a tensor goes block by block of 256 values, every value is sent, and a block's length
//! in bytes follows from the number of its values alone.

use super::{DeltaError, wide::wide};
use crate::{
    bytes::Reader,
    fragment::{self, BLOCK},
    model_spec::TensorSpec,
};
use std::ops::AddAssign;

/// How one block is coded.
pub(super) trait Block {
    /// Bytes of a block of `values` values.
    fn bytes(values: usize) -> usize;

    /// Writes `values` to `out`, and leaves in `values` what rounding lost: value − decoded.
    fn encode(values: &mut [f32], out: &mut [u8]);

    /// Calls `put(place, decoded)` for each place of `into`. Nothing is put if the block is refused.
    fn visit(bytes: &[u8], into: &mut [f32], put: impl Fn(&mut f32, f32)) -> Result<(), DeltaError>;

    /// ‖decoded‖² and the largest magnitude of a block of as many values as `room` has places.
    #[inline(always)]
    fn measure(bytes: &[u8], room: &mut [f32]) -> Result<(f64, f32), DeltaError> {
        Self::visit(bytes, room, |place, v| *place = v)?;
        Ok((sum(room, square), largest(room)))
    }
}

/// Bytes of a whole tensor.
pub(super) fn tensor_bytes<B: Block>(tensor: &TensorSpec) -> usize {
    let (whole, rest) = (tensor.len() / BLOCK, tensor.len() % BLOCK);
    whole * B::bytes(BLOCK) + if rest > 0 { B::bytes(rest) } else { 0 }
}

wide! {
    /// Encodes one tensor of the flat vectors `pseudo_gradient` and `residual`.
    pub(super) fn encode<B: Block>(tensor: &TensorSpec, feedback: f32, pseudo_gradient: &[f32], residual: &mut [f32], out: &mut Vec<u8>) {
        let mut block = [0f32; BLOCK];
        for range in fragment::blocks(tensor) {
            let values = &mut block[..range.len()];
            let residual = &mut residual[range.clone()];
            super::feed(feedback, &pseudo_gradient[range], residual, values);
            let at = out.len();
            out.resize(at + B::bytes(values.len()), 0);
            // A whole block's loops have a length that the compiler knows.
            match values.len() {
                BLOCK => B::encode(&mut values[..BLOCK], &mut out[at..at + B::bytes(BLOCK)]),
                _ => B::encode(values, &mut out[at..]),
            }
            if feedback == 0.0 {
                residual.fill(0.0);
            } else {
                residual.copy_from_slice(values);
            }
        }
    }

    /// `into += share · decoded` for one block.
    fn add_block<B: Block>(bytes: &[u8], share: f32, into: &mut [f32]) -> Result<(), DeltaError> {
        visit::<B>(bytes, into, |sum, v| *sum += share * v)
    }

    /// As [`Block::measure`]; a whole block's loops have a length that the compiler knows.
    fn measure_block<B: Block>(bytes: &[u8], room: &mut [f32]) -> Result<(f64, f32), DeltaError> {
        match room.len() {
            BLOCK => B::measure(&bytes[..B::bytes(BLOCK)], &mut room[..BLOCK]),
            _ => B::measure(bytes, room),
        }
    }

    /// ‖values‖², in an order that is the same on any processor.
    pub fn square_of(values: &[f32]) -> f64 {
        sum(values, square)
    }

    /// Decodes one block.
    fn decode_block<B: Block>(bytes: &[u8], into: &mut [f32]) -> Result<(), DeltaError> {
        visit::<B>(bytes, into, |place, v| *place = v)
    }
}

/// As [`Block::visit`]; a whole block's loops have a length that the compiler knows.
#[inline(always)]
fn visit<B: Block>(bytes: &[u8], into: &mut [f32], put: impl Fn(&mut f32, f32)) -> Result<(), DeltaError> {
    match into.len() {
        BLOCK => B::visit(&bytes[..B::bytes(BLOCK)], &mut into[..BLOCK], put),
        _ => B::visit(bytes, into, put),
    }
}

/// Decodes one tensor, block by block.
pub(super) fn decode<B: Block>(
    tensor: &TensorSpec,
    r: &mut Reader<'_>,
    each: &mut impl FnMut(usize, &[f32]),
) -> Result<(), DeltaError> {
    let mut block = [0f32; BLOCK];
    for range in fragment::blocks(tensor) {
        let values = &mut block[..range.len()];
        decode_block::<B>(r.take(B::bytes(values.len()))?, values)?;
        each(range.start, values);
    }
    Ok(())
}

/// ‖·‖² of one tensor, and its largest magnitude.
pub(super) fn measure<B: Block>(tensor: &TensorSpec, r: &mut Reader<'_>) -> Result<(f64, f32), DeltaError> {
    let mut block = [0f32; BLOCK];
    let (mut square, mut most) = (0.0, 0f32);
    for range in fragment::blocks(tensor) {
        let values = &mut block[..range.len()];
        let (of_block, largest) = measure_block::<B>(r.take(B::bytes(values.len()))?, values)?;
        (square, most) = (square + of_block, most.max(largest));
    }
    Ok((square, most))
}

/// Adds `share` times one tensor to the flat vector `into`.
pub(super) fn add_scaled<B: Block>(
    tensor: &TensorSpec,
    r: &mut Reader<'_>,
    share: f32,
    into: &mut [f32],
) -> Result<(), DeltaError> {
    for range in fragment::blocks(tensor) {
        add_block::<B>(r.take(B::bytes(range.len()))?, share, &mut into[range])?;
    }
    Ok(())
}

/// The largest magnitude's bits, which order as the magnitudes do: integers, because a maximum of floats would have to
/// go one by one. A NaN comes out as a NaN.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    let bits = values.iter().fold(0i32, |m, v| m.max((v.to_bits() & 0x7fff_ffff) as i32));
    f32::from_bits(bits as u32)
}

#[inline(always)]
fn square(v: f32) -> f64 {
    f64::from(v) * f64::from(v)
}

/// Σ f(v), in 16 lanes, so that 4, 8 or 16 values can be done at once.
#[inline(always)]
pub(super) fn sum<T: Copy + Default + AddAssign>(values: &[f32], f: impl Fn(f32) -> T) -> T {
    let mut lanes = [T::default(); 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += f(*v);
    }
    // Pairwise: one after the other, each addition would wait for the last.
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            let upper = lanes[i + half];
            lanes[i] += upper;
        }
    }
    lanes[0]
}

/// Added to a float of less than 2^22, this leaves it rounded to a whole number, ties to even, in the low bits.
const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2^23

/// `x` rounded to nearest, ties to even: as a float, and its lowest byte in two's complement. For |x| < 2^22 only.
/// `round_ties_even` would be a call for each value on processors without SSE4.1.
#[inline(always)]
pub(super) fn rounded(x: f32) -> (f32, u8) {
    let shifted = x + ROUNDER;
    (shifted - ROUNDER, shifted.to_bits() as u8)
}

/// Scales of the small codecs travel as bf16, rounded to nearest, ties to even. What is too small to divide by becomes
/// zero.
pub(super) fn scale_to_bf16(scale: f32) -> u16 {
    if scale < 1e-30 {
        return 0;
    }
    if !scale.is_finite() {
        return 0x7fc0; // refused by whoever decodes it
    }
    let bits = scale.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The scale of a bf16's bits.
#[inline(always)]
pub(super) fn scale_from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// 127 times a scale must be finite too, or a value would not be.
#[inline(always)]
pub(super) fn check_scale(scale: f32) -> Result<f32, DeltaError> {
    if (0.0..=f32::MAX / 128.0).contains(&scale) { Ok(scale) } else { Err(DeltaError::BadScale) }
}
