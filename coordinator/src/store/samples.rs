//! The samples that leases gave, as the ledger has them, held against the dataset: a row that gives samples twice, or
//! some that there are not, is set aside by name.

use super::BadRow;
use crate::engine::{
    record::LeaseRecord,
    snapshot::{EpochUse, MergedRange},
    usable,
};
use nightjar_shared::{ids::LeaseId, shard::Manifest};
use std::collections::{BTreeMap, BTreeSet};

/// What a lease can be given of: the samples of each shard that make whole batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    usable: Vec<u32>,
    batch: u32,
}

impl Shards {
    /// Of a dataset, for batches of this many samples.
    pub fn of(manifest: &Manifest, batch: u32) -> Self {
        let batch = batch.max(1);
        Shards { usable: manifest.train.iter().map(|shard| usable(shard.samples, batch)).collect(), batch }
    }

    /// Samples of one epoch.
    pub fn samples(&self) -> u64 {
        self.usable.iter().map(|samples| u64::from(*samples)).sum()
    }

    /// The ranges as far as there are such samples; and whether that is all of them, in whole batches.
    pub(super) fn within(&self, ranges: Ranges) -> (Ranges, bool) {
        if ranges.iter().all(|range| self.fault(range, "").is_none()) {
            return (ranges, true);
        }
        let mut within = Ranges::default();
        for MergedRange { shard, first, samples } in ranges.iter() {
            let usable = self.usable.get(shard as usize).copied().unwrap_or(0);
            let begun = (first - first % self.batch).max(within.end_of_last(shard));
            let end = (first + samples).checked_next_multiple_of(self.batch).map_or(usable, |end| end.min(usable));
            within.add(MergedRange { shard, first: begun, samples: end.saturating_sub(begun) });
        }
        (within, false)
    }

    /// Why no lease can have had a range: the column, and what is wrong with it.
    fn fault(&self, range: MergedRange, length: &'static str) -> Option<(&'static str, &'static str)> {
        let Some(usable) = self.usable.get(range.shard as usize) else {
            return Some(("shard", "is none of the dataset's"));
        };
        let end = range.first.checked_add(range.samples);
        if !range.first.is_multiple_of(self.batch) {
            Some(("first_sample", "does not begin a batch"))
        } else if !range.samples.is_multiple_of(self.batch) {
            Some((length, "is no whole number of batches"))
        } else if end.is_none_or(|end| end > *usable) {
            Some((length, "goes beyond the end of its shard"))
        } else {
            None
        }
    }
}

/// Samples of one epoch, as ranges by shard and beginning. Neighbours are joined, so that their number follows the
/// shards and the leases that are out, and not the leases that there ever were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The ends, by shard and beginning.
    ends: BTreeMap<(u32, u32), u32>,
    samples: u64,
}

impl Ranges {
    /// Adds a range; `false`, and nothing is added, if some of it is there, or if it has no end.
    pub fn add(&mut self, range: MergedRange) -> bool {
        let MergedRange { shard, first, samples } = range;
        let Some(end) = first.checked_add(samples) else { return false };
        let before = self.ends.range((shard, 0)..(shard, end)).next_back().map(|((_, begun), end)| (*begun, *end));
        if samples == 0 || before.is_some_and(|(_, until)| until > first) {
            return samples == 0;
        }
        let begun = before.filter(|(_, until)| *until == first).map_or(first, |(begun, _)| begun);
        let end = self.ends.remove(&(shard, end)).unwrap_or(end);
        self.ends.insert((shard, begun), end);
        self.samples += u64::from(samples);
        true
    }

    /// All of them, by shard and beginning.
    pub fn iter(&self) -> impl Iterator<Item = MergedRange> + '_ {
        self.ends.iter().map(|((shard, first), end)| MergedRange { shard: *shard, first: *first, samples: end - first })
    }

    /// Behind the last range of a shard; 0 where it has none.
    fn end_of_last(&self, shard: u32) -> u32 {
        self.ends.range((shard, 0)..=(shard, u32::MAX)).next_back().map_or(0, |(_, end)| *end)
    }

    /// How many samples they are.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Twelve bytes a range: shard, first sample and number of samples.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.iter().flat_map(|r| [r.shard, r.first, r.samples]).flat_map(u32::to_le_bytes).collect()
    }

    /// What [`Ranges::encode`] gave; `None` of anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        let mut ranges = Ranges::default();
        let (all, left) = numbers.as_chunks::<3>();
        let is_sound = rest.is_empty()
            && left.is_empty()
            && all.iter().all(|range| {
                let [shard, first, samples] = range.map(u32::from_le_bytes);
                samples > 0 && ranges.add(MergedRange { shard, first, samples })
            });
        is_sound.then_some(ranges)
    }
}

