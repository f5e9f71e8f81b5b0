//! The samples that are free: for each open epoch, intervals of each shard. A lease takes a range of one interval; what
//! it does not use comes back. All ranges are whole batches, so a shard's last samples, fewer than a batch, are never
//! trained on.

use super::snapshot::EpochUse;
use nightjar_shared::shard::Manifest;
use std::collections::{BTreeMap, BTreeSet};

/// A range of samples of one shard, in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRange {
    /// Pass over the data, from 0.
    pub epoch: u32,
    /// Position of the shard in the manifest's list.
    pub shard: u32,
    /// First sample within the shard.
    pub first: u32,
    /// Number of samples.
    pub samples: u32,
}

impl SampleRange {
    /// The first `samples` of it, and what is behind them, if anything is.
    pub fn split(self, samples: u32) -> (SampleRange, Option<SampleRange>) {
        let samples = samples.min(self.samples);
        let behind = SampleRange { first: self.first + samples, samples: self.samples - samples, ..self };
        (SampleRange { samples, ..self }, Some(behind).filter(|b| b.samples > 0))
    }
}

/// Samples of a shard that make whole batches.
pub fn usable(shard_samples: u32, batch: u32) -> u32 {
    shard_samples - shard_samples % batch
}

/// Samples that an epoch trains on.
pub fn epoch_samples(manifest: &Manifest, batch: u32) -> u64 {
    manifest.train.iter().map(|s| u64::from(usable(s.samples, batch))).sum()
}

/// All free samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pool {
    /// Usable samples of each shard.
    shards: Vec<u32>,
    /// Epochs that have free samples.
    epochs: BTreeMap<u32, Epoch>,
    opened: u32,
}

impl Pool {
    /// With `opened` epochs so far, of which `unfinished` have samples still to be merged; none is leased yet.
    pub fn restore(manifest: &Manifest, batch: u32, opened: u32, unfinished: &[EpochUse]) -> Self {
        let shards: Vec<u32> = manifest.train.iter().map(|s| usable(s.samples, batch)).collect();
        let mut pool = Pool { shards, epochs: BTreeMap::new(), opened };
        for EpochUse { epoch, merged } in unfinished {
            pool.epochs.insert(*epoch, Epoch::full(&pool.shards));
            for m in merged {
                pool.claim(SampleRange { epoch: *epoch, shard: m.shard, first: m.first, samples: m.samples });
            }
        }
        pool
    }

    /// Takes a range out that is known to be free: what the ledger says is merged or leased.
    pub fn claim(&mut self, range: SampleRange) {
        let was_free =
            self.epochs.get_mut(&range.epoch).is_some_and(|e| e.claim(range.shard, range.first, range.samples));
        debug_assert!(was_free, "the ledger gives samples twice: {range:?}");
        self.drop_if_empty(range.epoch);
    }

    /// Takes up to `samples` of the oldest epoch that has any, opening the next where none has. A shard that is `near`
    /// (on the device's disk) is preferred, if it has as many; then any with as many; then the longest range there is.
    /// What is in a shard that `is_lost` stays free, for when it is found again. `None` only if the dataset has no
    /// whole batch besides.
    pub fn take(
        &mut self,
        samples: u32,
        near: impl Iterator<Item = u32>,
        is_lost: impl Fn(u32) -> bool,
    ) -> Option<SampleRange> {
        if !self.epochs.values().any(|epoch| epoch.roomiest(&is_lost).is_some()) {
            let next = Epoch::full(&self.shards);
            next.roomiest(&is_lost)?;
            self.epochs.insert(self.opened, next);
            self.opened += 1;
        }
        let mut near = near.filter(|shard| !is_lost(*shard));
        let mut taken =
            self.epochs.iter_mut().map(|(number, epoch)| (*number, epoch.take(samples, &mut near, &is_lost)));
        let (number, (shard, first, samples)) = taken.find_map(|(number, range)| Some((number, range?)))?;
        self.drop_if_empty(number);
        Some(SampleRange { epoch: number, shard, first, samples })
    }

    /// Takes up to `samples` from the beginning of a range that is free, and on behind it as far as that is free.
    pub fn take_from(&mut self, start: SampleRange, samples: u32) -> Option<SampleRange> {
        let free = self.epochs.get(&start.epoch)?.free_from(start.shard, start.first);
        let range = SampleRange { samples: samples.min(free), ..start };
        if range.samples == 0 {
            return None;
        }
        self.claim(range);
        Some(range)
    }

