//! The ledger in PostgreSQL, for a lab that has one: its own backups, its own tools, another machine.
//!
//! What differs from a file is that the database may go away, and come back, at any moment. A transaction whose commit was
//! sent and not answered may stand or not. Each one therefore has a number in the run's row: the next transaction sees
//! whether the last one stands, so that trying again never writes twice.

pub mod leadership;

use super::{
    Counters, LedgerError, Note, RunIdentity,
    ledger::integer,
    place::DatabaseUrl,
    sql::{
        self, Change, Dialect, SqlLedger,
        tables::{Cells, Tables, sql},
    },
    sqlite::look::Look,
};
use crate::engine::record::Record;
use nightjar_shared::ids::Generation;
use sqlx::{
    PgPool, Postgres, SqlSafeStr, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgPoolOptions,
};
use std::time::Duration;
use tokio::{sync::Mutex, time::timeout};

/// An open ledger.
pub type PostgresLedger = SqlLedger<Database>;

/// How long the database may take for a connection before the caller hears of it: devices wait meanwhile.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// The same for a transaction.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long it may take to read what a start asks for.
const READ_MAX: Duration = Duration::from_secs(600);

/// The database, connected.
pub struct Database {
    pool: PgPool,
    url: DatabaseUrl,
    last: Mutex<Last>,
}

/// What is known of the last commit that was sent.
enum Last {
    /// Its end was heard.
    Heard,
    /// It stands or not: its number, and what it wrote.
    Unheard { number: i64, records: Vec<Record>, more: Counters },
    /// It stands, and whoever wrote it was told that it failed.
    Stands(Vec<Record>, Counters),
}

fn migrations() -> Migrator {
    let step = |number, name: &'static str, sql: &'static str| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        step(1, "first", include_str!("postgres/migrations/0001_first.sql")),
        step(2, "keeping", include_str!("postgres/migrations/0002_keeping.sql")),
        step(3, "sums", include_str!("postgres/migrations/0003_sums.sql")),
        step(4, "desk", include_str!("postgres/migrations/0004_desk.sql")),
        step(5, "leases of devices", include_str!("postgres/migrations/0005_leases_of_devices.sql")),
        step(6, "public names", include_str!("postgres/migrations/0006_public_names.sql")),
        step(7, "series", include_str!("postgres/migrations/0007_series.sql")),
    ])
}

/// A transaction that reads: all its questions see one state, and none waits for a writer.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl Database {
    async fn connect(url: &DatabaseUrl) -> Result<Self, LedgerError> {
        // One connection: one at a time decides. A second reads while that one is about to write.
        let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(CONNECT_MAX);
        let pool = pool.connect_with(url.options()).await.map_err(|error| url.failed(error))?;
        Ok(Database { pool, url: url.clone(), last: Mutex::new(Last::Heard) })
    }

    /// A database that is only read.
    pub(super) async fn to_read(url: &DatabaseUrl) -> Result<Self, LedgerError> {
        Self::connect(url).await
    }

    /// A database that is written without being taken over; its tables are made where there are none.
    pub(super) async fn to_fill(url: &DatabaseUrl) -> Result<Self, LedgerError> {
        let database = Self::connect(url).await?;
        migrations().run(&database.pool).await.map_err(sql::not_migrated)?;
        Ok(database)
    }

    /// An answer in time.
    async fn in_time<T>(
        &self,
        most: Duration,
        asked: impl Future<Output = Result<T, LedgerError>> + Send,
    ) -> Result<T, LedgerError> {
        match timeout(most, asked).await {
            Ok(answer) => answer.map_err(|error| self.url.named(error)),
            Err(_) => Err(self.url.away("it does not answer")),
        }
    }

    async fn written(&self, last: &mut Last, generation: Generation, change: Change<'_>) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin().await?;
        // It locks the run's row, too: of two coordinators one waits here, and is fenced.
        let number =
            sql("/* commit */ UPDATE run SET commits = commits + 1 WHERE generation = $1 RETURNING commits AS n");
        let rows = tx.rows(number.bind(integer("run.generation", generation.0)?)).await?;
        let Some(row) = rows.first() else { return Err(LedgerError::Fenced(generation)) };
        let number = row.integer("n")?;
        *last = match std::mem::replace(last, Last::Heard) {
            Last::Unheard { number: unheard, records, more } if unheard < number => Last::Stands(records, more),
            Last::Unheard { .. } => Last::Heard,
            known => known,
        };
        if let Change::Facts(records, more) = change {
            match last {
                Last::Stands(stands, with) if stands == records && *with == more => {
                    *last = Last::Heard;
                    return Ok(());
                }
                // What is counted meanwhile makes no difference.
                Last::Stands(..) if records.is_empty() => {}
                _ => *last = Last::Heard,
            }
        }
        sql::write(&mut tx, change).await?;
        let is_first = matches!(last, Last::Heard);
        if let (Change::Facts(records, more), true) = (change, is_first) {
            *last = Last::Unheard { number, records: records.to_vec(), more };
        }
        tx.commit().await?;
        if is_first {
            *last = Last::Heard;
        }
        Ok(())
    }
}

