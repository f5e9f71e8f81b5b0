//! 2-bit blocks: for each block of 256 values a bf16 scale s, then two bits a value, four to a byte: −3s, −s, s or 3s.
//! Byte i of a block of n values holds values i, i + ⌈n/4⌉, i + 2⌈n/4⌉ and i + 3⌈n/4⌉, lowest bits first.
//!
//! For a Gaussian these evenly spaced levels are within 1 % of the best four there are (Lloyd and Max; J. Max,
//! "Quantizing for minimum distortion", IRE Trans. Inf. Theory 1960: mean squared error 0.1188 against 0.1175 of the
//! variance).

use super::{
    DeltaError,
    dense::{self, Block},
};
use crate::bytes::Reader;

/// 2.0625 bits a parameter.
pub(super) enum Blocks2 {}

/// The code of a value: −3, −1, 1, 3 are 0 to 3. Leaves what rounding lost.
#[inline(always)]
fn quantise(v: &mut f32, scale: f32) -> u32 {
    let (is_large, is_negative) = (v.abs() >= 2.0 * scale, v.to_bits() >> 31);
    let sent = if is_large { 3.0 * scale } else { scale };
    *v -= sent.copysign(*v);
    (2 | u32::from(is_large)) ^ (3 * is_negative)
}

/// The scale and the codes of a block of so many values.
#[inline(always)]
fn open(bytes: &[u8], values: usize) -> Result<(f32, &[u8]), DeltaError> {
    let mut r = Reader::new(bytes);
    let scale = dense::check_scale(dense::scale_from_bf16(u16::from_le_bytes(r.array()?)))?;
    let codes = r.take(r.remaining())?;
    // With fewer than four values to a byte, the spare places are the last quarter's last ones, and so on backwards.
    for place in values..4 * codes.len() {
        let (quarter, byte) = (place / codes.len(), place % codes.len());
        if codes[byte] >> (2 * quarter) & 3 != 0 {
            return Err(DeltaError::Damaged);
        }
    }
    Ok((scale, codes))
}

impl Block for Blocks2 {
    #[inline(always)]
    fn bytes(values: usize) -> usize {
        2 + values.div_ceil(4)
    }

    #[inline(always)]
    fn encode(values: &mut [f32], out: &mut [u8]) {
        // A Gaussian's best threshold is 0.996 root mean squares. With the codes that it gives, least squares has the
        // scale: Σ|v||q| / Σq², |q| being 1 or 3.
        let n = values.len() as f32;
        let threshold = (dense::sum(values, |v| v * v) / n).sqrt();
        let is_large = |v: f32| v.abs() >= threshold;
        let weighted = dense::sum(values, |v| if is_large(v) { 3.0 * v.abs() } else { v.abs() });
        let large = values.iter().map(|v| u32::from(is_large(*v))).sum::<u32>() as f32;
        let bits = dense::scale_to_bf16(weighted / (n + 8.0 * large));
        let scale = dense::scale_from_bf16(bits);
        let (head, codes) = out.split_at_mut(2);
        head.copy_from_slice(&bits.to_le_bytes());
        let mut quarters = values.chunks_mut(codes.len());
        if let [Some(a), Some(b), Some(c), Some(d)] = std::array::from_fn(|_| quarters.next())
            && d.len() == codes.len()
        {
            // A byte at a time.
            for ((((code, a), b), c), d) in codes.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let [a, b, c, d] = [a, b, c, d].map(|v| quantise(v, scale));
                *code = (a | b << 2 | c << 4 | d << 6) as u8;
            }
            return;
        }
        for (quarter, shift) in values.chunks_mut(codes.len()).zip([0, 2, 4, 6]) {
            for (v, code) in quarter.iter_mut().zip(codes.iter_mut()) {
                *code |= (quantise(v, scale) << shift) as u8;
            }
        }
    }

    #[inline(always)]
    fn visit(bytes: &[u8], into: &mut [f32], put: impl Fn(&mut f32, f32)) -> Result<(), DeltaError> {
        let (scale, codes) = open(bytes, into.len())?;
        for (quarter, shift) in into.chunks_mut(codes.len()).zip([0u32, 2, 4, 6]) {
            for (place, code) in quarter.iter_mut().zip(codes) {
                let q = 2 * i32::from(code >> shift & 3) - 3;
                put(place, q as f32 * scale);
            }
        }
        Ok(())
    }

    /// By the codes: a bf16 times one of them is exact, so nothing differs but the order of the sum.
    #[inline(always)]
    fn measure(bytes: &[u8], room: &mut [f32]) -> Result<(f64, f32), DeltaError> {
        let (scale, codes) = open(bytes, room.len())?;
        // Two equal bits are ±3; spare places look so too.
        let pairs = codes.iter().map(|code| (!(code ^ code >> 1) & 0b0101_0101).count_ones()).sum::<u32>();
        let (n, large) = (room.len() as u32, pairs - (4 * codes.len() - room.len()) as u32);
        let most = if large > 0 { 3.0 * scale } else { scale };
        Ok((f64::from(n + 8 * large) * f64::from(scale) * f64::from(scale), most))
    }
}
