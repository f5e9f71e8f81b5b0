//! Statements and rows, whatever database takes them: both dialects number their parameters `$1`, `$2`, …, and hold
//! nothing but 64-bit integers, doubles, text and bytes.

use crate::store::LedgerError;
use sqlx::{
    Postgres, Row, SqlSafeStr, SqlStr, Sqlite, Transaction, error::UnexpectedNullError, postgres::PgRow,
    sqlite::SqliteRow,
};

/// A parameter, or what a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(Option<i64>),
    Real(Option<f64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Real,
    Text,
    Bytes,
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Integer(Some(number.into()))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Value::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value::Integer(Some(truth.into()))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Real(Some(number))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(Some(text.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Value::Text(text.map(str::to_owned))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value::Bytes(Some(bytes.to_vec()))
    }
}

impl From<Option<&[u8]>> for Value {
    fn from(bytes: Option<&[u8]>) -> Self {
        Value::Bytes(bytes.map(<[u8]>::to_vec))
    }
}

/// SQL with its parameters. The text opens with its name as a comment: that is what a database's own tools show.
pub struct Statement {
    sql: SqlStr,
    values: Vec<Value>,
}

/// A statement without parameters yet.
pub fn sql(sql: impl SqlSafeStr) -> Statement {
    Statement { sql: sql.into_sql_str(), values: vec![] }
}

impl Statement {
    /// The next parameter.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The next parameters.
    pub fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.values.extend(values);
        self
    }
}

/// A row of an answer. A column that is null, where it must not be, is a [`sqlx::Error::ColumnDecode`].
pub trait Cells: Send + Sync + Sized {
    fn integer_if_any(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn real(&self, column: &str) -> Result<f64, sqlx::Error>;
    fn text(&self, column: &str) -> Result<Option<&str>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error>;
    /// Whatever it is.
    fn value(&self, column: &str, kind: Kind) -> Result<Value, sqlx::Error>;

    fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        self.integer_if_any(column)?.ok_or_else(|| null(column))
    }
}

/// A transaction. Dropped before it is committed, it changes nothing.
pub trait Tables: Send {
    type Row: Cells;

    /// The answer's rows.
    fn rows(&mut self, statement: Statement) -> impl Future<Output = Result<Vec<Self::Row>, LedgerError>> + Send;

    /// Makes all that was changed last.
    fn end(self) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// How many rows were changed.
    fn change(&mut self, statement: Statement) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// The column `n` of an answer's only row.
    fn number(&mut self, statement: Statement) -> impl Future<Output = Result<i64, LedgerError>> + Send {
        async {
            let rows = self.rows(statement).await?;
            let row = rows.first().ok_or(LedgerError::Damaged("a question that always has an answer has none"))?;
            Ok(row.integer("n")?)
        }
    }
}

/// SQLite would take it for zero.
fn null(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(UnexpectedNullError) }
}

macro_rules! bound {
    ($sql:expr, $values:expr) => {
        $values.into_iter().fold(sqlx::query($sql), |query, value| match value {
            Value::Integer(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    };
}

macro_rules! dialect {
    ($database:ident, $row:ident) => {
        impl Cells for $row {
            fn integer_if_any(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
                self.try_get(column)
            }

            fn real(&self, column: &str) -> Result<f64, sqlx::Error> {
                self.try_get::<Option<f64>, _>(column)?.ok_or_else(|| null(column))
            }

            fn text(&self, column: &str) -> Result<Option<&str>, sqlx::Error> {
                self.try_get(column)
            }

            fn bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error> {
                self.try_get(column)
            }

            fn value(&self, column: &str, kind: Kind) -> Result<Value, sqlx::Error> {
                Ok(match kind {
                    Kind::Integer => Value::Integer(self.try_get(column)?),
                    Kind::Real => Value::Real(self.try_get(column)?),
                    Kind::Text => Value::Text(self.try_get(column)?),
                    Kind::Bytes => Value::Bytes(self.try_get(column)?),
                })
            }
        }

        impl Tables for Transaction<'_, $database> {
            type Row = $row;

            async fn rows(&mut self, Statement { sql, values }: Statement) -> Result<Vec<$row>, LedgerError> {
                Ok(bound!(sql, values).fetch_all(&mut **self).await?)
            }

            async fn end(self) -> Result<(), LedgerError> {
                Ok(self.commit().await?)
            }

            async fn change(&mut self, Statement { sql, values }: Statement) -> Result<u64, LedgerError> {
                Ok(bound!(sql, values).execute(&mut **self).await?.rows_affected())
            }
        }
    };
}

dialect!(Sqlite, SqliteRow);
dialect!(Postgres, PgRow);
