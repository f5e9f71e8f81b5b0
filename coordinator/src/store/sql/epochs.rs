//! Which samples of which epochs are merged and leased, by the leases' rows.

use super::{
    rows::{self, SetAside},
    tables::{Cells, Tables, sql},
};
use crate::{
    engine::{record::LeaseOutcome, snapshot::EpochUse},
    store::{
        BadRow, LedgerError,
        ledger::integer,
        samples::{BEYOND, Shards, Taken},
    },
};
use nightjar_shared::lease::LeaseKind;
use sqlx::AssertSqlSafe;

/// The leases that take samples from the pool. The word stands in the text, since only then does the index on these
/// rows serve.
fn of_training() -> String {
    format!("kind = '{}'", LeaseKind::Train.name())
}

/// Epochs that were opened. No run has more of them than leases.
pub(super) async fn opened(tx: &mut impl Tables) -> Result<u32, LedgerError> {
    let opened = format!(
        "/* epochs opened */ SELECT coalesce(max(epoch) + 1, 0) AS n FROM leases
         WHERE {} AND epoch BETWEEN 0 AND 4294967294 AND epoch < id",
        of_training()
    );
    Ok(u32::try_from(tx.number(sql(AssertSqlSafe(opened))).await?).unwrap_or(u32::MAX))
}

/// Epochs in which samples are still to be merged or are leased, and what is merged of them.
pub(super) async fn unfinished(
    tx: &mut impl Tables,
    shards: &Shards,
    aside: &mut SetAside,
) -> Result<(Vec<EpochUse>, Taken), LedgerError> {
    let of_training = of_training();
    let beyond = format!(
        "/* epochs beyond */ SELECT id FROM leases WHERE {of_training} AND outcome IS NOT NULL
             AND NOT (epoch BETWEEN 0 AND 4294967294 AND epoch < id)"
    );
    let beyond = tx.rows(sql(AssertSqlSafe(beyond))).await?;
    for row in &beyond {
        let ((column, why), id) = (BEYOND, rows::lease_number(row).map_or_else(|_| String::new(), |id| id.to_string()));
        aside.0.push(BadRow { table: "leases", id, column, why });
    }
    let unfinished = format!(
        "/* epochs unfinished */ SELECT epoch FROM leases
         WHERE {of_training} AND epoch BETWEEN 0 AND 4294967294 AND epoch < id
         GROUP BY epoch
         HAVING sum(CASE WHEN samples_used BETWEEN 0 AND $1 THEN samples_used ELSE 0 END) < $2
             OR count(*) > count(outcome)
         ORDER BY epoch"
    );
    let unfinished =
        sql(AssertSqlSafe(unfinished)).bind(shards.largest()).bind(integer("leases.samples_used", shards.samples())?);
    let unfinished = tx.rows(unfinished).await?;
    let merged_of_epoch = format!(
        "/* epoch merged */ SELECT id, shard, first_sample, samples_used FROM leases
         WHERE {of_training} AND epoch = $1 AND outcome = '{}' AND id > epoch ORDER BY shard, first_sample",
        LeaseOutcome::Merged.name()
    );
    let (mut epochs, mut taken) = (vec![], Taken::default());
    for row in &unfinished {
        let number = row.integer("epoch")?;
        let merged = tx.rows(sql(AssertSqlSafe(merged_of_epoch.clone())).bind(number)).await?;
        let Ok(epoch) = u32::try_from(number) else { continue };
        let mut ranges = vec![];
        for (id, range) in aside.readable(&merged, rows::merged_range) {
            match taken.merged(shards, epoch, id, range) {
                Ok(true) => ranges.push(range),
                // Nothing is taken by a range of none.
                Ok(false) => {}
                Err(bad) => aside.0.push(bad),
            }
        }
        epochs.push(EpochUse { epoch, merged: ranges });
    }
    Ok((epochs, taken))
}
