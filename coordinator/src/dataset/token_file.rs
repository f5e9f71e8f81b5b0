//! A file of token ids, as nanoGPT writes it: one number after another. The ids are taken as they are; where the
//! vocabulary has an end of text, it ends a document.

use super::{
    error::DatasetError,
    piece::Piece,
    remote::{Bytes, Place},
    source::IdWidth,
};
use std::{
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::PathBuf,
};

/// Ids of a piece, at most.
const PIECE_IDS: usize = 16 << 10;
/// What llm.c begins its files with, for ids of two bytes and of four: 1024 bytes of a header.
const LLM_C_MAGICS: [u32; 2] = [20_240_520, 20_240_801];
const LLM_C_HEADER_BYTES: u64 = 1024;

/// What the ids of a file may be.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Bytes of each.
    pub width: IdWidth,
    /// Size of the vocabulary.
    pub size: u32,
    /// The id that ends a document.
    pub end: Option<u32>,
}

/// An open file of ids.
pub struct TokenFile {
    path: PathBuf,
    file: BufReader<Box<dyn Bytes>>,
    ids: Ids,
    start: u64,
    at: u64,
    end: u64,
    begins: bool,
}

/// What comes next.
pub enum NextIds {
    /// A piece.
    Piece(Piece),
    /// The file holds something else; the words name it.
    Bad(String),
    /// Nothing.
    End,
}

impl TokenFile {
    /// Opens a file at a place.
    pub fn open(place: impl Into<Place>, ids: Ids, at: u64) -> io::Result<Self> {
        let place = place.into();
        let mut file = BufReader::with_capacity(256 << 10, place.open()?);
        let end = place.length()?;
        let mut magic = [0; 4];
        let has_magic = end >= LLM_C_HEADER_BYTES && file.read_exact(&mut magic).is_ok();
        let has_header = has_magic && LLM_C_MAGICS.contains(&u32::from_le_bytes(magic));
        let start = if has_header { LLM_C_HEADER_BYTES } else { 0 };
        let width = ids.width.bytes();
        let at = at.max(start);
        let mut before = vec![];
        if at >= start + width {
            file.seek(SeekFrom::Start(at - width))?;
            file.by_ref().take(width).read_to_end(&mut before)?;
        }
        file.seek(SeekFrom::Start(at))?;
        let begins = before.is_empty() || ids.end == Some(number(&before));
        Ok(TokenFile { path: place.path, file, ids, start, at, end, begins })
    }

    /// The next piece: of one document, or of a part of one.
    pub fn next(&mut self) -> Result<NextIds, DatasetError> {
        let width = self.ids.width.bytes();
        if !(self.end - self.start).is_multiple_of(width) {
            return Ok(self.bad(&format!(
                "its length is no multiple of {width}: it was cut off, or its ids have another width than --token-ids says"
            )));
        }
        let mut piece = Piece { begins: self.begins, ..Piece::default() };
        let mut bytes = vec![0; width as usize];
        while self.at < self.end && piece.ids.len() < PIECE_IDS {
            self.file.read_exact(&mut bytes).map_err(DatasetError::io(&self.path))?;
            let id = number(&bytes);
            if id >= self.ids.size {
                let place = (self.at - self.start) / width;
                return Ok(self.bad(&format!(
                    "id {id} at place {place} is beyond the tokenizer's {} tokens: name the --tokenizer that the ids were \
                     made with",
                    self.ids.size
                )));
            }
            self.at += width;
            self.begins = self.ids.end == Some(id);
            if !self.begins {
                piece.ids.push(id);
            } else if !piece.ids.is_empty() || !piece.begins {
                break;
            }
        }
        piece.ends = self.begins || self.at == self.end;
        let is_over = piece.ids.is_empty() && (piece.begins || self.at == self.end && !self.begins);
        Ok(if is_over { NextIds::End } else { NextIds::Piece(piece) })
    }

