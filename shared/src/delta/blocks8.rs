//! 8-bit blocks: for each block of 256 values an f32 scale (its largest magnitude / 127), then one signed byte a value,
//! rounded to nearest, ties to even.

use super::{
    DeltaError,
    dense::{self, Block},
};
use crate::bytes::Reader;

/// 8.125 bits a parameter.
pub(super) enum Blocks8 {}

impl Block for Blocks8 {
    #[inline(always)]
    fn bytes(values: usize) -> usize {
        4 + values
    }

    #[inline(always)]
    fn encode(values: &mut [f32], out: &mut [u8]) {
        let scale = dense::largest(values) / 127.0;
        let (head, codes) = out.split_at_mut(4);
        head.copy_from_slice(&scale.to_le_bytes());
        let divisor = scale.max(1e-30);
        for (v, code) in values.iter_mut().zip(codes) {
            let (q, byte) = dense::rounded(*v / divisor);
            *code = byte;
            *v -= q * scale;
        }
    }

    #[inline(always)]
    fn visit(bytes: &[u8], into: &mut [f32], put: impl Fn(&mut f32, f32)) -> Result<(), DeltaError> {
        let mut r = Reader::new(bytes);
        let scale = dense::check_scale(r.f32()?)?;
        for (place, code) in into.iter_mut().zip(r.take(r.remaining())?) {
            put(place, f32::from(*code as i8) * scale);
        }
        Ok(())
    }
}
