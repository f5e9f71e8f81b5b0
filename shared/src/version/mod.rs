//! Published weights, and the ways they travel: a *keyframe* (the whole model in bf16), an *update* (the change from
//! one version to the next), and a *squash* (one update made of several in a row).
//!
//! Published values are integers times a power-of-two step a tensor, |integer| < 2²⁴, so every value is exact in f32,
//! applying an update is integer addition, and coordinator and devices hold the same bits on any hardware.

pub mod keyframe;
pub mod update;
#[cfg(test)]
mod vectors;

use crate::{
    bytes::{Reader, Truncated},
    ids::Version,
    model_spec::ModelSpec,
};

/// Integers are below this in magnitude: what f32 represents exactly.
pub const INTEGER_LIMIT: i32 = 1 << 24;

/// Bytes that [`of_head`] needs.
pub const HEAD_BYTES: usize = 24;

/// The version that a keyframe or update leads to, by its first bytes; `None` if they are no such thing.
pub fn of_head(head: &[u8]) -> Option<Version> {
    let number = |at: usize| Some(Version(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?)));
    match head.get(..4)? {
        magic if magic == keyframe::MAGIC => number(8),
        magic if magic == update::MAGIC => number(16),
        _ => None,
    }
}

/// One tensor's published values: `integers[i] · 2^step_exponent`, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The step is two to this power.
    pub step_exponent: i32,
    /// The values, in steps.
    pub integers: Vec<i32>,
}

/// The weights of one published version: one [`Fixed`] a tensor, in flat order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Which version these are.
    pub version: Version,
    /// The tensors, in flat order.
    pub tensors: Vec<Fixed>,
}

/// Bytes that are no keyframe or update for this model, or do not follow the weights at hand.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum VersionError {
    /// Wrong magic or reserved bytes.
    #[error("it is no {0}")]
    WrongKind(&'static str),
    /// A codec this build does not know.
    #[error("codec {0} is unknown")]
    UnknownCodec(u8),
    /// The tensors that it names are not in the model.
    #[error("it names tensors that the model does not have")]
    WrongFragment,
    /// An update for other weights than these.
    #[error("it changes version {expected}, the weights are version {have}")]
    WrongVersion {
        /// The version that the update starts from.
        expected: Version,
        /// The version of the weights at hand.
        have: Version,
    },
    /// A value outside ±2²⁴ steps, or one that is no multiple of the step.
    #[error("a value is not a whole number of steps below 2^24")]
    OutOfRange,
    /// Too short.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Too long.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
}

/// 2^exponent as f32; exact for the exponents that a step can have.
pub(crate) fn power_of_two(exponent: i32) -> f32 {
    libm::ldexpf(1.0, exponent)
}

/// Exponents that a step can have: its integers times it are then normal f32 numbers.
pub(crate) const STEP_EXPONENTS: std::ops::RangeInclusive<i32> = -100..=80;

/// What a weight that a run starts from stays below in magnitude, 2^64: the square of a larger one is no f32 number, so
/// nothing could be trained from it.
pub const START_LIMIT: f32 = 18_446_744_073_709_551_616.0;

/// A weight that no run can start from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "{tensor} holds the value {value:e}; a weight that a run starts from must be a number below {START_LIMIT:.1e} in \
    size"
)]
pub struct StartError {
    /// The tensor's name.
    pub tensor: String,
    /// The value in it that is largest in size, or that is no number.
    pub value: f32,
}

impl Fixed {
    /// Initial values: each rounds to bf16 and to a step that leaves room for the tensor to grow sixteenfold, or to
    /// ±16.
    pub fn start(values: &[f32]) -> Self {
        let step_exponent = step_exponent_for(values.iter().fold(0f32, |m, v| m.max(v.abs())));
        let scale = power_of_two(-step_exponent);
        let integers = values.iter().map(|v| keyframe::round_to_bf16((*v * scale).round_ties_even())).collect();
        Fixed { step_exponent, integers }
    }

    /// What the values are multiples of.
    pub fn step(&self) -> f32 {
        power_of_two(self.step_exponent)
    }

    /// The values as f32: exact.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        let step = self.step();
        self.integers.iter().map(move |n| *n as f32 * step)
    }
}

impl Weights {
    /// Version 0 from initial values, a tensor at a time ([`Fixed::start`]). [`Weights::check_start`] takes them.
    pub fn start(spec: &ModelSpec, flat: &[f32]) -> Self {
        let tensors = spec.tensors().iter().map(|t| Fixed::start(&flat[t.range()])).collect();
        Weights { version: Version(0), tensors }
    }

    /// Refuses values that no run can start from.
    pub fn check_start(spec: &ModelSpec, flat: &[f32]) -> Result<(), StartError> {
        for tensor in spec.tensors() {
            // Not a number fails this comparison too.
            let is_right = |value: &f32| value.abs() < START_LIMIT;
            let mut wrong = flat[tensor.range()].iter().copied().filter(|value| !is_right(value));
            if let Some(first) = wrong.next() {
                let value = wrong.fold(first, |most, value| if value.abs() > most.abs() { value } else { most });
                return Err(StartError { tensor: tensor.name, value });
            }
        }
        Ok(())
    }

