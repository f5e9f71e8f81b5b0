//! A file that is one document: cut to pieces, each with some of the text around it.

use super::{
    error::DatasetError,
    input::{Input, is_damage},
    notes::{Note, Notes},
    piece::{AROUND_BYTES, BEFORE_BYTES_MAX, Piece, before, behind, cut_at},
    remote::Place,
    text_check,
};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// An open text file.
pub struct TextFile {
    input: Input,
    path: PathBuf,
    /// Place of `pending` in the file.
    at: u64,
    /// What stands before `pending`, as far back as is ever looked at.
    passed: Vec<u8>,
    /// Read, but not part of a piece yet.
    pending: Vec<u8>,
    ended: bool,
    /// Why no more can be read.
    damage: Option<String>,
}

/// What comes next.
pub enum NextPiece {
    /// A piece.
    Piece(Piece),
    /// The file is damaged here; the words name it.
    Bad(String),
    /// Nothing.
    End,
}

impl TextFile {
    /// Opens a file at a place.
    pub fn open(place: impl Into<Place>, at: u64) -> io::Result<Self> {
        let place = place.into();
        let path = place.path.clone();
        let from = at.saturating_sub(BEFORE_BYTES_MAX as u64);
        let mut input = Input::open(place, from)?;
        let (from, at) = (from.max(input.start), at.max(input.start));
        let mut passed = vec![];
        (&mut input.text).take(at - from).read_to_end(&mut passed)?;
        input.take_lone();
        Ok(TextFile { input, path, at, passed, pending: vec![], ended: false, damage: None })
    }

    /// The next piece.
    pub fn next(&mut self, piece_bytes: usize, notes: &mut Notes) -> Result<NextPiece, DatasetError> {
        let begins = self.at == self.input.start;
        self.fill(piece_bytes + AROUND_BYTES)?;
        if begins && let Some(reason) = text_check::refuse(&self.pending) {
            notes.add(Note::NoText, format!("{} ({reason})", self.path.display()));
            (self.ended, self.damage) = (true, None);
            self.pending.clear();
            return Ok(NextPiece::End);
        }
        if begins && !self.pending.is_empty() {
            notes.count(Note::ByteOrderMark, u64::from(self.input.marked));
            notes.count(Note::Utf16, u64::from(self.input.utf16));
        }
        if self.pending.is_empty() {
            return Ok(self.damage.take().map_or(NextPiece::End, NextPiece::Bad));
        }
        let lone = self.input.take_lone();
        if lone > 0 {
            notes.add(Note::LoneSurrogate, self.path.display().to_string());
            notes.count(Note::LoneSurrogate, lone - 1);
        }
        let cut = cut_at(&self.pending, piece_bytes);
        let rest = self.pending.split_off(cut);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let before = if begins { String::new() } else { before(&self.passed) };
        self.at += cut as u64;
        self.passed.extend_from_slice(&bytes);
        self.passed.drain(..self.passed.len().saturating_sub(BEFORE_BYTES_MAX));
        let behind = behind(&self.pending);
        let ends = self.ended && self.pending.is_empty();
        let text = text_of(bytes, &self.path, notes);
        Ok(NextPiece::Piece(Piece { text, ids: vec![], begins, ends, before, behind }))
    }

    /// Reads until more than `wanted` bytes are pending: one more tells whether the document goes on.
    fn fill(&mut self, wanted: usize) -> Result<(), DatasetError> {
        while !self.ended && self.pending.len() <= wanted {
            let missing = (wanted + 1 - self.pending.len()) as u64;
            match (&mut self.input.text).take(missing).read_to_end(&mut self.pending) {
                Ok(read) => self.ended = read == 0,
                Err(error) if is_damage(&error) => {
                    self.ended = true;
                    self.damage = Some(format!("{}: the file is damaged: {error}", self.path.display()));
                }
                Err(error) => return Err(DatasetError::io(&self.path)(error)),
            }
        }
        Ok(())
    }

    /// Where the next call of [`TextFile::next`] begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How much of the file is behind.
    pub fn bytes_read(&self) -> u64 {
        if self.input.changed { self.input.file_bytes.get() } else { self.at }
    }
}

/// Valid text of these bytes; what is not UTF-8 becomes U+FFFD and is noted.
pub fn text_of(bytes: Vec<u8>, path: &Path, notes: &mut Notes) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        notes.add(Note::InvalidUtf8, path.display().to_string());
        notes.count(Note::InvalidUtf8, invalid_in(e.as_bytes()) - 1);
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    })
}

/// How many U+FFFD these bytes become.
pub fn invalid_in(bytes: &[u8]) -> u64 {
    bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count() as u64
}
