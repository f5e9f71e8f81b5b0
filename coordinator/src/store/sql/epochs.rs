//! Which samples of which epochs are merged and leased: by the sums, and by the leases' rows behind them.

use super::{
    rows::{self, SetAside},
    sums::{self, Lately},
    tables::{Tables, sql},
};
use crate::store::{
    BadRow, LedgerError,
    samples::{Shards, Taken},
};
use nightjar_shared::lease::LeaseKind;
use std::collections::BTreeSet;

/// The leases that take samples from the pool.
pub(super) fn of_training() -> String {
    format!("kind = '{}'", LeaseKind::Train.name())
}

/// What is merged of the epochs of which something is still to be merged or is leased; `lately` came after the sums.
pub(super) async fn unfinished(
    tx: &mut impl Tables,
    shards: &Shards,
    lately: &Lately,
    aside: &mut SetAside,
) -> Result<Taken, LedgerError> {
    let (mut taken, known) = (Taken::default(), sums::epochs(tx).await?);
    let finished: BTreeSet<u32> =
        known.iter().filter(|(_, ranges)| ranges.is_none()).map(|(epoch, _)| *epoch).collect();
    for (epoch, ranges) in known.into_iter().filter_map(|(epoch, ranges)| Some((epoch, ranges?))) {
        let (ranges, is_all) = shards.within(ranges);
        if !is_all {
            let (column, why) = ("merged", "has samples that the dataset does not have");
            aside.0.push(BadRow { table: "epoch_sums", id: epoch.to_string(), column, why });
        }
        taken.known(epoch, ranges);
    }
    for (epoch, ranges) in lately.epochs.iter().filter(|(epoch, _)| !finished.contains(epoch)) {
        taken.begun(*epoch);
        for (id, range) in ranges {
            aside.0.extend(taken.merged(shards, *epoch, *id, *range).err());
        }
    }
    let leased = sql("/* epochs leased */ SELECT * FROM leases WHERE outcome IS NULL AND kind = 'train'");
    let leased = tx.rows(leased).await?;
    let leased = leased.iter().filter_map(|row| rows::lease(row, &mut SetAside::default()).ok());
    let leased: BTreeSet<u32> = leased.filter(|l| u64::from(l.epoch) < l.id.0).map(|lease| lease.epoch).collect();
    taken.keep_unfinished(shards, &leased);
    Ok(taken)
}

/// Epochs that were opened. No run has more of them than leases.
pub(super) async fn opened(tx: &mut impl Tables, lately: &Lately) -> Result<u32, LedgerError> {
    let known = tx.number(sql("/* epochs opened */ SELECT coalesce(max(epoch) + 1, 0) AS n FROM epoch_sums")).await?;
    let lately = lately.epochs.keys().last().map_or(0, |epoch| epoch.saturating_add(1));
    Ok(u32::try_from(known).unwrap_or(u32::MAX).max(lately))
}
