//! The ledger in SQLite: one file beside the blobs, a write-ahead log, `synchronous = FULL`.

pub mod look;

use super::{
    LedgerError, Note, RunIdentity,
    sql::{
        self, Change, Dialect, SqlLedger,
        tables::{Tables, sql},
    },
};
use nightjar_shared::ids::Generation;
use sqlx::{
    Connection, SqlSafeStr, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// An open ledger.
pub type SqliteLedger = SqlLedger<File>;

/// The database's file, open.
pub struct File {
    pool: SqlitePool,
}

fn migrations() -> Migrator {
    let step = |number, name: &'static str, sql: &'static str| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        step(1, "first", include_str!("sqlite/migrations/0001_first.sql")),
        step(2, "squashes", include_str!("sqlite/migrations/0002_squashes.sql")),
        step(3, "key and losses", include_str!("sqlite/migrations/0003_key_and_losses.sql")),
        step(4, "keeping", include_str!("sqlite/migrations/0004_keeping.sql")),
        step(5, "sums", include_str!("sqlite/migrations/0005_sums.sql")),
        step(6, "desk", include_str!("sqlite/migrations/0006_desk.sql")),
        step(7, "leases of devices", include_str!("sqlite/migrations/0007_leases_of_devices.sql")),
        step(8, "public names", include_str!("sqlite/migrations/0008_public_names.sql")),
        step(9, "series", include_str!("sqlite/migrations/0009_series.sql")),
    ])
}

/// How long a lock of another program is waited for before the caller hears of it.
const BUSY_MAX: Duration = Duration::from_secs(1);

async fn connect(path: &Path) -> Result<SqlitePool, LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // The log is taken into the file every 2 MB: that costs two syncs more than a commit, and a small disk has room
        // for little more.
        .pragma("wal_autocheckpoint", "500")
        .busy_timeout(BUSY_MAX);
    // One connection: SQLite has one writer at a time, and who waits for it waits here.
    Ok(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
}

impl SqliteLedger {
    /// Opens the ledger to write, creating it for a new run, and takes it over ([`sql::take_over`]).
    pub async fn create_or_open(path: &Path, identity: &RunIdentity, unix_s: u64) -> Result<Self, LedgerError> {
        let pool = connect(path).await?;
        migrations().run(&pool).await.map_err(sql::not_migrated)?;
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        sql::refuse_moved::<File>(&mut tx).await?;
        let takeover = sql::take_over(&mut tx, identity, unix_s).await?;
        tx.commit().await?;
        Ok(SqlLedger::taken(File { pool }, takeover))
    }

    /// Opens the operators' desk of a ledger that a coordinator has written; the rest is not written.
    pub async fn open_desk(path: &Path) -> Result<Self, LedgerError> {
        if !path.exists() {
            return Err(LedgerError::NotFound(path.to_owned()));
        }
        let file = File { pool: connect(path).await.map_err(|error| error.at(path))? };
        SqlLedger::with_desk(file).await?.ok_or_else(|| LedgerError::NotFound(path.to_owned()))
    }

    /// Opens a ledger to read; nothing is written, not even beside it.
    pub async fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
        let ledger = SqlLedger::to_read(File::to_read(path).await?).await.map_err(|error| error.at(path))?;
        ledger.ok_or_else(|| LedgerError::NotFound(path.to_owned()))
    }
}

impl File {
    /// A file that is only read.
    pub(super) async fn to_read(path: &Path) -> Result<Self, LedgerError> {
        // One reads on in the state that it began with, and another looks whether that is the newest.
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(look::reading(path)?).await;
        Ok(File { pool: pool.map_err(|error| LedgerError::from(error).at(path))? })
    }

    /// Copies it to a file that is not there yet. Writers go on: only their log is not taken into the file until then.
    pub(super) async fn copy_to(&self, to: &Path) -> Result<(), LedgerError> {
        let why = || "its name is no text, and SQLite needs one".to_owned();
        let name = to.to_str().ok_or_else(|| LedgerError::Unreachable { path: to.to_owned(), why: why() })?;
        sqlx::query("/* backup */ VACUUM INTO $1").bind(name).execute(&self.pool).await?;
        self.pool.close().await;
        Ok(())
    }

    /// A file that is written without being taken over; its tables are made where there are none.
    pub(super) async fn to_fill(path: &Path) -> Result<Self, LedgerError> {
        let pool = connect(path).await?;
        migrations().run(&pool).await.map_err(sql::not_migrated)?;
        Ok(File { pool })
    }

    async fn write_on(
        connection: &mut SqliteConnection,
        generation: Generation,
        change: Change<'_>,
    ) -> Result<(), LedgerError> {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        let last = tx.number(sql("/* generation */ SELECT generation AS n FROM run")).await?;
        if u64::try_from(last) != Ok(generation.0) {
            return Err(LedgerError::Fenced(generation));
        }
        sql::write(&mut tx, change).await?;
        Ok(tx.commit().await?)
    }
}

impl Dialect for File {
    type Transaction = Transaction<'static, Sqlite>;

    const HAS_TABLE: &'static str = "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name = $1";

    const COLUMNS: &'static str =
        "/* columns */ SELECT m.name AS table_name, c.name AS column_name, c.type AS kind, c.pk AS key
         FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY m.name, c.cid";

    const BYTEWISE: &'static str = "";

    const AS_NUMBERED: &'static str = "";

    fn go_on_numbering(_: &str, _: &str) -> Option<String> {
        None
    }

    async fn begin(&self) -> Result<Self::Transaction, LedgerError> {
        Ok(self.pool.begin().await?)
    }

    async fn begin_to_fill(&self) -> Result<Self::Transaction, LedgerError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// After an error the connection is given up: SQLite ends a transaction by itself when the disk is full, and the
    /// connection's own bookkeeping does not notice.
    async fn write(&self, generation: Generation, change: Change<'_>) -> Result<(), LedgerError> {
        let mut connection = self.pool.acquire().await?;
        let result = Self::write_on(&mut connection, generation, change).await;
        if result.is_err() {
            // What closing says adds nothing to the error at hand.
            let _ = connection.close().await;
        }
        result
    }

    async fn note(&self, notes: &[Note]) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for note in notes {
            sql::desk::write(&mut tx, note).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests;
