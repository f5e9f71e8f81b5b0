//! Looking at a ledger's file before anything is done to it: whether it is whole, and whose it is. Nothing is written.

use crate::store::{LedgerError, sql::key_of};
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use std::{path::Path, time::Duration};

/// Faults of the file that are named; one is enough to say that it is damaged.
const FAULTS_MAX: usize = 8;

/// What a ledger's file shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether a run is in it.
    pub has_run: bool,
    /// The coordinator's key: the SHA-256 of what TLS shows of it. `None` in a ledger that no newer version has opened.
    pub key: Option<[u8; 32]>,
    /// Published versions.
    pub versions: u64,
}

/// How thoroughly a file is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All pages.
    Quick,
    /// The indexes against the tables, too.
    Full,
}

/// How a ledger is opened by whoever only reads: a folder that cannot be written, or is another user's, is no
/// hindrance.
pub(super) fn reading(path: &Path) -> Result<SqliteConnectOptions, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::NotFound(path.to_owned()));
    }
    // Without a log nobody has it open, and looking at it leaves none behind.
    let is_at_rest = !path.with_extension("sqlite-wal").exists();
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(is_at_rest);
    Ok(options.busy_timeout(Duration::from_secs(5)))
}

async fn open(path: &Path) -> Result<SqliteConnection, LedgerError> {
    reading(path)?.connect().await.map_err(|error| LedgerError::from(error).at(path))
}

/// Looks at the file.
pub async fn look(path: &Path) -> Result<Look, LedgerError> {
    let mut connection = open(path).await?;
    let looked = look_through(&mut connection, path).await;
    // What closing says adds nothing: all was only read.
    let _ = connection.close().await;
    looked.map_err(|error| error.at(path))
}

async fn look_through(connection: &mut SqliteConnection, path: &Path) -> Result<Look, LedgerError> {
    let nothing = Look { has_run: false, key: None, versions: 0 };
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'").fetch_all(&mut *connection).await?;
    if !["run", "leases", "versions"].iter().all(|ours| tables.iter().any(|table| table == ours)) {
        let is_empty = tables.iter().all(|table| table == "_sqlx_migrations" || table.starts_with("sqlite_"));
        return if is_empty { Ok(nothing) } else { Err(LedgerError::Foreign(path.to_owned())) };
    }
    let run: Option<SqliteRow> = sqlx::query("SELECT * FROM run").fetch_optional(&mut *connection).await?;
    let Some(run) = run else { return Ok(nothing) };
    let versions: i64 = sqlx::query_scalar("SELECT count(*) FROM versions").fetch_one(&mut *connection).await?;
    Ok(Look { has_run: true, key: key_of(&run)?, versions: versions as u64 })
}

/// Has SQLite check its file. An error says what is damaged.
pub async fn check(path: &Path, depth: Depth) -> Result<(), LedgerError> {
    let mut connection = open(path).await?;
    let pragma = match depth {
        Depth::Quick => "PRAGMA quick_check(8)",
        Depth::Full => "PRAGMA integrity_check(8)",
    };
    let found: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar(pragma).fetch_all(&mut connection).await;
    let _ = connection.close().await;
    let found = found.map_err(|error| LedgerError::from(error).at(path))?;
    if found == ["ok"] {
        return Ok(());
    }
    let faults: Vec<&str> = found.iter().flat_map(|lines| lines.lines()).take(FAULTS_MAX).collect();
    Err(LedgerError::Broken(faults.join("; ")))
}
