//! A copy of a ledger, made while a coordinator writes to it: one state of it, whole, as SQLite's file.

use super::{
    LedgerError, LedgerPlace,
    carry::{self, CarryError, Progress},
    look::{self, Depth},
    postgres::Database,
    sql::{
        self, Dialect,
        tables::{Cells, Tables, sql as statement},
    },
    sqlite::File,
};
use nightjar_shared::{
    ids::{BlobHash, Generation, RunId, Version},
    run_spec::RunSpec,
};
use sqlx::{Sqlite, Transaction};
use std::{collections::BTreeSet, path::Path};

/// What a ledger holds, as far as a copy of its run goes by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The run's name.
    pub run_id: RunId,
    /// What it trains and how.
    pub spec: RunSpec,
    /// Of the coordinator that wrote last.
    pub generation: Generation,
    /// The coordinator's key, by its fingerprint; `None` where the ledger does not know it yet.
    pub key: Option<[u8; 32]>,
    /// The newest version, and the digest of its weights.
    pub newest: Option<(Version, BlobHash)>,
    /// Merged deltas.
    pub deltas: u64,
    /// The blobs that it needs: merged deltas, and what versions were published as. Those that were given up by the rule
    /// `[keep]` may be there, and may not.
    pub blobs: BTreeSet<BlobHash>,
    /// When this was read, for people.
    pub read_at: String,
}

/// Copies a ledger to a file that is not there yet. Writers go on meanwhile. The caller makes the copy durable.
pub async fn copy(from: &LedgerPlace, to: &Path, progress: &Progress) -> Result<(), CarryError> {
    match from {
        LedgerPlace::File(path) => File::to_read(path).await?.copy_to(to).await.map_err(|error| error.at(path))?,
        LedgerPlace::Database(_) => {
            carry::copy_ledger(from, &LedgerPlace::File(to.to_owned()), progress).await?;
        }
    }
    Ok(look::check(to, Depth::Quick).await?)
}

/// Reads what a copy holds.
pub async fn held(path: &Path) -> Result<Held, LedgerError> {
    let file = File::to_read(path).await?;
    let held = read(&mut file.begin().await?).await;
    file.close().await;
    held?.ok_or_else(|| LedgerError::NotFound(path.to_owned()))
}

/// The run that a ledger is of, and the digest of one of its versions' weights; `None` if the ledger does not have the
/// version.
pub async fn run_and_digest(place: &LedgerPlace, version: Version) -> Result<(RunId, Option<BlobHash>), LedgerError> {
    match place {
        LedgerPlace::File(path) => {
            let found = digest(&File::to_read(path).await?, version).await.map_err(|error| error.at(path))?;
            found.ok_or_else(|| LedgerError::NotFound(path.clone()))
        }
        LedgerPlace::Database(url) => {
            let found = digest(&Database::to_read(url).await?, version).await?;
            found.ok_or_else(|| LedgerError::NoRun(url.to_string()))
        }
    }
}

async fn digest<D: Dialect>(database: &D, version: Version) -> Result<Option<(RunId, Option<BlobHash>)>, LedgerError> {
    let mut tx = database.begin().await?;
    if tx.number(statement(D::HAS_TABLE).bind("run")).await? == 0 {
        return Ok(None);
    }
    let Some((identity, _)) = sql::stored(&mut tx).await? else { return Ok(None) };
    let number = i64::try_from(version.0).unwrap_or(i64::MAX);
    let rows = tx.rows(statement("/* digest */ SELECT digest FROM versions WHERE version = $1").bind(number)).await?;
    drop(tx);
    database.close().await;
    Ok(Some((identity.run_id, rows.first().and_then(|row| name(row, "digest")))))
}

async fn read(tx: &mut Transaction<'_, Sqlite>) -> Result<Option<Held>, LedgerError> {
    let Some((identity, generation)) = sql::stored(tx).await? else { return Ok(None) };
    let spec = serde_json::from_str(&identity.spec_json);
    let spec = spec.map_err(|_| LedgerError::Damaged("its run spec cannot be read"))?;
    let run = tx.rows(statement("/* run */ SELECT * FROM run")).await?;
    let newest = statement("/* newest */ SELECT version, digest FROM versions ORDER BY version DESC LIMIT 1");
    let newest = tx.rows(newest).await?;
    let newest = newest.first().and_then(|row| {
        let version = u64::try_from(row.integer("version").ok()?).ok()?;
        Some((Version(version), name(row, "digest")?))
    });
    let deltas = tx.number(statement("/* deltas */ SELECT count(*) AS n FROM deltas")).await?;
    let now = tx.rows(statement("/* now */ SELECT datetime('now') || ' UTC' AS now")).await?;
    Ok(Some(Held {
        run_id: identity.run_id,
        spec,
        generation,
        key: run.first().map(sql::key_of).transpose()?.flatten(),
        newest,
        deltas: u64::try_from(deltas).unwrap_or(0),
        blobs: named(tx).await?,
        read_at: now.first().map(|row| row.text("now")).transpose()?.flatten().unwrap_or_default().to_owned(),
    }))
}

/// Names of merged deltas that are read at once.
const NAMES_AT_ONCE: i64 = 4096;

/// A row whose blob has no name is passed over: there is nothing to look for. An older ledger has given up nothing.
async fn named(tx: &mut Transaction<'_, Sqlite>) -> Result<BTreeSet<BlobHash>, LedgerError> {
    let has_kept = tx.number(statement(File::HAS_TABLE).bind("kept")).await? > 0;
    let kept = if has_kept { tx.rows(statement("/* kept */ SELECT * FROM kept")).await? } else { vec![] };
    let from = |column| kept.first().map_or(Ok(0), |row| row.integer(column));
    let (version, mut seq) = (from("first_version")?, from("after_seq")?);
    let mut names = BTreeSet::new();
    let published = statement(
        "/* names: versions */ SELECT update_hash AS hash FROM versions WHERE version >= $1
             UNION SELECT keyframe_hash FROM versions WHERE version >= $1
             UNION SELECT hash FROM squashes WHERE version >= $1",
    );
    names.extend(tx.rows(published.bind(version)).await?.iter().filter_map(|row| name(row, "hash")));
    loop {
        let page = statement("/* names: deltas */ SELECT seq, blob FROM deltas WHERE seq > $1 ORDER BY seq LIMIT $2");
        let page = tx.rows(page.bind(seq).bind(NAMES_AT_ONCE)).await?;
        let Some(last) = page.last() else { return Ok(names) };
        seq = last.integer("seq")?;
        names.extend(page.iter().filter_map(|row| name(row, "blob")));
    }
}

fn name(row: &impl Cells, column: &str) -> Option<BlobHash> {
    BlobHash::from_bytes(row.bytes(column).ok()??)
}
