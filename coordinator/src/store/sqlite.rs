//! The ledger in SQLite: write-ahead log, `synchronous = FULL`, every transaction conditional on the generation that
//! this process raised when it opened it.

mod epochs;
pub mod look;
mod read;
mod rows;

use super::{
    BadRow, Counters, Curves, Facts, Ledger, LedgerError, Lineage, RunIdentity, Shards, Unnamed,
    ledger::{Answer, integer},
};
use crate::engine::{
    record::{LeaseOutcome, Record},
    snapshot::Snapshot,
};
use nightjar_shared::{
    fail,
    ids::{BlobHash, DeviceId, Generation, RunId, Version},
    run_spec::RunSpec,
    time::Wall,
};
use read::unsigned;
use rows::SetAside;
use sqlx::{
    Connection, Row, SqlSafeStr, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{collections::BTreeSet, path::Path, pin::Pin, time::Duration};

/// What a transaction writes.
enum Change<'a> {
    Records(&'a [Record]),
    /// To be added to those that are there.
    Counters(Counters),
    /// What of the way to the newest version is lost.
    Losses {
        restart: Option<Version>,
        deltas: &'a [u64],
    },
}

/// An open ledger. Clones are the same one.
#[derive(Clone)]
pub struct SqliteLedger {
    pool: SqlitePool,
    identity: RunIdentity,
    generation: Generation,
    /// What of the run spec was changed when it was opened, in words.
    changes: Vec<String>,
}

fn migrations() -> Migrator {
    let step = |number, name: &'static str, sql: &'static str| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        step(1, "first", include_str!("migrations/0001_first.sql")),
        step(2, "squashes", include_str!("migrations/0002_squashes.sql")),
        step(3, "key and losses", include_str!("migrations/0003_key_and_losses.sql")),
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
        // The log is taken into the file every 400 KB: a small disk has room for little more.
        .pragma("wal_autocheckpoint", "100")
        .busy_timeout(BUSY_MAX);
    // One connection: SQLite has one writer at a time, and who waits for it waits here.
    Ok(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
}

impl SqliteLedger {
    /// Opens the ledger to write, creating it for a new run, and raises the generation to max(last + 1, `unix_s`): who
    /// had it open before cannot write any more. Refuses a ledger of another run. What may be changed in a run that
    /// exists is taken over from `identity` in the same transaction; the run keeps the name that it began with.
    pub async fn create_or_open(path: &Path, identity: &RunIdentity, unix_s: u64) -> Result<Self, LedgerError> {
        let pool = connect(path).await?;
        migrations().run(&pool).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(_) => LedgerError::Newer,
            sqlx::migrate::MigrateError::VersionMismatch(_) => {
                LedgerError::Damaged("its tables are not those of this program")
            }
            sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => {
                error.into()
            }
            error => LedgerError::Sql(sqlx::Error::Migrate(Box::new(error))),
        })?;
        let (mut identity, mut changes) = (identity.clone(), vec![]);
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        let generation = match stored_identity(&mut tx).await? {
            Some((stored, _)) if stored.manifest_hash != identity.manifest_hash => return Err(LedgerError::OtherData),
            Some((stored, last)) => {
                changes = changed(&stored.spec_json, &identity.spec_json)?;
                sqlx::query("UPDATE run SET spec_json = ?").bind(&identity.spec_json).execute(&mut *tx).await?;
                identity.run_id = stored.run_id;
                Generation(unix_s.max(last.0 + 1))
            }
            None => {
                sqlx::query(
                    "INSERT INTO run (only_row, run_id, spec_json, manifest_hash, generation) VALUES (1, ?, ?, ?, 0)",
                )
                .bind(&identity.run_id.0[..])
                .bind(&identity.spec_json)
                .bind(&identity.manifest_hash.0[..])
                .execute(&mut *tx)
                .await?;
                Generation(unix_s.max(1))
            }
        };
        sqlx::query("UPDATE run SET generation = ?")
            .bind(integer("run.generation", generation.0)?)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        fail::point("ledger.raised");
        Ok(SqliteLedger { pool, identity, generation, changes })
    }

    /// Opens a ledger to read; nothing is written, not even beside it.
    pub async fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
        let unreachable = |error: sqlx::Error| LedgerError::from(error).at(path);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(look::reading(path)?)
            .await
            .map_err(unreachable)?;
        let mut tx = pool.begin().await.map_err(unreachable)?;
        let stored = stored_identity(&mut tx).await.map_err(|error| error.at(path))?;
        tx.commit().await?;
        let (identity, generation) = stored.ok_or_else(|| LedgerError::NotFound(path.to_owned()))?;
        Ok(SqliteLedger { pool, identity, generation, changes: vec![] })
    }

    /// What of the run spec was changed when it was opened, in words.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Holds the coordinator's key, as TLS shows it, against the ledger's; a ledger that knows none yet takes it.
    pub async fn adopt_key(&self, key: DeviceId) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let run = sqlx::query("SELECT * FROM run").fetch_one(&mut *tx).await?;
        match look::key_of(&run)? {
            Some(known) if known != key.0 => return Err(LedgerError::OtherKey(DeviceId(known).short())),
            Some(_) => return Ok(()),
            None => {}
        }
        if rows::number(&run, "generation")? != self.generation.0 {
            return Err(LedgerError::Fenced(self.generation));
        }
        sqlx::query("UPDATE run SET coordinator_key = ?").bind(&key.0[..]).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// What it belongs to.
    pub fn identity(&self) -> &RunIdentity {
        &self.identity
    }

    /// One transaction. After an error the connection is given up: SQLite ends a transaction by itself when the disk is
    /// full, and the connection's own bookkeeping does not notice.
    async fn write(&self, change: Change<'_>) -> Result<(), LedgerError> {
        let mut connection = self.pool.acquire().await?;
        let result = self.write_on(&mut connection, change).await;
        if result.is_err() {
            // What closing says adds nothing to the error at hand.
            let _ = connection.close().await;
        }
        result
    }

    async fn write_on(&self, connection: &mut SqliteConnection, change: Change<'_>) -> Result<(), LedgerError> {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        let last: i64 = sqlx::query_scalar("SELECT generation FROM run").fetch_one(&mut *tx).await?;
        if u64::try_from(last) != Ok(self.generation.0) {
            return Err(LedgerError::Fenced(self.generation));
        }
        match change {
            Change::Records(records) => {
                for record in records {
                    rows::insert(&mut tx, record).await?;
                }
                fail::point("ledger.commit.before");
            }
            Change::Counters(Counters { bytes_up, bytes_down }) => {
                sqlx::query(
                    "UPDATE counters SET bytes_up = min(bytes_up, 1 << 61) + ?, bytes_down = min(bytes_down, 1 << 61) \
                    + ?",
                )
                .bind(integer("counters.bytes_up", bytes_up)?)
                .bind(integer("counters.bytes_down", bytes_down)?)
                .execute(&mut *tx)
                .await?;
            }
            Change::Losses { restart, deltas } => {
                if let Some(version) = restart {
                    let query = sqlx::query("INSERT OR IGNORE INTO restarts VALUES (?)").bind(version.0 as i64);
                    query.execute(&mut *tx).await?;
                }
                for seq in deltas {
                    let query = sqlx::query("INSERT OR IGNORE INTO lost_deltas VALUES (?)").bind(*seq as i64);
                    query.execute(&mut *tx).await?;
                }
            }
        }
        Ok(tx.commit().await?)
    }

    async fn ended_unfit_leases(&self, shards: &Shards, at: Wall) -> Result<Vec<BadRow>, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let (_, mut taken) = epochs::unfinished(&mut tx, shards, &mut SetAside::default()).await?;
        let rows = sqlx::query("SELECT * FROM leases WHERE outcome IS NULL ORDER BY id").fetch_all(&mut *tx).await?;
        tx.commit().await?;
        let (mut unfit, mut ends) = (vec![], vec![]);
        for row in &rows {
            let lease = rows::lease(row, &mut SetAside::default());
            let held = lease.and_then(|lease| if lease.kind.trains() { taken.lease(shards, &lease) } else { Ok(()) });
            if let Err(bad) = held {
                let (id, outcome) = (rows::lease_number(row)?, LeaseOutcome::Returned);
                ends.push(Record::LeaseClosed { id, outcome, samples_used: 0, at });
                unfit.push(bad);
            }
        }
        if !ends.is_empty() {
            self.commit(&ends).await?;
        }
        Ok(unfit)
    }
}

