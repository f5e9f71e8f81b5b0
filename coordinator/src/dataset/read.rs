//! Reading the sources: documents, in order, cut to pieces of bounded size. Reading can begin at any position that was
//! reported earlier, so that a killed run continues in the middle of a file.

use super::{
    arrow::{ArrowColumn, NextRow},
    error::DatasetError,
    input::is_damage,
    json::{JsonRecords, Layout, Record},
    notes::{Note, Notes},
    parquet_column::ParquetColumn,
    piece::{Piece, pieces_of},
    source::{Format, Source},
    text_file::{NextPiece, TextFile},
    token_file::{Ids, NextIds, TokenFile},
};
use serde::{Deserialize, Serialize};
use std::io;

/// Where to go on reading a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Byte offset, in the file or in the text that it was unpacked or decoded to; or row of a parquet or Arrow file.
    pub at: u64,
    /// Lines or records read, for messages.
    pub line: u64,
}

/// What reading needs to know beside the source.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// The column of records.
    pub column: &'a str,
    /// Longest piece.
    pub piece_bytes: usize,
    /// What files of tokens hold, where there may be some.
    pub ids: Option<Ids>,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Pieces: one of a text file, or all of a record.
    Pieces(Vec<Piece>),
    /// Something that cannot be read, in words that name it.
    Bad(String),
}

/// An open source.
pub struct Reader {
    kind: Kind,
    piece_bytes: usize,
}

enum Kind {
    Text(Box<TextFile>),
    Json(Box<JsonRecords>),
    Parquet(Box<ParquetColumn>),
    Arrow(Box<ArrowColumn>),
    Tokens(Box<TokenFile>),
    /// It could not be opened, in words that name it; told once.
    Damaged(Option<String>),
}

impl Reader {
    /// Opens a source at a position.
    pub fn open(
        source: &Source,
        options: ReadOptions,
        position: Position,
        notes: &mut Notes,
    ) -> Result<Self, DatasetError> {
        let (path, column) = (&source.path, options.column);
        let place = || source.place();
        let json = |layout, notes: &mut Notes| {
            Ok(Kind::Json(Box::new(JsonRecords::open(place(), column, layout, position, notes)?)))
        };
        let kind: io::Result<Kind> = match source.format {
            Format::Parquet => match ParquetColumn::open(place(), source.bytes, column, position.at) {
                Ok(column) => Ok(Kind::Parquet(Box::new(column))),
                Err(
                    error
                    @ (DatasetError::Parquet { .. } | DatasetError::Column { .. } | DatasetError::NoColumn { .. }),
                ) => Ok(Kind::Damaged(Some(error.to_string()))),
                Err(error) => return Err(error),
            },
            Format::Arrow => match ArrowColumn::open(place(), column, position.at) {
                Ok(column) => Ok(Kind::Arrow(Box::new(column))),
                Err(
                    error @ (DatasetError::Arrow { .. } | DatasetError::Column { .. } | DatasetError::NoColumn { .. }),
                ) => Ok(Kind::Damaged(Some(error.to_string()))),
                Err(error) => return Err(error),
            },
            Format::Tokens => match options.ids {
                Some(ids) => TokenFile::open(place(), ids, position.at).map(|file| Kind::Tokens(Box::new(file))),
                None => return Err(DatasetError::IdsWithoutTokenizer),
            },
            Format::JsonLines => json(Layout::Lines, notes),
            Format::Json => json(Layout::Values, notes),
            Format::Text => TextFile::open(place(), position.at).map(|text| Kind::Text(Box::new(text))),
        };
        let kind = kind.or_else(|error| match is_damage(&error) {
            true => Ok(Kind::Damaged(Some(format!("{}: the file is damaged: {error}", path.display())))),
            false => Err(DatasetError::io(path)(error)),
        })?;
        Ok(Reader { kind, piece_bytes: options.piece_bytes })
    }

