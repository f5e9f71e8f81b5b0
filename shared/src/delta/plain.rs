//! Every value as it is: 32 bits a parameter, nothing lost. What the other codecs are measured against.

use super::{DeltaError, dense::Block};

/// 32 bits a parameter.
pub(super) enum Plain {}

impl Block for Plain {
    #[inline(always)]
    fn bytes(values: usize) -> usize {
        4 * values
    }

    #[inline(always)]
    fn encode(values: &mut [f32], out: &mut [u8]) {
        for (v, bytes) in values.iter_mut().zip(out.as_chunks_mut::<4>().0) {
            *bytes = v.to_le_bytes();
            *v = 0.0;
        }
    }

    #[inline(always)]
    fn visit(bytes: &[u8], into: &mut [f32], put: impl Fn(&mut f32, f32)) -> Result<(), DeltaError> {
        let values = bytes.as_chunks::<4>().0;
        let most = values.iter().fold(0i32, |m, v| m.max((u32::from_le_bytes(*v) & 0x7fff_ffff) as i32));
        if !f32::from_bits(most as u32).is_finite() {
            return Err(DeltaError::NotFinite);
        }
        for (place, v) in into.iter_mut().zip(values) {
            put(place, f32::from_le_bytes(*v));
        }
        Ok(())
    }
}