    /// All values as one flat vector: exact.
    pub fn flat(&self) -> Vec<f32> {
        self.tensors.iter().flat_map(Fixed::values).collect()
    }

    /// Appends all of them, exact, as state files keep them: version (u64), then a tensor's step exponent (i32) and
    /// integers (i32 each), little-endian.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.version.0.to_le_bytes());
        for t in &self.tensors {
            out.extend(t.step_exponent.to_le_bytes());
            out.extend(t.integers.iter().flat_map(|n| n.to_le_bytes()));
        }
    }

    /// Reads what [`Weights::write`] wrote.
    pub fn read(spec: &ModelSpec, r: &mut Reader<'_>) -> Result<Self, VersionError> {
        let version = Version(r.u64()?);
        let mut tensors = vec![];
        for t in spec.tensors() {
            let step_exponent = r.i32()?;
            let integers: Vec<i32> =
                r.take(4 * t.len())?.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
            if !STEP_EXPONENTS.contains(&step_exponent)
                || integers.iter().any(|n| n.unsigned_abs() >= INTEGER_LIMIT as u32)
            {
                return Err(VersionError::OutOfRange);
            }
            tensors.push(Fixed { step_exponent, integers });
        }
        Ok(Weights { version, tensors })
    }

    /// A BLAKE3 hash of version, steps and integers: equal hashes mean bit-identical weights.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.version.0.to_le_bytes());
        for t in &self.tensors {
            hasher.update(&t.step_exponent.to_le_bytes());
            for chunk in t.integers.chunks(1024) {
                let bytes: Vec<u8> = chunk.iter().flat_map(|n| n.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// The step for a tensor whose largest magnitude is `largest`: room for 16 times that, and for ±16 at least.
fn step_exponent_for(largest: f32) -> i32 {
    let (_, exponent) = libm::frexpf(largest.max(1.0)); // largest < 2^exponent
    (exponent + 4).max(4 + 1) - 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_exact_in_bf16_and_close_to_the_draw() {
        let spec = ModelSpec::tiny();
        let flat = spec.draw_all(1);
        let weights = Weights::start(&spec, &flat);
        for (want, got) in flat.iter().zip(weights.flat()) {
            assert!((want - got).abs() <= want.abs() / 256.0 + power_of_two(-19), "{want} {got}");
            assert_eq!(got.to_bits() & 0xffff, 0, "{got} is no bf16");
        }
    }

    #[test]
    fn state_files_keep_every_bit() {
        let spec = ModelSpec::tiny();
        let mut weights = Weights::start(&spec, &spec.draw_all(3));
        weights.version = Version(7);
        weights.tensors[2].integers[5] = 1 - INTEGER_LIMIT;
        let mut bytes = vec![];
        weights.write(&mut bytes);
        assert_eq!(Weights::read(&spec, &mut Reader::new(&bytes)), Ok(weights));
        assert_eq!(Weights::read(&spec, &mut Reader::new(&bytes[..bytes.len() - 1])), Err(Truncated.into()));
        bytes[8..12].copy_from_slice(&500i32.to_le_bytes());
        assert_eq!(Weights::read(&spec, &mut Reader::new(&bytes)), Err(VersionError::OutOfRange));
    }

    #[test]
    fn what_no_run_can_start_from_is_named() {
        let spec = ModelSpec::tiny();
        let last = spec.tensors().pop().unwrap();
        let with = |value: f32| {
            let mut flat = spec.draw_all(1);
            flat[last.range().end - 1] = value;
            flat
        };
        for value in [1e30, -f32::MAX, f32::INFINITY, f32::NAN, START_LIMIT] {
            let error = Weights::check_start(&spec, &with(value)).unwrap_err();
            assert_eq!((error.tensor.as_str(), error.value.to_bits()), ("model.norm.weight", value.to_bits()));
            assert!(error.to_string().contains("must be a number below 1.8e19"), "{error}");
        }
        // What is taken travels: as a keyframe, also when it grows.
        for value in [0.0, 1e4, -1.8e19, f32::MIN_POSITIVE] {
            let flat = with(value);
            Weights::check_start(&spec, &flat).unwrap();
            let mut weights = Weights::start(&spec, &flat);
            let mut feedback = vec![0.0; flat.len()];
            for _ in 0..40 {
                assert_eq!(keyframe::decode(&spec, &keyframe::encode(&spec, &weights)).unwrap(), weights);
                weights
                    .tensors
                    .last_mut()
                    .unwrap()
                    .integers
                    .iter_mut()
                    .for_each(|n| *n = n.signum() * (INTEGER_LIMIT - 1));
                keyframe::redefine(&mut weights, &mut feedback);
            }
        }
    }

    #[test]
    fn the_step_leaves_room() {
        for largest in [0.0f32, 0.02, 1.0, 3.9, 4.0, 1000.0] {
            let most = INTEGER_LIMIT as f32 * power_of_two(step_exponent_for(largest));
            assert!(most >= 16.0 * largest.max(1.0), "{largest} {most}");
        }
    }
}
