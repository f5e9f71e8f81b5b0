//! One text column of an Arrow file, row by row: the streams that Hugging Face's `datasets` keeps its data in, and
//! Feather files. Of a batch only where its texts begin is in memory.
//!
//! Written here since what is read is small: the `arrow-ipc` crate comes with all of Arrow's arrays.

mod flat;
mod schema;

use super::{
    error::DatasetError,
    notes::{Note, Notes},
    remote::{Bytes, Place},
    text_check,
    text_file::text_of,
};
use flat::{Table, Vector};
use schema::{Buffer, Column};
use std::{
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// What a Feather file begins with; a stream has no name of its own.
const FILE_MAGIC: &[u8] = b"ARROW1\0\0";
/// Stands before each message.
const MESSAGE: u32 = u32::MAX;
/// Longest description of a batch, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 20;
/// Most that is held of a batch's places, or of a buffer that was compressed.
const BUFFER_BYTES_MAX: u64 = 1 << 30;
/// A longer text is refused: it would have to be held in memory as a whole.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Columns that a message names at most.
const COLUMNS_NAMED_MAX: usize = 20;
/// Texts at the start that are looked at to tell whether it is text.
const HEAD_ROWS: u64 = 16;

/// The parts of a message that are looked at, by their numbers in Arrow's `Message.fbs`.
mod slot {
    pub const HEADER_KIND: usize = 1;
    pub const HEADER: usize = 2;
    pub const BODY_LENGTH: usize = 3;
    pub const BATCH_LENGTH: usize = 0;
    pub const BATCH_BUFFERS: usize = 2;
    pub const BATCH_COMPRESSION: usize = 3;
    pub const BATCH_VIEWS: usize = 4;
    pub const COMPRESSION_CODEC: usize = 0;
}
const SCHEMA: u8 = 1;
const BATCH: u8 = 3;

/// The file.
type Reader = BufReader<Box<dyn Bytes>>;

/// A cursor over one column.
pub struct ArrowColumn {
    path: PathBuf,
    file: Reader,
    file_bytes: u64,
    column: Column,
    /// Where the next message is.
    next: u64,
    batch: Option<Batch>,
    row: u64,
}

/// What is known of the batch that is read.
struct Batch {
    rows: u64,
    /// The row that comes next.
    row: u64,
    nulls: Vec<Vec<u8>>,
    /// Where each text begins, and where the last ends.
    offsets: Vec<u8>,
    texts: Texts,
}

/// A batch's texts, one after another.
enum Texts {
    /// From this place in the file on, so many bytes.
    File(u64, u64),
    /// Uncompressed here.
    Memory(Vec<u8>),
}

/// A row.
enum Row {
    Text(Vec<u8>),
    Null,
    /// A text that is too long.
    Long,
}

/// Why no more can be read.
enum Broken {
    Damaged(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Broken::Damaged("it ends too early: it may have been cut off"),
            _ => Broken::Io(error),
        }
    }
}

/// The next row's text, or what is wrong with it.
pub enum NextRow {
    /// A text, not empty.
    Text(String),
    /// A row that cannot be read; the words name it.
    Bad(String),
    /// Nothing.
    End,
}

const PART: Broken = Broken::Damaged("a part of it is damaged");

impl ArrowColumn {
    /// Opens a file at a row.
    pub fn open(place: impl Into<Place>, column: &str, row: u64) -> Result<Self, DatasetError> {
        let place = place.into();
        let path = place.path.as_path();
        let file = place.open().map_err(DatasetError::io(path))?;
        let file_bytes = place.length().map_err(DatasetError::io(path))?;
        let mut file = BufReader::with_capacity(256 << 10, file);
        let (columns, next) = read_schema(&mut file).map_err(unreadable(path))?;
        let found = columns.iter().find(|found| found.offset_bytes.is_some() && found.path == column);
        let Some(found) = found.cloned() else {
            let named = |columns: &mut dyn Iterator<Item = &Column>| {
                columns.take(COLUMNS_NAMED_MAX).map(|column| column.path.as_str()).collect::<Vec<_>>().join(", ")
            };
            let available = named(&mut columns.iter().filter(|column| column.offset_bytes.is_some()));
            let (path, column) = (path.to_owned(), column.to_owned());
            return Err(match available.is_empty() {
                true => DatasetError::NoColumn { path, column, columns: named(&mut columns.iter()) },
                false => DatasetError::Column { path, column, available },
            });
        };
        let mut opened =
            ArrowColumn { path: path.to_owned(), file, file_bytes, column: found, next, batch: None, row: 0 };
        opened.go_to(row).map_err(unreadable(path))?;
        Ok(opened)
    }