    /// The next pieces; `None` at the end.
    pub fn next(&mut self, notes: &mut Notes) -> Result<Option<Next>, DatasetError> {
        let pieces = match &mut self.kind {
            Kind::Text(text) => match text.next(self.piece_bytes, notes)? {
                NextPiece::Piece(piece) => vec![piece],
                NextPiece::Bad(reason) => return Ok(Some(Next::Bad(reason))),
                NextPiece::End => return Ok(None),
            },
            Kind::Json(records) => match records.next(notes)? {
                Record::Text(text) => pieces_of(without_mark(&text, notes), self.piece_bytes),
                Record::Bad(reason) => return Ok(Some(Next::Bad(reason))),
                Record::End => return Ok(None),
            },
            Kind::Parquet(column) => match column.next(notes) {
                Ok(Some(text)) => pieces_of(without_mark(&text, notes), self.piece_bytes),
                Ok(None) => return Ok(None),
                Err(error @ DatasetError::Parquet { .. }) => {
                    self.kind = Kind::Damaged(None);
                    return Ok(Some(Next::Bad(error.to_string())));
                }
                Err(error) => return Err(error),
            },
            Kind::Arrow(column) => match column.next(notes) {
                Ok(NextRow::Text(text)) => pieces_of(without_mark(&text, notes), self.piece_bytes),
                Ok(NextRow::Bad(reason)) => return Ok(Some(Next::Bad(reason))),
                Ok(NextRow::End) => return Ok(None),
                Err(error @ DatasetError::Arrow { .. }) => {
                    self.kind = Kind::Damaged(None);
                    return Ok(Some(Next::Bad(error.to_string())));
                }
                Err(error) => return Err(error),
            },
            Kind::Tokens(file) => match file.next()? {
                NextIds::Piece(piece) => vec![piece],
                NextIds::Bad(reason) => return Ok(Some(Next::Bad(reason))),
                NextIds::End => return Ok(None),
            },
            Kind::Damaged(reason) => return Ok(reason.take().map(Next::Bad)),
        };
        Ok(Some(Next::Pieces(pieces)))
    }

    /// Where the next call of [`Reader::next`] begins.
    pub fn position(&self) -> Position {
        match &self.kind {
            Kind::Text(text) => Position { at: text.at(), line: 0 },
            Kind::Json(records) => records.position(),
            Kind::Parquet(column) => Position { at: column.row(), line: 0 },
            Kind::Arrow(column) => Position { at: column.row(), line: 0 },
            Kind::Tokens(file) => Position { at: file.at(), line: 0 },
            Kind::Damaged(_) => Position::default(),
        }
    }

    /// How much of the source is behind, in bytes of its file.
    pub fn bytes_read(&self) -> u64 {
        match &self.kind {
            Kind::Text(text) => text.bytes_read(),
            Kind::Json(records) => records.bytes_read(),
            Kind::Parquet(column) => column.bytes_read(),
            Kind::Arrow(column) => column.bytes_read(),
            Kind::Tokens(file) => file.at(),
            Kind::Damaged(_) => 0,
        }
    }
}

/// A document without the byte order mark that a file left at its start.
fn without_mark<'a>(text: &'a str, notes: &mut Notes) -> &'a str {
    let Some(text) = text.strip_prefix('\u{FEFF}') else { return text };
    notes.count(Note::ByteOrderMark, 1);
    text
}

/// How often it was said of a whole file why it gives no text.
fn told(notes: &Notes) -> u64 {
    notes.of(Note::NoText) + notes.of(Note::NoRecords)
}

/// All sources, one after another.
pub struct Cursor<'a> {
    sources: &'a [Source],
    options: ReadOptions<'a>,
    number: usize,
    position: Position,
    reader: Option<Reader>,
    /// Bytes of the sources that are read.
    behind: u64,
    /// Whether the source gave text, or what is said about it instead.
    gave: bool,
    /// What was said about whole files before the source.
    told: u64,
}

