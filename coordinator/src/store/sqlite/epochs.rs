//! Which samples of which epochs are merged and leased, by the leases' rows.

use super::rows::{self, SetAside};
use crate::{
    engine::{record::LeaseOutcome, snapshot::EpochUse},
    store::{
        BadRow, LedgerError,
        ledger::integer,
        samples::{BEYOND, Shards, Taken},
    },
};
use nightjar_shared::lease::LeaseKind;
use sqlx::{AssertSqlSafe, Sqlite, Transaction};

/// The leases that take samples from the pool. The word stands in the text, since only then does the index on these
/// rows serve.
fn of_training() -> String {
    format!("kind = '{}'", LeaseKind::Train.name())
}

/// Epochs that were opened.
pub(super) async fn opened(tx: &mut Transaction<'_, Sqlite>) -> Result<u32, LedgerError> {
    let opened: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT coalesce(max(epoch) + 1, 0) FROM leases WHERE {} AND epoch BETWEEN 0 AND min(id - 1, 4294967294)",
        of_training()
    )))
    .fetch_one(&mut **tx)
    .await?;
    Ok(u32::try_from(opened).unwrap_or(u32::MAX))
}

/// Epochs in which samples are still to be merged or are leased, and what is merged of them.
pub(super) async fn unfinished(
    tx: &mut Transaction<'_, Sqlite>,
    shards: &Shards,
    aside: &mut SetAside,
) -> Result<(Vec<EpochUse>, Taken), LedgerError> {
    let of_training = of_training();
    let beyond = sqlx::query(AssertSqlSafe(format!(
        "SELECT id FROM leases WHERE {of_training} AND outcome IS NOT NULL
                                 AND NOT epoch BETWEEN 0 AND min(id - 1, 4294967294)"
    )))
    .fetch_all(&mut **tx)
    .await?;
    for row in &beyond {
        let ((column, why), id) = (BEYOND, rows::lease_number(row).map_or_else(|_| String::new(), |id| id.to_string()));
        aside.0.push(BadRow { table: "leases", id, column, why });
    }
    let unfinished: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT epoch FROM leases WHERE {of_training} AND epoch BETWEEN 0 AND min(id - 1, 4294967294) GROUP BY epoch
         HAVING sum(CASE WHEN samples_used BETWEEN 0 AND ? THEN samples_used ELSE 0 END) < ? OR sum(outcome IS NULL) > 0
         ORDER BY epoch"
    )))
    .bind(shards.largest())
    .bind(integer("leases.samples_used", shards.samples())?)
    .fetch_all(&mut **tx)
    .await?;
    let (mut epochs, mut taken) = (vec![], Taken::default());
    let merged_of_epoch = format!(
        "SELECT id, shard, first_sample, samples_used FROM leases
         WHERE {of_training} AND epoch = ? AND outcome = '{}' AND id > epoch ORDER BY shard, first_sample",
        LeaseOutcome::Merged.name()
    );
    for number in unfinished {
        let merged = sqlx::query(AssertSqlSafe(merged_of_epoch.as_str())).bind(number).fetch_all(&mut **tx).await?;
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
