//! A keyframe: the whole model in bf16. It *redefines* its version: coordinator and devices there round to bf16, and
//! what the rounding takes joins the server's error feedback.
//!
//! Layout, little-endian: magic `NJK1`, four zero bytes, version (u64), first and end tensor number (u32 each); then a
//! tensor: step exponent (i32), then its values as bf16 (u16 each).

use super::{Fixed, INTEGER_LIMIT, STEP_EXPONENTS, VersionError, Weights, power_of_two};
use crate::{bytes::Reader, fragment::Fragment, ids::Version, model_spec::ModelSpec};

pub(super) const MAGIC: &[u8; 4] = b"NJK1";

/// Length in bytes of a keyframe of the whole model.
pub fn encoded_bytes(spec: &ModelSpec) -> u64 {
    (24 + 4 * spec.tensors().len() + 2 * spec.parameters()) as u64
}

/// A whole number of steps rounded to eight significant bits, ties to even, and clamped to the integers allowed. For
/// whole numbers the result is a whole number: bf16 has eight significant bits.
pub(super) fn round_to_bf16(steps: f32) -> i32 {
    let most = (INTEGER_LIMIT - (1 << 16)) as f32; // the largest bf16 below 2^24
    let bits = steps.clamp(-most, most).to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    f32::from_bits(rounded) as i32
}

/// Rounds the weights to what a keyframe of them holds. What a value loses, in units of the weights, is added to the
/// same place of `feedback` (a flat vector). A tensor that has come near its integers' limit gets a coarser step.
pub fn redefine(weights: &mut Weights, feedback: &mut [f32]) {
    let mut at = 0;
    for tensor in &mut weights.tensors {
        let places = &mut feedback[at..at + tensor.integers.len()];
        at += places.len();
        let mut places = places.iter_mut();
        round_tensor(tensor, |lost| {
            if let Some(place) = places.next() {
                *place += lost;
            }
        });
    }
}

/// The same rounding for a device: what it takes is the coordinator's to publish later.
pub fn round(weights: &mut Weights) {
    weights.tensors.iter_mut().for_each(|tensor| round_tensor(tensor, |_| ()));
}

/// Rounds a tensor; `lost` is told, for each value in turn, what rounding took.
fn round_tensor(tensor: &mut Fixed, mut lost: impl FnMut(f32)) {
    let step = power_of_two(tensor.step_exponent);
    let largest = tensor.integers.iter().fold(0, |m, n| n.abs().max(m));
    let has_coarser = STEP_EXPONENTS.contains(&(tensor.step_exponent + 3));
    let coarser = if largest >= INTEGER_LIMIT / 4 && has_coarser { 3 } else { 0 };
    for n in &mut tensor.integers {
        let rounded = round_to_bf16((*n as f32 / power_of_two(coarser)).round_ties_even());
        lost((*n - (rounded << coarser)) as f32 * step);
        *n = rounded;
    }
    tensor.step_exponent += coarser;
}

/// Encodes weights that [`redefine`] (or [`Weights::start`]) rounded.
pub fn encode(spec: &ModelSpec, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_bytes(spec) as usize);
    out.extend(MAGIC);
    out.extend([0; 4]);
    out.extend(weights.version.0.to_le_bytes());
    Fragment::all(spec).write(&mut out);
    for tensor in &weights.tensors {
        out.extend(tensor.step_exponent.to_le_bytes());
        for v in tensor.values() {
            out.extend(((v.to_bits() >> 16) as u16).to_le_bytes());
        }
    }
    out
}

/// Decodes a keyframe of the whole model.
pub fn decode(spec: &ModelSpec, bytes: &[u8]) -> Result<Weights, VersionError> {
    let mut r = Reader::new(bytes);
    if &r.array::<4>()? != MAGIC || r.array::<4>()? != [0; 4] {
        return Err(VersionError::WrongKind("keyframe"));
    }
    let version = Version(r.u64()?);
    let layout = spec.tensors();
    let covered = Fragment::read(&mut r, &layout)?.ok_or(VersionError::WrongFragment)?;
    if covered.len() != layout.len() {
        return Err(VersionError::WrongFragment);
    }
    let mut tensors = Vec::with_capacity(layout.len());
    for tensor in covered {
        let step_exponent = r.i32()?;
        if !STEP_EXPONENTS.contains(&step_exponent) {
            return Err(VersionError::OutOfRange);
        }
        let per_step = power_of_two(-step_exponent);
        let raw = r.take(2 * tensor.len())?;
        let integers = raw.chunks_exact(2).map(|b| {
            let value = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            let steps = value * per_step;
            // Not a number fails this comparison too.
            if steps.abs() < INTEGER_LIMIT as f32 && steps.fract() == 0.0 {
                Ok(steps as i32)
            } else {
                Err(VersionError::OutOfRange)
            }
        });
        tensors.push(Fixed { step_exponent, integers: integers.collect::<Result<_, _>>()? });
    }
    match r.remaining() {
        0 => Ok(Weights { version, tensors }),
        more => Err(VersionError::Trailing(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> ModelSpec {
        ModelSpec {
            vocab_size: 5,
            hidden_size: 4,
            intermediate_size: 3,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            num_key_value_heads: 1,
            ..ModelSpec::tiny()
        }
    }

    proptest! {
        /// Redefining loses nothing: value before = value after + feedback; and the keyframe decodes to the same bits.
        #[test]
        fn redefined_weights_travel_exactly(n in -(INTEGER_LIMIT - 1)..INTEGER_LIMIT, small in -300i32..300) {
            let spec = spec();
            let mut w = Weights::start(&spec, &spec.draw_all(1));
            w.tensors[0].integers[3] = n;
            w.tensors[1].integers[0] = small;
            let before = w.flat();
            let mut feedback = vec![0.0; spec.parameters()];
            let mut device = w.clone();
            redefine(&mut w, &mut feedback);
            round(&mut device);
            prop_assert_eq!(&device, &w);
            for ((b, a), f) in before.iter().zip(w.flat()).zip(&feedback) {
                prop_assert_eq!(f64::from(*b), f64::from(a) + f64::from(*f));
            }
            prop_assert_eq!(decode(&spec, &encode(&spec, &w)).unwrap(), w);
        }

        #[test]
        fn hostile_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..400), keep in 0usize..300) {
            let spec = spec();
            let mut bytes = encode(&spec, &Weights::start(&spec, &spec.draw_all(1)));
            bytes.truncate(keep);
            bytes.extend(tail);
            if let Ok(w) = decode(&spec, &bytes) {
                prop_assert!(w.tensors.iter().flat_map(|t| &t.integers).all(|n| n.abs() < INTEGER_LIMIT));
            }
        }
    }

    #[test]
    fn length_is_as_announced() {
        let spec = spec();
        assert_eq!(encode(&spec, &Weights::start(&spec, &spec.draw_all(1))).len() as u64, encoded_bytes(&spec));
    }
}
