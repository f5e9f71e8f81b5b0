//! What a ledger in SQLite tells.

use super::{
    SqliteLedger, epochs,
    rows::{self, SetAside},
};
use crate::{
    engine::snapshot::{self, DeviceSummary, Snapshot},
    store::{Curves, Facts, LedgerError, Lineage, Shards, Unnamed, ledger::integer},
};
use nightjar_shared::{
    ids::{BlobHash, Generation, LeaseId, Version},
    time::Wall,
};
use sqlx::{Row, Sqlite, Transaction};
use std::collections::BTreeSet;

/// Names of merged deltas in memory at once, where only a few are looked for.
const NAMES_AT_ONCE: usize = 4096;

impl SqliteLedger {
    pub(super) async fn read_snapshot(&self, shards: &Shards) -> Result<Snapshot, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let mut aside = SetAside::default();
        let devices = sqlx::query(
            "SELECT d.*, coalesce(x.tokens, 0) AS merged_tokens, coalesce(x.merged, 0) AS merged, x.last_lease,
                    l.generation AS last_generation, coalesce(r.refused, 0) AS refused
             FROM devices d
             LEFT JOIN (SELECT device, sum(iif(tokens BETWEEN 0 AND 1099511627776, tokens, 0)) AS tokens, count(*) AS merged, max(lease) AS last_lease
                        FROM deltas GROUP BY device) x ON x.device = d.id
             LEFT JOIN leases l ON l.id = x.last_lease
             LEFT JOIN (SELECT s.device, count(*) AS refused FROM leases s
                        WHERE s.outcome = 'screened_out'
                          AND s.id > coalesce((SELECT max(lease) FROM deltas m WHERE m.device = s.device), 0)
                        GROUP BY s.device) r ON r.device = d.id
             ORDER BY d.id",
        )
        .fetch_all(&mut *tx)
        .await?;
        let summary = |row, aside: &mut SetAside| {
            let record = rows::device(row, aside)?;
            let number =
                |column| row.try_get::<Option<i64>, _>(column).ok().flatten().and_then(|n| u64::try_from(n).ok());
            Ok(DeviceSummary {
                record,
                tokens: number("merged_tokens").unwrap_or(0),
                merged: number("merged").unwrap_or(0),
                last_merged: number("last_lease").map(LeaseId).zip(number("last_generation").map(Generation)),
                refused: number("refused").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            })
        };
        let devices = aside.readable(&devices, summary);
        let open_leases =
            sqlx::query("SELECT * FROM leases WHERE outcome IS NULL ORDER BY id").fetch_all(&mut *tx).await?;
        let last_lease: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM leases").fetch_one(&mut *tx).await?;
        let (last_seq, tokens): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(max(seq), 0), coalesce(sum(iif(tokens BETWEEN 0 AND 1099511627776, tokens, 0)), 0) FROM \
            deltas",
        )
        .fetch_one(&mut *tx)
        .await?;
        let recent = sqlx::query(
            "SELECT * FROM (SELECT seq, device, norm, steps, merged_at,
                                   sum(iif(tokens BETWEEN 0 AND 1099511627776, tokens, 0)) OVER (ORDER BY seq) AS tokens_so_far,
                                   row_number() OVER (PARTITION BY device ORDER BY seq DESC) AS nth
                            FROM deltas)
             WHERE nth <= ? ORDER BY seq DESC LIMIT ?",
        )
        .bind(limit(snapshot::DELTAS_OF_DEVICE_KEPT))
        .bind(limit(snapshot::DELTAS_KEPT))
        .fetch_all(&mut *tx)
        .await?;
        let blobs = sqlx::query("SELECT seq, blob FROM deltas ORDER BY seq DESC LIMIT ?")
            .bind(limit(snapshot::BLOBS_KEPT))
            .fetch_all(&mut *tx)
            .await?;
        let versions = sqlx::query("SELECT * FROM versions ORDER BY version DESC LIMIT ?")
            .bind(limit(snapshot::VERSIONS_KEPT))
            .fetch_all(&mut *tx)
            .await?;
        let evaluations = sqlx::query("SELECT * FROM evaluations ORDER BY version DESC, lease DESC LIMIT 1")
            .fetch_all(&mut *tx)
            .await?;
        // A lease that is open and cannot be read is an error: its device could be given no other.
        let open_leases = open_leases.iter().map(|row| rows::lease(row, &mut aside)).collect::<Result<_, _>>()?;
        let (epochs, _) = epochs::unfinished(&mut tx, shards, &mut aside).await?;
        let snapshot = Snapshot {
            devices,
            open_leases,
            last_lease: LeaseId(unsigned(last_lease)),
            epochs_opened: epochs::opened(&mut tx).await?,
            epochs,
            last_seq: unsigned(last_seq),
            tokens: unsigned(tokens),
            recent_deltas: aside.readable(recent.iter().rev(), rows::recent),
            merged_blobs: aside.readable(blobs.iter().rev(), |row, _| rows::merged_blob(row)),
            versions: rows::versions(&mut tx, versions.iter().rev(), &mut aside).await?,
            evaluation: aside.readable(&evaluations, rows::evaluation).pop(),
        };
        aside.told();
        Ok(snapshot)
    }

    pub(super) async fn read_curves(&self) -> Result<Curves, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let more: Vec<i64> = sqlx::query_scalar(
            "SELECT coalesce(sum(iif(d.tokens BETWEEN 0 AND 1099511627776, d.tokens, 0)), 0)
             FROM (SELECT version, through_seq, lag(through_seq, 1, 0) OVER (ORDER BY version) AS before
                   FROM versions) v
             LEFT JOIN deltas d ON d.seq > v.before AND d.seq <= v.through_seq
             GROUP BY v.version ORDER BY v.version",
        )
        .fetch_all(&mut *tx)
        .await?;
        let rows = sqlx::query("SELECT * FROM evaluations ORDER BY lease").fetch_all(&mut *tx).await?;
        let mut aside = SetAside::default();
        let evaluations = aside.readable(&rows, rows::evaluation);
        aside.told();
        let mut sum = 0;
        let tokens = more.into_iter().map(|more| {
            sum += unsigned(more);
            sum
        });
        Ok(Curves { tokens: tokens.collect(), evaluations })
    }

    pub(super) async fn read_unnamed(&self, mut blobs: BTreeSet<BlobHash>, now: Wall) -> Result<Unnamed, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let mut aside = SetAside::default();
        let versions = sqlx::query("SELECT * FROM versions ORDER BY version").fetch_all(&mut *tx).await?;
        let versions = rows::versions(&mut tx, versions.iter(), &mut aside).await?;
        for blob in versions.iter().flat_map(|v| v.blobs()) {
            blobs.remove(&blob.hash);
        }
        if let Some(bad) = aside.0.into_iter().find(|bad| bad.table == "squashes") {
            return Err(bad.into());
        }
        let mut seq = i64::MIN;
        loop {
            let page = sqlx::query("SELECT seq, blob FROM deltas WHERE seq > ? ORDER BY seq LIMIT ?").bind(seq);
            let page = page.bind(limit(NAMES_AT_ONCE)).fetch_all(&mut *tx).await?;
            let Some(last) = page.last() else { break };
            seq = last.try_get("seq")?;
            for row in &page {
                blobs.remove(&rows::merged_blob(row)?);
            }
        }
        let last_entry: i64 = sqlx::query_scalar(
            "SELECT coalesce(max(at), 0) FROM (
                 SELECT enrolled_at AS at FROM devices UNION ALL SELECT issued_at FROM leases
                 UNION ALL SELECT closed_at FROM leases UNION ALL SELECT merged_at FROM deltas
                 UNION ALL SELECT published_at FROM versions UNION ALL SELECT measured_at FROM evaluations)
             WHERE at BETWEEN 0 AND ?",
        )
        .bind(integer("now", now.unix_ms)?)
        .fetch_one(&mut *tx)
        .await?;
        Ok(Unnamed { blobs, last_entry: Wall { unix_ms: unsigned(last_entry) } })
    }

    pub(super) async fn read_lineage(&self, since: Version) -> Result<Lineage, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let through: i64 = sqlx::query_scalar("SELECT coalesce(max(through_seq), 0) FROM versions WHERE version <= ?")
            .bind(integer("versions.version", since.0)?)
            .fetch_one(&mut *tx)
            .await?;
        let mut aside = SetAside::default();
        let lineage = lineage(&mut tx, Some(through), &mut aside).await?;
        aside.told();
        Ok(lineage)
    }

    pub(super) async fn read_facts(&self) -> Result<Facts, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let devices = sqlx::query("SELECT * FROM devices ORDER BY id").fetch_all(&mut *tx).await?;
        let leases = sqlx::query("SELECT * FROM leases ORDER BY id").fetch_all(&mut *tx).await?;
        let evaluations = sqlx::query("SELECT * FROM evaluations ORDER BY lease").fetch_all(&mut *tx).await?;
        let mut aside = SetAside::default();
        let facts = Facts {
            devices: aside.readable(&devices, rows::device),
            leases: aside.readable(&leases, rows::lease_facts),
            lineage: lineage(&mut tx, None, &mut aside).await?,
            evaluations: aside.readable(&evaluations, rows::evaluation),
            set_aside: vec![],
        };
        aside.told();
        Ok(Facts { set_aside: aside.0, ..facts })
    }
}