    /// The next row's text; null and empty rows are passed over and noted.
    pub fn next(&mut self, notes: &mut Notes) -> Result<NextRow, DatasetError> {
        if self.row == 0 && !self.is_text(notes).map_err(unreadable(&self.path))? {
            return Ok(NextRow::End);
        }
        loop {
            let Some(row) = self.next_row().map_err(unreadable(&self.path))? else { return Ok(NextRow::End) };
            match row {
                Row::Null => notes.add(Note::Null, self.path.display().to_string()),
                Row::Text(text) if text.is_empty() => notes.add(Note::Empty, self.path.display().to_string()),
                Row::Text(text) => return Ok(NextRow::Text(text_of(text, &self.path, notes))),
                Row::Long => {
                    let (path, row) = (self.path.display(), self.row);
                    let reason = format!("{path}, row {row}: it is longer than {} MiB: split it", TEXT_BYTES_MAX >> 20);
                    return Ok(NextRow::Bad(reason));
                }
            }
        }
    }

    /// The row that comes next.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// How much of the file is behind, by whole batches and the rows of the last.
    pub fn bytes_read(&self) -> u64 {
        let left = self.batch.as_ref().map_or(0.0, |batch| 1.0 - batch.row as f64 / batch.rows.max(1) as f64);
        let texts = match self.batch.as_ref().map(|batch| &batch.texts) {
            Some(Texts::File(_, length)) => *length,
            _ => 0,
        };
        self.next.saturating_sub((texts as f64 * left) as u64).min(self.file_bytes)
    }

    /// Whether what stands at the start is text; else that is noted, and there is nothing to read.
    fn is_text(&mut self, notes: &mut Notes) -> Result<bool, Broken> {
        let mut head = vec![];
        while self.row < HEAD_ROWS
            && let Some(row) = self.next_row()?
        {
            if let Row::Text(text) = row {
                head.extend_from_slice(&text);
            }
        }
        let refused = text_check::refuse(&head);
        if let Some(reason) = refused {
            notes.add(Note::NoText, format!("{} ({reason})", self.path.display()));
        }
        (self.batch, self.row) = (None, 0);
        self.next = read_schema(&mut self.file)?.1;
        Ok(refused.is_none())
    }

