//! What a ledger in a database tells.

use super::{
    Dialect, SqlLedger, desk, epochs, keeping,
    rows::{self, SetAside},
    tables::{Cells, Tables, sql},
};
use crate::{
    engine::snapshot::{self, DeviceSummary, Snapshot},
    store::{BadRow, Curves, Facts, LedgerError, Lineage, Shards, Unnamed, ledger::integer},
};
use nightjar_shared::{
    ids::{BlobHash, Generation, LeaseId, Version},
    time::Wall,
};
use std::collections::BTreeSet;

/// Names of merged deltas in memory at once, where only a few are looked for.
const NAMES_AT_ONCE: usize = 4096;

impl<D: Dialect> SqlLedger<D> {
    pub(super) async fn read_snapshot(&self, shards: &Shards) -> Result<Snapshot, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let mut aside = SetAside::default();
        let devices = sql("/* snapshot: devices */
             SELECT d.*, coalesce(x.tokens, 0) AS merged_tokens, coalesce(x.merged, 0) AS merged, x.last_lease,
                    l.generation AS last_generation, coalesce(r.refused, 0) AS refused
             FROM devices d
             LEFT JOIN (SELECT device, count(*) AS merged, max(lease) AS last_lease,
                               CAST(sum(CASE WHEN tokens BETWEEN 0 AND 1099511627776 THEN tokens ELSE 0 END) AS BIGINT)
                               AS tokens
                        FROM deltas GROUP BY device) x ON x.device = d.id
             LEFT JOIN leases l ON l.id = x.last_lease
             LEFT JOIN (SELECT s.device, count(*) AS refused FROM leases s
                        WHERE s.outcome = 'screened_out'
                          AND s.id > coalesce((SELECT max(lease) FROM deltas m WHERE m.device = s.device), 0)
                        GROUP BY s.device) r ON r.device = d.id
             ORDER BY d.id");
        let devices = tx.rows(devices).await?;
        let devices = aside.readable(&devices, summary);
        let open_leases = sql("/* snapshot: open leases */ SELECT * FROM leases WHERE outcome IS NULL ORDER BY id");
        let open_leases = tx.rows(open_leases).await?;
        let last_lease =
            tx.number(sql("/* snapshot: last lease */ SELECT coalesce(max(id), 0) AS n FROM leases")).await?;
        let last_seq =
            tx.number(sql("/* snapshot: last delta */ SELECT coalesce(max(seq), 0) AS n FROM deltas")).await?;
        let tokens = sql("/* snapshot: tokens */
             SELECT CAST(coalesce(sum(CASE WHEN tokens BETWEEN 0 AND 1099511627776 THEN tokens ELSE 0 END), 0)
                         AS BIGINT) AS n
             FROM deltas");
        let tokens = tx.number(tokens).await?;
        let recent = sql("/* snapshot: recent deltas */
             SELECT * FROM (SELECT seq, device, norm, steps, merged_at,
                                   CAST(sum(CASE WHEN tokens BETWEEN 0 AND 1099511627776 THEN tokens ELSE 0 END)
                                        OVER (ORDER BY seq) AS BIGINT) AS tokens_so_far,
                                   row_number() OVER (PARTITION BY device ORDER BY seq DESC) AS nth
                            FROM deltas) AS numbered
             WHERE nth <= $1 ORDER BY seq DESC LIMIT $2");
        let recent = recent.bind(limit(snapshot::DELTAS_OF_DEVICE_KEPT)).bind(limit(snapshot::DELTAS_KEPT));
        let recent = tx.rows(recent).await?;
        let blobs = sql("/* snapshot: merged blobs */ SELECT seq, blob FROM deltas ORDER BY seq DESC LIMIT $1");
        let blobs = tx.rows(blobs.bind(limit(snapshot::BLOBS_KEPT))).await?;
        let versions = sql("/* snapshot: versions */ SELECT * FROM versions ORDER BY version DESC LIMIT $1");
        let versions = tx.rows(versions.bind(limit(snapshot::VERSIONS_KEPT))).await?;
        let evaluations =
            sql("/* snapshot: evaluation */ SELECT * FROM evaluations ORDER BY version DESC, lease DESC LIMIT 1");
        let evaluations = tx.rows(evaluations).await?;
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
            standing: desk::standing::<D>(&mut tx).await?,
        };
        aside.told();
        Ok(snapshot)
    }

    pub(super) async fn read_curves(&self) -> Result<Curves, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let more = sql("/* curves: tokens */
             SELECT v.version,
                    CAST(coalesce(sum(CASE WHEN d.tokens BETWEEN 0 AND 1099511627776 THEN d.tokens ELSE 0 END), 0)
                         AS BIGINT) AS tokens
             FROM (SELECT version, through_seq,
                          coalesce(lag(through_seq) OVER (ORDER BY version), 0) AS before_seq
                   FROM versions) v
             LEFT JOIN deltas d ON d.seq > v.before_seq AND d.seq <= v.through_seq
             GROUP BY v.version ORDER BY v.version");
        let more = tx.rows(more).await?;
        let evaluations = tx.rows(sql("/* curves: losses */ SELECT * FROM evaluations ORDER BY lease")).await?;
        let mut aside = SetAside::default();
        let evaluations = aside.readable(&evaluations, rows::evaluation);
        aside.told();
        let (mut sum, mut tokens) = (0, vec![]);
        for row in &more {
            sum += unsigned(row.integer("tokens")?);
            tokens.push(sum);
        }
        Ok(Curves { tokens, evaluations })
    }

    pub(super) async fn read_unnamed(&self, mut blobs: BTreeSet<BlobHash>, now: Wall) -> Result<Unnamed, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let mut aside = SetAside::default();
        let versions = tx.rows(sql("/* names: versions */ SELECT * FROM versions ORDER BY version")).await?;
        let versions = rows::versions(&mut tx, versions.iter(), &mut aside).await?;
        for blob in versions.iter().flat_map(|v| v.blobs()) {
            blobs.remove(&blob.hash);
        }
        if let Some(bad) = aside.0.into_iter().find(|bad| bad.table == "squashes") {
            return Err(bad.into());
        }
        let mut seq = i64::MIN;
        loop {
            let page = sql("/* names: deltas */ SELECT seq, blob FROM deltas WHERE seq > $1 ORDER BY seq LIMIT $2");
            let page = tx.rows(page.bind(seq).bind(limit(NAMES_AT_ONCE))).await?;
            let Some(last) = page.last() else { break };
            seq = last.integer("seq")?;
            for row in &page {
                blobs.remove(&rows::merged_blob(row)?);
            }
        }
        let last_entry = sql("/* last entry */
             SELECT coalesce(max(moment), 0) AS n FROM (
                 SELECT enrolled_at AS moment FROM devices UNION ALL SELECT issued_at FROM leases
                 UNION ALL SELECT closed_at FROM leases UNION ALL SELECT merged_at FROM deltas
                 UNION ALL SELECT published_at FROM versions UNION ALL SELECT measured_at FROM evaluations) AS moments
             WHERE moment BETWEEN 0 AND $1");
        let last_entry = tx.number(last_entry.bind(integer("now", now.unix_ms)?)).await?;
        Ok(Unnamed { blobs, last_entry: Wall { unix_ms: unsigned(last_entry) } })
    }

    pub(super) async fn read_lineage(&self, since: Version) -> Result<Lineage, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let through =
            sql("/* lineage: since */ SELECT coalesce(max(through_seq), 0) AS n FROM versions WHERE version <= $1");
        let through = tx.number(through.bind(integer("versions.version", since.0)?)).await?;
        let mut aside = SetAside::default();
        let lineage = lineage::<D>(&mut tx, Some(through), &mut aside).await?;
        aside.told();
        Ok(lineage)
    }

