//! Where a run's ledger is: a file in the state folder, or a PostgreSQL database.

use super::{
    Ledger, LedgerError, PostgresLedger, RunIdentity, SqliteLedger,
    postgres::leadership::Lock,
    sql::{Dialect, SqlLedger},
    sqlite::look::{self, Look},
};
use nightjar_shared::ids::DeviceId;
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

/// A ledger's place.
#[derive(Clone, Debug)]
pub enum LedgerPlace {
    /// SQLite's file.
    File(PathBuf),
    /// A database of its own, or a schema.
    Database(DatabaseUrl),
}

/// An open ledger, and what is known of it since it was opened.
pub struct OpenLedger {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// What it belongs to.
    pub identity: RunIdentity,
    /// What of the run spec was changed by opening it, in words.
    pub changes: Vec<String>,
}

impl<D: Dialect> From<SqlLedger<D>> for OpenLedger {
    fn from(ledger: SqlLedger<D>) -> Self {
        let (identity, changes) = (ledger.identity().clone(), ledger.changes().to_vec());
        OpenLedger { ledger: Arc::new(ledger), identity, changes }
    }
}

impl LedgerPlace {
    /// Takes the ledger over for a coordinator that has this key; a new run's is made.
    pub async fn take_over(
        &self,
        identity: &RunIdentity,
        key: DeviceId,
        unix_s: u64,
    ) -> Result<OpenLedger, LedgerError> {
        match self {
            LedgerPlace::File(path) => with_key(SqliteLedger::create_or_open(path, identity, unix_s).await?, key).await,
            LedgerPlace::Database(url) => {
                with_key(PostgresLedger::create_or_open(url, identity, unix_s).await?, key).await
            }
        }
    }

    /// Gives the run that is there another key. Whoever serves it is fenced.
    pub async fn change_key(&self, from: DeviceId, to: DeviceId, unix_s: u64) -> Result<(), LedgerError> {
        let OpenLedger { ledger, identity, .. } = self.open_to_read().await?;
        ledger.close().await;
        match self {
            LedgerPlace::File(path) => {
                SqliteLedger::create_or_open(path, &identity, unix_s).await?.change_key(from, to).await
            }
            LedgerPlace::Database(url) => {
                PostgresLedger::create_or_open(url, &identity, unix_s).await?.change_key(from, to).await
            }
        }
    }

    /// Opens the ledger of a run that is there, to read.
    pub async fn open_to_read(&self) -> Result<OpenLedger, LedgerError> {
        match self {
            LedgerPlace::File(path) => Ok(SqliteLedger::open_to_read(path).await?.into()),
            LedgerPlace::Database(url) => Ok(PostgresLedger::open_to_read(url).await?.into()),
        }
    }

    /// Opens the operators' desk of a run that is there, which may be served meanwhile. Whatever else is written to this
    /// ledger is refused as fenced.
    pub async fn open_desk(&self) -> Result<Arc<dyn Ledger>, LedgerError> {
        match self {
            LedgerPlace::File(path) => Ok(Arc::new(SqliteLedger::open_desk(path).await?)),
            LedgerPlace::Database(url) => Ok(Arc::new(PostgresLedger::open_desk(url).await?)),
        }
    }

    /// Looks whether a run is there, and whose it is; nothing is written.
    pub async fn look(&self) -> Result<Look, LedgerError> {
        match self {
            LedgerPlace::File(path) => look::look(path).await,
            LedgerPlace::Database(url) => PostgresLedger::look(url).await,
        }
    }

    /// Has a file checked by SQLite; a database server checks what it reads by itself. Says what was checked.
    pub async fn check(&self, depth: look::Depth) -> Result<String, LedgerError> {
        match self {
            LedgerPlace::File(path) => {
                look::check(path, depth).await?;
                Ok("SQLite finds no fault".to_owned())
            }
            LedgerPlace::Database(url) => Ok(format!("{url} checks its pages itself")),
        }
    }

    /// Refuses a place that another run has, for a new run of a coordinator that has this key. A first start that was
    /// cut short has left the key there, or none.
    pub async fn check_free(&self, key: DeviceId) -> Result<(), LedgerError> {
        // A file lies in the state folder, which is looked at itself.
        let LedgerPlace::Database(url) = self else { return Ok(()) };
        let looked = self.look().await?;
        let is_ours = looked.key.map_or(looked.versions == 0, |known| known == key.0);
        if looked.has_run && !is_ours { Err(LedgerError::Taken(url.to_string())) } else { Ok(()) }
    }

