//! A ledger's rows, table by table in the order of their keys, a page at a time.

use super::{CarryError, Progress};
use crate::store::{
    LedgerError, LedgerPlace,
    postgres::Database,
    sql::{
        Dialect,
        tables::{Cells, Kind, Statement, Tables, Value, sql},
    },
    sqlite::File,
};
use nightjar_shared::fail;
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

/// Rows that are read and written at once: with all their columns, fewer than a statement may have parameters.
const ROWS_AT_ONCE: usize = 500;
/// Tables that others refer to, before those. The run's row makes a ledger one: it comes last.
const FIRST: [&str; 4] = ["devices", "leases", "deltas", "versions"];
const LAST: &str = "run";
/// What is each database's own.
const NOT_CARRIED: [&str; 2] = ["_sqlx_migrations", "moved"];
/// Counts the transactions of one database.
const COMMITS: (&str, &str) = (LAST, "commits");

/// A table's form.
struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
    /// Which of them are its primary key, in its order.
    keys: Vec<usize>,
}

type Row = Vec<Value>;

/// Carries all rows of a run that nobody serves, and compares them, the run's row last; gives the generation that the
/// ledger had.
pub async fn carry_ledger(from: &LedgerPlace, to: &LedgerPlace, progress: &Progress) -> Result<i64, CarryError> {
    carry(from, to, progress, false).await
}

/// The same with one state of a ledger, whoever writes to it meanwhile.
pub async fn copy_ledger(from: &LedgerPlace, to: &LedgerPlace, progress: &Progress) -> Result<i64, CarryError> {
    carry(from, to, progress, true).await
}

async fn carry(from: &LedgerPlace, to: &LedgerPlace, progress: &Progress, served: bool) -> Result<i64, CarryError> {
    match from {
        LedgerPlace::File(path) => onto(&File::to_read(path).await?, from, to, progress, served).await,
        LedgerPlace::Database(url) => onto(&Database::to_read(url).await?, from, to, progress, served).await,
    }
}

async fn onto<A: Dialect>(
    a: &A,
    from: &LedgerPlace,
    to: &LedgerPlace,
    progress: &Progress,
    served: bool,
) -> Result<i64, CarryError> {
    let mut state = a.begin().await?;
    // Nothing is made anywhere for a run that is not there.
    let begun = run_row::<A>(&mut state).await?.ok_or_else(|| CarryError::NoRun(from.to_string()))?;
    let generation = begun.generation;
    let mut source = Source { database: a, state, begun, served };
    let carried = match to {
        LedgerPlace::File(path) => source.onto(&File::to_fill(path).await?, to, progress).await,
        LedgerPlace::Database(url) => source.onto(&Database::to_fill(url).await?, to, progress).await,
    };
    drop(source);
    a.close().await;
    carried.map(|()| generation)
}

/// Where rows come from.
struct Source<'a, A: Dialect> {
    database: &'a A,
    /// One state of it: whatever is written meanwhile is not seen.
    state: A::Transaction,
    begun: RunRow,
    /// Whether it may be written to meanwhile.
    served: bool,
}

impl<A: Dialect> Source<'_, A> {
    async fn onto<B: Dialect>(&mut self, b: &B, to: &LedgerPlace, progress: &Progress) -> Result<(), CarryError> {
        let Source { database, state, begun, served } = self;
        match run_row::<B>(&mut b.begin().await?).await? {
            Some(there) if there.run != begun.run => return Err(CarryError::Taken(to.to_string())),
            Some(there) if there.generation != begun.generation => return Err(CarryError::OtherTime(to.to_string())),
            _ => {}
        }
        let tables = forms::<A, B>(state, &mut b.begin().await?, to).await?;
        let mut rows = 0;
        for table in &tables {
            rows += count(state, table).await?;
        }
        progress.begin(2 * rows);
        let (last, others): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(|table| table.name == LAST);
        for table in &others {
            fill::<A, B>(state, b, table, progress).await?;
        }
        for table in &others {
            compare::<A, B>(state, b, table, to, progress).await?;
        }
        if !*served && run_row::<A>(&mut database.begin().await?).await?.as_ref() != Some(begun) {
            return Err(CarryError::Served);
        }
        for table in last {
            fill::<A, B>(state, b, table, progress).await?;
            compare::<A, B>(state, b, table, to, progress).await?;
        }
        b.close().await;
        Ok(())
    }
}

/// What changes when a ledger is served.
#[derive(PartialEq, Eq)]
struct RunRow {
    run: Vec<u8>,
    generation: i64,
    /// Where they are counted.
    commits: Option<i64>,
}

async fn run_row<D: Dialect>(tx: &mut D::Transaction) -> Result<Option<RunRow>, LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind(LAST)).await? == 0 {
        return Ok(None);
    }
    let rows = tx.rows(sql("/* carry: run */ SELECT * FROM run")).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let run = row.bytes("run_id")?.unwrap_or_default().to_vec();
    Ok(Some(RunRow { run, generation: row.integer("generation")?, commits: row.integer(COMMITS.1).ok() }))
}

