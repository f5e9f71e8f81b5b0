//! What a ledger in a database tells of the whole run: its curves, thinned; which blobs it names; and everything, a piece
//! at a time.

use super::{
    Dialect, SqlLedger, keeping,
    read::{PAGE, limit, losses, unsigned},
    rows::{self, SetAside},
    sums::{self, pieces, values},
    tables::{Cells, Tables, sql},
};
use crate::store::{
    BadRow, Curves, Facts, LedgerError, Lineage, Unnamed,
    ledger::{CURVE_POINTS, ENTRIES_LOOKED, curve_stride, curve_versions, integer},
};
use nightjar_shared::{ids::BlobHash, time::Wall};
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, BTreeSet};

/// Where blobs are named, and where a name is that is none.
const NAMES: [(&str, &str); 6] = [
    ("SELECT blob AS name FROM deltas WHERE substr(blob, 1, 8)", "deltas"),
    (
        "SELECT update_hash AS name FROM versions WHERE update_hash IS NOT NULL AND substr(update_hash, 1, 8)",
        "versions",
    ),
    (
        "SELECT keyframe_hash AS name FROM versions WHERE keyframe_hash IS NOT NULL AND substr(keyframe_hash, 1, 8)",
        "versions",
    ),
    ("SELECT hash AS name FROM squashes WHERE substr(hash, 1, 8)", "squashes"),
    ("SELECT given_hash AS name FROM versions WHERE given_hash IS NOT NULL AND substr(given_hash, 1, 8)", "versions"),
    // Weights of which no version is made yet.
    ("SELECT weights_hash AS name FROM series WHERE substr(weights_hash, 1, 8)", "series"),
];
const NAMELESS: [(&str, &str, &str); 3] = [
    ("/* names: none */ SELECT seq AS n FROM deltas WHERE length(blob) <> 32 LIMIT 1", "deltas", "blob"),
    (
        "/* names: none */ SELECT version AS n FROM versions WHERE length(update_hash) <> 32 OR length(keyframe_hash) <> 32
         LIMIT 1",
        "versions",
        "update_hash or keyframe_hash",
    ),
    ("/* names: none */ SELECT version AS n FROM squashes WHERE length(hash) <> 32 LIMIT 1", "squashes", "hash"),
];

impl<D: Dialect> SqlLedger<D> {
    pub(super) async fn read_curves(&self) -> Result<Curves, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let sums = sums::sound(&mut tx).await?;
        let lately: BTreeMap<u64, u64> = sums::version_tokens(&mut tx, &sums, None).await?.into_iter().collect();
        let tokens = |row: &<D::Transaction as Tables>::Row, version: u64| {
            let summed = row.integer("tokens_so_far").ok().map(unsigned);
            summed.or_else(|| lately.get(&version).copied()).unwrap_or(0)
        };
        let (mut curves, mut aside) = (Curves::default(), SetAside::default());
        let newest =
            tx.number(sql("/* curves: newest */ SELECT coalesce(max(version), -1) AS n FROM versions")).await?;
        let numbers: Vec<u64> = u64::try_from(newest).map_or(vec![], |newest| curve_versions(newest).collect());
        for numbers in pieces(&numbers) {
            let versions = sql(AssertSqlSafe(format!(
                "/* curves: versions */ SELECT v.*, s.tokens AS tokens_so_far
                 FROM versions v LEFT JOIN version_sums s ON s.version = v.version WHERE v.version IN {}",
                values(1, numbers.len())
            )));
            let versions = numbers.iter().try_fold(versions, |versions, number| {
                Ok::<_, LedgerError>(versions.bind(integer("versions.version", *number)?))
            })?;
            for row in &tx.rows(versions).await? {
                let version = rows::version(row, &mut aside)?;
                let tokens = tokens(row, version.version.0);
                curves.versions.push((version, tokens));
            }
        }
        curves.versions.sort_by_key(|(version, _)| version.version);
        let all = sql("/* curves: losses */ SELECT e.*, s.tokens AS tokens_so_far
             FROM evaluations e LEFT JOIN version_sums s ON s.version = e.version ORDER BY e.lease LIMIT $1");
        let mut losses = tx.rows(all.bind(limit(CURVE_POINTS + 1))).await?;
        if losses.len() > CURVE_POINTS {
            let first = losses[0].integer("lease")?;
            let last = tx.number(sql("/* curves: last */ SELECT max(lease) AS n FROM evaluations")).await?;
            let some = sql("/* curves: some losses */
                 WITH RECURSIVE points(n) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT n + $2 FROM points WHERE n + $2 < $3)
                 SELECT e.*, s.tokens AS tokens_so_far
                 FROM (SELECT DISTINCT (SELECT min(lease) FROM evaluations WHERE lease >= n) AS lease
                       FROM (SELECT n FROM points UNION ALL SELECT CAST($3 AS BIGINT)) AS ends) AS picked
                 JOIN evaluations e ON e.lease = picked.lease LEFT JOIN version_sums s ON s.version = e.version
                 ORDER BY e.lease");
            let stride = integer("stride", curve_stride(unsigned(last.saturating_sub(first))))?;
            losses = tx.rows(some.bind(first).bind(stride).bind(last)).await?;
        }
        for row in &losses {
            match rows::evaluation(row, &mut aside) {
                Ok(evaluation) => {
                    let tokens = tokens(row, evaluation.version.0);
                    curves.evaluations.push((evaluation, tokens));
                }
                Err(bad) => aside.0.push(bad),
            }
        }
        aside.told();
        Ok(curves)
    }

