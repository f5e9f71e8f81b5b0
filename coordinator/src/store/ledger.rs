//! The ledger in SQLite: write-ahead log, `synchronous = FULL`, every transaction conditional on the generation that
//! this process raised when it opened it.

use super::{
    BadRow, Facts, LedgerError, look,
    rows::{self, SetAside},
    samples::{self, Shards},
};
use crate::engine::{
    record::{LeaseKind, LeaseOutcome, LeaseRecord, Record},
    snapshot::{self, DeviceSummary, Snapshot},
};
use nightjar_shared::{
    fail,
    ids::{BlobHash, DeviceId, Generation, LeaseId, RunId, Version},
    run_spec::RunSpec,
    time::Wall,
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
            .bind(rows::integer("run.generation", generation.0)?)
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
                .bind(rows::integer("counters.bytes_up", bytes_up)?)
                .bind(rows::integer("counters.bytes_down", bytes_down)?)
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
        let (up, down): (i64, i64) =
            sqlx::query_as("SELECT bytes_up, bytes_down FROM counters").fetch_one(&self.pool).await?;
        Ok(Counters { bytes_up: unsigned(up), bytes_down: unsigned(down) })
    }

    /// Ends the open leases that hold samples they cannot hold, or cannot be read: nobody will do what they ask for,
    /// and their devices are given others. Returns what is wrong with them.
    pub async fn end_unfit_leases(&self, shards: &Shards, at: Wall) -> Result<Vec<BadRow>, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let (_, mut taken) = samples::unfinished_epochs(&mut tx, shards, &mut SetAside::default()).await?;
        let rows = sqlx::query("SELECT * FROM leases WHERE outcome IS NULL ORDER BY id").fetch_all(&mut *tx).await?;
        tx.commit().await?;
        let (mut unfit, mut ends) = (vec![], vec![]);
        for row in &rows {
            let lease = rows::lease(row, &mut SetAside::default());
            let is_of_training = |lease: &LeaseRecord| lease.kind == LeaseKind::Train;
            let held =
                lease.and_then(|lease| if is_of_training(&lease) { taken.lease(shards, &lease) } else { Ok(()) });
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

    /// What the engine is restored from: `shards` tell which epochs are finished, and which samples can have been
    /// given.
    pub async fn snapshot(&self, shards: &Shards) -> Result<Snapshot, LedgerError> {
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
        let told = aside.0.len();
        let (epochs, _) = samples::unfinished_epochs(&mut tx, shards, &mut aside).await?;
        // The rest is told with the facts.
        aside.0[told..]
            .iter()
            .for_each(|bad| tracing::warn!("the ledger holds what was never meant, and goes on without it: {bad}"));
        Ok(Snapshot {
            devices,
            open_leases,
            last_lease: LeaseId(unsigned(last_lease)),
            epochs_opened: samples::epochs_opened(&mut tx).await?,
            epochs,
            last_seq: unsigned(last_seq),
            tokens: unsigned(tokens),
            recent_deltas: aside.readable(recent.iter().rev(), rows::recent),
            merged_blobs: aside.readable(blobs.iter().rev(), rows::merged_blob),
            versions: rows::versions(&mut tx, versions.iter().rev(), &mut aside).await?,
            evaluation: aside.readable(&evaluations, rows::evaluation).pop(),
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
        let mut aside = SetAside::default();
        let facts = Facts {
            devices: aside.readable(&devices, rows::device),
            leases: aside.readable(&leases, rows::lease_facts),
            deltas: aside.readable(&deltas, rows::delta),
            versions: rows::versions(&mut tx, versions.iter(), &mut aside).await?,
            evaluations: aside.readable(&evaluations, rows::evaluation),
            restarts,
            lost_deltas,
            set_aside: vec![],
        };
        for bad in &aside.0 {
            tracing::warn!("the ledger holds what was never meant, and goes on without it: {bad}");
        }
        Ok(Facts { set_aside: aside.0, ..facts })
    }

    /// Waits until everything is written and the file is closed.
    pub async fn close(self) {
        self.pool.close().await;
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
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
