//! What a ledger in a database tells a start: by the sums, the newest rows, and what is open.

use super::{
    Dialect, SqlLedger, desk, epochs, keeping,
    rows::{self, SetAside},
    sums::{self, Lately},
    tables::{Cells, Tables, sql},
};
use crate::{
    engine::{
        record::SeriesRecord,
        snapshot::{self, DeviceSummary, RecentDelta, RecentDeltas, Snapshot},
    },
    store::{BadRow, LedgerError, Lineage, Merged, Shards, ledger::integer},
};
use nightjar_shared::ids::{BlobHash, Generation, LeaseId, Version};
use sqlx::AssertSqlSafe;

/// Rows in memory at once.
pub(super) const PAGE: usize = 4096;

impl<D: Dialect> SqlLedger<D> {
    pub(super) async fn read_snapshot(&self, shards: &Shards) -> Result<Snapshot, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let mut aside = SetAside::default();
        let sums = sums::sound(&mut tx).await?;
        let lately = sums::after(&mut tx, &sums, &mut aside).await?;
        let devices = devices(&mut tx, &lately, &mut aside).await?;
        // Not in the order of the rows: SQLite would go through all of them.
        let open_leases = sql("/* snapshot: open leases */ SELECT * FROM leases WHERE outcome IS NULL ORDER BY id + 0");
        let open_leases = tx.rows(open_leases).await?;
        let last_lease =
            tx.number(sql("/* snapshot: last lease */ SELECT coalesce(max(id), 0) AS n FROM leases")).await?;
        let last_seq =
            tx.number(sql("/* snapshot: last delta */ SELECT coalesce(max(seq), 0) AS n FROM deltas")).await?;
        let tokens = sums.tokens.saturating_add(lately.tokens);
        let (recent_deltas, merged_blobs) = newest_deltas(&mut tx, tokens, &mut aside).await?;
        let versions = sql("/* snapshot: versions */ SELECT * FROM versions ORDER BY version DESC LIMIT $1");
        let versions = tx.rows(versions.bind(limit(snapshot::VERSIONS_KEPT))).await?;
        let evaluations =
            sql("/* snapshot: evaluation */ SELECT * FROM evaluations ORDER BY version DESC, lease DESC LIMIT 1");
        let evaluations = tx.rows(evaluations).await?;
        // A lease that is open and cannot be read is an error: its device could be given no other.
        let open_leases = open_leases.iter().map(|row| rows::lease(row, &mut aside)).collect::<Result<_, _>>()?;
        let snapshot = Snapshot {
            devices,
            open_leases,
            last_lease: LeaseId(unsigned(last_lease)),
            epochs_opened: epochs::opened(&mut tx, &lately).await?,
            epochs: epochs::unfinished(&mut tx, shards, &lately, &mut aside).await?.epochs(),
            last_seq: unsigned(last_seq),
            tokens,
            recent_deltas,
            merged_blobs,
            versions: rows::versions(&mut tx, versions.iter().rev(), &mut aside).await?,
            evaluation: aside.readable(&evaluations, rows::evaluation).pop(),
            standing: desk::standing::<D>(&mut tx).await?,
            series: newest_series::<D>(&mut tx).await?,
        };
        aside.told();
        Ok(snapshot)
    }

    pub(super) async fn read_merged(&self, after_seq: u64, through_seq: u64) -> Result<Merged, LedgerError> {
        let merged = sql("/* merged */ SELECT count(DISTINCT device) AS devices,
                 CAST(coalesce(sum(tokens), 0) AS BIGINT) AS tokens,
                 CAST(coalesce(sum(tokens * loss_last), 0) AS DOUBLE PRECISION) AS nats
             FROM deltas WHERE seq > $1 AND seq <= $2");
        let merged = merged.bind(integer("deltas.seq", after_seq)?).bind(integer("deltas.seq", through_seq)?);
        let rows = self.dialect.begin().await?.rows(merged).await?;
        let Some(row) = rows.first() else { return Ok(Merged::default()) };
        let [devices, tokens] = [unsigned(row.integer("devices")?), unsigned(row.integer("tokens")?)];
        Ok(Merged { devices, tokens, nats: row.real("nats")? })
    }

    pub(super) async fn read_lineage(&self, since: Version) -> Result<Lineage, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let since = integer("versions.version", since.0)?;
        let through =
            sql("/* lineage: since */ SELECT coalesce(max(through_seq), 0) AS n FROM versions WHERE version = (
                     SELECT max(version) FROM versions WHERE version <= $1)");
        let through = tx.number(through.bind(since)).await?;
        let newest =
            tx.number(sql("/* lineage: newest */ SELECT coalesce(max(version), 0) AS n FROM versions")).await?;
        let first = since.min(newest.saturating_sub(limit(snapshot::VERSIONS_KEPT))).max(0);
        let mut aside = SetAside::default();
        let lineage = lineage::<D>(&mut tx, first, through, &mut aside).await?;
        aside.told();
        Ok(lineage)
    }
}

/// The newest series.
async fn newest_series<D: Dialect>(tx: &mut D::Transaction) -> Result<Option<SeriesRecord>, LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind("series")).await? == 0 {
        return Ok(None);
    }
    let newest = tx.rows(sql("/* series: newest */ SELECT * FROM series ORDER BY number DESC LIMIT 1")).await?;
    Ok(newest.first().map(rows::series::read).transpose()?)
}