impl PostgresLedger {
    /// Opens the ledger to write, making its tables for a new run, and takes it over ([`sql::take_over`]).
    pub async fn create_or_open(url: &DatabaseUrl, identity: &RunIdentity, unix_s: u64) -> Result<Self, LedgerError> {
        let database = Database::connect(url).await?;
        let opened = database.in_time(READ_MAX, async {
            migrations().run(&database.pool).await.map_err(sql::not_migrated)?;
            let mut tx = database.pool.begin().await?;
            tx.change(sql("/* take over */ LOCK TABLE run IN EXCLUSIVE MODE")).await?;
            sql::refuse_moved::<Database>(&mut tx).await?;
            if let Some(lock) = url.lock()
                && !lock.is_held(&mut tx).await?
            {
                let last = tx.number(sql("/* generation */ SELECT coalesce(max(generation), 0) AS n FROM run")).await?;
                return Err(LedgerError::Fenced(Generation(last.unsigned_abs())));
            }
            let takeover = sql::take_over(&mut tx, identity, unix_s).await?;
            tx.commit().await?;
            Ok(takeover)
        });
        let takeover = opened.await?;
        Ok(SqlLedger::taken(database, takeover))
    }

    /// Opens a ledger to read.
    pub async fn open_to_read(url: &DatabaseUrl) -> Result<Self, LedgerError> {
        let looked = Self::look(url).await?;
        let nothing = || LedgerError::NoRun(url.to_string());
        if !looked.has_run {
            return Err(nothing());
        }
        let database = Database::connect(url).await?;
        SqlLedger::to_read(database).await?.ok_or_else(nothing)
    }

    /// Opens the operators' desk of a ledger that a coordinator has written; the rest is not written.
    pub async fn open_desk(url: &DatabaseUrl) -> Result<Self, LedgerError> {
        let nothing = || LedgerError::NoRun(url.to_string());
        if !Self::look(url).await?.has_run {
            return Err(nothing());
        }
        SqlLedger::with_desk(Database::connect(url).await?).await?.ok_or_else(nothing)
    }

    /// Looks what is in the database; nothing is written.
    pub async fn look(url: &DatabaseUrl) -> Result<Look, LedgerError> {
        let database = Database::connect(url).await?;
        let looked = database.in_time(READ_MAX, look(&database)).await;
        database.pool.close().await;
        looked
    }
}

async fn look(database: &Database) -> Result<Look, LedgerError> {
    let nothing = Look { has_run: false, key: None, versions: 0 };
    let mut tx = database.begin().await?;
    let mut ours = 0;
    for table in ["run", "leases", "versions", "lost_deltas"] {
        ours += tx.number(sql(Database::HAS_TABLE).bind(table)).await?;
    }
    match ours {
        0 => return Ok(nothing),
        4 => {}
        _ => return Err(LedgerError::ForeignDatabase(database.url.to_string())),
    }
    let run = tx.rows(sql("/* look */ SELECT * FROM run")).await?;
    let Some(run) = run.first() else { return Ok(nothing) };
    let versions = tx.number(sql("/* look */ SELECT coalesce(max(version) + 1, 0) AS n FROM versions")).await?;
    Ok(Look { has_run: true, key: sql::key_of(run)?, versions: u64::try_from(versions).unwrap_or(0) })
}

impl Dialect for Database {
    type Transaction = Transaction<'static, Postgres>;

    const HAS_TABLE: &'static str =
        "SELECT count(*) AS n FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1";

    const COLUMNS: &'static str = "/* columns */
         SELECT c.table_name::text, c.column_name::text, c.data_type::text AS kind,
                CAST(coalesce(p.ordinal_position, 0) AS BIGINT) AS key
         FROM information_schema.columns c
         LEFT JOIN (SELECT k.table_name, k.column_name, k.ordinal_position FROM information_schema.key_column_usage k
                    JOIN information_schema.table_constraints t
                      ON t.constraint_name = k.constraint_name AND t.table_name = k.table_name
                     AND t.table_schema = k.table_schema
                    WHERE t.constraint_type = 'PRIMARY KEY' AND k.table_schema = current_schema()) p
           ON p.table_name = c.table_name AND p.column_name = c.column_name
         WHERE c.table_schema = current_schema() ORDER BY c.table_name, c.ordinal_position";

    const BYTEWISE: &'static str = " COLLATE \"C\"";

    const AS_NUMBERED: &'static str = "OVERRIDING SYSTEM VALUE";

    fn go_on_numbering(table: &str, column: &str) -> Option<String> {
        // Of a column that it does not number, it is null, and nothing is done.
        Some(format!(
            "/* carry: number */ SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}"
        ))
    }

    async fn begin_to_fill(&self) -> Result<Self::Transaction, LedgerError> {
        self.pool.begin().await.map_err(|error| self.url.failed(error))
    }

    async fn begin(&self) -> Result<Self::Transaction, LedgerError> {
        self.pool.begin_with(READ).await.map_err(|error| self.url.failed(error))
    }

    async fn write(&self, generation: Generation, change: Change<'_>) -> Result<(), LedgerError> {
        let mut last = self.last.lock().await;
        let last = &mut *last;
        self.in_time(ANSWER_MAX, self.written(last, generation, change)).await
    }

    /// Without a number: what is unheard of a commit of records is still to be told by the next of them.
    async fn note(&self, notes: &[Note]) -> Result<(), LedgerError> {
        let written = async {
            let mut tx = self.pool.begin().await?;
            for note in notes {
                sql::desk::write(&mut tx, note).await?;
            }
            Ok(tx.commit().await?)
        };
        self.in_time(ANSWER_MAX, written).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
pub(super) mod tests;
