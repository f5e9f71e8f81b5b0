//! 8-bit blocks: for each block of 256 values an f32 scale (its largest magnitude / 127), then one signed byte a value,
//! rounded to nearest, ties to even.

use super::DeltaError;
use crate::{bytes::Reader, fragment, fragment::BLOCK, model_spec::TensorSpec};

pub(super) fn tensor_bytes(tensor: &TensorSpec) -> usize {
    tensor.len() + 4 * tensor.len().div_ceil(BLOCK)
}

pub(super) fn encode(tensor: &TensorSpec, values: &[f32], residual: &mut [f32], out: &mut Vec<u8>) {
    for range in fragment::blocks(tensor) {
        let residual = &mut residual[range.clone()];
        for (r, v) in residual.iter_mut().zip(&values[range]) {
            *r += v;
        }
        let largest = residual.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = largest / 127.0;
        out.extend(scale.to_le_bytes());
        for r in residual {
            let q = (*r / scale.max(1e-30)).round_ties_even().clamp(-127.0, 127.0);
            out.push(q as i8 as u8);
            *r -= q * scale;
        }
    }
}

pub(super) fn decode(tensor: &TensorSpec, r: &mut Reader<'_>, each: &mut impl FnMut(usize, &[f32])) -> Result<(), DeltaError> {
    let mut values = [0f32; BLOCK];
    for range in fragment::blocks(tensor) {
        let scale = r.f32()?;
        // 127 times the scale must be finite too, or a value would not be.
        if !(0.0..=f32::MAX / 128.0).contains(&scale) {
            return Err(DeltaError::BadScale);
        }
        let values = &mut values[..range.len()];
        for (v, q) in values.iter_mut().zip(r.take(range.len())?) {
            *v = f32::from(*q as i8) * scale;
        }
        each(range.start, values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::{model_spec::ModelSpec, rng};
    use proptest::prelude::*;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64).map(|i| rng::normal(seed, 0, i) as f32 * 1e-3).collect()
    }

    fn decoded(spec: &ModelSpec, bytes: &[u8]) -> Result<Vec<f32>, DeltaError> {
        let mut out = vec![0.0; spec.parameters()];
        decode(spec, bytes, |at, values| out[at..at + values.len()].copy_from_slice(values))?;
        Ok(out)
    }

    fn odd() -> ModelSpec {
        ModelSpec { vocab_size: 7, hidden_size: 20, intermediate_size: 13, num_hidden_layers: 2, ..ModelSpec::tiny() }
    }

    #[test]
    fn feedback_conserves_what_rounding_loses() {
        let spec = odd();
        let n = spec.parameters();
        let (mut sent, mut meant, mut residual) = (vec![0f64; n], vec![0f64; n], vec![0f32; n]);
        for round in 0..5 {
            let g = noise(n, round);
            let bytes = encode(&spec, CodecId::Blocks8, &g, &mut residual);
            assert_eq!(bytes.len() as u64, encoded_bytes(&spec, CodecId::Blocks8));
            for (i, d) in decoded(&spec, &bytes).unwrap().iter().enumerate() {
                sent[i] += f64::from(*d);
                meant[i] += f64::from(g[i]);
            }
        }
        for i in 0..n {
            assert!((sent[i] + f64::from(residual[i]) - meant[i]).abs() < 1e-8);
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let spec = odd();
        let mut residual = vec![0.0; spec.parameters()];
        let bytes = encode(&spec, CodecId::Blocks8, &vec![0.0; spec.parameters()], &mut residual);
        assert!(decoded(&spec, &bytes).unwrap().iter().chain(&residual).all(|v| *v == 0.0));
    }

    /// golden.json, codec.int8: 10 000 normal draws as one tensor, blocks of 256.
    #[test]
    fn agrees_with_the_reference_codec() {
        let tensor = ModelSpec { vocab_size: 10_000, hidden_size: 1, ..ModelSpec::tiny() }.tensors().swap_remove(0);
        let input: Vec<f32> = (0..10_000).map(|i| rng::normal(7, 0, i) as f32).collect();
        let (mut residual, mut out) = (vec![0.0; 10_000], Vec::new());
        super::encode(&tensor, &input, &mut residual, &mut out);
        assert_eq!(out.len(), 10_160);
        let mut values = vec![];
        super::decode(&tensor, &mut Reader::new(&out), &mut |_, v: &[f32]| values.extend_from_slice(v)).unwrap();
        assert_eq!(values.iter().filter(|v| **v != 0.0).count(), 9_904);
        let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((squares - 9_978.926_715_712_65).abs() < 1e-3, "{squares}");
        let first = [1.102_907_180_786_132_8, -0.051_298_007_369_041_44, 0.949_013_113_975_524_9];
        for (v, want) in values.iter().zip(first) {
            assert!((f64::from(*v) - want).abs() < 1e-7);
        }
    }

    proptest! {
        /// Whatever the bytes, decoding ends, yields only finite values, and stays within the flat vector.
        #[test]
        fn hostile_bytes_are_refused_or_finite(mut tail in proptest::collection::vec(any::<u8>(), 0..4000), keep in 0usize..2000) {
            let spec = odd();
            let mut bytes = encode(&spec, CodecId::Blocks8, &noise(spec.parameters(), 3), &mut vec![0.0; spec.parameters()]);
            bytes.truncate(keep);
            bytes.append(&mut tail);
            let n = spec.parameters();
            let _ = decode(&spec, &bytes, |at, values| {
                assert!(at + values.len() <= n);
                assert!(values.iter().all(|v| v.is_finite()));
            });
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let spec = odd();
        let good = encode(&spec, CodecId::Blocks8, &noise(spec.parameters(), 1), &mut vec![0.0; spec.parameters()]);
        let with = |at: usize, bytes: &[u8]| {
            let mut b = good.clone();
            b[at..at + bytes.len()].copy_from_slice(bytes);
            decoded(&spec, &b).unwrap_err()
        };
        assert_eq!(with(0, b"X"), DeltaError::NotADelta);
        assert_eq!(with(4, &[200]), DeltaError::UnknownCodec(200));
        assert_eq!(with(12, &99u32.to_le_bytes()), DeltaError::WrongFragment);
        assert_eq!(with(16, &f32::NAN.to_le_bytes()), DeltaError::BadScale);
        assert_eq!(with(16, &f32::MAX.to_le_bytes()), DeltaError::BadScale);
        assert_eq!(decoded(&spec, &good[..good.len() - 1]).unwrap_err(), DeltaError::Truncated(Truncated));
        assert_eq!(decoded(&spec, &[&good[..], &[0]].concat()).unwrap_err(), DeltaError::Trailing(1));
    }
}
