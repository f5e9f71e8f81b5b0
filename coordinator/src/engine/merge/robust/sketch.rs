//! A delta in a thousand numbers, whose angles to other deltas are theirs, nearly: each value is added to one of them,
//! with one sign, both drawn by its place (count sketch; Charikar, Chen and Farach-Colton, ICALP 2002; for inner
//! products Weinberger et al., arXiv 0902.2206). A cosine is off by about 1/√1024 = 0.03.
//!
//! A projection that liars knew would hide from it what they like. So it is drawn of the bytes of all deltas that are
//! judged by it: nobody has seen those who sends one of them, and whoever replays the ledger has them again.

use nightjar_shared::{
    delta::{self, DeltaError},
    model_spec::ModelSpec,
    rng,
};

/// Numbers of a sketch.
pub const DIMS: usize = 1024;
/// A hash serves so many neighbouring places, with 16 bits each.
const LANES: u64 = 4;

/// A direction: of length 1, or of no length.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch(Vec<f64>);

impl Sketch {
    /// Of nothing.
    pub fn zero() -> Self {
        Sketch(vec![0.0; DIMS])
    }

    /// Of a delta's direction, by the projection of this seed.
    pub fn of(model: &ModelSpec, bytes: &[u8], seed: u64) -> Result<Self, DeltaError> {
        let mut sums = vec![0.0; DIMS];
        let (mut block, mut hash) = (u64::MAX, 0);
        delta::decode(model, bytes, |at, values| {
            for (place, value) in (at as u64..).zip(values) {
                if block != place / LANES {
                    block = place / LANES;
                    hash = rng::mix(seed ^ rng::mix(block));
                }
                let bits = hash >> (16 * (place % LANES));
                let value = f64::from(*value);
                sums[bits as usize % DIMS] += if bits & 0x8000 == 0 { value } else { -value };
            }
        })?;
        let mut sketch = Sketch(sums);
        let length = sketch.dot(&sketch).sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        sketch.0.iter_mut().for_each(|v| *v *= scale);
        Ok(sketch)
    }

    /// Adds another, times `share`.
    pub fn add(&mut self, share: f64, other: &Sketch) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, v)| *sum += share * v);
    }

    /// The inner product: of two directions, their cosine.
    pub fn dot(&self, other: &Sketch) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::delta::{CodecId, DeltaSpec};

    /// Two thirds of what one is made of, the other has too.
    #[test]
    fn angles_are_kept_whatever_the_projection() {
        let model = ModelSpec { num_hidden_layers: 1, hidden_size: 64, ..ModelSpec::tiny() };
        let n = model.parameters();
        let encoded = |own: u64, sign: f64| {
            let value = |i| (sign * (2f64.sqrt() * rng::normal(1, 0, i) + rng::normal(1, own, i))) as f32;
            let values: Vec<f32> = (0..n as u64).map(value).collect();
            let exact = DeltaSpec { codec: CodecId::F32, ..DeltaSpec::default() };
            delta::encode(&model, &exact, &values, &mut vec![0.0; n])
        };
        let (a, b, against) = (encoded(1, 1.0), encoded(2, 1.0), encoded(2, -1.0));
        for seed in [1, 2, 77] {
            let of = |bytes| Sketch::of(&model, bytes, seed).unwrap();
            let (a, b, against) = (of(&a), of(&b), of(&against));
            assert!((a.dot(&a) - 1.0).abs() < 1e-12);
            assert!((a.dot(&b) - 2.0 / 3.0).abs() < 0.1, "{}", a.dot(&b));
            assert_eq!(a.dot(&against), -a.dot(&b));
        }
        assert_ne!(Sketch::of(&model, &a, 1).unwrap(), Sketch::of(&model, &a, 2).unwrap());
        assert!(Sketch::of(&model, &a[..20], 1).is_err());
    }

    #[test]
    fn nothing_points_nowhere() {
        let model = ModelSpec { num_hidden_layers: 1, hidden_size: 64, ..ModelSpec::tiny() };
        let n = model.parameters();
        let bytes = delta::encode(&model, &DeltaSpec::default(), &vec![0.0; n], &mut vec![0.0; n]);
        assert_eq!(Sketch::of(&model, &bytes, 1).unwrap(), Sketch::zero());
    }
}