    /// Gives samples back.
    pub fn give_back(&mut self, range: SampleRange) {
        if range.samples > 0 {
            self.epochs.entry(range.epoch).or_default().free(range.shard, range.first, range.samples);
        }
    }

    /// Samples that are free, in all open epochs.
    pub fn free(&self) -> u64 {
        let lengths = self.epochs.values().flat_map(|e| e.shards.values()).flat_map(|i| i.by_first.values());
        lengths.map(|n| u64::from(*n)).sum()
    }

    fn drop_if_empty(&mut self, number: u32) {
        if self.epochs.get(&number).is_some_and(|e| e.longest.is_empty()) {
            self.epochs.remove(&number);
        }
    }
}

/// The free samples of one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Epoch {
    shards: BTreeMap<u32, Intervals>,
    /// The longest interval of each shard that has one: (length, shard).
    longest: BTreeSet<(u32, u32)>,
}

impl Epoch {
    fn full(shards: &[u32]) -> Self {
        let mut epoch = Epoch::default();
        for (shard, samples) in shards.iter().enumerate().filter(|(_, samples)| **samples > 0) {
            epoch.free(shard as u32, 0, *samples);
        }
        epoch
    }

    /// The longest interval that is to be had: (length, shard).
    fn roomiest(&self, is_lost: impl Fn(u32) -> bool) -> Option<(u32, u32)> {
        self.longest.iter().rev().find(|(_, shard)| !is_lost(*shard)).copied()
    }

    fn take(
        &mut self,
        samples: u32,
        near: &mut impl Iterator<Item = u32>,
        is_lost: impl Fn(u32) -> bool,
    ) -> Option<(u32, u32, u32)> {
        let (longest, roomiest) = self.roomiest(is_lost)?;
        let is_enough = |shard: &u32| self.shards.get(shard).is_some_and(|i| i.longest() >= samples);
        // The shard with the longest interval changes with every lease, which spreads devices over shards.
        let shard = if longest < samples { roomiest } else { near.find(is_enough).unwrap_or(roomiest) };
        let (first, length) = self.shards.get(&shard)?.best_fit(samples)?;
        let samples = samples.min(length);
        self.claim(shard, first, samples).then_some((shard, first, samples))
    }

    /// Free samples from `first` on, up to the first that is not.
    fn free_from(&self, shard: u32, first: u32) -> u32 {
        let before = self.shards.get(&shard).and_then(|i| i.by_first.range(..=first).next_back());
        before.map_or(0, |(start, length)| (start + length).saturating_sub(first))
    }

    fn claim(&mut self, shard: u32, first: u32, samples: u32) -> bool {
        self.change(shard, |i| i.claim(first, samples))
    }

    fn free(&mut self, shard: u32, first: u32, samples: u32) {
        self.change(shard, |i| {
            i.free(first, samples);
            true
        });
    }

    /// Changes a shard's intervals and keeps `longest` in step.
    fn change(&mut self, shard: u32, change: impl FnOnce(&mut Intervals) -> bool) -> bool {
        let intervals = self.shards.entry(shard).or_default();
        self.longest.remove(&(intervals.longest(), shard));
        let changed = change(intervals);
        match intervals.longest() {
            0 => drop(self.shards.remove(&shard)),
            longest => drop(self.longest.insert((longest, shard))),
        }
        changed
    }
}

/// Free intervals of one shard; neighbours are always joined.
#[derive(Clone, Debug, Default, PartialEq)]
struct Intervals {
    by_first: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
}

impl Intervals {
    fn longest(&self) -> u32 {
        self.by_length.last().map_or(0, |(length, _)| *length)
    }

    /// The shortest interval of at least `samples`, or else the longest: (first, length).
    fn best_fit(&self, samples: u32) -> Option<(u32, u32)> {
        let fitting = self.by_length.range((samples, 0)..).next().or(self.by_length.last());
        fitting.map(|(length, first)| (*first, *length))
    }

    fn claim(&mut self, first: u32, samples: u32) -> bool {
        let Some((&start, &length)) = self.by_first.range(..=first).next_back() else { return false };
        let (end, claimed_end) = (start + length, first + samples);
        if claimed_end > end {
            return false;
        }
        self.remove(start, length);
        self.insert(start, first - start);
        self.insert(claimed_end, end - claimed_end);
        true
    }