    pub(super) async fn read_facts(&self) -> Result<Facts, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let devices = tx.rows(sql("/* facts: devices */ SELECT * FROM devices ORDER BY id")).await?;
        let leases = tx.rows(sql("/* facts: leases */ SELECT * FROM leases ORDER BY id")).await?;
        let evaluations = tx.rows(sql("/* facts: losses */ SELECT * FROM evaluations ORDER BY lease")).await?;
        let mut aside = SetAside::default();
        let facts = Facts {
            devices: aside.readable(&devices, rows::device),
            leases: aside.readable(&leases, rows::lease_facts),
            lineage: lineage::<D>(&mut tx, None, &mut aside).await?,
            evaluations: aside.readable(&evaluations, rows::evaluation),
            links: keeping::links::<D>(&mut tx).await?,
            set_aside: vec![],
        };
        aside.told();
        Ok(Facts { set_aside: aside.0, ..facts })
    }
}

/// A device, and what it has done.
fn summary(row: &impl Cells, aside: &mut SetAside) -> Result<DeviceSummary, BadRow> {
    let record = rows::device(row, aside)?;
    let number = |column| row.integer(column).ok().and_then(|n| u64::try_from(n).ok());
    Ok(DeviceSummary {
        record,
        tokens: number("merged_tokens").unwrap_or(0),
        merged: number("merged").unwrap_or(0),
        last_merged: number("last_lease").map(LeaseId).zip(number("last_generation").map(Generation)),
        refused: number("refused").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    })
}

/// What the weights follow from; deltas up to `through` are left out.
async fn lineage<D: Dialect>(
    tx: &mut D::Transaction,
    through: Option<i64>,
    aside: &mut SetAside,
) -> Result<Lineage, LedgerError> {
    let deltas = sql("/* lineage: deltas */ SELECT * FROM deltas WHERE seq > $1 ORDER BY seq");
    let deltas = tx.rows(deltas.bind(through.unwrap_or(i64::MIN))).await?;
    let versions = tx.rows(sql("/* lineage: versions */ SELECT * FROM versions ORDER BY version")).await?;
    let (restarts, lost_deltas) = losses::<D>(tx).await?;
    Ok(Lineage {
        deltas: aside.readable(&deltas, rows::delta),
        versions: rows::versions(tx, versions.iter(), aside).await?,
        after_seq: through.map_or(0, unsigned),
        restarts,
        lost_deltas,
        kept: keeping::kept::<D>(tx).await?,
    })
}

/// Restarts and lost deltas, in their order. A ledger that only an older version has written has no tables of them.
pub(super) async fn losses<D: Dialect>(tx: &mut D::Transaction) -> Result<(Vec<Version>, Vec<u64>), LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind("lost_deltas")).await? == 0 {
        return Ok((vec![], vec![]));
    }
    let restarts = tx.rows(sql("/* lineage: restarts */ SELECT version AS n FROM restarts ORDER BY n")).await?;
    let deltas = tx.rows(sql("/* lineage: lost deltas */ SELECT seq AS n FROM lost_deltas ORDER BY n")).await?;
    let numbers = |rows: &[_]| -> Result<Vec<u64>, LedgerError> {
        rows.iter().map(|row: &<D::Transaction as Tables>::Row| Ok(unsigned(row.integer("n")?))).collect()
    };
    Ok((numbers(&restarts)?.into_iter().map(Version).collect(), numbers(&deltas)?))
}

/// A count or sum that is never negative where only this program has written.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
