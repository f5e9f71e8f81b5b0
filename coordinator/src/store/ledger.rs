//! The ledger in SQLite: write-ahead log, `synchronous = FULL`, every transaction conditional on the generation that
//! this process raised when it opened it.

use super::{DeviceSummary, EpochUse, Facts, LedgerError, MergedRange, RecentDelta, Snapshot, look, rows, snapshot};
use crate::engine::record::{LeaseOutcome, Record};
use nightjar_shared::{
    fail,
    ids::{BlobHash, DeviceId, Generation, LeaseId, RunId, Version},
};
use sqlx::{
    Connection, Row, SqlSafeStr, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// What a ledger belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIdentity {
    /// The run's name.
    pub run_id: RunId,
    /// The run spec, as JSON.
    pub spec_json: String,
    /// BLAKE3 of the dataset's manifest.
    pub manifest_hash: BlobHash,
}

/// Bytes that went over the network, over all of the run's coordinators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// From devices.
    pub bytes_up: u64,
    /// To devices.
    pub bytes_down: u64,
}

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

async fn connect(path: &Path, create: bool) -> Result<SqlitePool, LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    // One connection: SQLite has one writer at a time, and who waits for it waits here.
    Ok(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
}

impl SqliteLedger {
    /// Opens the ledger to write, creating it for a new run, and raises the generation to max(last + 1, `unix_s`): who
    /// had it open before cannot write any more. Refuses a ledger of another run.
    pub async fn create_or_open(path: &Path, identity: &RunIdentity, unix_s: u64) -> Result<Self, LedgerError> {
        let pool = connect(path, true).await?;
        migrations().run(&pool).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(_) => LedgerError::Newer,
            sqlx::migrate::MigrateError::VersionMismatch(_) => LedgerError::Damaged("its tables are not those of this program"),
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            error => LedgerError::Sql(sqlx::Error::Migrate(Box::new(error))),
        })?;
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        let generation = match stored_identity(&mut tx).await? {
            Some((stored, _)) if stored.manifest_hash != identity.manifest_hash => return Err(LedgerError::OtherData),
            Some((stored, _)) if stored != *identity => return Err(LedgerError::OtherSpec),
            Some((_, last)) => Generation(unix_s.max(last.0 + 1)),
            None => {
                sqlx::query("INSERT INTO run (only_row, run_id, spec_json, manifest_hash, generation) VALUES (1, ?, ?, ?, 0)")
                    .bind(&identity.run_id.0[..])
                    .bind(&identity.spec_json)
                    .bind(&identity.manifest_hash.0[..])
                    .execute(&mut *tx)
                    .await?;
                Generation(unix_s.max(1))
            }
        };
        sqlx::query("UPDATE run SET generation = ?").bind(generation.0 as i64).execute(&mut *tx).await?;
        tx.commit().await?;
        fail::point("ledger.raised");
        Ok(SqliteLedger { pool, identity: identity.clone(), generation })
    }

    /// Opens a ledger to read: a commit through this handle is refused once a coordinator has raised the generation.
    pub async fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
        if !path.exists() {
            return Err(LedgerError::NotFound(path.to_owned()));
        }
        let pool = connect(path, false).await?;
        let mut tx = pool.begin().await?;
        let stored = stored_identity(&mut tx).await?;
        tx.commit().await?;
        let (identity, generation) = stored.ok_or_else(|| LedgerError::NotFound(path.to_owned()))?;
        Ok(SqliteLedger { pool, identity, generation })
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

    /// Notes what of the way to the newest version is lost, so that later replays go the same way.
    pub async fn note_losses(&self, restart: Option<Version>, deltas: &[u64]) -> Result<(), LedgerError> {
        self.write(Change::Losses { restart, deltas }).await
    }

    /// What it belongs to.
    pub fn identity(&self) -> &RunIdentity {
        &self.identity
    }

    /// The generation that this handle writes under.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Writes records in one transaction; they are durable on return. Nothing is written if another coordinator has
    /// taken over.
    pub async fn commit(&self, records: &[Record]) -> Result<(), LedgerError> {
        self.write(Change::Records(records)).await?;
        fail::point("ledger.commit.after");
        Ok(())
    }

    /// Adds to the counters.
    pub async fn add_counters(&self, bytes_up: u64, bytes_down: u64) -> Result<(), LedgerError> {
        self.write(Change::Counters(Counters { bytes_up, bytes_down })).await
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
        if last as u64 != self.generation.0 {
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
                sqlx::query("UPDATE counters SET bytes_up = bytes_up + ?, bytes_down = bytes_down + ?")
                    .bind(bytes_up as i64)
                    .bind(bytes_down as i64)
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

    /// The counters.
    pub async fn counters(&self) -> Result<Counters, LedgerError> {
        let (up, down): (i64, i64) = sqlx::query_as("SELECT bytes_up, bytes_down FROM counters").fetch_one(&self.pool).await?;
        Ok(Counters { bytes_up: up as u64, bytes_down: down as u64 })
    }

    /// What the engine is restored from. `epoch_samples` tells which epochs are finished.
    pub async fn snapshot(&self, epoch_samples: u64) -> Result<Snapshot, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let devices = sqlx::query(
            "SELECT d.*, coalesce(x.tokens, 0) AS merged_tokens, coalesce(x.merged, 0) AS merged, x.last_lease,
                    l.generation AS last_generation
             FROM devices d
             LEFT JOIN (SELECT device, sum(tokens) AS tokens, count(*) AS merged, max(lease) AS last_lease
                        FROM deltas GROUP BY device) x ON x.device = d.id
             LEFT JOIN leases l ON l.id = x.last_lease
             ORDER BY d.id",
        )
        .fetch_all(&mut *tx)
        .await?;
        let devices = devices.iter().map(|row| {
            let id: Option<i64> = row.try_get("last_lease")?;
            let generation: Option<i64> = row.try_get("last_generation")?;
            Ok(DeviceSummary {
                record: rows::device(row)?,
                tokens: rows::number(row, "merged_tokens")?,
                merged: rows::number(row, "merged")?,
                last_merged: id.zip(generation).map(|(id, g)| (LeaseId(id as u64), Generation(g as u64))),
            })
        });
        let devices = devices.collect::<Result<_, LedgerError>>()?;
        let open_leases = sqlx::query("SELECT * FROM leases WHERE outcome IS NULL ORDER BY id").fetch_all(&mut *tx).await?;
        let (last_lease, epochs_opened): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT coalesce(max(id), 0) FROM leases),
                    (SELECT coalesce(max(epoch) + 1, 0) FROM leases WHERE kind = 'train')",
        )
        .fetch_one(&mut *tx)
        .await?;
        let (last_seq, tokens): (i64, i64) =
            sqlx::query_as("SELECT coalesce(max(seq), 0), coalesce(sum(tokens), 0) FROM deltas").fetch_one(&mut *tx).await?;
        let recent = sqlx::query("SELECT seq, norm, steps, tokens FROM deltas ORDER BY seq DESC LIMIT ?")
            .bind(snapshot::DELTAS_KEPT as i64)
            .fetch_all(&mut *tx)
            .await?;
        let versions = sqlx::query("SELECT * FROM versions ORDER BY version DESC LIMIT ?")
            .bind(snapshot::VERSIONS_KEPT as i64)
            .fetch_all(&mut *tx)
            .await?;
        let evaluation =
            sqlx::query("SELECT * FROM evaluations ORDER BY version DESC, lease DESC LIMIT 1").fetch_optional(&mut *tx).await?;
        Ok(Snapshot {
            devices,
            open_leases: open_leases.iter().map(rows::lease).collect::<Result<_, _>>()?,
            last_lease: LeaseId(last_lease as u64),
            epochs_opened: epochs_opened as u32,
            epochs: unfinished_epochs(&mut tx, epoch_samples).await?,
            last_seq: last_seq as u64,
            tokens: tokens as u64,
            recent_deltas: recent_deltas(&recent, tokens as u64)?,
            versions: rows::versions(&mut tx, versions.iter().rev()).await?,
            evaluation: evaluation.as_ref().map(rows::evaluation).transpose()?,
        })
    }

    /// Everything.
    pub async fn facts(&self) -> Result<Facts, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let devices = sqlx::query("SELECT * FROM devices ORDER BY id").fetch_all(&mut *tx).await?;
        let leases = sqlx::query("SELECT * FROM leases ORDER BY id").fetch_all(&mut *tx).await?;
        let deltas = sqlx::query("SELECT * FROM deltas ORDER BY seq").fetch_all(&mut *tx).await?;
        let versions = sqlx::query("SELECT * FROM versions ORDER BY version").fetch_all(&mut *tx).await?;
        let evaluations = sqlx::query("SELECT * FROM evaluations ORDER BY lease").fetch_all(&mut *tx).await?;
        let (restarts, lost_deltas) = losses(&mut tx).await?;
        Ok(Facts {
            devices: devices.iter().map(rows::device).collect::<Result<_, _>>()?,
            leases: leases.iter().map(rows::lease_facts).collect::<Result<_, _>>()?,
            deltas: deltas.iter().map(rows::delta).collect::<Result<_, _>>()?,
            versions: rows::versions(&mut tx, versions.iter()).await?,
            evaluations: evaluations.iter().map(rows::evaluation).collect::<Result<_, _>>()?,
            restarts,
            lost_deltas,
        })
    }

    /// Waits until everything is written and the file is closed.
    pub async fn close(self) {
        self.pool.close().await;
    }
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