/// The tables of a database.
async fn tables<D: Dialect>(tx: &mut D::Transaction) -> Result<BTreeMap<String, Table>, LedgerError> {
    let mut tables: BTreeMap<String, (Table, Vec<(i64, usize)>)> = BTreeMap::new();
    for row in tx.rows(sql(D::COLUMNS)).await? {
        let text = |column| -> Result<String, LedgerError> { Ok(row.text(column)?.unwrap_or_default().to_owned()) };
        let (name, column, key) = (text("table_name")?, text("column_name")?, row.integer("key")?);
        let is_own = NOT_CARRIED.contains(&name.as_str()) || name.starts_with("sqlite_");
        if is_own || (name.as_str(), column.as_str()) == COMMITS {
            continue;
        }
        let kind = match text("kind")?.to_ascii_lowercase().as_str() {
            "integer" | "bigint" => Kind::Integer,
            "real" | "double precision" => Kind::Real,
            "text" => Kind::Text,
            "blob" | "bytea" => Kind::Bytes,
            _ => return Err(LedgerError::Damaged("a column has a type that no ledger has")),
        };
        let new = || (Table { name: name.clone(), columns: vec![], keys: vec![] }, vec![]);
        let (table, keys) = tables.entry(name.clone()).or_insert_with(new);
        if key > 0 {
            keys.push((key, table.columns.len()));
        }
        table.columns.push((column, kind));
    }
    let ordered = |(name, (mut table, mut keys)): (String, (Table, Vec<(i64, usize)>))| {
        keys.sort_unstable();
        table.keys = keys.into_iter().map(|(_, column)| column).collect();
        (name, table)
    };
    Ok(tables.into_iter().map(ordered).collect())
}

/// The tables that are carried, in the order in which they are filled. The other side has to have all their columns.
async fn forms<A: Dialect, B: Dialect>(
    a: &mut A::Transaction,
    b: &mut B::Transaction,
    to: &LedgerPlace,
) -> Result<Vec<Table>, CarryError> {
    let (mut ours, theirs) = (tables::<A>(a).await?, tables::<B>(b).await?);
    for table in ours.values() {
        let missing = |what: &str| CarryError::Form { place: to.to_string(), what: format!("{}{what}", table.name) };
        let there = theirs.get(&table.name).ok_or_else(|| missing(""))?;
        if table.keys.is_empty() {
            return Err(missing(", which has no key"));
        }
        if let Some((column, _)) = table.columns.iter().find(|column| !there.columns.contains(column)) {
            return Err(missing(&format!(".{column}")));
        }
    }
    let last = ours.remove(LAST);
    let first: Vec<Table> = FIRST.iter().filter_map(|name| ours.remove(*name)).collect();
    Ok(first.into_iter().chain(ours.into_values()).chain(last).collect())
}

impl Table {
    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    }

    /// Its key, as a database orders it by bytes.
    fn key<D: Dialect>(&self) -> Vec<String> {
        let of = |column: &usize| {
            let (name, kind) = &self.columns[*column];
            format!("\"{name}\"{}", if *kind == Kind::Text { D::BYTEWISE } else { "" })
        };
        self.keys.iter().map(of).collect()
    }

    fn key_of(&self, row: &Row) -> Row {
        self.keys.iter().map(|column| row[*column].clone()).collect()
    }

    /// Whether it has one row, which a new ledger has already.
    fn is_single(&self) -> bool {
        self.keys.iter().any(|column| self.columns[*column].0 == "only_row")
    }

    fn row(&self, row: &impl Cells) -> Result<Row, LedgerError> {
        Ok(self.columns.iter().map(|(name, kind)| row.value(name, *kind)).collect::<Result<Row, _>>()?)
    }
}

/// Names in it are those of the schema that this program made.
fn built(text: String, values: impl IntoIterator<Item = Value>) -> Statement {
    values.into_iter().fold(sql(AssertSqlSafe(text)), Statement::bind)
}

async fn count(tx: &mut impl Tables, table: &Table) -> Result<u64, LedgerError> {
    let count = built(format!("/* carry: count */ SELECT count(*) AS n FROM {}", table.name), []);
    Ok(tx.number(count).await?.unsigned_abs())
}

/// The rows after a key, in its order.
async fn page<D: Dialect>(
    tx: &mut D::Transaction,
    table: &Table,
    after: Option<&Row>,
) -> Result<Vec<Row>, LedgerError> {
    let (names, name, keys) = (table.names(), &table.name, table.key::<D>().join(", "));
    let beyond = after.map_or(String::new(), |after| {
        let places: Vec<String> = (1..=after.len()).map(|place| format!("${place}")).collect();
        format!("WHERE ({keys}) > ({})", places.join(", "))
    });
    let text = format!("/* carry: read */ SELECT {names} FROM {name} {beyond} ORDER BY {keys} LIMIT {ROWS_AT_ONCE}");
    let rows = tx.rows(built(text, after.cloned().unwrap_or_default())).await?;
    rows.iter().map(|row| table.row(row)).collect()
}

