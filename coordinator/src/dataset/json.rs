//! Records of JSON: a line each (.jsonl), or the values of a .json file, which is one array or several values one after
//! another. One record is in memory at a time.

use super::{
    error::DatasetError,
    input::{Input, is_damage},
    json_text::{Field, text_of_record},
    notes::{Note, Notes},
    read::Position,
    remote::Place,
    text_check,
};
use serde::de::IgnoredAny;
use std::{
    io::{self, BufRead, Read},
    path::PathBuf,
};

/// A longer record is refused: it would have to be held in memory as a whole.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// How records are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One a line.
    Lines,
    /// One after another, in an array or not.
    Values,
}

/// An open file of records.
pub struct JsonRecords {
    input: Input,
    path: PathBuf,
    column: String,
    layout: Layout,
    /// Whether the values are those of an array.
    in_array: bool,
    /// Whether the array has begun and not ended; another may follow it.
    inside: bool,
    position: Position,
    ended: bool,
}

/// What comes next.
pub enum Record {
    /// A text, not empty.
    Text(String),
    /// A record that cannot be read, and why, in words that name it.
    Bad(String),
    /// Nothing.
    End,
}

/// Why there is no whole value.
enum Broken {
    TooLong,
    /// The file ends within it.
    Ends,
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Io(error)
    }
}

impl JsonRecords {
    /// Opens a file at a position.
    pub fn open(
        place: impl Into<Place>,
        column: &str,
        layout: Layout,
        position: Position,
        notes: &mut Notes,
    ) -> io::Result<Self> {
        let place = place.into();
        let path = place.path.clone();
        let mut in_array = false;
        if layout == Layout::Values {
            let mut start = Input::open(place.clone(), 0)?;
            in_array = skip_space(&mut *start.text)?.1 == Some(b'[');
        }
        let mut input = Input::open(place, position.at)?;
        let refused = if position.at == 0 { text_check::refuse(input.text.fill_buf()?) } else { None };
        if let Some(reason) = refused {
            notes.add(Note::NoText, format!("{} ({reason})", path.display()));
        } else if position.at == 0 {
            notes.count(Note::ByteOrderMark, u64::from(input.marked));
            notes.count(Note::Utf16, u64::from(input.utf16));
        }
        let at = position.at.max(input.start);
        let position = Position { at, ..position };
        let (column, inside) = (column.to_owned(), position.line > 0);
        Ok(JsonRecords { input, path, column, layout, in_array, inside, position, ended: refused.is_some() })
    }

    /// The next text. Records without any are passed over and counted.
    pub fn next(&mut self, notes: &mut Notes) -> Result<Record, DatasetError> {
        loop {
            if self.ended {
                return Ok(Record::End);
            }
            let is_first = self.position.line == 0;
            let is_first_line = self.layout == Layout::Lines && self.position.at == self.input.start;
            let value = match self.layout {
                Layout::Lines => self.next_line(),
                Layout::Values => self.next_value(),
            };
            notes.count(Note::LoneSurrogate, self.input.take_lone());
            let value = match value {
                Ok(None) => {
                    self.ended = true;
                    return Ok(Record::End);
                }
                Ok(Some(value)) => value,
                Err(Broken::TooLong) => {
                    return Ok(self.bad(&format!("it is longer than {} MiB: split it", RECORD_BYTES_MAX >> 20)));
                }
                Err(Broken::Ends) => {
                    self.ended = true;
                    return Ok(self.bad("the file ends within the record: it may have been cut off"));
                }
                Err(Broken::Io(error)) if is_damage(&error) => {
                    self.ended = true;
                    return Ok(Record::Bad(format!("{}: the file is damaged here: {error}", self.path.display())));
                }
                Err(Broken::Io(error)) => return Err(DatasetError::io(&self.path)(error)),
            };
            let read = text_of_record(&value, &self.column, notes);
            if is_first_line
                && !matches!(read, Ok(Field::Text(_)))
                && let Some(layout) = other_layout(&value)
            {
                self.ended = true;
                let bad = self.bad(layout);
                self.position.at +=
                    io::copy(&mut self.input.text, &mut io::sink()).map_err(DatasetError::io(&self.path))?;
                return Ok(bad);
            }
            match read {
                Err(reason) if self.layout == Layout::Lines && value.last() != Some(&b'\n') => {
                    return Ok(self.bad(&format!("{reason}; it is the last line, which may have been cut off")));
                }
                Err(reason) => return Ok(self.bad(&reason)),
                Ok(Field::Null) => notes.add(Note::Null, self.path.display().to_string()),
                Ok(Field::Text(text)) if text.is_empty() => notes.add(Note::Empty, self.path.display().to_string()),
                Ok(Field::Text(text)) => return Ok(Record::Text(text)),
                Ok(Field::Missing(reason)) if self.layout == Layout::Values && !self.in_array && is_first => {
                    // One object by itself describes something; records come in numbers.
                    return if self.is_at_end()? {
                        self.ended = true;
                        notes.add(Note::NoRecords, format!("{} ({reason})", self.path.display()));
                        Ok(Record::End)
                    } else {
                        Ok(self.bad(&reason))
                    };
                }
                Ok(Field::Missing(reason)) => return Ok(self.bad(&reason)),
            }
        }
    }

