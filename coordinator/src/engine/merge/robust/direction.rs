//! The direction test: a delta counts by how far it points where the version's others point, length aside.
//!
//! FLTrust (Cao et al., arXiv 2012.13995) weighs each by the cosine to one that the server trains itself, cut at 0. Here
//! nobody is trusted, so the measure is the sum of all other deltas' directions: each has one vote, whatever its length
//! and tokens. That is done twice, the second time with the votes that the first gave. Deltas that are all but the same
//! as one before them are copies and do not count, as FoolsGold (Fung et al., arXiv 1808.04866) has it of sybils.
//!
//! With signal as a tenth of a delta's square, the cosine of an honest delta to twelve others is 0.24, that of noise 0 and
//! that of the opposite −0.24.

use super::{FEWEST, middle, sketch::Sketch};
use nightjar_shared::{delta::DeltaError, model_spec::ModelSpec};

/// From this share of the usual cosine on a delta counts in full.
const FULL: f64 = 1.0 / 3.0;
/// Cosines up to this are noise: three times what a sketch is off by. Where even the usual one is, deltas have nothing in
/// common, and only what points clearly against the others does not count.
const NOISE: f64 = 0.09;
/// A copy has at least this cosine to another delta,
const COPY: f64 = 0.95;
/// and is so many times nearer to it than two deltas usually are.
const NEARER: f64 = 4.0;

/// What deltas of the version that were judged before say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Voices {
    /// Of the version's projection, once it is drawn.
    seed: Option<u64>,
    sum: Sketch,
    count: usize,
}

impl Default for Voices {
    fn default() -> Self {
        Voices { seed: None, sum: Sketch::zero(), count: 0 }
    }
}

impl Voices {
    /// What each of these encoded deltas counts, from 0 to 1. What they say is remembered for the next.
    pub fn judge(&mut self, model: &ModelSpec, company: &[&[u8]]) -> Result<Vec<f64>, DeltaError> {
        let seed = *self.seed.get_or_insert_with(|| drawn_of(company));
        let sketches = company.iter().map(|bytes| Sketch::of(model, bytes, seed)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.votes(&sketches))
    }

    fn votes(&mut self, company: &[Sketch]) -> Vec<f64> {
        let mut votes = vec![1.0; company.len()];
        if self.count + company.len() >= FEWEST {
            let is_first = firsts(company);
            votes.clone_from(&is_first);
            for _ in 0..2 {
                votes = weights(&self.cosines(company, &votes));
                votes.iter_mut().zip(&is_first).for_each(|(vote, first)| *vote *= first);
            }
        }
        company.iter().zip(&votes).for_each(|(sketch, vote)| self.sum.add(*vote, sketch));
        self.count += company.len();
        votes
    }

    /// Of each to the sum of all others.
    fn cosines(&self, company: &[Sketch], votes: &[f64]) -> Vec<f64> {
        let mut all = self.sum.clone();
        company.iter().zip(votes).for_each(|(sketch, vote)| all.add(*vote, sketch));
        let one = |(sketch, vote): (&Sketch, &f64)| {
            let mut others = all.clone();
            others.add(-vote, sketch);
            let length = others.dot(&others).sqrt();
            if length > 0.0 { sketch.dot(&others) / length } else { 0.0 }
        };
        company.iter().zip(votes).map(one).collect()
    }
}

