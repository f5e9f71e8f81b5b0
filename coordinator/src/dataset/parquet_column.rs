//! One text column of a parquet file, row by row, a few rows in memory at a time.

use super::{
    error::DatasetError,
    notes::{Note, Notes},
    remote::{self, Place},
    text_check,
    text_file::text_of,
};
use hyper::body::Bytes;
use parquet::{
    basic::Type,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType},
    errors::ParquetError,
    file::reader::{ChunkReader, FileReader, Length, SerializedFileReader},
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Columns that a message names at most.
const COLUMNS_NAMED_MAX: usize = 20;
/// Rows decoded at once.
const BATCH_ROWS: usize = 16;

/// The file, which is read in parts.
enum Chunks {
    File(File),
    Object(Place, u64),
}

impl Chunks {
    fn open(place: &Place) -> std::io::Result<Self> {
        Ok(match &place.object {
            None => Chunks::File(File::open(&place.path)?),
            Some(object) => Chunks::Object(place.clone(), object.bytes),
        })
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Chunks::File(file) => Length::len(file),
            Chunks::Object(_, bytes) => *bytes,
        }
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<Box<dyn remote::Bytes>>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut file: Box<dyn remote::Bytes> = match self {
            Chunks::File(file) => Box::new(file.try_clone()?),
            Chunks::Object(place, _) => place.open()?,
        };
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(file))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![];
        self.get_read(start)?.take(length as u64).read_to_end(&mut bytes)?;
        match bytes.len() == length {
            true => Ok(bytes.into()),
            false => Err(ParquetError::EOF("it is shorter than it says".into())),
        }
    }
}

/// A cursor over one column.
pub struct ParquetColumn {
    path: PathBuf,
    file: SerializedFileReader<Chunks>,
    file_bytes: u64,
    column: usize,
    /// Definition level of a row that is not null.
    defined: i16,
    /// Next row group to open.
    group: usize,
    rows: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows to skip in the next row group.
    skip: usize,
    ready: VecDeque<Option<ByteArray>>,
    row: u64,
}

impl ParquetColumn {
    /// Opens a file at a row.
    pub fn open(place: impl Into<Place>, file_bytes: u64, column: &str, row: u64) -> Result<Self, DatasetError> {
        let place = place.into();
        let path = place.path.as_path();
        let opened = Chunks::open(&place).map_err(DatasetError::io(path))?;
        let file = caught(|| SerializedFileReader::new(opened)).map_err(unreadable(path))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let is_text =
            |i: &usize| schema.column(*i).physical_type() == Type::BYTE_ARRAY && schema.column(*i).max_rep_level() == 0;
        let text_columns: Vec<usize> = (0..schema.num_columns()).filter(is_text).collect();
        let found = text_columns.iter().copied().find(|i| schema.column(*i).path().string() == column);
        let named = |columns: &mut dyn Iterator<Item = usize>| {
            columns.take(COLUMNS_NAMED_MAX).map(|i| schema.column(i).path().string()).collect::<Vec<_>>().join(", ")
        };
        let found = found.ok_or_else(|| match text_columns.is_empty() {
            true => DatasetError::NoColumn {
                path: path.to_owned(),
                column: column.to_owned(),
                columns: named(&mut (0..schema.num_columns())),
            },
            false => DatasetError::Column {
                path: path.to_owned(),
                column: column.to_owned(),
                available: named(&mut text_columns.iter().copied()),
            },
        })?;
        let defined = schema.column(found).max_def_level();
        let (mut group, mut skip) = (0, row);
        while group < file.num_row_groups() {
            let rows = file.metadata().row_group(group).num_rows().max(0) as u64;
            if skip < rows {
                break;
            }
            skip -= rows;
            group += 1;
        }
        Ok(ParquetColumn {
            path: path.to_owned(),
            file,
            file_bytes,
            column: found,
            defined,
            group,
            rows: None,
            skip: skip as usize,
            ready: VecDeque::new(),
            row,
        })
    }

    /// The next row's text; null and empty rows are passed over and noted.
    pub fn next(&mut self, notes: &mut Notes) -> Result<Option<String>, DatasetError> {
        if self.row == 0 && self.ready.is_empty() && self.fill().map_err(unreadable(&self.path))? {
            let head: Vec<u8> = self.ready.iter().flatten().flat_map(|value| value.data().iter().copied()).collect();
            if let Some(reason) = text_check::refuse(&head) {
                notes.add(Note::NoText, format!("{} ({reason})", self.path.display()));
                (self.group, self.rows) = (self.file.num_row_groups(), None);
                self.ready.clear();
            }
        }
        loop {
            while let Some(value) = self.ready.pop_front() {
                self.row += 1;
                match value {
                    None => notes.add(Note::Null, self.path.display().to_string()),
                    Some(value) if value.data().is_empty() => notes.add(Note::Empty, self.path.display().to_string()),
                    Some(value) => return Ok(Some(text_of(value.data().to_vec(), &self.path, notes))),
                }
            }
            if !self.fill().map_err(unreadable(&self.path))? {
                return Ok(None);
            }
        }
    }

    /// Decodes the next few rows; false at the end of the file.
    fn fill(&mut self) -> Result<bool, ParquetError> {
        caught(|| self.decode())
    }