    /// Says what is wrong, and leaves the rest of the file out.
    fn bad(&mut self, reason: &str) -> NextIds {
        if self.at == self.end {
            return NextIds::End;
        }
        self.at = self.end;
        NextIds::Bad(format!("{}: {reason}", self.path.display()))
    }

    /// Where the next call of [`TokenFile::next`] begins.
    pub fn at(&self) -> u64 {
        self.at
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece: its ids, whether it begins a document, and whether it ends one.
    type Part = (Vec<u32>, bool, bool);

    fn read(bytes: &[u8], ids: Ids, reopen: bool) -> (Vec<Part>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::fs::write(&path, bytes).unwrap();
        let (mut pieces, mut bad) = (vec![], vec![]);
        let mut file = TokenFile::open(&path, ids, 0).unwrap();
        loop {
            match file.next().unwrap() {
                NextIds::Piece(piece) => pieces.push((piece.ids, piece.begins, piece.ends)),
                NextIds::Bad(reason) => bad.push(reason.replace(&path.display().to_string(), "F")),
                NextIds::End => return (pieces, bad),
            }
            if reopen {
                file = TokenFile::open(&path, ids, file.at()).unwrap();
            }
        }
    }

    fn of(ids: &[u32], width: usize) -> Vec<u8> {
        ids.iter().flat_map(|id| id.to_le_bytes()[..width].to_vec()).collect()
    }

    #[test]
    fn documents_end_where_the_vocabulary_says_and_ids_stay_as_they_are() {
        let long: Vec<u32> = (0..PIECE_IDS as u32 + 5).map(|i| i % 99).collect();
        let all = [&[7, 8, 99, 99, 5, 99][..], &long, &[99, 3]].concat();
        for (width, bytes) in [(IdWidth::Two, 2), (IdWidth::Four, 4)] {
            let ids = Ids { width, size: 100, end: Some(99) };
            let mut header = vec![0; 1024];
            header[..4].copy_from_slice(&LLM_C_MAGICS[bytes / 4].to_le_bytes());
            for reopen in [false, true] {
                for head in [vec![], header.clone()] {
                    let (pieces, bad) = read(&[head, of(&all, bytes)].concat(), ids, reopen);
                    assert_eq!((&pieces[0], &pieces[1]), (&(vec![7, 8], true, true), &(vec![5], true, true)));
                    assert_eq!((pieces[2].0.as_slice(), pieces[2].1, pieces[2].2), (&long[..PIECE_IDS], true, false));
                    assert_eq!(pieces[3..], [(long[PIECE_IDS..].to_vec(), false, true), (vec![3], true, true)]);
                    assert!(bad.is_empty());
                }
            }
        }
        let whole = read(&of(&[1, 99, 2], 2), Ids { width: IdWidth::Two, size: 100, end: None }, true);
        assert_eq!(whole.0, [(vec![1, 99, 2], true, true)]);
    }

    #[test]
    fn what_is_no_id_is_named_and_a_document_of_one_piece_ends_once() {
        let ids = Ids { width: IdWidth::Two, size: 100, end: Some(99) };
        let (pieces, bad) = read(&of(&[1, 2, 99, 4, 100, 5], 2), ids, false);
        assert_eq!(pieces, [(vec![1, 2], true, true)]);
        assert!(
            bad[0].starts_with("F: id 100 at place 4 is beyond the tokenizer's 100 tokens: name the --tok"),
            "{bad:?}"
        );
        let (_, bad) = read(&[1, 0, 2], ids, false);
        assert!(bad.len() == 1 && bad[0].contains("no multiple of 2"), "{bad:?}");
        // The end of text stands right behind a full piece.
        let full: Vec<u32> = std::iter::repeat_n(1, PIECE_IDS).chain([99, 2]).collect();
        let pieces = read(&of(&full, 2), ids, false).0;
        let ends: Vec<_> = pieces.iter().map(|(ids, begins, ends)| (ids.len(), *begins, *ends)).collect();
        assert_eq!(ends, [(PIECE_IDS, true, false), (0, false, true), (1, true, true)]);
    }
}
