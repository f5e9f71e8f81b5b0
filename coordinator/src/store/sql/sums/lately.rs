//! What was merged after the sums: read from the rows, a page at a time.

use super::{DeviceSum, ROWS_AT_ONCE, Sums};
use crate::{
    engine::snapshot::MergedRange,
    store::{
        BadRow, LedgerError,
        ledger::integer,
        samples::BEYOND,
        sql::{
            epochs::of_training,
            read::{PAGE, limit, unsigned},
            rows::{self, SetAside},
            tables::{Cells, Tables, sql},
        },
    },
};
use nightjar_shared::ids::{DeviceId, LeaseId};
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

/// What came after the sums.
#[derive(Default)]
pub(in crate::store::sql) struct Lately {
    pub devices: BTreeMap<DeviceId, DeviceSum>,
    /// Merged ranges of the epochs that leases were issued or merged of.
    pub epochs: BTreeMap<u32, Vec<(LeaseId, MergedRange)>>,
    pub tokens: u64,
    pub last_seq: u64,
    pub last_lease: u64,
}

/// What came after the sums, with what is wrong with leases there.
pub(in crate::store::sql) async fn after(
    tx: &mut impl Tables,
    sums: &Sums,
    aside: &mut SetAside,
) -> Result<Lately, LedgerError> {
    let beyond = format!(
        "/* epochs beyond */ SELECT id FROM leases WHERE id > $1 AND {} AND outcome IS NOT NULL
             AND NOT (epoch BETWEEN 0 AND 4294967294 AND epoch < id)",
        of_training()
    );
    let beyond = sql(AssertSqlSafe(beyond)).bind(integer("leases.id", sums.through_lease)?);
    for row in &tx.rows(beyond).await? {
        let ((column, why), id) = (BEYOND, rows::lease_number(row).map_or_else(|_| String::new(), |id| id.to_string()));
        aside.0.push(BadRow { table: "leases", id, column, why });
    }
    lately(tx, sums, None, aside).await
}