    /// Passes over rows.
    fn go_to(&mut self, row: u64) -> Result<(), Broken> {
        while self.row < row && self.open_batch()? {
            let Some(batch) = &mut self.batch else { break };
            let skipped = (row - self.row).min(batch.rows - batch.row);
            batch.row += skipped;
            self.row += skipped;
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<Row>, Broken> {
        if !self.open_batch()? {
            return Ok(None);
        }
        let Some(batch) = &mut self.batch else { return Ok(None) };
        let i = batch.row;
        (batch.row, self.row) = (batch.row + 1, self.row + 1);
        if batch.nulls.iter().any(|nulls| is_null(nulls, i)) {
            return Ok(Some(Row::Null));
        }
        let width = self.column.offset_bytes.unwrap_or(4);
        let offset = |i: u64| {
            let at = i as usize * width;
            let bytes = batch.offsets.get(at..at + width)?;
            Some(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let (from, to) = offset(i).zip(offset(i + 1)).filter(|(from, to)| from <= to).ok_or(PART)?;
        if to - from > TEXT_BYTES_MAX {
            return Ok(Some(Row::Long));
        }
        match &batch.texts {
            Texts::Memory(texts) => {
                let text = usize::try_from(from).ok().zip(usize::try_from(to).ok());
                text.and_then(|(from, to)| texts.get(from..to)).map(|text| Some(Row::Text(text.to_vec()))).ok_or(PART)
            }
            Texts::File(start, length) if to <= *length => {
                read_at(&mut self.file, start + from, to - from).map(|text| Some(Row::Text(text)))
            }
            Texts::File(..) => Err(PART),
        }
    }

    /// Makes sure that there is a batch with rows to come; false at the end of the file.
    fn open_batch(&mut self) -> Result<bool, Broken> {
        while self.batch.as_ref().is_none_or(|batch| batch.row >= batch.rows) {
            let Some(message) = read_message(&mut self.file, self.next)? else { return Ok(false) };
            let body = self.next + message.length;
            self.next = body
                .checked_add(message.body)
                .filter(|end| *end <= self.file_bytes)
                .ok_or(Broken::Damaged("it ends within a batch of rows: it may have been cut off"))?;
            if message.kind == BATCH {
                let table = message.header()?;
                self.batch = Some(self.read_batch(table, body)?);
            }
        }
        Ok(true)
    }

    fn read_batch(&mut self, table: Table, body: u64) -> Result<Batch, Broken> {
        let rows = table.i64(slot::BATCH_LENGTH).unwrap_or(0).max(0) as u64;
        let buffers = table.vector(slot::BATCH_BUFFERS).ok_or(PART)?;
        let views = table.vector(slot::BATCH_VIEWS);
        let codec = table.table(slot::BATCH_COMPRESSION).map(|how| how.u8(slot::COMPRESSION_CODEC).unwrap_or(0));
        let inside = Inside { body, end: self.next, codec };
        let number = |place: Buffer, more: usize| number_of(place, more, views);
        let mut nulls = vec![];
        for place in &self.column.nulls {
            nulls.push(inside.read(&mut self.file, buffers, number(*place, 0).ok_or(PART)?)?);
        }
        let own = self.column.nulls.last().copied().ok_or(PART)?;
        let offsets = inside.read(&mut self.file, buffers, number(own, 1).ok_or(PART)?)?;
        let texts = number(own, 2).ok_or(PART)?;
        let texts = match codec {
            None => {
                let (from, length) = inside.place(buffers, texts)?;
                Texts::File(from, length)
            }
            Some(_) => Texts::Memory(inside.read(&mut self.file, buffers, texts)?),
        };
        Ok(Batch { rows, row: 0, nulls, offsets, texts })
    }
}

/// The number of a buffer of a batch, some behind a place.
fn number_of(place: Buffer, more: usize, views: Option<Vector>) -> Option<usize> {
    let mut number = place.buffer.checked_add(more)?;
    for i in 0..place.views {
        number = number.checked_add(usize::try_from(views?.i64(i)?).ok()?)?;
    }
    Some(number)
}

/// Whether a row is null: a bit each, and none where no row is.
fn is_null(bits: &[u8], i: u64) -> bool {
    !bits.is_empty() && bits.get((i / 8) as usize).is_none_or(|byte| byte >> (i % 8) & 1 == 0)
}

/// Where a batch's buffers are, and how they are packed.
struct Inside {
    body: u64,
    end: u64,
    codec: Option<u8>,
}

impl Inside {
    /// Where a buffer is in the file, and its length.
    fn place(&self, buffers: Vector, number: usize) -> Result<(u64, u64), Broken> {
        let (offset, length) = buffers.pair(number).ok_or(PART)?;
        let (offset, length) = (u64::try_from(offset).ok(), u64::try_from(length).ok());
        let from = offset.and_then(|offset| self.body.checked_add(offset)).ok_or(PART)?;
        let length = length.filter(|length| from.checked_add(*length).is_some_and(|end| end <= self.end));
        Ok((from, length.ok_or(PART)?))
    }

    fn read(&self, file: &mut Reader, buffers: Vector, number: usize) -> Result<Vec<u8>, Broken> {
        let (from, length) = self.place(buffers, number)?;
        const TOO_LARGE: Broken =
            Broken::Damaged("a batch of rows is larger than can be held: write it anew in smaller batches");
        if length > BUFFER_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        let bytes = read_at(file, from, length)?;
        let Some((plain, packed)) = self.codec.and(bytes.split_first_chunk::<8>()) else { return Ok(bytes) };
        // -1: it would not have become smaller.
        let Ok(plain) = u64::try_from(i64::from_le_bytes(*plain)) else { return Ok(packed.to_vec()) };
        if plain > BUFFER_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        let mut found = vec![];
        let read = match self.codec {
            Some(0) => lz4_flex::frame::FrameDecoder::new(packed).take(plain).read_to_end(&mut found),
            Some(1) => zstd::stream::read::Decoder::new(packed)?.take(plain).read_to_end(&mut found),
            _ => return Err(Broken::Damaged("it is packed in a way that is not known: write it anew without")),
        };
        read.ok().filter(|read| *read as u64 == plain).ok_or(PART)?;
        Ok(found)
    }
}

/// A message: what it is about, and where what it describes ends.
struct Message {
    bytes: Vec<u8>,
    kind: u8,
    /// Bytes of the message itself.
    length: u64,
    /// Bytes of what it describes.
    body: u64,
}

impl Message {
    fn header(&self) -> Result<Table<'_>, Broken> {
        Table::root(&self.bytes).and_then(|message| message.table(slot::HEADER)).ok_or(PART)
    }
}

/// The message at a place; `None` at the end.
fn read_message(file: &mut Reader, at: u64) -> Result<Option<Message>, Broken> {
    seek(file, at)?;
    let mut head = vec![];
    file.by_ref().take(8).read_to_end(&mut head)?;
    let Some((mark, length)) = head.split_first_chunk::<4>() else { return Ok(None) };
    let Ok(length) = length.try_into().map(u32::from_le_bytes).map(u64::from) else { return Ok(None) };
    if length == 0 {
        return Ok(None);
    }
    if u32::from_le_bytes(*mark) != MESSAGE {
        return Err(Broken::Damaged("it is no Arrow stream: if an old program wrote it, write it anew as parquet"));
    }
    if length > DESCRIPTION_BYTES_MAX {
        return Err(PART);
    }
    let mut bytes = vec![];
    if file.by_ref().take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let message = Table::root(&bytes).ok_or(PART)?;
    let kind = message.u8(slot::HEADER_KIND).ok_or(PART)?;
    let body = u64::try_from(message.i64(slot::BODY_LENGTH).unwrap_or(0)).map_err(|_| PART)?;
    Ok(Some(Message { bytes, kind, length: 8 + length, body }))
}

/// The columns, and where the first message behind is.
fn read_schema(file: &mut Reader) -> Result<(Vec<Column>, u64), Broken> {
    seek(file, 0)?;
    let mut magic = vec![];
    file.by_ref().take(FILE_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let at = if magic == FILE_MAGIC { magic.len() as u64 } else { 0 };
    let message = read_message(file, at)?.ok_or(Broken::Damaged("it is empty"))?;
    if message.kind != SCHEMA {
        return Err(PART);
    }
    Ok((schema::columns(message.header()?).ok_or(PART)?, at + message.length))
}

/// What was buffered stays of use where the place is near.
fn seek(file: &mut Reader, at: u64) -> io::Result<()> {
    let now = file.stream_position()?;
    match i64::try_from(i128::from(at) - i128::from(now)) {
        Ok(by) => file.seek_relative(by),
        Err(_) => file.seek(SeekFrom::Start(at)).map(drop),
    }
}

fn read_at(file: &mut Reader, at: u64, length: u64) -> Result<Vec<u8>, Broken> {
    seek(file, at)?;
    let mut bytes = vec![];
    match file.by_ref().take(length).read_to_end(&mut bytes)? as u64 == length {
        true => Ok(bytes),
        false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(Broken) -> DatasetError {
    let path = path.to_owned();
    move |broken| match broken {
        Broken::Damaged(reason) => DatasetError::Arrow { path, reason },
        Broken::Io(error) => DatasetError::io(path)(error),
    }
}

#[cfg(test)]
mod tests;