/// Restarts and lost deltas, in their order. A ledger that only an older version has written has no tables of them.
async fn losses(tx: &mut Transaction<'_, Sqlite>) -> Result<(Vec<Version>, Vec<u64>), LedgerError> {
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = 'lost_deltas'").fetch_one(&mut **tx).await?;
    if tables == 0 {
        return Ok((vec![], vec![]));
    }
    let restarts: Vec<i64> = sqlx::query_scalar("SELECT version FROM restarts ORDER BY version").fetch_all(&mut **tx).await?;
    let deltas: Vec<i64> = sqlx::query_scalar("SELECT seq FROM lost_deltas ORDER BY seq").fetch_all(&mut **tx).await?;
    Ok((restarts.into_iter().map(|v| Version(v as u64)).collect(), deltas.into_iter().map(|seq| seq as u64).collect()))
}

/// Newest first in, oldest first out, with the running sum of tokens.
fn recent_deltas(newest_first: &[sqlx::sqlite::SqliteRow], tokens: u64) -> Result<Vec<RecentDelta>, LedgerError> {
    let mut tokens_so_far = tokens;
    let mut recent = vec![];
    for row in newest_first {
        recent.push(RecentDelta {
            seq: rows::number(row, "seq")?,
            norm: row.try_get("norm")?,
            steps: rows::number(row, "steps")? as u32,
            tokens_so_far,
        });
        tokens_so_far -= rows::number(row, "tokens")?;
    }
    recent.reverse();
    Ok(recent)
}

async fn unfinished_epochs(tx: &mut Transaction<'_, Sqlite>, epoch_samples: u64) -> Result<Vec<EpochUse>, LedgerError> {
    let unfinished: Vec<i64> = sqlx::query_scalar(
        "SELECT epoch FROM leases WHERE kind = 'train' GROUP BY epoch HAVING sum(samples_used) < ? ORDER BY epoch",
    )
    .bind(epoch_samples as i64)
    .fetch_all(&mut **tx)
    .await?;
    let mut epochs = vec![];
    for epoch in unfinished {
        let merged: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT shard, first_sample, samples_used FROM leases
             WHERE kind = 'train' AND epoch = ? AND outcome = ? ORDER BY shard, first_sample",
        )
        .bind(epoch)
        .bind(rows::word(LeaseOutcome::Merged))
        .fetch_all(&mut **tx)
        .await?;
        let range = |(shard, first, samples)| MergedRange { shard: shard as u32, first: first as u32, samples: samples as u32 };
        epochs.push(EpochUse { epoch: epoch as u32, merged: merged.into_iter().map(range).collect() });
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests;