    /// The database's address; `None` for a file.
    pub fn database(&self) -> Option<&DatabaseUrl> {
        match self {
            LedgerPlace::File(_) => None,
            LedgerPlace::Database(url) => Some(url),
        }
    }
}

/// The same ledger, once it knows the coordinator's key.
async fn with_key<D: Dialect>(ledger: SqlLedger<D>, key: DeviceId) -> Result<OpenLedger, LedgerError> {
    ledger.adopt_key(key).await?;
    Ok(ledger.into())
}

impl fmt::Display for LedgerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerPlace::File(path) => path.display().fmt(f),
            LedgerPlace::Database(url) => url.fmt(f),
        }
    }
}

/// The address of a database; today PostgreSQL's, `postgres://USER@HOST/DATABASE`. A password in it is used and never
/// shown; one in the environment (`PGPASSWORD`) or in `~/.pgpass` is used, too.
#[derive(Clone)]
pub struct DatabaseUrl {
    options: Box<PgConnectOptions>,
    /// Without the password.
    shown: String,
    /// Whoever takes the ledger over has to hold this lock.
    lock: Option<Lock>,
}

/// An address that is none.
#[derive(Debug, thiserror::Error)]
#[error("{shown} is no address of a PostgreSQL database ({why}); write postgres://USER@HOST:PORT/DATABASE")]
pub struct BadUrl {
    shown: String,
    why: String,
}

impl FromStr for DatabaseUrl {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        let shown = without_password(url);
        let bad = |why: String| BadUrl { shown: shown.clone(), why };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(bad("it does not begin with postgres://".into()));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| bad(error.to_string()))?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("nightjar-coordinator"),
        };
        Ok(DatabaseUrl { options: Box::new(options.disable_statement_logging()), shown, lock: None })
    }
}

impl DatabaseUrl {
    /// The same, for a process that takes the ledger over only as long as it has this lock.
    pub fn under(&self, lock: Option<Lock>) -> Self {
        DatabaseUrl { lock, ..self.clone() }
    }

    pub(super) fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        (*self.options).clone()
    }

    /// What the database says, or that it says nothing.
    pub(super) fn failed(&self, error: sqlx::Error) -> LedgerError {
        self.named(error.into())
    }

    /// The same, with the database's address where it cannot be reached.
    pub(super) fn named(&self, error: LedgerError) -> LedgerError {
        match error {
            LedgerError::Sql(sqlx::Error::PoolTimedOut) => self.away("it does not answer"),
            LedgerError::Sql(error @ (sqlx::Error::Io(_) | sqlx::Error::Protocol(_))) => self.away(error),
            LedgerError::Sql(sqlx::Error::Database(error)) if is_away(&*error) => self.away(error),
            error => error,
        }
    }

    /// It cannot be used at the moment.
    pub(super) fn away(&self, why: impl fmt::Display) -> LedgerError {
        LedgerError::Away { place: self.shown.clone(), why: why.to_string() }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(f)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether it may come back by itself, by its code (https://www.postgresql.org/docs/current/errcodes-appendix.html): no
/// connection, too many of them, out of memory, shutting down or starting, a standby that is not the primary yet, locks.
fn is_away(error: &dyn sqlx::error::DatabaseError) -> bool {
    let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else { return false };
    ["08", "53", "57P", "25006", "40001", "40P01", "55P03"].iter().any(|class| error.code().starts_with(class))
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "what was given".to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("password=")).collect();
            if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://owl:hoot@host:5433/run?sslmode=require", "postgres://owl@host:5433/run?sslmode=require"),
            ("postgresql://owl:h%40t@host/run?password=hoot", "postgresql://owl@host/run"),
            ("postgres:///run?host=/tmp&password=hoot&user=owl", "postgres:///run?host=/tmp&user=owl"),
            ("postgres://host/run", "postgres://host/run"),
        ] {
            let parsed: DatabaseUrl = url.parse().unwrap();
            assert_eq!((parsed.to_string(), format!("{parsed:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for url in ["", "owl:hoot@host/run", "mysql://owl:hoot@host/run", "postgres://owl:hoot@host:x/run"] {
            let told = url.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(!told.contains("hoot"), "{told}");
        }
    }
}
