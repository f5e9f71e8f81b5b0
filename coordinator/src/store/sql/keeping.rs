//! What is kept of a run, in a database.

use super::{
    Change, Dialect, SqlLedger, read,
    rows::{self, SetAside},
    tables::{Cells, Statement, Tables, sql},
};
use crate::{
    engine::record::{DeltaRecord, VersionRecord},
    store::{
        Keeping, Kept, LedgerError, Link, Point, Span, Standing, Weight,
        ledger::{Answer, integer},
    },
};
use nightjar_shared::ids::{BlobHash, LeaseId, Version};
use sqlx::AssertSqlSafe;
use std::collections::BTreeSet;

/// Names of merged deltas in memory at once, where only a few are looked for.
const NAMES_AT_ONCE: usize = 4096;

/// What is noted of what is kept.
#[derive(Clone, Copy)]
pub enum Note<'a> {
    /// Versions before one, and deltas up to one, are given up.
    GivenUp(Version, u64),
    /// Their blobs are removed.
    Removed(Version, u64),
    /// A link of the chain.
    Link(&'a Link),
}

/// Writes a note.
pub(super) async fn write(tx: &mut impl Tables, note: Note<'_>) -> Result<(), LedgerError> {
    let later = |column: &str, number: u8| {
        format!("{column} = CASE WHEN {column} < ${number} THEN ${number} ELSE {column} END")
    };
    let statement = match note {
        Note::GivenUp(version, seq) => sql(AssertSqlSafe(format!(
            "/* given up */ UPDATE kept SET
                 last_lease = CASE WHEN first_version < $1 THEN (SELECT coalesce(max(id), 0) FROM leases)
                              ELSE last_lease END,
                 {}, {}",
            later("first_version", 1),
            later("after_seq", 2)
        )))
        .bind(integer("kept.first_version", version.0)?)
        .bind(integer("kept.after_seq", seq)?),
        Note::Removed(version, seq) => sql(AssertSqlSafe(format!(
            "/* removed */ UPDATE kept SET {}, {}",
            later("removed_versions", 1),
            later("removed_deltas", 2)
        )))
        .bind(integer("kept.removed_versions", version.0)?)
        .bind(integer("kept.removed_deltas", seq)?),
        Note::Link(link) => sql("/* link */ INSERT INTO checkpoint_links VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(integer("checkpoint_links.version", link.version.0)?)
            .bind(integer("checkpoint_links.through_seq", link.through_seq)?)
            .bind(integer("checkpoint_links.tokens", link.tokens)?)
            .bind(&link.checkpoint.0[..])
            .bind(&link.rows[..])
            .bind(&link.hash[..]),
    };
    tx.change(statement).await.map(drop)
}

/// What is kept; all of it in a ledger that only an older version has written.
pub(super) async fn kept<D: Dialect>(tx: &mut D::Transaction) -> Result<Kept, LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind("kept")).await? == 0 {
        return Ok(Kept::default());
    }
    let rows = tx.rows(sql("/* kept */ SELECT * FROM kept")).await?;
    rows.first().map_or(Ok(Kept::default()), |row| {
        let number = |column| rows::number_of(row, "kept", column);
        Ok(Kept {
            first_version: Version(number("first_version")?),
            after_seq: number("after_seq")?,
            last_lease: LeaseId(number("last_lease")?),
            removed_versions: Version(number("removed_versions")?),
            removed_deltas: number("removed_deltas")?,
        })
    })
}

/// Links that a statement asks for; none in a ledger that only an older version has written.
async fn links_of<D: Dialect>(tx: &mut D::Transaction, statement: Statement) -> Result<Vec<Link>, LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind("checkpoint_links")).await? == 0 {
        return Ok(vec![]);
    }
    Ok(tx.rows(statement).await?.iter().map(rows::link).collect::<Result<_, _>>()?)
}

/// The whole chain.
pub(super) async fn links<D: Dialect>(tx: &mut D::Transaction) -> Result<Vec<Link>, LedgerError> {
    links_of::<D>(tx, sql("/* links */ SELECT * FROM checkpoint_links ORDER BY version")).await
}

impl<D: Dialect> SqlLedger<D> {
    async fn note(&self, note: Note<'_>) -> Result<(), LedgerError> {
        self.dialect.write(self.generation, Change::Keeping(note)).await
    }

    async fn read_kept(&self) -> Result<Kept, LedgerError> {
        kept::<D>(&mut self.dialect.begin().await?).await
    }

