//! Looking at a ledger's file before anything is done to it: whether it is whole, and whose it is. Nothing is written.

use crate::store::{LedgerError, sql::key_of};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use std::{io::Read, path::Path, time::Duration};

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
    /// All pages of a file that is small. Of a larger one its length, and the tables that a start reads as a whole; of
    /// the others it reads the newest rows, and stops where they are damaged.
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
    let versions: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version) + 1, 0) FROM versions").fetch_one(&mut *connection).await?;
    Ok(Look { has_run: true, key: key_of(&run)?, versions: versions as u64 })
}

/// Longest file that is looked through as a whole: a moment's work.
const SMALL_BYTES: u64 = 64 << 20;

/// Tables that a start reads as a whole. They grow with the devices, and not with a run's length.
const READ_WHOLE: [&str; 7] = ["run", "counters", "devices", "sums", "device_sums", "epoch_sums", "lost_deltas"];

/// Has SQLite check its file. An error says what is damaged.
pub async fn check(path: &Path, depth: Depth) -> Result<(), LedgerError> {
    check_of(path, depth, SMALL_BYTES).await
}

pub(super) async fn check_of(path: &Path, depth: Depth, small_bytes: u64) -> Result<(), LedgerError> {
    let mut connection = open(path).await?;
    let found = faults(&mut connection, path, depth, small_bytes).await;
    let _ = connection.close().await;
    let found = found.map_err(|error| error.at(path))?;
    let faults: Vec<&str> = found.iter().flat_map(|lines| lines.lines()).take(FAULTS_MAX).collect();
    if faults.is_empty() { Ok(()) } else { Err(LedgerError::Broken(faults.join("; "))) }
}

async fn faults(
    connection: &mut SqliteConnection,
    path: &Path,
    depth: Depth,
    small_bytes: u64,
) -> Result<Vec<String>, LedgerError> {
    let is_small = std::fs::metadata(path).is_ok_and(|about| about.len() <= small_bytes);
    let pragmas: Vec<String> = match depth {
        Depth::Full => vec!["PRAGMA integrity_check(8)".to_owned()],
        Depth::Quick if is_small => vec!["PRAGMA quick_check(8)".to_owned()],
        Depth::Quick => {
            if is_cut_short(path) {
                return Ok(vec!["the file is shorter than it says".to_owned()]);
            }
            let names = "SELECT name FROM sqlite_master WHERE type = 'table'";
            let there: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut *connection).await?;
            let whole = READ_WHOLE.iter().filter(|table| there.iter().any(|name| name == *table));
            whole.map(|table| format!("PRAGMA quick_check({table})")).collect()
        }
    };
    let mut faults = vec![];
    for pragma in pragmas {
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(pragma)).fetch_all(&mut *connection).await?;
        faults.extend(found.into_iter().filter(|line| line != "ok"));
    }
    Ok(faults)
}

/// Whether pages are missing at the end, by the file's header (https://www.sqlite.org/fileformat2.html, 1.3). With a log
/// beside it, they may be in there.
fn is_cut_short(path: &Path) -> bool {
    let mut header = [0; 32];
    let is_read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok();
    let length = std::fs::metadata(path).map_or(0, |about| about.len());
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        bytes => u64::from(bytes),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    let has_log = path.with_extension("sqlite-wal").exists();
    is_read && !has_log && length < u64::from(pages) * page_bytes
}
