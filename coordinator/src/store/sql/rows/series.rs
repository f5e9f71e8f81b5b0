//! The row of a series: the only one that is written again, when it is cut short or ends.

use super::TableRow;
use crate::{
    engine::record::SeriesRecord,
    store::{
        BadRow, LedgerError,
        ledger::integer,
        sql::tables::{Cells, Statement, sql},
    },
};
use nightjar_shared::ids::Version;

/// Writes a series in the place of what it was.
pub(super) fn write(s: &SeriesRecord) -> Result<Statement, LedgerError> {
    let write = sql("/* series */ INSERT INTO series VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (number) DO UPDATE SET
             rounds = excluded.rounds, is_cut = excluded.is_cut, left_out = excluded.left_out");
    Ok(write
        .bind(integer("number", s.number)?)
        .bind(&*s.name)
        .bind(&s.weights.hash.0[..])
        .bind(integer("weights_bytes", s.weights.bytes)?)
        .bind(integer("first_version", s.first.0)?)
        .bind(s.rounds)
        .bind(s.is_cut)
        .bind(integer("after_seq", s.after_seq)?)
        .bind(integer("left_out", s.left_out)?)
        .bind(integer("begun_at", s.begun_at.unix_ms)?))
}

/// Reads one. All of it must be right: versions are made by it.
pub(in crate::store::sql) fn read(row: &impl Cells) -> Result<SeriesRecord, BadRow> {
    let cells = TableRow { row, table: "series", key: "number" };
    Ok(SeriesRecord {
        number: cells.number("number")?,
        name: cells.text("name")?.to_owned(),
        weights: cells.blob("weights_hash", "weights_bytes")?,
        first: Version(cells.number("first_version")?),
        rounds: cells.small("rounds")?,
        is_cut: cells.truth("is_cut")?,
        after_seq: cells.number("after_seq")?,
        left_out: cells.number("left_out")?,
        begun_at: cells.wall("begun_at")?,
    })
}
