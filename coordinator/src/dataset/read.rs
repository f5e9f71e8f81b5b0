//! Reading one source: documents, in order, cut to pieces of bounded size. A reader can begin at any position that one
//! reported earlier, so that a killed run continues in the middle of a file.

use super::{
    error::DatasetError,
    journal::Skipped,
    parquet_column::ParquetColumn,
    source::{Format, Source},
};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::PathBuf,
};

/// A longer line of a .jsonl file is refused: it would have to be held in memory as a whole.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// A file with a zero byte among its first so many is no text.
const BINARY_CHECK_BYTES: usize = 8 << 10;

/// Part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its text.
    pub text: String,
    /// Whether the document begins here.
    pub begins: bool,
    /// Whether the document ends here.
    pub ends: bool,
}

/// Where to go on reading a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Byte offset, or row of a parquet file.
    pub at: u64,
    /// Lines read, for messages.
    pub line: u64,
}

/// What reading needs to know beside the source.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// The column of .jsonl and .parquet files.
    pub column: &'a str,
    /// Longest piece.
    pub piece_bytes: usize,
}

/// An open source.
pub struct Reader {
    kind: Kind,
    piece_bytes: usize,
}

enum Kind {
    Text(TextFile),
    JsonLines(JsonLines),
    Parquet(Box<ParquetColumn>),
}

impl Reader {
    /// Opens a source at a position.
    pub fn open(source: &Source, options: ReadOptions, position: Position) -> Result<Self, DatasetError> {
        let file = || -> io::Result<BufReader<File>> {
            let mut file = File::open(&source.path)?;
            file.seek(SeekFrom::Start(position.at))?;
            Ok(BufReader::with_capacity(256 << 10, file))
        };
        let kind = match source.format {
            Format::Parquet => {
                Kind::Parquet(Box::new(ParquetColumn::open(&source.path, source.bytes, options.column, position.at)?))
            }
            Format::JsonLines => Kind::JsonLines(JsonLines {
                input: file().map_err(DatasetError::io(&source.path))?,
                path: source.path.clone(),
                column: options.column.to_owned(),
                position,
            }),
            Format::Text => Kind::Text(TextFile {
                input: file().map_err(DatasetError::io(&source.path))?,
                path: source.path.clone(),
                at: position.at,
                pending: vec![],
                ended: false,
            }),
        };
        Ok(Reader { kind, piece_bytes: options.piece_bytes })
    }

    /// The next pieces: one of a text file, or all of a line or row. `None` at the end.
    pub fn next(&mut self, skipped: &mut Skipped) -> Result<Option<Vec<Piece>>, DatasetError> {
        let document = match &mut self.kind {
            Kind::Text(text) => return Ok(text.next(self.piece_bytes, skipped)?.map(|piece| vec![piece])),
            Kind::JsonLines(lines) => lines.next()?,
            Kind::Parquet(column) => column.next(skipped)?,
        };
        Ok(document.map(|text| pieces_of(&text, self.piece_bytes)))
    }

    /// Where the next call of [`Reader::next`] begins.
    pub fn position(&self) -> Position {
        match &self.kind {
            Kind::Text(text) => Position { at: text.at, line: 0 },
            Kind::JsonLines(lines) => lines.position,
            Kind::Parquet(column) => Position { at: column.row(), line: 0 },
        }
    }

    /// How much of the source is behind, in bytes of its file.
    pub fn bytes_read(&self) -> u64 {
        match &self.kind {
            Kind::Parquet(column) => column.bytes_read(),
            _ => self.position().at,
        }
    }
}

/// Valid text of these bytes; what is not UTF-8 becomes U+FFFD and is counted.
pub fn text_of(bytes: Vec<u8>, skipped: &mut Skipped) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        skipped.invalid_utf8 += 1;
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    })
}

/// Where to cut so that at most `most` bytes go: behind the last line end of the second half, else behind the last
/// space, else between two characters.
fn cut_at(bytes: &[u8], most: usize) -> usize {
    if bytes.len() <= most {
        return bytes.len();
    }
    let half = most / 2;
    let behind_last = |wanted: u8| bytes[half..most].iter().rposition(|b| *b == wanted).map(|at| half + at + 1);
    let is_start_of_character = |at: &usize| bytes[*at] & 0xC0 != 0x80;
    behind_last(b'\n')
        .or_else(|| behind_last(b' '))
        .or_else(|| (most.saturating_sub(3).max(1)..=most).rev().find(is_start_of_character))
        .unwrap_or(most)
}

fn pieces_of(text: &str, piece_bytes: usize) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(cut_at(rest.as_bytes(), piece_bytes));
        pieces.push(Piece { text: head.to_owned(), begins: pieces.is_empty(), ends: tail.is_empty() });
        rest = tail;
    }
    pieces
}

struct TextFile {
    input: BufReader<File>,
    path: PathBuf,
    /// Offset of `pending` in the file.
    at: u64,
    /// Read, but not part of a piece yet.
    pending: Vec<u8>,
    ended: bool,
}