    fn decode(&mut self) -> Result<bool, ParquetError> {
        loop {
            let Some(rows) = &mut self.rows else {
                if self.group == self.file.num_row_groups() {
                    return Ok(false);
                }
                let reader = self.file.get_row_group(self.group)?.get_column_reader(self.column)?;
                self.group += 1;
                let ColumnReader::ByteArrayColumnReader(mut rows) = reader else {
                    return Err(ParquetError::General("the column changes its type".into()));
                };
                rows.skip_records(std::mem::take(&mut self.skip))?;
                self.rows = Some(rows);
                continue;
            };
            let (mut levels, mut values) = (vec![], vec![]);
            let (records, _, _) = rows.read_records(BATCH_ROWS, Some(&mut levels), None, &mut values)?;
            if records == 0 {
                self.rows = None;
                continue;
            }
            if self.defined == 0 {
                self.ready.extend(values.into_iter().map(Some));
            } else {
                let mut values = values.into_iter();
                self.ready.extend(levels.iter().map(|level| if *level == self.defined { values.next() } else { None }));
            }
            return Ok(true);
        }
    }

    /// The row that comes next.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// The file's length times the share of rows behind.
    pub fn bytes_read(&self) -> u64 {
        let rows = self.file.metadata().file_metadata().num_rows().max(1) as f64;
        (self.file_bytes as f64 * (self.row as f64 / rows)) as u64
    }
}

/// The library panics over some damaged files.
fn caught<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    let damaged = |_| Err(ParquetError::General("a part of it is damaged".into()));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(damaged)
}

fn unreadable(path: &Path) -> impl FnOnce(ParquetError) -> DatasetError {
    let path = path.to_owned();
    move |e| DatasetError::Parquet { path, reason: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::{
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    use std::sync::Arc;

    /// Writes row groups of an optional text column beside a number.
    fn write(path: &Path, groups: &[&[Option<&str>]]) {
        let schema = parse_message_type("message m { required int32 id; optional binary body (UTF8); }").unwrap();
        let file = File::create(path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(WriterProperties::builder().build())).unwrap();
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let ids: Vec<i32> = (0..rows.len() as i32).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<parquet::data_type::Int32Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let values: Vec<ByteArray> = rows.iter().flatten().map(|t| ByteArray::from(*t)).collect();
            let levels: Vec<i16> = rows.iter().map(|t| i16::from(t.is_some())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, row: u64) -> Vec<String> {
        let mut column = ParquetColumn::open(path, 1, "body", row).unwrap();
        std::iter::from_fn(|| column.next(&mut Notes::default()).unwrap()).collect()
    }

    #[test]
    fn reads_rows_of_all_groups_from_any_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let many: Vec<String> = (0..40).map(|i| format!("row {i}")).collect();
        let many: Vec<Option<&str>> = many.iter().map(|s| Some(s.as_str())).collect();
        write(&path, &[&[Some("a"), None, Some("b")], &many]);
        let all = read(&path, 0);
        assert_eq!((all.len(), all[1].as_str(), all[41].as_str()), (42, "b", "row 39"));
        assert_eq!(read(&path, 2), all[1..]);
        assert_eq!(read(&path, 3 + 20), all[22..]);
        assert!(read(&path, 43).is_empty());
        let mut column = ParquetColumn::open(&path, 1, "body", 0).unwrap();
        column.next(&mut Notes::default()).unwrap();
        assert_eq!(column.row(), 1);
        column.next(&mut Notes::default()).unwrap();
        assert_eq!(column.row(), 3);
        let missing = ParquetColumn::open(&path, 1, "text", 0).err().unwrap().to_string();
        assert!(missing.ends_with("no text column `text`: pass --column with one of: body"), "{missing}");
        // A column of numbers is named, and holds no text.
        let missing = ParquetColumn::open(&path, 1, "id", 0).err().unwrap().to_string();
        assert!(missing.contains("pass --column with one of: body"), "{missing}");
        std::fs::write(&path, "no parquet").unwrap();
        assert!(matches!(ParquetColumn::open(&path, 1, "text", 0), Err(DatasetError::Parquet { .. })));
    }

    #[test]
    fn a_file_without_text_and_one_in_another_encoding_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let numbers = parse_message_type("message m { required int32 id; repeated int32 tokens; }").unwrap();
        let file = File::create(&path).unwrap();
        let writer =
            SerializedFileWriter::new(file, Arc::new(numbers), Arc::new(WriterProperties::builder().build())).unwrap();
        writer.close().unwrap();
        let missing = ParquetColumn::open(&path, 1, "text", 0).err().unwrap().to_string();
        assert!(
            missing.ends_with("has no column of text, and so none `text`; its columns are: id, tokens"),
            "{missing}"
        );

        let schema = parse_message_type("message m { required binary body; }").unwrap();
        let file = File::create(&path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(WriterProperties::builder().build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = vec![ByteArray::from(b"na\xefve words, and fa\xe7ades of them".to_vec()); 40];
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let mut notes = Notes::default();
        let mut column = ParquetColumn::open(&path, 1, "body", 0).unwrap();
        assert_eq!(column.next(&mut notes).unwrap(), None);
        assert!(notes.names(Note::NoText)[0].contains("latin-1"), "{notes:?}");
    }
}
