//! The samples that leases gave, as the ledger has them, held against the dataset: a row that gives samples twice, or
//! some that there are not, is set aside by name.

use super::BadRow;
use crate::engine::{record::LeaseRecord, snapshot::MergedRange, usable};
use nightjar_shared::{ids::LeaseId, shard::Manifest};
use std::collections::{BTreeMap, btree_map::Entry};

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

    /// Samples of the largest shard.
    pub(super) fn largest(&self) -> u32 {
        self.usable.iter().max().copied().unwrap_or(0)
    }

    /// Samples of one epoch.
    pub fn samples(&self) -> u64 {
        self.usable.iter().map(|samples| u64::from(*samples)).sum()
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

/// The samples of epochs that are not finished, as far as they are merged or leased.
#[derive(Default)]
pub(super) struct Taken {
    /// By epoch, each with the ends by shard and beginning.
    epochs: BTreeMap<u32, BTreeMap<(u32, u32), u32>>,
}

impl Taken {
    /// Takes a range that was found to fit; `false`, and nothing is taken, if some of it is taken.
    fn take(&mut self, epoch: u32, range: MergedRange) -> bool {
        let end = range.first + range.samples;
        let taken = self.epochs.entry(epoch).or_default();
        let before = taken.range(..(range.shard, end)).next_back();
        if before.is_some_and(|((shard, _), until)| *shard == range.shard && *until > range.first) {
            return false;
        }
        match taken.entry((range.shard, range.first)) {
            Entry::Vacant(free) => {
                free.insert(end);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Takes what is merged of a lease, if it can have held it; `false` if that is nothing.
    pub fn merged(&mut self, shards: &Shards, epoch: u32, id: LeaseId, range: MergedRange) -> Result<bool, BadRow> {
        match shards.fault(range, "samples_used") {
            None if range.samples == 0 => Ok(false),
            None if !self.take(epoch, range) => Err(bad(id, TWICE)),
            None => Ok(true),
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
            None if !self.take(lease.epoch, range) => Err(bad(TWICE)),
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