    /// Where the next call of [`JsonRecords::next`] begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How much of the file is behind.
    pub fn bytes_read(&self) -> u64 {
        if self.input.changed { self.input.file_bytes.get() } else { self.position.at }
    }

    fn bad(&self, reason: &str) -> Record {
        let (path, number) = (self.path.display(), self.position.line);
        Record::Bad(match self.layout {
            Layout::Lines => format!("{path}:{number}: {reason}"),
            Layout::Values => format!("{path}, record {number}: {reason}"),
        })
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let mut line = vec![];
        loop {
            line.clear();
            let read = (&mut self.input.text).take(RECORD_BYTES_MAX + 1).read_until(b'\n', &mut line)? as u64;
            if read == 0 {
                return Ok(None);
            }
            self.position.at += read;
            self.position.line += 1;
            if read > RECORD_BYTES_MAX {
                if line.last() != Some(&b'\n') {
                    self.position.at += self.input.text.skip_until(b'\n')? as u64;
                }
                return Err(Broken::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// The bytes of the next value.
    fn next_value(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let text = &mut *self.input.text;
        loop {
            let (skipped, next) = skip_space(text)?;
            self.position.at += skipped;
            match next {
                None if self.in_array && self.inside => {
                    self.position.line += 1;
                    return Err(Broken::Ends);
                }
                None => return Ok(None),
                Some(b'[') if self.in_array && !self.inside => self.inside = true,
                Some(b']') if self.in_array => self.inside = false,
                Some(b',') if self.in_array => {}
                Some(_) => break,
            }
            text.consume(1);
            self.position.at += 1;
        }
        self.position.line += 1;
        let mut value = vec![];
        let whole = take_value(text, &mut value)?;
        self.position.at += value.len() as u64;
        match whole {
            true => Ok(Some(value)),
            false if value.len() as u64 > RECORD_BYTES_MAX => {
                self.ended = true;
                Err(Broken::TooLong)
            }
            false => Err(Broken::Ends),
        }
    }

    fn is_at_end(&mut self) -> Result<bool, DatasetError> {
        let skipped = skip_space(&mut *self.input.text).map_err(DatasetError::io(&self.path))?;
        self.position.at += skipped.0;
        Ok(skipped.1.is_none())
    }
}

/// What a first line says about a file that has no record a line.
fn other_layout(line: &[u8]) -> Option<&'static str> {
    match line.trim_ascii() {
        [b'[', ..] => Some("it is an array, not a record a line: name the file .json"),
        [b'{', inner @ ..] if serde_json::from_slice::<IgnoredAny>(line).is_err() && !inner.contains(&b':') => {
            Some("a record here takes several lines: name the file .json")
        }
        _ => None,
    }
}

/// Skips white space; says how much, and which byte comes next.
pub fn skip_space(text: &mut dyn BufRead) -> io::Result<(u64, Option<u8>)> {
    let mut skipped = 0;
    loop {
        let buffer = text.fill_buf()?;
        if buffer.is_empty() {
            return Ok((skipped, None));
        }
        let space = buffer.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let next = buffer.get(space).copied();
        text.consume(space);
        skipped += space as u64;
        if next.is_some() {
            return Ok((skipped, next));
        }
    }
}

/// Moves one value's bytes out of the text, without looking at more than its brackets and quotes; false where the text
/// ends within it, or where it is too long.
fn take_value(text: &mut dyn BufRead, value: &mut Vec<u8>) -> io::Result<bool> {
    let (mut depth, mut in_string, mut escaped) = (0u64, false, false);
    loop {
        let buffer = text.fill_buf()?;
        if buffer.is_empty() {
            // A number has no end of its own.
            return Ok(depth == 0 && !in_string && !value.is_empty());
        }
        let mut end = None;
        for (at, byte) in buffer.iter().enumerate() {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => continue,
                }
                if !in_string && depth == 0 {
                    end = Some(at + 1);
                    break;
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 1 => {
                    end = Some(at + 1);
                    break;
                }
                // An array's end, behind a number.
                b'}' | b']' if depth == 0 => {
                    end = Some(if value.is_empty() && at == 0 { 1 } else { at });
                    break;
                }
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => {
                    end = Some(at.max(usize::from(value.is_empty())));
                    break;
                }
                b if depth == 0 && b.is_ascii_whitespace() => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let taken = end.unwrap_or(buffer.len());
        value.extend_from_slice(&buffer[..taken]);
        text.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
        if value.len() as u64 > RECORD_BYTES_MAX {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts, and what was bad, of a file.
    fn read(text: &[u8], layout: Layout, column: &str) -> (Vec<String>, Vec<String>, Notes) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, text).unwrap();
        let (mut texts, mut bad, mut notes) = (vec![], vec![], Notes::default());
        let mut records = JsonRecords::open(&path, column, layout, Position::default(), &mut notes).unwrap();
        loop {
            // Every place that it reports is one to go on from.
            let position = records.position();
            if position.line % 2 == 1 {
                records = JsonRecords::open(&path, column, layout, position, &mut notes).unwrap();
            }
            match records.next(&mut notes).unwrap() {
                Record::Text(text) => texts.push(text),
                Record::Bad(reason) => bad.push(reason.replace(&path.display().to_string(), "F")),
                Record::End => return (texts, bad, notes),
            }
        }
    }

    #[test]
    fn arrays_lines_and_values_are_records() {
        let wanted = ["a", "b ] } \" \\", "c"];
        for text in [
            r#"[{"text": "a"}, {"x": [1, {"y": "]"}], "text": "b ] } \" \\"},{"text":"c"}]"#,
            "\n [\n  {\"text\": \"a\"},\n  {\"text\": \"b ] } \\\" \\\\\"},\n  {\"text\": \"c\"}\n]\n",
            "{\"text\": \"a\"}\n{\"text\": \"b ] } \\\" \\\\\"}\n{\"text\": \"c\"}\n",
            "{\n \"text\": \"a\"\n}\n{\"text\": \"b ] } \\\" \\\\\"}{\"text\": \"c\"}",
            r#"["a", "b ] } \" \\", "c"]"#,
            "[\"a\"]\n[{\"text\": \"b ] } \\\" \\\\\"},\n\"c\"]\n[]\n",
        ] {
            let (texts, bad, _) = read(text.as_bytes(), Layout::Values, "text");
            assert_eq!((texts, bad), (wanted.map(str::to_owned).to_vec(), vec![]), "{text}");
        }
        assert_eq!(read(b"[]", Layout::Values, "text").0.len(), 0);
    }

    #[test]
    fn what_is_no_record_is_named_and_the_others_are_read() {
        let (texts, bad, notes) =
            read(br#"[{"text": "a"}, 3, {"text": null}, {"body": "b"}, {"text": "c"#, Layout::Values, "text");
        assert_eq!((texts.len(), notes.of(Note::Null)), (1, 1));
        assert!(
            bad[0].starts_with("F, record 2: ") && bad[1].starts_with("F, record 4: no text under `text`"),
            "{bad:?}"
        );
        assert!(bad[2].contains("record 5: the file ends within the record"), "{bad:?}");
        let lines = "{\"text\": \"a\"}\n\n{\"body\": \"b\"}\nno\n{\"text\": \"\"}\n{\"text\": \"c\"}\n{\"text\": \"d";
        let (texts, bad, notes) = read(lines.as_bytes(), Layout::Lines, "text");
        assert_eq!((texts.join(" "), notes.of(Note::Empty)), ("a c".into(), 1));
        assert!(bad[0].starts_with("F:3: no text under `text`: pass --column with one of: body"), "{bad:?}");
        assert!(bad[1].starts_with("F:4: no JSON") && bad[2].starts_with("F:7: no JSON"), "{bad:?}");
        assert!(bad[2].ends_with("which may have been cut off"), "{bad:?}");
    }

    #[test]
    fn what_is_no_json_text_is_said_in_one_sentence() {
        let lines = "{\"text\": \"words\"}\n".repeat(100);
        let utf16: Vec<u8> = "{\"text\": \"東京の言葉の長い列がここにある。\"}\n"
            .repeat(50)
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for layout in [Layout::Lines, Layout::Values] {
            for (bytes, said) in [
                (&b"\xFD7zXZ\0\0\x04"[..], "(xz: unpack it"),
                (b"PAR1\x15\0\x15\0", "(parquet: give it a name"),
                (b"{\"text\": \"a\"}\0\0", "(binary)"),
            ] {
                let (texts, bad, notes) = read(bytes, layout, "text");
                assert_eq!((texts.len(), bad.len()), (0, 0), "{said}: {bad:?}");
                assert!(notes.names(Note::NoText)[0].contains(said), "{said}: {notes:?}");
            }
            let latin: Vec<u8> =
                lines.replace("words", "na_ve fa_ade").bytes().map(|b| if b == b'_' { 0xE7 } else { b }).collect();
            let (texts, _, notes) = read(&latin, layout, "text");
            assert!(texts.is_empty() && notes.names(Note::NoText)[0].contains("latin-1"), "{notes:?}");
            // UTF-16 without a mark is known by its first bracket.
            assert_eq!(read(&utf16, layout, "text").0.len(), 50);
        }
        let (_, bad, _) = read(b"[{\"text\": \"a\"}, {\"text\": \"b\"}]\n", Layout::Lines, "text");
        assert_eq!(bad, ["F:1: it is an array, not a record a line: name the file .json"]);
        let (_, bad, _) = read(b"[\n  {\"text\": \"a\"},\n  {\"text\": \"b\"}\n]\n", Layout::Lines, "text");
        assert_eq!(bad, ["F:1: it is an array, not a record a line: name the file .json"]);
        let (_, bad, _) = read(b"{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}\n", Layout::Lines, "text");
        assert_eq!(bad, ["F:1: a record here takes several lines: name the file .json"]);
    }

    #[test]
    fn a_single_object_is_left_out_by_name() {
        let (texts, bad, notes) = read(br#"{"name": "x", "version": {"of": "y"}}"#, Layout::Values, "text");
        assert_eq!((texts.len(), bad.len(), notes.of(Note::NoRecords)), (0, 0, 1));
        assert!(notes.names(Note::NoRecords)[0].contains("name, version.of"), "{notes:?}");
        assert_eq!(read(br#"{"text": "x"}"#, Layout::Values, "text").0, ["x"]);
    }
}
