//! The samples that leases gave, as the ledger has them, held against the dataset: a row that gives samples twice, or
//! some that there are not, is set aside by name.

use super::{
    BadRow, LedgerError,
    rows::{self, SetAside},
};
use crate::engine::{
    record::LeaseRecord,
    snapshot::{EpochUse, MergedRange},
    usable,
};
use nightjar_shared::shard::Manifest;
use sqlx::{Sqlite, Transaction};
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

    /// Takes what an open lease holds, if it can hold it.
    pub fn lease(&mut self, shards: &Shards, lease: &LeaseRecord) -> Result<(), BadRow> {
        let bad = |(column, why)| BadRow { table: "leases", id: lease.id.to_string(), column, why };
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

const TWICE: (&str, &str) = ("first_sample", "is of samples that another lease has");
/// Each epoch begins with a lease of its own.
const BEYOND: (&str, &str) = ("epoch", "is one that no lease has begun");

/// Epochs that were opened.
pub(super) async fn epochs_opened(tx: &mut Transaction<'_, Sqlite>) -> Result<u32, LedgerError> {
    let opened: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(epoch) + 1, 0) FROM leases WHERE kind = 'train' AND epoch BETWEEN 0 AND min(id - 1, \
        4294967294)",
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(u32::try_from(opened).unwrap_or(u32::MAX))
}

/// Epochs in which samples are still to be merged or are leased, and what is merged of them.
pub(super) async fn unfinished_epochs(
    tx: &mut Transaction<'_, Sqlite>,
    shards: &Shards,
    aside: &mut SetAside,
) -> Result<(Vec<EpochUse>, Taken), LedgerError> {
    let beyond = sqlx::query(
        "SELECT id FROM leases WHERE kind = 'train' AND outcome IS NOT NULL
                                 AND NOT epoch BETWEEN 0 AND min(id - 1, 4294967294)",
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in &beyond {
        let ((column, why), id) = (BEYOND, rows::lease_number(row).map_or_else(|_| String::new(), |id| id.to_string()));
        aside.0.push(BadRow { table: "leases", id, column, why });
    }
    let largest = shards.usable.iter().max().copied().unwrap_or(0);
    let unfinished: Vec<i64> = sqlx::query_scalar(
        "SELECT epoch FROM leases WHERE kind = 'train' AND epoch BETWEEN 0 AND min(id - 1, 4294967294) GROUP BY epoch
         HAVING sum(CASE WHEN samples_used BETWEEN 0 AND ? THEN samples_used ELSE 0 END) < ? OR sum(outcome IS NULL) > 0
         ORDER BY epoch",
    )
    .bind(largest)
    .bind(rows::integer("leases.samples_used", shards.samples())?)
    .fetch_all(&mut **tx)
    .await?;
    let (mut epochs, mut taken) = (vec![], Taken::default());
    for number in unfinished {
        let merged = sqlx::query(
            "SELECT id, shard, first_sample, samples_used FROM leases
             WHERE kind = 'train' AND epoch = ? AND outcome = 'merged' AND id > epoch ORDER BY shard, first_sample",
        )
        .bind(number)
        .fetch_all(&mut **tx)
        .await?;
        let Ok(epoch) = u32::try_from(number) else { continue };
        let mut ranges = vec![];
        for (id, range) in aside.readable(&merged, rows::merged_range) {
            let fault = shards.fault(range, "samples_used");
            // Nothing is taken by a range of none.
            if fault.is_none() && range.samples == 0 {
                continue;
            }
            match fault.or_else(|| (!taken.take(epoch, range)).then_some(TWICE)) {
                None => ranges.push(range),
                Some((column, why)) => aside.0.push(BadRow { table: "leases", id: id.to_string(), column, why }),
            }
        }
        epochs.push(EpochUse { epoch, merged: ranges });
    }
    Ok((epochs, taken))
}