impl TextFile {
    fn next(&mut self, piece_bytes: usize, skipped: &mut Skipped) -> Result<Option<Piece>, DatasetError> {
        // One byte more than a piece holds tells whether the document goes on.
        while !self.ended && self.pending.len() <= piece_bytes {
            let wanted = (piece_bytes + 1 - self.pending.len()) as u64;
            let read = (&mut self.input).take(wanted).read_to_end(&mut self.pending).map_err(DatasetError::io(&self.path))?;
            self.ended = read == 0;
        }
        let begins = self.at == 0;
        if begins && self.pending.iter().take(BINARY_CHECK_BYTES).any(|b| *b == 0) {
            skipped.binary_files += 1;
            return Ok(None);
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let cut = cut_at(&self.pending, piece_bytes);
        let rest = self.pending.split_off(cut);
        let bytes = std::mem::replace(&mut self.pending, rest);
        self.at += cut as u64;
        Ok(Some(Piece { text: text_of(bytes, skipped), begins, ends: self.ended && self.pending.is_empty() }))
    }
}

struct JsonLines {
    input: BufReader<File>,
    path: PathBuf,
    column: String,
    position: Position,
}

impl JsonLines {
    fn next(&mut self) -> Result<Option<String>, DatasetError> {
        let mut line = vec![];
        loop {
            line.clear();
            let read =
                (&mut self.input).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line).map_err(DatasetError::io(&self.path))?;
            if read == 0 {
                return Ok(None);
            }
            self.position.at += read as u64;
            self.position.line += 1;
            if read as u64 > LINE_BYTES_MAX {
                return Err(self.refuse(format!("the line is longer than {} MiB: split it", LINE_BYTES_MAX >> 20)));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = self.column_of(&line)?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }

    fn column_of(&self, line: &[u8]) -> Result<String, DatasetError> {
        let value: serde_json::Value =
            serde_json::from_slice(line).map_err(|e| self.refuse(format!("no JSON ({e}): correct or remove the line")))?;
        match value.get(&self.column) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            _ => {
                let keys = value.as_object().into_iter().flatten().filter(|(_, v)| v.is_string()).map(|(k, _)| Cow::from(k));
                let keys = keys.collect::<Vec<_>>().join(", ");
                Err(self.refuse(format!("no text under `{}`: pass --column with one of: {keys}", self.column)))
            }
        }
    }

    fn refuse(&self, reason: String) -> DatasetError {
        DatasetError::Line { path: self.path.clone(), line: self.position.line, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(source: &Source, piece_bytes: usize, from: Position) -> Result<(Vec<Piece>, Skipped), DatasetError> {
        let mut skipped = Skipped::default();
        let mut reader = Reader::open(source, ReadOptions { column: "text", piece_bytes }, from)?;
        let mut pieces = vec![];
        while let Some(next) = reader.next(&mut skipped)? {
            pieces.extend(next);
        }
        Ok((pieces, skipped))
    }

    fn file(name: &str, bytes: &[u8], format: Format) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let source = Source { path, format, bytes: bytes.len() as u64, changed_ns: 0, crate_name: None };
        (folder, source)
    }

    #[test]
    fn text_is_cut_at_line_ends_and_between_characters() {
        let text = "one\ntwo\nthree four five sechs sieben äöüäöüäöüäöü\n";
        let (_folder, source) = file("a.txt", text.as_bytes(), Format::Text);
        let (pieces, skipped) = read_all(&source, 12, Position::default()).unwrap();
        assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<String>(), text);
        assert_eq!((pieces[0].text.as_str(), pieces[0].begins, pieces[0].ends), ("one\ntwo\n", true, false));
        assert!(pieces.iter().all(|p| p.text.len() <= 12));
        assert_eq!(pieces.iter().filter(|p| p.ends).count(), 1);
        assert_eq!(skipped, Skipped::default());
    }

    #[test]
    fn reading_goes_on_at_any_reported_position() {
        let text: String = (0..200).map(|i| format!("{{\"text\": \"line {i}\"}}\n")).collect();
        for format in [Format::Text, Format::JsonLines] {
            let (_folder, source) = file("a", text.as_bytes(), format);
            let (whole, _) = read_all(&source, 50, Position::default()).unwrap();
            let mut reader = Reader::open(&source, ReadOptions { column: "text", piece_bytes: 50 }, Position::default()).unwrap();
            let mut pieces = vec![];
            for _ in 0..7 {
                pieces.extend(reader.next(&mut Skipped::default()).unwrap().unwrap());
            }
            pieces.extend(read_all(&source, 50, reader.position()).unwrap().0);
            assert_eq!(pieces, whole);
        }
    }

    #[test]
    fn what_is_no_text_is_counted() {
        let (_folder, binary) = file("a", b"ab\0cd", Format::Text);
        assert_eq!(
            read_all(&binary, 12, Position::default()).unwrap(),
            (vec![], Skipped { binary_files: 1, ..Skipped::default() })
        );
        let (_folder, latin) = file("a", b"caf\xe9", Format::Text);
        let (pieces, skipped) = read_all(&latin, 12, Position::default()).unwrap();
        assert_eq!((pieces[0].text.as_str(), skipped.invalid_utf8), ("caf\u{fffd}", 1));
    }

    #[test]
    fn a_bad_line_is_named() {
        let (_folder, source) = file("a", b"{\"text\": \"x\"}\n\n{\"body\": \"y\"}\n", Format::JsonLines);
        let error = read_all(&source, 12, Position::default()).unwrap_err().to_string();
        assert!(error.ends_with(":3: no text under `text`: pass --column with one of: body"), "{error}");
    }
}
