//! Where the GPU runtime keeps what it tuned. The runtime (cubecl 0.11) brings a whole database engine, turso, for a file
//! of some kilobytes: five CPU minutes of a build and 9 MB of the program. The root manifest puts this crate in its place,
//! which has the few calls that the runtime makes, over the SQLite that the coordinator's ledger is built with.
//!
//! The calls are `async` because turso's are. None of them ever waits for anything but the file system.

use rusqlite::{
    Connection as Sqlite, ErrorCode, OpenFlags, Params,
    types::{FromSql, Value},
};
use std::{io, ops::Deref, path::PathBuf, time::Duration};

/// How a transaction begins, under turso's path.
pub mod transaction {
    /// When a transaction takes the lock to write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum TransactionBehavior {
        /// With its first write.
        Deferred,
        /// At once.
        Immediate,
    }
}

use transaction::TransactionBehavior;

/// A database that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the lock.
    #[error("{0}")]
    Busy(String),
    /// Another process wrote since this transaction first read.
    #[error("{0}")]
    BusySnapshot(String),
    /// The folder cannot be made; the runtime makes this one.
    #[error("{1}: {0}")]
    IoError(io::ErrorKind, &'static str),
    /// All else.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy(error.to_string()),
            _ => Error::Sqlite(error),
        }
    }
}

/// Says how a database is opened.
#[derive(Clone, Debug)]
pub struct Builder {
    path: PathBuf,
    read_only: bool,
}

impl Builder {
    /// A file on this computer.
    pub fn new_local(path: &str) -> Self {
        Builder { path: path.into(), read_only: false }
    }

    /// Whether it is never written.
    pub fn read_only(self, read_only: bool) -> Self {
        Builder { read_only, ..self }
    }

    /// SQLite lets several processes share a file in any case.
    pub fn experimental_multiprocess_wal(self, _: bool) -> Self {
        self
    }

    /// SQLite has `VACUUM` in any case.
    pub fn experimental_vacuum(self, _: bool) -> Self {
        self
    }

    /// Opens it, so that a file that cannot be used is known now.
    pub async fn build(self) -> Result<Database, Error> {
        let database = Database { path: self.path, read_only: self.read_only };
        if !database.read_only {
            // A commit that a power cut takes back costs some tuning. It need not wait for the disk.
            database.connect()?.pragma("journal_mode = WAL")?;
        }
        Ok(database)
    }
}

/// A database file.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    read_only: bool,
}

impl Database {
    /// A connection of its own.
    pub fn connect(&self) -> Result<Connection, Error> {
        let flags = match self.read_only {
            true => OpenFlags::SQLITE_OPEN_READ_ONLY,
            false => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
        Ok(Connection(Sqlite::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?))
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection(Sqlite);

impl Connection {
    /// How long a statement waits for another process's lock.
    pub fn busy_timeout(&self, duration: Duration) -> Result<(), Error> {
        Ok(self.0.busy_timeout(duration)?)
    }

    /// Runs a statement; how many rows it changed.
    pub async fn execute(&self, sql: &str, params: impl Params) -> Result<u64, Error> {
        Ok(self.0.execute(sql, params)? as u64)
    }

    /// Runs a query. Its rows are in memory when it returns: the runtime keeps few.
    pub async fn query(&self, sql: &str, params: impl Params) -> Result<Rows, Error> {
        let mut statement = self.0.prepare(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map(params, |row| (0..columns).map(|column| row.get(column)).collect());
        Ok(Rows(rows?.collect::<Result<Vec<Row>, _>>()?.into_iter()))
    }

    /// Runs `PRAGMA pragma` and shows each of its rows.
    pub async fn pragma_query(&self, pragma: &str, mut each: impl FnMut(&Row) -> Result<(), Error>) -> Result<(), Error> {
        self.pragma(pragma)?.iter().try_for_each(&mut each)
    }

    fn pragma(&self, pragma: &str) -> Result<Vec<Row>, Error> {
        let mut statement = self.0.prepare(&format!("PRAGMA {pragma}"))?;
        let columns = statement.column_count();
        let rows = statement.query_map((), |row| (0..columns).map(|column| row.get(column)).collect());
        Ok(rows?.collect::<Result<_, _>>()?)
    }

    /// Begins a transaction, which is undone unless it is committed.
    pub async fn transaction_with_behavior(&mut self, behavior: TransactionBehavior) -> Result<Transaction<'_>, Error> {
        let begin = match behavior {
            TransactionBehavior::Deferred => "BEGIN DEFERRED",
            TransactionBehavior::Immediate => "BEGIN IMMEDIATE",
        };
        self.0.execute_batch(begin)?;
        Ok(Transaction { connection: self })
    }
}

/// An open transaction.
#[derive(Debug)]
pub struct Transaction<'c> {
    connection: &'c Connection,
}

impl Transaction<'_> {
    /// Makes it last.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.connection.0.execute_batch("COMMIT")?)
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite leaves "autocommit" for the time of a transaction: after a commit there is nothing to undo.
        if !self.connection.0.is_autocommit() {
            let _ = self.connection.0.execute_batch("ROLLBACK");
        }
    }
}

/// Rows of a query.
#[derive(Debug)]
pub struct Rows(std::vec::IntoIter<Row>);

impl Rows {
    /// The next one.
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        Ok(self.0.next())
    }
}

/// One row.
#[derive(Debug)]
pub struct Row(Vec<Value>);

impl FromIterator<Value> for Row {
    fn from_iter<T: IntoIterator<Item = Value>>(values: T) -> Self {
        Row(values.into_iter().collect())
    }
}

impl Row {
    /// The value of a column, from 0.
    pub fn get<T: FromSql>(&self, column: usize) -> Result<T, Error> {
        let value = self.0.get(column).ok_or(rusqlite::Error::InvalidColumnIndex(column))?;
        T::column_result(value.into()).map_err(|e| Error::Sqlite(e.into()))
    }
}