    async fn read_standing(&self) -> Result<Standing, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let open = sql("/* standing: open leases */ SELECT coalesce(min(base_version), -1) AS base,
                 coalesce(min(id), -1) AS lease FROM leases WHERE outcome IS NULL");
        let open = tx.rows(open).await?;
        let newest = sql("/* standing: newest */ SELECT coalesce(max(version), -1) AS n FROM versions");
        let last_seq = sql("/* standing: last delta */ SELECT coalesce(max(seq), 0) AS n FROM deltas");
        let known = |number: i64| u64::try_from(number).ok();
        let of_open = |column| open.first().and_then(|row| known(row.integer(column).ok()?));
        let mut standing = Standing {
            kept: kept::<D>(&mut tx).await?,
            newest: known(tx.number(newest).await?).map(Version),
            last_seq: read::unsigned(tx.number(last_seq).await?),
            oldest_base: of_open("base").map(Version),
            oldest_lease: of_open("lease").map(LeaseId),
            last_link: None,
        };
        let last = sql("/* standing: link */ SELECT * FROM checkpoint_links ORDER BY version DESC LIMIT 1");
        standing.last_link = links_of::<D>(&mut tx, last).await?.pop();
        Ok(standing)
    }

    async fn read_links(&self, from: Version, most: usize) -> Result<Vec<Link>, LedgerError> {
        let page = sql("/* links */ SELECT * FROM checkpoint_links WHERE version >= $1 ORDER BY version LIMIT $2");
        let page = page.bind(integer("checkpoint_links.version", from.0)?).bind(read::limit(most));
        links_of::<D>(&mut self.dialect.begin().await?, page).await
    }