/// What came after the sums, up to a delta and its lease.
pub(super) async fn lately(
    tx: &mut impl Tables,
    sums: &Sums,
    through: Option<u64>,
    aside: &mut SetAside,
) -> Result<Lately, LedgerError> {
    let mut lately = Lately { last_seq: sums.through_seq, ..Lately::default() };
    let through_seq = through.map_or(Ok(i64::MAX), |through| integer("deltas.seq", through))?;
    let mut seq = integer("deltas.seq", sums.through_seq)?;
    loop {
        let page = sql("/* sums: deltas */
             SELECT d.seq, d.device, d.tokens, d.lease, l.id, l.generation, l.kind, l.outcome, l.epoch, l.shard,
                    l.first_sample, l.samples_used
             FROM deltas d LEFT JOIN leases l ON l.id = d.lease
             WHERE d.seq > $1 AND d.seq <= $2 ORDER BY d.seq LIMIT $3");
        let page = page.bind(seq).bind(through_seq).bind(limit(PAGE));
        let page = tx.rows(page).await?;
        for row in &page {
            seq = row.integer("seq")?;
            if let Err(bad) = lately.take(row) {
                aside.0.push(bad);
            }
        }
        lately.last_seq = unsigned(seq).max(lately.last_seq);
        if page.len() < PAGE {
            break;
        }
    }
    let epochs = format!(
        "/* sums: epochs */ SELECT DISTINCT epoch FROM leases
         WHERE id > $1 AND id <= $2 AND {} AND epoch BETWEEN 0 AND 4294967294 AND epoch < id",
        of_training()
    );
    let upto = if through.is_some() { integer("leases.id", lately.last_lease)? } else { i64::MAX };
    let epochs = sql(AssertSqlSafe(epochs)).bind(integer("leases.id", sums.through_lease)?).bind(upto);
    for row in &tx.rows(epochs).await? {
        let epoch = u32::try_from(row.integer("epoch")?).unwrap_or(u32::MAX);
        lately.epochs.entry(epoch).or_default();
    }
    Ok(lately)
}

impl Lately {
    fn take(&mut self, row: &impl Cells) -> Result<(), BadRow> {
        let merged = rows::merged(row)?;
        self.tokens += merged.tokens;
        self.last_lease = self.last_lease.max(merged.lease.0.0);
        let one = DeviceSum { tokens: merged.tokens, merged: 1, last: merged.lease };
        let device = self.devices.entry(merged.device).or_default();
        *device = device.and(one);
        if merged.is_of_training {
            let (epoch, range) = rows::merged_range(row)?;
            if u64::from(epoch) < merged.lease.0.0 {
                self.epochs.entry(epoch).or_default().push((merged.lease.0, range));
            }
        }
        Ok(())
    }
}

/// Tokens merged into each version that has no sum yet, as far as it is of deltas up to `through`: numbers and tokens,
/// in order.
pub(in crate::store::sql) async fn version_tokens(
    tx: &mut impl Tables,
    sums: &Sums,
    through: Option<u64>,
) -> Result<Vec<(u64, u64)>, LedgerError> {
    let versions = versions_through(tx, sums.versions, through).await?;
    let (Some((_, first)), Some((_, last))) = (versions.first(), versions.last()) else { return Ok(vec![]) };
    // A delta may be in the sums before a version is made of it.
    let sum_seq = integer("deltas.seq", sums.through_seq)?;
    let waited = sql(AssertSqlSafe(format!(
        "/* sums: waited */ SELECT CAST(coalesce(sum({TOKENS}), 0) AS BIGINT) AS n FROM deltas WHERE seq > $1 AND seq <= $2"
    )));
    let begin = sum_seq.min(*first);
    let mut tokens = sums.tokens.saturating_sub(unsigned(tx.number(waited.bind(begin).bind(sum_seq)).await?));
    let (mut found, mut left) = (vec![], versions.as_slice());
    let mut seq = begin;
    loop {
        let page = format!(
            "/* sums: tokens */ SELECT seq, {TOKENS} AS n FROM deltas WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3"
        );
        let page = sql(AssertSqlSafe(page)).bind(seq).bind(*last).bind(limit(PAGE));
        let page = tx.rows(page).await?;
        for row in &page {
            seq = row.integer("seq")?;
            while let Some(((version, through), behind)) = left.split_first()
                && *through < seq
            {
                found.push((*version, tokens));
                left = behind;
            }
            tokens = tokens.saturating_add(unsigned(row.integer("n")?));
        }
        if page.len() < PAGE {
            break;
        }
    }
    found.extend(left.iter().map(|(version, _)| (*version, tokens)));
    Ok(found)
}

/// Versions from a number on that are of deltas up to `through`, each with its last delta.
async fn versions_through(
    tx: &mut impl Tables,
    from: u64,
    through: Option<u64>,
) -> Result<Vec<(u64, i64)>, LedgerError> {
    let through = through.map_or(Ok(i64::MAX), |through| integer("versions.through_seq", through))?;
    let (mut found, mut next) = (vec![], integer("versions.version", from)?);
    loop {
        let page = sql("/* sums: versions */
             SELECT version, through_seq FROM versions WHERE version >= $1 ORDER BY version LIMIT $2");
        let page = tx.rows(page.bind(next).bind(limit(ROWS_AT_ONCE))).await?;
        for row in &page {
            let version = row.integer("version")?;
            if row.integer("through_seq")? > through {
                return Ok(found);
            }
            found.push((unsigned(version), row.integer("through_seq")?));
            next = version.saturating_add(1);
        }
        if page.len() < ROWS_AT_ONCE {
            return Ok(found);
        }
    }
}

/// A delta's tokens; none where they are more than any work.
pub(in crate::store::sql) const TOKENS: &str = "CASE WHEN tokens BETWEEN 0 AND 1099511627776 THEN tokens ELSE 0 END";