    fn free(&mut self, mut first: u32, mut samples: u32) {
        if let Some((&start, &length)) = self.by_first.range(..first).next_back() {
            debug_assert!(start + length <= first, "samples {first}.. are free already");
            if start + length == first {
                self.remove(start, length);
                (first, samples) = (start, length + samples);
            }
        }
        if let Some(&length) = self.by_first.get(&(first + samples)) {
            self.remove(first + samples, length);
            samples += length;
        }
        self.insert(first, samples);
    }

    fn insert(&mut self, first: u32, length: u32) {
        if length > 0 {
            self.by_first.insert(first, length);
            self.by_length.insert((length, first));
        }
    }

    fn remove(&mut self, first: u32, length: u32) {
        self.by_first.remove(&first);
        self.by_length.remove(&(length, first));
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::MergedRange;
    use super::*;
    use nightjar_shared::{ids::BlobHash, shard::ShardInfo};

    fn manifest(shards: &[u32]) -> Manifest {
        let shard = |samples: &u32| ShardInfo { hash: BlobHash([0; 32]), bytes: 1, samples: *samples, text_bytes: 1 };
        let train = shards.iter().map(shard).collect();
        Manifest { format: 1, context: 4, vocab_size: 256, tokenizer: None, end_of_text: None, train, heldout: vec![] }
    }

    fn pool(shards: &[u32]) -> Pool {
        Pool::restore(&manifest(shards), 4, 0, &[])
    }

    fn range(epoch: u32, shard: u32, first: u32, samples: u32) -> SampleRange {
        SampleRange { epoch, shard, first, samples }
    }

    #[test]
    fn leases_spread_over_shards_and_prefer_those_at_hand() {
        let mut pool = pool(&[16, 16]);
        assert_eq!(pool.take(4, [].into_iter(), |_| false), Some(range(0, 1, 0, 4)));
        assert_eq!(pool.take(4, [].into_iter(), |_| false), Some(range(0, 0, 0, 4)));
        assert_eq!(pool.take(4, [1].into_iter(), |_| false), Some(range(0, 1, 4, 4)));
        // Shard 1 has 8 left: too few, so the other one is taken.
        assert_eq!(pool.take(12, [1].into_iter(), |_| false), Some(range(0, 0, 4, 12)));
    }

    #[test]
    fn what_comes_back_joins_its_neighbours() {
        let mut pool = pool(&[16]);
        let [a, b, c] = [4, 4, 8].map(|n| pool.take(n, [].into_iter(), |_| false).unwrap());
        pool.give_back(a);
        pool.give_back(c);
        pool.give_back(b);
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(0, 0, 0, 16)));
    }

    #[test]
    fn an_empty_epoch_opens_the_next_and_late_returns_go_first() {
        let mut pool = pool(&[9]);
        let all = pool.take(99, [].into_iter(), |_| false).unwrap();
        assert_eq!(all, range(0, 0, 0, 8), "the ninth sample makes no batch");
        assert_eq!(pool.take(4, [].into_iter(), |_| false), Some(range(1, 0, 0, 4)));
        pool.give_back(range(0, 0, 4, 4));
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(0, 0, 4, 4)));
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(1, 0, 4, 4)));
    }

    #[test]
    fn a_restored_pool_has_what_is_neither_merged_nor_leased() {
        let merged = vec![MergedRange { shard: 0, first: 4, samples: 4 }];
        let mut pool = Pool::restore(&manifest(&[16]), 4, 3, &[EpochUse { epoch: 1, merged }]);
        pool.claim(range(1, 0, 12, 4));
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(1, 0, 8, 4)));
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(1, 0, 0, 4)));
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(3, 0, 0, 16)));
    }

    #[test]
    fn no_whole_batch_is_no_work() {
        assert_eq!(pool(&[3, 2]).take(4, [].into_iter(), |_| false), None);
    }

    #[test]
    fn a_lost_shard_is_passed_over_until_it_is_found_again() {
        let mut pool = pool(&[8, 16]);
        let is_lost = |shard| shard == 1;
        assert_eq!(
            pool.take(99, [1].into_iter(), is_lost),
            Some(range(0, 0, 0, 8)),
            "although it is the larger, and near"
        );
        assert_eq!(pool.take(99, [].into_iter(), is_lost), Some(range(1, 0, 0, 8)), "the next epoch is opened");
        assert_eq!(pool.take(99, [].into_iter(), |_| true), None);
        assert_eq!(pool.take(99, [].into_iter(), |_| false), Some(range(0, 1, 0, 16)), "nothing of it was forgotten");
    }
}
