//! What can go wrong with a ledger, in words for the person who runs it.

use nightjar_shared::ids::Generation;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError, sqlite::SqliteError};
use std::path::{Path, PathBuf};

/// A ledger that cannot be used, or would not take a transaction.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another coordinator was started on the same ledger.
    #[error("another coordinator has taken over this run (this one is generation {0}); stop one of the two")]
    Fenced(Generation),
    /// The state folder belongs to a run with another spec.
    #[error(
        "this state folder belongs to a run with a different run.toml ({0}); set it as it was, or choose a new --state \
        folder"
    )]
    OtherSpec(String),
    /// The state folder belongs to a run on other data.
    #[error(
        "this state folder belongs to a run on different data; give the old --data folder, or choose a new --state \
        folder"
    )]
    OtherData,
    /// There is none.
    #[error("there is no ledger at {0}; is this the state folder of a run?")]
    NotFound(PathBuf),
    /// No space.
    #[error("the disk is full: the ledger could not be written; free some space, nothing was lost")]
    DiskFull,
    /// Locked by someone else for longer than we wait.
    #[error("the ledger is locked by another program; close it and start again")]
    Locked,
    /// It was written by a newer version of this program.
    #[error("the ledger was written by a newer version of Nightjar; upgrade this coordinator")]
    Newer,
    /// No newer version than that has served it.
    #[error(
        "the ledger was written by an older version of Nightjar: start `serve` of this version once, and try again"
    )]
    Older,
    /// SQLite's own check of the file fails.
    #[error(
        "the ledger's file is damaged (SQLite says: {0}); restore the state folder from a backup, or make a copy of \
         ledger.sqlite and try `sqlite3 COPY .recover` on it"
    )]
    Broken(String),
    /// Another program's database.
    #[error("{0} is a database, but no ledger of Nightjar's; name another --state folder")]
    Foreign(PathBuf),
    /// No run is in a database.
    #[error("no run is in the database {0}; is this the --ledger that `serve` was started with?")]
    NoRun(String),
    /// Another program's database, or a part of a ledger.
    #[error(
        "the database {0} has some tables of a ledger and not others: another program's, or what is left of a ledger; give          the run a database of its own"
    )]
    ForeignDatabase(String),
    /// Its run has gone elsewhere.
    #[error(
        "this run was moved to {0}, and the ledger here is only a copy of what it was: start the coordinator with the state folder that \
         the move was made in; if the move was broken off, the same `nightjar-coordinator move` finishes it"
    )]
    Moved(String),
    /// The database of a new run has another run in it.
    #[error(
        "the database {0} holds a run already, and this state folder is new: name that run's --state folder, or another          database"
    )]
    Taken(String),
    /// The database cannot be reached at the moment.
    #[error(
        "the database {place} cannot be used now ({why}); nothing is lost, and it goes on when the database is back"
    )]
    Away {
        /// Its address.
        place: String,
        /// What it or the system says.
        why: String,
    },
    /// The key in the state folder is not the one that the run was begun with.
    #[error(
        "the key in this state folder is not the one that this run's devices know: put the run's own coordinator.pk8 back, \
         whose fingerprint is {0}"
    )]
    OtherKey(String),
    /// A column holds what was never written.
    #[error("the ledger is damaged: {0}; restore it from a backup")]
    Damaged(&'static str),
    /// A row cannot be gone without, and cannot be read.
    #[error("the ledger is damaged: {0}; restore it from a backup")]
    Row(#[from] BadRow),
    /// A record would not be read back as it is.
    #[error("the ledger refused a record: {column} {why}")]
    Unfit {
        /// Table and column.
        column: &'static str,
        /// What is wrong with the value.
        why: &'static str,
    },
    /// A record contradicts what is there.
    #[error("the ledger refused a record: {0}")]
    Contradiction(String),
    /// The file cannot be reached, for whatever reason.
    #[error(
        "the ledger {path} cannot be opened here ({why}): if another user has it, run this as that user; if the run was not \
         stopped in order, ledger.sqlite-wal lies beside it and has to be writable, so copy the state folder and use the copy"
    )]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// What the database says.
        why: String,
    },
    /// Anything else that the database says.
    #[error("the ledger could not be used: {0}")]
    Sql(#[source] sqlx::Error),
}

/// A row that holds what was never meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {id} of {table}: {column} {why}")]
pub struct BadRow {
    /// The table.
    pub table: &'static str,
    /// The row's key: a number, or bytes in hexadecimal digits.
    pub id: String,
    /// The column.
    pub column: &'static str,
    /// What is wrong with its value.
    pub why: &'static str,
}

impl LedgerError {
    /// The same, with the file's name where the database says only that it cannot be opened.
    pub(super) fn at(self, path: &Path) -> Self {
        match &self {
            LedgerError::Sql(sqlx::Error::Database(error))
                if UNREACHABLE.contains(&primary(error.as_ref()).unwrap_or(0)) =>
            {
                LedgerError::Unreachable { path: path.to_owned(), why: error.message().to_owned() }
            }
            _ => self,
        }
    }

    /// Whether this process has closed it: it is about to end.
    pub fn is_closed(&self) -> bool {
        matches!(self, LedgerError::Sql(sqlx::Error::PoolClosed))
    }

    /// Whether it may pass by itself: somebody else holds the file for a while, or makes room on the disk. What failed
    /// so was not written, and may be tried again.
    pub fn may_pass(&self) -> bool {
        match self {
            LedgerError::Locked
            | LedgerError::DiskFull
            | LedgerError::Sql(sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)) => true,
            LedgerError::Unreachable { .. } | LedgerError::Away { .. } => true,
            LedgerError::Sql(sqlx::Error::Database(error)) => PASSING.contains(&primary(error.as_ref()).unwrap_or(0)),
            _ => false,
        }
    }
}

/// No permission, read-only, cannot be read or opened.
const UNREACHABLE: [i32; 5] = [3, 8, 10, 14, 23];

/// Read-only at the moment, an error of the disk, cannot be opened, a protocol of locks that was disturbed.
const PASSING: [i32; 4] = [8, 10, 14, 15];

/// SQLite's primary result codes are the low byte of the extended ones: https://www.sqlite.org/rescode.html
fn primary(error: &dyn DatabaseError) -> Option<i32> {
    error.try_downcast_ref::<SqliteError>()?;
    Some(error.code()?.parse::<i32>().ok()? & 0xff)
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(told) = &error else { return LedgerError::Sql(error) };
        if let Some(told) = told.try_downcast_ref::<PgDatabaseError>() {
            // https://www.postgresql.org/docs/current/errcodes-appendix.html
            return match told.code() {
                "53100" => LedgerError::DiskFull,
                code if code.starts_with("23") => LedgerError::Contradiction(told.message().to_owned()),
                _ => LedgerError::Sql(error),
            };
        }
        match primary(told.as_ref()) {
            Some(13) => LedgerError::DiskFull,
            Some(5 | 6) => LedgerError::Locked,
            Some(11 | 26) => LedgerError::Damaged("it is no readable database"),
            Some(19) => LedgerError::Contradiction(told.message().to_owned()),
            _ => LedgerError::Sql(error),
        }
    }
}