/// What the weights follow from; deltas up to `through` are left out.
async fn lineage(
    tx: &mut Transaction<'_, Sqlite>,
    through: Option<i64>,
    aside: &mut SetAside,
) -> Result<Lineage, LedgerError> {
    let deltas = sqlx::query("SELECT * FROM deltas WHERE seq > ? ORDER BY seq").bind(through.unwrap_or(i64::MIN));
    let deltas = deltas.fetch_all(&mut **tx).await?;
    let versions = sqlx::query("SELECT * FROM versions ORDER BY version").fetch_all(&mut **tx).await?;
    let (restarts, lost_deltas) = losses(tx).await?;
    Ok(Lineage {
        deltas: aside.readable(&deltas, rows::delta),
        versions: rows::versions(tx, versions.iter(), aside).await?,
        after_seq: through.map_or(0, unsigned),
        restarts,
        lost_deltas,
    })
}

/// Restarts and lost deltas, in their order. A ledger that only an older version has written has no tables of them.
async fn losses(tx: &mut Transaction<'_, Sqlite>) -> Result<(Vec<Version>, Vec<u64>), LedgerError> {
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = 'lost_deltas'")
        .fetch_one(&mut **tx)
        .await?;
    if tables == 0 {
        return Ok((vec![], vec![]));
    }
    let restarts: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM restarts ORDER BY version").fetch_all(&mut **tx).await?;
    let deltas: Vec<i64> = sqlx::query_scalar("SELECT seq FROM lost_deltas ORDER BY seq").fetch_all(&mut **tx).await?;
    Ok((restarts.into_iter().map(|v| Version(unsigned(v))).collect(), deltas.into_iter().map(unsigned).collect()))
}

/// A count or sum that is never negative where only this program has written.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