impl Ledger for SqliteLedger {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn commit<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.write(Change::Records(records)).await?;
            fail::point("ledger.commit.after");
            Ok(())
        })
    }

    fn note_losses<'a>(&'a self, restart: Option<Version>, deltas: &'a [u64]) -> Answer<'a, ()> {
        Box::pin(self.write(Change::Losses { restart, deltas }))
    }

    fn add_counters(&self, more: Counters) -> Answer<'_, ()> {
        Box::pin(self.write(Change::Counters(more)))
    }

    fn counters(&self) -> Answer<'_, Counters> {
        Box::pin(async move {
            let (up, down): (i64, i64) =
                sqlx::query_as("SELECT bytes_up, bytes_down FROM counters").fetch_one(&self.pool).await?;
            Ok(Counters { bytes_up: unsigned(up), bytes_down: unsigned(down) })
        })
    }

    fn end_unfit_leases<'a>(&'a self, shards: &'a Shards, at: Wall) -> Answer<'a, Vec<BadRow>> {
        Box::pin(self.ended_unfit_leases(shards, at))
    }

    fn snapshot<'a>(&'a self, shards: &'a Shards) -> Answer<'a, Snapshot> {
        Box::pin(self.read_snapshot(shards))
    }

    fn lineage(&self, since: Version) -> Answer<'_, Lineage> {
        Box::pin(self.read_lineage(since))
    }

    fn curves(&self) -> Answer<'_, Curves> {
        Box::pin(self.read_curves())
    }

    fn unnamed(&self, blobs: BTreeSet<BlobHash>, now: Wall) -> Answer<'_, Unnamed> {
        Box::pin(self.read_unnamed(blobs, now))
    }

    fn facts(&self) -> Answer<'_, Facts> {
        Box::pin(self.read_facts())
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.pool.close())
    }
}

/// What a run file has otherwise than the run that exists, in words; refused where that decides what the weights are.
fn changed(stored: &str, given: &str) -> Result<Vec<String>, LedgerError> {
    if stored == given {
        return Ok(vec![]);
    }
    let spec = |json| serde_json::from_str::<RunSpec>(json).map_err(|error| LedgerError::OtherSpec(error.to_string()));
    let changes = spec(stored)?.changed_to(&spec(given)?).map_err(|fixed| LedgerError::OtherSpec(fixed.to_string()))?;
    Ok(changes.iter().map(ToString::to_string).collect())
}

async fn stored_identity(tx: &mut Transaction<'_, Sqlite>) -> Result<Option<(RunIdentity, Generation)>, LedgerError> {
    let row = sqlx::query("SELECT * FROM run").fetch_optional(&mut **tx).await?;
    row.as_ref()
        .map(|row| {
            let identity = RunIdentity {
                run_id: RunId(rows::hash(row, "run_id")?),
                spec_json: row.try_get("spec_json")?,
                manifest_hash: BlobHash(rows::hash(row, "manifest_hash")?),
            };
            Ok((identity, Generation(rows::number(row, "generation")?)))
        })
        .transpose()
}

#[cfg(test)]
mod tests;