impl<'a> Cursor<'a> {
    /// At a position in source `number`.
    pub fn new(sources: &'a [Source], options: ReadOptions<'a>, number: usize, position: Position) -> Self {
        let behind = sources.iter().take(number).map(|s| s.bytes).sum();
        let gave = position != Position::default();
        Cursor { sources, options, number, position, reader: None, behind, gave, told: 0 }
    }

    /// What comes next, and of which source; `None` at the end of all.
    pub fn next(&mut self, notes: &mut Notes) -> Result<Option<(Next, &'a Source)>, DatasetError> {
        while let Some(source) = self.sources.get(self.number) {
            if self.reader.is_none() {
                self.told = told(notes);
                self.reader = Some(Reader::open(source, self.options, self.position, notes)?);
            }
            let next = self.reader.as_mut().map(|reader| reader.next(notes)).transpose()?.flatten();
            if let Some(next) = next {
                if !self.gave && matches!(next, Next::Pieces(_)) {
                    self.gave = true;
                    notes.add(Note::Read, source.kind());
                }
                self.gave |= matches!(next, Next::Bad(_));
                return Ok(Some((next, source)));
            }
            if !self.gave && self.told == told(notes) {
                notes.add(Note::Nothing, source.path.display().to_string());
            }
            self.skip_source();
        }
        Ok(None)
    }

    /// Leaves out what is left of the source.
    pub fn skip_source(&mut self) {
        self.behind += self.sources.get(self.number).map_or(0, |s| s.bytes);
        self.number += 1;
        (self.position, self.reader, self.gave) = (Position::default(), None, false);
    }

    /// Number of the source and position in it where [`Cursor::next`] goes on.
    pub fn place(&self) -> (usize, Position) {
        (self.number, self.reader.as_ref().map_or(self.position, Reader::position))
    }

    /// How much is behind, in bytes of files.
    pub fn bytes_read(&self) -> u64 {
        self.behind + self.reader.as_ref().map_or(0, Reader::bytes_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(source: &Source, piece_bytes: usize, from: Position) -> (Vec<Piece>, Vec<String>, Notes) {
        let mut notes = Notes::default();
        let sources = std::slice::from_ref(source);
        let mut cursor = Cursor::new(sources, ReadOptions { column: "text", piece_bytes, ids: None }, 0, from);
        let (mut pieces, mut bad) = (vec![], vec![]);
        while let Some((next, _)) = cursor.next(&mut notes).unwrap() {
            match next {
                Next::Pieces(more) => pieces.extend(more),
                Next::Bad(reason) => bad.push(reason),
            }
        }
        (pieces, bad, notes)
    }

    fn file(name: &str, bytes: &[u8], format: Format) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let source = Source {
            path,
            format,
            bytes: bytes.len() as u64,
            changed_ns: 0,
            crate_name: None,
            heldout: None,
            domain: String::new(),
            object: None,
        };
        (folder, source)
    }

    #[test]
    fn text_is_cut_at_line_ends_and_between_characters() {
        let text = "one\ntwo\nthree four five sechs sieben äöüäöüäöüäöü\n";
        let (_folder, source) = file("a.txt", text.as_bytes(), Format::Text);
        let (pieces, bad, notes) = read_all(&source, 12, Position::default());
        assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<String>(), text);
        assert_eq!((pieces[0].text.as_str(), pieces[0].begins, pieces[0].ends), ("one\ntwo\n", true, false));
        assert!(pieces.iter().all(|p| p.text.len() <= 12));
        assert_eq!(pieces.iter().filter(|p| p.ends).count(), 1);
        assert!(pieces.iter().all(|p| format!("{}{}{}", p.before, p.text, p.behind) == text));
        assert_eq!((bad.len(), notes.of(Note::InvalidUtf8)), (0, 0));
    }

