//! An update: the change from one version to the next, in dense 8-bit blocks whose scale is a power of two times the
//! tensor's step. What rounding takes stays in the server's error feedback and is published later.
//!
//! Layout, little-endian: magic `NJU1`, codec id (u8), three zero bytes, version it starts from (u64), first and end
//! tensor number (u32 each); then for each block of 256 values: shift (u8), then one signed byte q a value. Applying
//! it adds `q · 2^shift` steps.

use super::{INTEGER_LIMIT, VersionError, Weights, power_of_two};
use crate::{
    bytes::Reader,
    fragment::{self, BLOCK, Fragment},
    ids::Version,
    model_spec::ModelSpec,
};

const MAGIC: &[u8; 4] = b"NJU1";
const CODEC_BLOCKS8: u8 = 1;
/// 127 · 2^17 is just below 2^24.
const SHIFT_MAX: u8 = 17;

/// Length in bytes of an update of the whole model.
pub fn encoded_bytes(spec: &ModelSpec) -> u64 {
    24 + spec.tensors().iter().map(|t| (t.len() + t.len().div_ceil(BLOCK)) as u64).sum::<u64>()
}

/// Publishes a change: encodes the update, applies exactly what was encoded to `weights`, and moves them to the next
/// version. `feedback` (a flat vector, in units of the weights) comes in as the change wanted plus what was never
/// published, and goes out as what is still unpublished.
pub fn publish(spec: &ModelSpec, weights: &mut Weights, feedback: &mut [f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_bytes(spec) as usize);
    out.extend(MAGIC);
    out.extend([CODEC_BLOCKS8, 0, 0, 0]);
    out.extend(weights.version.0.to_le_bytes());
    Fragment::all(spec).write(&mut out);
    for (tensor, fixed) in spec.tensors().iter().zip(&mut weights.tensors) {
        let step = power_of_two(fixed.step_exponent);
        for range in fragment::blocks(tensor) {
            let integers = &mut fixed.integers[range.start - tensor.offset..range.end - tensor.offset];
            let feedback = &mut feedback[range];
            let largest = feedback.iter().fold(0f32, |m, v| m.max(v.abs())) / step;
            let shift = (0..SHIFT_MAX).find(|s| largest <= 127.0 * power_of_two(i32::from(*s))).unwrap_or(SHIFT_MAX);
            out.push(shift);
            let unit = step * power_of_two(i32::from(shift));
            for (n, wanted) in integers.iter_mut().zip(feedback) {
                let most = INTEGER_LIMIT - 1;
                // The room left below the limit, in units, toward either side: what does not fit stays in feedback.
                let (down, up) = ((-most - *n) >> shift, (most - *n) >> shift);
                let q = (*wanted / unit).round_ties_even().clamp(-127.0, 127.0) as i32;
                let q = q.clamp(down.min(0) + i32::from(down < 0), up);
                out.push(q as i8 as u8);
                *n += q << shift;
                *wanted -= q as f32 * unit;
            }
        }
    }
    weights.version = weights.version.next();
    out
}

/// The version that an update starts from, read from its header.
pub fn from_version(bytes: &[u8]) -> Result<Version, VersionError> {
    header(&mut Reader::new(bytes))
}

fn header(r: &mut Reader<'_>) -> Result<Version, VersionError> {
    if &r.array::<4>()? != MAGIC {
        return Err(VersionError::WrongKind("update"));
    }
    match r.array::<4>()? {
        [CODEC_BLOCKS8, 0, 0, 0] => Ok(Version(r.u64()?)),
        [codec, ..] => Err(VersionError::UnknownCodec(codec)),
    }
}