/// All devices, and what each has done.
async fn devices(
    tx: &mut impl Tables,
    lately: &Lately,
    aside: &mut SetAside,
) -> Result<Vec<DeviceSummary>, LedgerError> {
    let (mut devices, mut last) = (vec![], vec![]);
    loop {
        let page = sql("/* snapshot: devices */
             SELECT d.*, s.tokens AS merged_tokens, s.merged, s.last_lease, s.last_generation,
                    (SELECT count(*) FROM leases l WHERE l.device = d.id AND l.outcome = 'screened_out'
                                                     AND l.id > coalesce(s.last_lease, 0)) AS refused
             FROM devices d LEFT JOIN device_sums s ON s.device = d.id
             WHERE d.id > $1 ORDER BY d.id LIMIT $2");
        let page = tx.rows(page.bind(&last[..]).bind(limit(PAGE))).await?;
        let Some(row) = page.last() else { break };
        last = row.bytes("id")?.unwrap_or_default().to_vec();
        devices.extend(aside.readable(&page, summary));
    }
    for device in &mut devices {
        let Some(more) = lately.devices.get(&device.record.id) else { continue };
        device.tokens = device.tokens.saturating_add(more.tokens);
        device.merged += more.merged;
        device.last_merged = device.last_merged.max(Some(more.last).filter(|(_, generation)| generation.0 > 0));
        let refused = sql("/* snapshot: refused */ SELECT count(*) AS n FROM leases
             WHERE device = $1 AND outcome = 'screened_out' AND id > $2");
        let refused = refused.bind(&device.record.id.0[..]).bind(integer("leases.id", more.last.0.0)?);
        device.refused = u32::try_from(tx.number(refused).await?).unwrap_or(u32::MAX);
    }
    Ok(devices)
}

/// A device, and what it has done.
fn summary(row: &impl Cells, aside: &mut SetAside) -> Result<DeviceSummary, BadRow> {
    let record = rows::device(row, aside)?;
    let number = |column| row.integer(column).ok().and_then(|n| u64::try_from(n).ok());
    let last = number("last_lease").map(LeaseId).zip(number("last_generation").map(Generation));
    Ok(DeviceSummary {
        record,
        tokens: number("merged_tokens").unwrap_or(0),
        merged: number("merged").unwrap_or(0),
        last_merged: last.filter(|(_, generation)| generation.0 > 0),
        refused: number("refused").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    })
}

/// What the screen remembers of the newest deltas, and the names of more of them; `tokens` are those of all.
async fn newest_deltas(
    tx: &mut impl Tables,
    tokens: u64,
    aside: &mut SetAside,
) -> Result<(Vec<RecentDelta>, Vec<BlobHash>), LedgerError> {
    let (mut recent, mut names) = (RecentDeltas::default(), vec![]);
    let (mut tokens_so_far, mut seq) = (tokens, i64::MAX);
    while names.len() < snapshot::BLOBS_KEPT {
        let columns =
            if recent.wants_more() { "seq, blob, device, norm, steps, tokens, merged_at" } else { "seq, blob" };
        let page = format!(
            "/* snapshot: newest deltas */ SELECT {columns} FROM deltas WHERE seq < $1 ORDER BY seq DESC LIMIT $2"
        );
        let page = sql(AssertSqlSafe(page)).bind(seq).bind(limit(PAGE.min(snapshot::BLOBS_KEPT - names.len())));
        let page = tx.rows(page).await?;
        let Some(last) = page.last() else { break };
        seq = last.integer("seq")?;
        names.extend(aside.readable(&page, |row, _| rows::merged_blob(row)));
        for row in &page {
            if !recent.wants_more() {
                break;
            }
            match rows::recent(row, tokens_so_far) {
                Ok(delta) => recent.older(delta),
                Err(bad) => aside.0.push(bad),
            }
            tokens_so_far = tokens_so_far.saturating_sub(rows::tokens(row));
        }
    }
    names.reverse();
    Ok((recent.oldest_first(), names))
}

/// What the weights follow from: versions from one on, and deltas behind another.
async fn lineage<D: Dialect>(
    tx: &mut D::Transaction,
    first: i64,
    through: i64,
    aside: &mut SetAside,
) -> Result<Lineage, LedgerError> {
    let (restarts, lost_deltas) = losses::<D>(tx).await?;
    let kept = keeping::kept::<D>(tx).await?;
    let mut lineage = Lineage { after_seq: unsigned(through), restarts, lost_deltas, kept, ..Lineage::default() };
    let older = sql(
        "/* lineage: older */ SELECT count(*) AS n FROM (SELECT 1 FROM versions WHERE version < $1 LIMIT 1) AS older",
    );
    lineage.is_cut = tx.number(older.bind(first)).await? > 0;
    let mut next = first;
    loop {
        let page = sql("/* lineage: versions */ SELECT * FROM versions WHERE version >= $1 ORDER BY version LIMIT $2");
        let page = tx.rows(page.bind(next).bind(limit(PAGE))).await?;
        let Some(last) = page.last() else { break };
        next = last.integer("version")?.saturating_add(1);
        lineage.versions.extend(rows::versions(tx, page.iter(), aside).await?);
    }
    let mut seq = if lineage.after_seq == 0 { i64::MIN } else { through };
    loop {
        let page = sql("/* lineage: deltas */ SELECT * FROM deltas WHERE seq > $1 ORDER BY seq LIMIT $2");
        let page = tx.rows(page.bind(seq).bind(limit(PAGE))).await?;
        let Some(last) = page.last() else { break };
        seq = last.integer("seq")?;
        lineage.deltas.extend(aside.readable(&page, rows::delta));
    }
    Ok(lineage)
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
