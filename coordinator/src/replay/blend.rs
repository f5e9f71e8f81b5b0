//! A weighted average of versions that follow each other. One walks over them by their updates: memory holds one version
//! and the average, however many there are.

use super::{ReplayError, published::is_lost, weights_by_any_way};
use crate::store::{Blobs, Lineage};
use nightjar_shared::{
    ids::Version,
    run_spec::RunSpec,
    version::{Weights, keyframe, update},
};

/// What an exponential average leaves out of its past: versions that together count for less than this.
const TAIL: f64 = 1e-3;

/// Versions that follow each other, and what each of them counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    /// The last version.
    last: Version,
    /// Of the last version, of the one before it, and so on. Their sum is 1.
    shares: Vec<f64>,
}

impl Shares {
    /// The last `count` versions, one as much as another; all from version 0 on where there are fewer.
    pub fn even(last: Version, count: u64) -> Self {
        let count = count.clamp(1, last.0.saturating_add(1));
        Shares { last, shares: vec![1.0 / count as f64; count as usize] }
    }

    /// Each version counts `decay` times what the one after it does, `0 < decay < 1`. None before `oldest` is taken, nor
    /// those that together would count for less than a thousandth.
    pub fn exponential(last: Version, decay: f64, oldest: Version) -> Self {
        let mut shares = vec![];
        let mut share = 1.0;
        let most = last.0.saturating_sub(oldest.0).saturating_add(1);
        while shares.len() as u64 != most && (share >= TAIL || shares.is_empty()) {
            shares.push(share);
            share *= decay;
        }
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
        Shares { last, shares }
    }

    /// The first version.
    pub fn first(&self) -> Version {
        Version(self.last.0 - (self.shares.len() as u64 - 1))
    }

    /// The last version.
    pub fn last(&self) -> Version {
        self.last
    }

    fn of(&self, version: Version) -> f64 {
        self.shares[(self.last.0 - version.0) as usize]
    }
}

/// The average as one flat vector, and what of the ways to its versions is lost.
pub fn blend(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    shares: &Shares,
) -> Result<(Vec<f32>, Vec<String>), ReplayError> {
    let (mut weights, mut lost) = weights_by_any_way(spec, lineage, blobs, shares.first())?;
    let mut average = vec![0.0; spec.model.parameters()];
    loop {
        let share = shares.of(weights.version) as f32;
        let values = weights.tensors.iter().flat_map(|tensor| tensor.values());
        average.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * value);
        if weights.version >= shares.last() {
            return Ok((average, lost));
        }
        let next = weights.version.next();
        weights = match stepped(spec, lineage, blobs, weights, next)? {
            Some(weights) => weights,
            None => {
                let (weights, more) = weights_by_any_way(spec, lineage, blobs, next)?;
                lost.extend(more);
                weights
            }
        };
    }
}

/// The weights of the next version by its update; `None` if that does not lead there.
fn stepped(
    spec: &RunSpec,
    lineage: &Lineage,
    blobs: &Blobs,
    mut weights: Weights,
    to: Version,
) -> Result<Option<Weights>, ReplayError> {
    let Some(record) = lineage.place(to).map(|at| &lineage.versions[at]) else { return Ok(None) };
    let Some(bytes) = record.update.map(|update| blobs.read(update.hash)) else { return Ok(None) };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        // Another way may lead there, and whoever looks for it tells what is lost.
        Err(error) if is_lost(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if update::apply(&spec.model, &mut weights, &bytes).is_err() {
        return Ok(None);
    }
    if record.keyframe.is_some() {
        keyframe::round(&mut weights);
    }
    Ok((weights.digest() == record.digest).then_some(weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_reach_no_further_than_what_is_kept() {
        let even = Shares::even(Version(9), 4);
        assert_eq!((even.first(), even.last(), even.of(Version(7))), (Version(6), Version(9), 0.25));
        assert_eq!(Shares::even(Version(2), 100).first(), Version(0));
        let ema = Shares::exponential(Version(100), 0.5, Version(0));
        assert_eq!((ema.first(), ema.shares.len()), (Version(91), 10));
        assert!((ema.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((ema.of(Version(99)) * 2.0 - ema.of(Version(100))).abs() < 1e-12);
        assert_eq!(Shares::exponential(Version(100), 0.999, Version(40)).first(), Version(40));
        assert_eq!(Shares::exponential(Version(3), 0.999, Version(3)).shares, [1.0]);
    }
}