    #[test]
    fn reading_goes_on_at_any_reported_position() {
        let text: String = (0..200).map(|i| format!("{{\"text\": \"line {i}\"}}\n")).collect();
        let marked = format!("\u{FEFF}{text}");
        let packed = zstd::bulk::compress(marked.as_bytes(), 1).unwrap();
        for bytes in [text.as_bytes(), marked.as_bytes(), &packed] {
            for format in [Format::Text, Format::JsonLines, Format::Json] {
                let (_folder, source) = file("a", bytes, format);
                let (whole, ..) = read_all(&source, 50, Position::default());
                assert!(whole.len() >= 100 && !whole[0].text.starts_with('\u{FEFF}'));
                let options = ReadOptions { column: "text", piece_bytes: 50, ids: None };
                let mut cursor = Cursor::new(std::slice::from_ref(&source), options, 0, Position::default());
                let mut pieces = vec![];
                for _ in 0..7 {
                    let Some((Next::Pieces(more), _)) = cursor.next(&mut Notes::default()).unwrap() else {
                        panic!("no text")
                    };
                    pieces.extend(more);
                }
                pieces.extend(read_all(&source, 50, cursor.place().1).0);
                assert_eq!(pieces, whole);
            }
        }
    }

    #[test]
    fn what_is_no_text_is_noted() {
        let (_folder, binary) = file("a", b"ab\0cd", Format::Text);
        let (pieces, bad, notes) = read_all(&binary, 12, Position::default());
        assert_eq!((pieces.len(), bad.len(), notes.of(Note::NoText)), (0, 0, 1));
        assert!(notes.names(Note::NoText)[0].ends_with("a (binary)"), "{notes:?}");
        let (_folder, latin) = file("a", b"caf\xe9", Format::Text);
        let (pieces, _, notes) = read_all(&latin, 12, Position::default());
        assert_eq!((pieces[0].text.as_str(), notes.of(Note::InvalidUtf8)), ("caf\u{fffd}", 1));
    }

    #[test]
    fn what_gives_nothing_is_named() {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        io::Write::write_all(&mut encoder, b"").unwrap();
        let packed = encoder.finish().unwrap();
        for (name, bytes, format) in [
            ("a.txt.gz", &packed[..], Format::Text),
            ("a.txt", b"\xEF\xBB\xBF", Format::Text),
            ("a.jsonl", b"\n\n  \n", Format::JsonLines),
            ("a.json", b"[]", Format::Json),
            ("a.json", b"[{\"text\": null}]", Format::Json),
        ] {
            let (_folder, source) = file(name, bytes, format);
            let (pieces, bad, notes) = read_all(&source, 100, Position::default());
            assert_eq!((pieces.len(), bad.len()), (0, 0), "{name}");
            assert!(notes.lines().concat().contains("left out: 1 file that gave no text: "), "{name}: {notes:?}");
        }
        let (_folder, source) = file("a.txt", b"ab\0cd", Format::Text);
        assert_eq!(read_all(&source, 100, Position::default()).2.lines().len(), 1, "it is told already");
    }

    #[test]
    fn what_is_damaged_is_named_and_text_before_it_is_a_whole_document() {
        let text = "some words of text\n".repeat(20_000);
        let packed = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        let (_folder, source) = file("a.txt.zst", &packed[..packed.len() - 4], Format::Text);
        let (pieces, bad, _) = read_all(&source, 1 << 16, Position::default());
        assert!(bad.len() == 1 && bad[0].contains("a.txt.zst: the file is damaged"), "{bad:?}");
        assert_eq!(pieces.iter().filter(|p| p.ends).count(), usize::from(!pieces.is_empty()));
        let (_folder, source) = file("a.parquet", b"no parquet", Format::Parquet);
        let (pieces, bad, _) = read_all(&source, 12, Position::default());
        assert!(pieces.is_empty() && bad.len() == 1 && bad[0].contains("is not a parquet file"), "{bad:?}");
    }
}