/// A seed that nobody knew who sent one of these.
fn drawn_of(company: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    company.iter().for_each(|bytes| {
        hasher.update(bytes);
    });
    hasher.finalize().as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// 1 for each, and 0 for copies of one before them.
fn firsts(company: &[Sketch]) -> Vec<f64> {
    let before = |at: usize| company[..at].iter().map(move |other| company[at].dot(other));
    let usual = middle((0..company.len()).flat_map(before)).unwrap_or(0.0);
    let least = COPY.max(1.0 - (1.0 - usual) / NEARER);
    let is_copy = |at| before(at).any(|cosine| cosine >= least);
    (0..company.len()).map(|at| f64::from(u8::from(!is_copy(at)))).collect()
}

/// Of cosines to the others.
fn weights(cosines: &[f64]) -> Vec<f64> {
    let usual = middle(cosines.iter().copied()).unwrap_or(0.0);
    let of = |cosine: &f64| match usual < NOISE {
        true => f64::from(u8::from(*cosine >= -NOISE)),
        false => (cosine / (FULL * usual)).clamp(0.0, 1.0),
    };
    cosines.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{
        delta::{self, CodecId, DeltaSpec},
        rng,
    };

    fn model() -> ModelSpec {
        ModelSpec { vocab_size: 9, hidden_size: 64, num_hidden_layers: 1, ..ModelSpec::tiny() }
    }

    /// A delta of which a tenth, in square, is signal; `sign` is the signal's.
    fn noisy(number: u64, sign: f64) -> Vec<u8> {
        let value = |i| (sign * rng::normal(7, 0, i) + 3.0 * rng::normal(7, number, i)) as f32;
        encoded((0..model().parameters() as u64).map(value).collect())
    }

    fn encoded(values: Vec<f32>) -> Vec<u8> {
        let exact = DeltaSpec { codec: CodecId::F32, ..DeltaSpec::default() };
        delta::encode(&model(), &exact, &values, &mut vec![0.0; values.len()])
    }

    fn judged(voices: &mut Voices, company: &[Vec<u8>]) -> Vec<f64> {
        voices.judge(&model(), &company.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_points_against_the_others_does_not_count_and_they_all_do() {
        let mut company: Vec<Vec<u8>> = (1..=13).map(|number| noisy(number, 1.0)).collect();
        company.extend((14..=16).map(|number| noisy(number, -1.0)));
        let votes = judged(&mut Voices::default(), &company);
        assert_eq!((&votes[..13], &votes[13..]), (&[1.0; 13][..], &[0.0; 3][..]));
        assert_eq!(votes, judged(&mut Voices::default(), &company), "whoever replays it has the same");
    }

    #[test]
    fn noise_counts_little_and_a_copy_not_at_all() {
        let mut company: Vec<Vec<u8>> = (1..=12).map(|number| noisy(number, 1.0)).collect();
        company.push(noisy(13, 0.0));
        let (n, spec) = (model().parameters(), DeltaSpec { codec: CodecId::F32, ..DeltaSpec::default() });
        let mut copy = vec![0.0; n];
        delta::add_scaled(&model(), &company[4], &vec![2.0; model().tensors().len()], &mut copy).unwrap();
        copy.iter_mut().zip(0..).for_each(|(v, i)| *v += (0.3 * rng::normal(7, 99, i)) as f32);
        company.push(delta::encode(&model(), &spec, &copy, &mut vec![0.0; n]));
        let votes = judged(&mut Voices::default(), &company);
        assert!(votes[..12].iter().all(|vote| *vote > 0.9), "{votes:?}");
        assert!(votes[12] < 0.7 && votes[13] == 0.0, "{votes:?}");
    }

    #[test]
    fn of_few_all_count_until_others_have_spoken() {
        let mut voices = Voices::default();
        assert_eq!(judged(&mut voices, &[noisy(1, 1.0), noisy(2, 1.0), noisy(3, -1.0)]), [1.0; 3]);
        let mut voices = Voices::default();
        let first: Vec<Vec<u8>> = (1..=12).map(|number| noisy(number, 1.0)).collect();
        judged(&mut voices, &first);
        // One alone, beside the twelve before it.
        assert_eq!(judged(&mut voices.clone(), &[noisy(13, 1.0)]), [1.0]);
        assert_eq!(judged(&mut voices, &[noisy(13, -1.0)]), [0.0]);
    }

    #[test]
    fn deltas_that_have_nothing_in_common_all_count() {
        let company: Vec<Vec<u8>> = (1..=8).map(|number| noisy(number, 0.0)).collect();
        assert_eq!(judged(&mut Voices::default(), &company), [1.0; 8]);
        // Nor do values that point nowhere harm anybody.
        let nothing = encoded(vec![0.0; model().parameters()]);
        assert!(
            judged(&mut Voices::default(), &[nothing.clone(), nothing.clone(), nothing.clone(), nothing])
                .iter()
                .all(|vote| vote.is_finite())
        );
    }
}