    pub(super) async fn read_unnamed(&self, mut blobs: BTreeSet<BlobHash>, now: Wall) -> Result<Unnamed, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        for (nameless, table, column) in NAMELESS {
            if let Some(row) = tx.rows(sql(nameless)).await?.first() {
                let (id, why) = (row.integer("n")?.to_string(), "is not 32 bytes long");
                return Err(BadRow { table, id, column, why }.into());
            }
        }
        let asked: Vec<BlobHash> = blobs.iter().copied().collect();
        for asked in pieces(&asked) {
            for (names, table) in NAMES {
                let named = sql(AssertSqlSafe(format!("/* names: {table} */ {names} IN {}", values(1, asked.len()))));
                let named = asked.iter().fold(named, |named, hash| named.bind(&hash.0[..8]));
                for row in &tx.rows(named).await? {
                    let name = row.bytes("name")?.and_then(|name| name.try_into().ok());
                    name.map(|name| blobs.remove(&BlobHash(name)));
                }
            }
        }
        let last_entry = sql("/* last entry */
             SELECT coalesce(max(moment), 0) AS n FROM (
                 SELECT enrolled_at AS moment FROM devices
                 UNION ALL SELECT issued_at FROM (SELECT issued_at FROM leases ORDER BY id DESC LIMIT $2) AS a
                 UNION ALL SELECT closed_at FROM (SELECT closed_at FROM leases ORDER BY id DESC LIMIT $2) AS b
                 UNION ALL SELECT merged_at FROM (SELECT merged_at FROM deltas ORDER BY seq DESC LIMIT $2) AS c
                 UNION ALL SELECT published_at FROM (SELECT published_at FROM versions ORDER BY version DESC LIMIT $2) AS d
                 UNION ALL SELECT measured_at FROM (SELECT measured_at FROM evaluations ORDER BY lease DESC LIMIT $2) AS e
             ) AS moments WHERE moment BETWEEN 0 AND $1");
        let last_entry = last_entry.bind(integer("now", now.unix_ms)?).bind(limit(ENTRIES_LOOKED));
        let last_entry = tx.number(last_entry).await?;
        Ok(Unnamed { blobs, last_entry: Wall { unix_ms: unsigned(last_entry) } })
    }

    pub(super) async fn read_all(&self, hear: &mut (dyn FnMut(Facts) + Send)) -> Result<(), LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let (restarts, lost_deltas) = losses::<D>(&mut tx).await?;
        let kept = keeping::kept::<D>(&mut tx).await?;
        let links = keeping::links::<D>(&mut tx).await?;
        hear(Facts {
            lineage: Lineage { restarts, lost_deltas, kept, ..Lineage::default() },
            links,
            ..Facts::default()
        });
        let mut last = vec![];
        loop {
            let page = sql("/* facts: devices */ SELECT * FROM devices WHERE id > $1 ORDER BY id LIMIT $2");
            let page = tx.rows(page.bind(&last[..]).bind(limit(PAGE))).await?;
            let Some(row) = page.last() else { break };
            last = row.bytes("id")?.unwrap_or_default().to_vec();
            tell(hear, |facts, aside| facts.devices = aside.readable(&page, rows::device));
        }
        let mut version = i64::MIN;
        loop {
            let page = sql("/* facts: versions */ SELECT * FROM versions WHERE version > $1 ORDER BY version LIMIT $2");
            let page = tx.rows(page.bind(version).bind(limit(PAGE))).await?;
            let Some(row) = page.last() else { break };
            version = row.integer("version")?;
            let mut aside = SetAside::default();
            let versions = rows::versions(&mut tx, page.iter(), &mut aside).await?;
            tell(hear, |facts, told| (facts.lineage.versions, *told) = (versions, aside));
        }
        let mut lease = i64::MIN;
        loop {
            let leases = sql("/* facts: leases */ SELECT * FROM leases WHERE id > $1 ORDER BY id LIMIT $2");
            let leases = tx.rows(leases.bind(lease).bind(limit(PAGE))).await?;
            // Behind the last lease may be what has none.
            let upto = match leases.last() {
                Some(row) if leases.len() == PAGE => row.integer("id")?,
                _ => i64::MAX,
            };
            let deltas =
                sql("/* facts: deltas */ SELECT * FROM deltas WHERE lease > $1 AND lease <= $2 ORDER BY lease");
            let deltas = tx.rows(deltas.bind(lease).bind(upto)).await?;
            let losses =
                sql("/* facts: losses */ SELECT * FROM evaluations WHERE lease > $1 AND lease <= $2 ORDER BY lease");
            let losses = tx.rows(losses.bind(lease).bind(upto)).await?;
            tell(hear, |facts, aside| {
                facts.leases = aside.readable(&leases, rows::lease_facts);
                facts.lineage.deltas = aside.readable(&deltas, rows::delta);
                facts.evaluations = aside.readable(&losses, rows::evaluation);
            });
            if upto == i64::MAX {
                return Ok(());
            }
            lease = upto;
        }
    }
}

/// Tells a piece of everything.
fn tell(hear: &mut (dyn FnMut(Facts) + Send), read: impl FnOnce(&mut Facts, &mut SetAside)) {
    let (mut facts, mut aside) = (Facts::default(), SetAside::default());
    read(&mut facts, &mut aside);
    aside.told();
    hear(Facts { set_aside: aside.0, ..facts });
}