/// The samples of epochs that are not finished, as far as they are merged or leased.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<u32, Ranges>);

impl Taken {
    /// An epoch that has a lease.
    pub fn begun(&mut self, epoch: u32) {
        self.0.entry(epoch).or_default();
    }

    /// What was found merged of an epoch before.
    pub fn known(&mut self, epoch: u32, ranges: Ranges) {
        self.0.insert(epoch, ranges);
    }

    /// Forgets epochs of which all samples are merged, but for those of which some are leased.
    pub fn keep_unfinished(&mut self, shards: &Shards, leased: &BTreeSet<u32>) {
        self.0.retain(|epoch, ranges| ranges.samples() < shards.samples() || leased.contains(epoch));
    }

    /// What is taken, by epoch.
    pub fn epochs(&self) -> Vec<EpochUse> {
        let used = |(epoch, ranges): (&u32, &Ranges)| EpochUse { epoch: *epoch, merged: ranges.iter().collect() };
        self.0.iter().map(used).collect()
    }

    /// Takes what is merged of a lease, if it can have held it.
    pub fn merged(&mut self, shards: &Shards, epoch: u32, id: LeaseId, range: MergedRange) -> Result<(), BadRow> {
        match shards.fault(range, "samples_used") {
            None if !self.0.entry(epoch).or_default().add(range) => Err(bad(id, TWICE)),
            None => Ok(()),
            Some(fault) => Err(bad(id, fault)),
        }
    }

    /// Takes what an open lease holds, if it can hold it.
    pub fn lease(&mut self, shards: &Shards, lease: &LeaseRecord) -> Result<(), BadRow> {
        let bad = |fault| bad(lease.id, fault);
        if u64::from(lease.epoch) >= lease.id.0 {
            return Err(bad(BEYOND));
        }
        let range = MergedRange { shard: lease.shard, first: lease.first_sample, samples: lease.samples };
        match shards.fault(range, "samples") {
            None if range.samples == 0 => Err(bad(("samples", "is none"))),
            None if !self.0.entry(lease.epoch).or_default().add(range) => Err(bad(TWICE)),
            None => Ok(()),
            Some(fault) => Err(bad(fault)),
        }
    }
}

fn bad(id: LeaseId, (column, why): (&'static str, &'static str)) -> BadRow {
    BadRow { table: "leases", id: id.to_string(), column, why }
}

const TWICE: (&str, &str) = ("first_sample", "is of samples that another lease has");
/// Each epoch begins with a lease of its own.
pub(super) const BEYOND: (&str, &str) = ("epoch", "is one that no lease has begun");

#[cfg(test)]
mod tests {
    use super::*;

    fn range(shard: u32, first: u32, samples: u32) -> MergedRange {
        MergedRange { shard, first, samples }
    }

    #[test]
    fn neighbours_are_joined_and_nothing_is_added_twice() {
        let mut ranges = Ranges::default();
        for (added, is_new) in [
            (range(1, 8, 4), true),
            (range(1, 0, 4), true),
            (range(2, 4, 4), true),
            (range(1, 10, 4), false),
            (range(1, 6, 4), false),
            (range(1, 0, 99), false),
            (range(1, 9, 1), false),
            (range(1, u32::MAX, 4), false),
            (range(1, 9, 0), true),
            (range(1, 4, 4), true),
        ] {
            assert_eq!(ranges.add(added), is_new, "{added:?}");
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [range(1, 0, 12), range(2, 4, 4)]);
        assert_eq!(ranges.samples(), 16);
        let bytes = ranges.encode();
        assert_eq!(Ranges::decode(&bytes), Some(ranges));
        assert_eq!((Ranges::decode(&bytes[1..]), Ranges::decode(&bytes[..8])), (None, None));
        assert_eq!(Ranges::decode(&[bytes.clone(), bytes].concat()), None, "samples twice");
    }

    #[test]
    fn what_a_dataset_does_not_have_is_left_out() {
        let shards = Shards { usable: vec![8, 16], batch: 4 };
        let mut ranges = Ranges::default();
        for odd in [range(0, 3, 2), range(0, 6, 9), range(1, 4, 4), range(2, 0, 4)] {
            assert!(ranges.add(odd));
        }
        let (within, is_all) = shards.within(ranges);
        assert_eq!((within.iter().collect::<Vec<_>>(), is_all), (vec![range(0, 0, 8), range(1, 4, 4)], false));
        assert_eq!(shards.within(within.clone()), (within, true));
    }
}