/// Applies an update. On an error the weights may be half changed: apply to a copy, or throw them away.
pub fn apply(spec: &ModelSpec, weights: &mut Weights, bytes: &[u8]) -> Result<(), VersionError> {
    let mut r = Reader::new(bytes);
    let expected = header(&mut r)?;
    if expected != weights.version {
        return Err(VersionError::WrongVersion { expected, have: weights.version });
    }
    let layout = spec.tensors();
    let covered = Fragment::read(&mut r, &layout)?.ok_or(VersionError::WrongFragment)?;
    if covered.len() != layout.len() {
        return Err(VersionError::WrongFragment);
    }
    for (tensor, fixed) in covered.iter().zip(&mut weights.tensors) {
        for range in fragment::blocks(tensor) {
            let shift = r.u8()?;
            if shift > SHIFT_MAX {
                return Err(VersionError::OutOfRange);
            }
            let raw = r.take(range.len())?;
            let integers = &mut fixed.integers[range.start - tensor.offset..range.end - tensor.offset];
            for (n, q) in integers.iter_mut().zip(raw) {
                *n += i32::from(*q as i8) << shift;
                if n.abs() >= INTEGER_LIMIT {
                    return Err(VersionError::OutOfRange);
                }
            }
        }
    }
    if r.remaining() > 0 {
        return Err(VersionError::Trailing(r.remaining()));
    }
    weights.version = weights.version.next();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rng, version::keyframe};
    use proptest::prelude::*;

    fn spec() -> ModelSpec {
        ModelSpec { vocab_size: 31, hidden_size: 20, intermediate_size: 13, num_hidden_layers: 1, ..ModelSpec::tiny() }
    }

    proptest! {
        /// Any chain of updates and keyframes, small or wild changes: a device that follows the updates, one that
        /// starts at a keyframe, and the coordinator hold the same bits; and what was published plus the feedback is
        /// what was wanted.
        #[test]
        fn every_path_ends_in_the_same_bits(seed in any::<u64>(), scales in proptest::collection::vec(-24i32..8, 1..8), keyframe_at in 0usize..8) {
            let spec = spec();
            let n = spec.parameters();
            let start = Weights::start(&spec, &spec.draw_all(seed));
            let (mut coordinator, mut follower, mut joiner) = (start.clone(), start.clone(), None);
            let mut feedback = vec![0f32; n];
            let mut wanted: Vec<f64> = start.flat().iter().map(|v| f64::from(*v)).collect();
            for (round, scale) in scales.iter().enumerate() {
                for i in 0..n {
                    let change = (rng::normal(seed, round as u64, i as u64) * f64::from(*scale).exp2()) as f32;
                    feedback[i] += change;
                    wanted[i] += f64::from(change);
                }
                let update = publish(&spec, &mut coordinator, &mut feedback);
                prop_assert_eq!(update.len() as u64, encoded_bytes(&spec));
                apply(&spec, &mut follower, &update).unwrap();
                if let Some(joiner) = &mut joiner {
                    apply(&spec, joiner, &update).unwrap();
                }
                if round == keyframe_at {
                    keyframe::redefine(&mut coordinator, &mut feedback);
                    // What every device there does: it fetches the keyframe, or rounds its own weights.
                    keyframe::redefine(&mut follower, &mut vec![0.0; n]);
                    joiner = Some(keyframe::decode(&spec, &keyframe::encode(&spec, &coordinator)).unwrap());
                }
                prop_assert_eq!(follower.digest(), coordinator.digest());
            }
            if let Some(joiner) = joiner {
                prop_assert_eq!(&joiner, &coordinator);
            }
            for (i, v) in coordinator.flat().iter().enumerate() {
                let drift = (wanted[i] - f64::from(*v) - f64::from(feedback[i])).abs();
                prop_assert!(drift <= 1e-4 * wanted[i].abs().max(1.0), "{} {} {}", wanted[i], v, feedback[i]);
            }
        }

        #[test]
        fn hostile_bytes_never_leave_the_range(tail in proptest::collection::vec(any::<u8>(), 0..9000), keep in 24usize..3000) {
            let spec = spec();
            let mut w = Weights::start(&spec, &spec.draw_all(1));
            let mut bytes = publish(&spec, &mut w.clone(), &mut vec![1e-3; spec.parameters()]);
            bytes.truncate(keep);
            bytes.extend(tail);
            let _ = apply(&spec, &mut w, &bytes);
            prop_assert!(w.tensors.iter().flat_map(|t| &t.integers).all(|n| n.unsigned_abs() < 1 << 25));
        }
    }

    #[test]
    fn an_update_for_another_version_is_refused() {
        let spec = spec();
        let mut w = Weights::start(&spec, &spec.draw_all(1));
        let update = publish(&spec, &mut w, &mut vec![1e-3; spec.parameters()]);
        assert_eq!(apply(&spec, &mut w, &update), Err(VersionError::WrongVersion { expected: Version(0), have: Version(1) }));
        assert_eq!(from_version(&update), Ok(Version(0)));
    }
}