    async fn read_versions(&self, from: Version, most: usize) -> Result<Vec<VersionRecord>, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let page = sql("/* versions */ SELECT * FROM versions WHERE version >= $1 ORDER BY version LIMIT $2");
        let page = tx.rows(page.bind(integer("versions.version", from.0)?).bind(read::limit(most))).await?;
        let mut aside = SetAside::default();
        let versions = rows::versions(&mut tx, page.iter(), &mut aside).await?;
        whole(versions, aside)
    }

    async fn read_keyframe(&self, upto: Version) -> Result<Option<Point>, LedgerError> {
        let newest = sql("/* keyframe */ SELECT version, through_seq, published_at FROM versions
             WHERE version <= $1 AND keyframe_hash IS NOT NULL ORDER BY version DESC LIMIT 1");
        let rows = self.dialect.begin().await?.rows(newest.bind(integer("versions.version", upto.0)?)).await?;
        Ok(rows.first().map(rows::point).transpose()?)
    }

    async fn read_deltas(&self, seq: u64, most: usize) -> Result<Vec<DeltaRecord>, LedgerError> {
        let page = sql("/* deltas */ SELECT * FROM deltas WHERE seq > $1 ORDER BY seq LIMIT $2");
        let page = page.bind(integer("deltas.seq", seq)?).bind(read::limit(most));
        let page = self.dialect.begin().await?.rows(page).await?;
        let mut aside = SetAside::default();
        let deltas = aside.readable(&page, rows::delta);
        whole(deltas, aside)
    }

    async fn read_named(&self, seq: u64, blobs: BTreeSet<BlobHash>) -> Result<BTreeSet<BlobHash>, LedgerError> {
        let (mut tx, mut seq, mut named) = (self.dialect.begin().await?, integer("deltas.seq", seq)?, BTreeSet::new());
        loop {
            let page = sql("/* names: deltas */ SELECT seq, blob FROM deltas WHERE seq > $1 ORDER BY seq LIMIT $2");
            let page = tx.rows(page.bind(seq).bind(read::limit(NAMES_AT_ONCE))).await?;
            let Some(last) = page.last() else { return Ok(named) };
            seq = last.integer("seq")?;
            for row in &page {
                named.extend(blobs.get(&rows::merged_blob(row)?));
            }
        }
    }

    async fn read_given(&self, from: Version, blobs: BTreeSet<BlobHash>) -> Result<BTreeSet<BlobHash>, LedgerError> {
        if blobs.is_empty() {
            return Ok(blobs);
        }
        let given = sql("/* names: given */ SELECT DISTINCT given_hash FROM versions
             WHERE given_hash IS NOT NULL AND version >= $1");
        let rows = self.dialect.begin().await?.rows(given.bind(integer("versions.version", from.0)?)).await?;
        let mut named = BTreeSet::new();
        for row in &rows {
            named.extend(blobs.get(&BlobHash(rows::hash(row, "given_hash")?)));
        }
        Ok(named)
    }

    async fn read_losses(&self) -> Result<(Vec<Version>, Vec<u64>), LedgerError> {
        read::losses::<D>(&mut self.dialect.begin().await?).await
    }

    async fn read_weight(&self, span: Span) -> Result<Weight, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let versions = sql("/* weight: versions */ SELECT count(*) AS rows_there,
                 CAST(coalesce(sum(coalesce(update_bytes, 0) + coalesce(given_bytes, 0)), 0) AS BIGINT) AS other_bytes,
                 CAST(coalesce(sum(CASE WHEN $3 > 0 AND version % (CASE WHEN $3 > 0 THEN $3 ELSE 1 END) = 0 THEN 0
                                   ELSE coalesce(keyframe_bytes, 0) END), 0) AS BIGINT) AS keyframe_bytes
             FROM versions WHERE version >= $1 AND version < $2");
        let every = i64::try_from(span.milestone_every).unwrap_or(i64::MAX);
        let range = |statement: Statement| -> Result<_, LedgerError> {
            Ok(statement
                .bind(integer("versions.version", span.from.0)?)
                .bind(integer("versions.version", span.before.0)?))
        };
        let versions = tx.rows(range(versions)?.bind(every)).await?;
        let squashes = sql("/* weight: squashes */ SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) AS n FROM squashes
             WHERE version >= $1 AND version < $2");
        let squashes = tx.number(range(squashes)?).await?;
        let deltas = sql("/* weight: deltas */ SELECT count(*) AS rows_there,
                 CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes FROM deltas WHERE seq > $1 AND seq <= $2");
        let deltas = deltas.bind(integer("deltas.seq", span.after_seq)?).bind(integer("deltas.seq", span.through_seq)?);
        let deltas = tx.rows(deltas).await?;
        let of = |rows: &[<D::Transaction as Tables>::Row], column: &str| -> Result<u64, LedgerError> {
            rows.first().map_or(Ok(0), |row| Ok(read::unsigned(row.integer(column)?)))
        };
        Ok(Weight {
            versions: of(&versions, "rows_there")?,
            version_bytes: of(&versions, "other_bytes")? + of(&versions, "keyframe_bytes")? + read::unsigned(squashes),
            deltas: of(&deltas, "rows_there")?,
            delta_bytes: of(&deltas, "bytes")?,
        })
    }
}

/// What was read, if nothing of it had to be set aside.
fn whole<T>(read: T, aside: SetAside) -> Result<T, LedgerError> {
    aside.0.into_iter().next().map_or(Ok(read), |bad| Err(bad.into()))
}

impl<D: Dialect> Keeping for SqlLedger<D> {
    fn kept(&self) -> Answer<'_, Kept> {
        Box::pin(self.read_kept())
    }

    fn standing(&self) -> Answer<'_, Standing> {
        Box::pin(self.read_standing())
    }

    fn give_up(&self, first_version: Version, after_seq: u64) -> Answer<'_, ()> {
        Box::pin(self.note(Note::GivenUp(first_version, after_seq)))
    }

    fn note_removed(&self, before: Version, through_seq: u64) -> Answer<'_, ()> {
        Box::pin(self.note(Note::Removed(before, through_seq)))
    }

    fn add_link<'a>(&'a self, link: &'a Link) -> Answer<'a, ()> {
        Box::pin(self.note(Note::Link(link)))
    }

    fn links(&self, from: Version, most: usize) -> Answer<'_, Vec<Link>> {
        Box::pin(self.read_links(from, most))
    }

    fn versions_from(&self, from: Version, most: usize) -> Answer<'_, Vec<VersionRecord>> {
        Box::pin(self.read_versions(from, most))
    }

    fn keyframe_upto(&self, upto: Version) -> Answer<'_, Option<Point>> {
        Box::pin(self.read_keyframe(upto))
    }

    fn deltas_after(&self, seq: u64, most: usize) -> Answer<'_, Vec<DeltaRecord>> {
        Box::pin(self.read_deltas(seq, most))
    }

    fn named_after(&self, seq: u64, blobs: BTreeSet<BlobHash>) -> Answer<'_, BTreeSet<BlobHash>> {
        Box::pin(self.read_named(seq, blobs))
    }

    fn given_from(&self, from: Version, blobs: BTreeSet<BlobHash>) -> Answer<'_, BTreeSet<BlobHash>> {
        Box::pin(self.read_given(from, blobs))
    }

    fn losses(&self) -> Answer<'_, (Vec<Version>, Vec<u64>)> {
        Box::pin(self.read_losses())
    }

    fn weight(&self, span: Span) -> Answer<'_, Weight> {
        Box::pin(self.read_weight(span))
    }
}