/// The last key that is there.
async fn last_key<D: Dialect>(database: &D, table: &Table) -> Result<Option<Row>, LedgerError> {
    let down = table.key::<D>().iter().map(|key| format!("{key} DESC")).collect::<Vec<_>>().join(", ");
    let text = format!("/* carry: last */ SELECT {} FROM {} ORDER BY {down} LIMIT 1", table.names(), table.name);
    let rows = database.begin().await?.rows(built(text, [])).await?;
    rows.first().map(|row| Ok(table.key_of(&table.row(row)?))).transpose()
}

/// Copies the rows behind the last that is there: pages are written whole, in the order of their keys.
async fn fill<A: Dialect, B: Dialect>(
    a: &mut A::Transaction,
    b: &B,
    table: &Table,
    progress: &Progress,
) -> Result<(), CarryError> {
    let mut after = if table.is_single() { None } else { last_key(b, table).await? };
    loop {
        let rows = page::<A>(a, table, after.as_ref()).await?;
        let Some(last) = rows.last() else { return go_on_numbering(b, table).await };
        after = Some(table.key_of(last));
        let (count, width) = (rows.len(), table.columns.len());
        let places = |at: usize| {
            let places: Vec<String> = (1..=width).map(|column| format!("${}", at * width + column)).collect();
            format!("({})", places.join(", "))
        };
        let places = (0..count).map(places).collect::<Vec<_>>().join(", ");
        let conflict = match table.is_single() {
            true => {
                let set = table.columns.iter().map(|(name, _)| format!("\"{name}\" = excluded.\"{name}\""));
                format!("(only_row) DO UPDATE SET {}", set.collect::<Vec<_>>().join(", "))
            }
            false => "DO NOTHING".to_owned(),
        };
        let (name, names) = (&table.name, table.names());
        let text = format!(
            "/* carry: fill */ INSERT INTO {name} ({names}) {} VALUES {places} ON CONFLICT {conflict}",
            B::AS_NUMBERED
        );
        let mut tx = b.begin_to_fill().await?;
        tx.change(built(text, rows.into_iter().flatten())).await?;
        tx.end().await?;
        fail::point("carry.page");
        progress.add(count as u64);
    }
}

/// Rows that are added from now on have higher numbers than those that were carried.
async fn go_on_numbering<D: Dialect>(database: &D, table: &Table) -> Result<(), CarryError> {
    let [key] = table.keys[..] else { return Ok(()) };
    let (column, kind) = &table.columns[key];
    if let Some(text) = D::go_on_numbering(&table.name, column).filter(|_| *kind == Kind::Integer) {
        let mut tx = database.begin_to_fill().await?;
        tx.rows(built(text, [])).await?;
        tx.end().await?;
    }
    Ok(())
}

/// Reads both sides and compares them row by row.
async fn compare<A: Dialect, B: Dialect>(
    a: &mut A::Transaction,
    b: &B,
    table: &Table,
    to: &LedgerPlace,
    progress: &Progress,
) -> Result<(), CarryError> {
    let (mut after, mut there) = (None, b.begin().await?);
    loop {
        let ours = page::<A>(a, table, after.as_ref()).await?;
        let theirs = page::<B>(&mut there, table, after.as_ref()).await?;
        if ours != theirs {
            return Err(CarryError::Differs { place: to.to_string(), table: table.name.clone() });
        }
        let Some(last) = ours.last() else { return Ok(()) };
        after = Some(table.key_of(last));
        progress.add(ours.len() as u64);
    }
}

/// Marks the ledger that a run has left, if it still has this generation: no coordinator writes it any more.
pub async fn mark_moved(from: &LedgerPlace, to: &LedgerPlace, generation: i64) -> Result<(), CarryError> {
    match from {
        LedgerPlace::File(path) => mark(&File::to_fill(path).await?, to, generation).await,
        LedgerPlace::Database(url) => mark(&Database::to_fill(url).await?, to, generation).await,
    }
}

async fn mark<D: Dialect>(database: &D, to: &LedgerPlace, generation: i64) -> Result<(), CarryError> {
    let mut tx = database.begin_to_fill().await?;
    let same = sql("/* moved */ UPDATE run SET generation = generation WHERE generation = $1").bind(generation);
    if tx.change(same).await? == 0 {
        return Err(CarryError::Served);
    }
    tx.change(sql("/* moved */ CREATE TABLE IF NOT EXISTS moved (place TEXT NOT NULL)")).await?;
    tx.change(sql("/* moved */ DELETE FROM moved")).await?;
    tx.change(sql("/* moved */ INSERT INTO moved VALUES ($1)").bind(to.to_string().as_str())).await?;
    tx.end().await?;
    database.close().await;
    Ok(())
}
