//! One file as UTF-8: uncompressed where it is gzip or zstd, decoded where it is UTF-16, without its byte order mark.
//! What a file is, its first bytes say; its name may be wrong.

use super::remote::{Bytes, Place};
use flate2::bufread::GzDecoder;
use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read, SeekFrom},
    rc::Rc,
};

/// Bytes that are looked at to tell how text is encoded.
const HEAD_BYTES: u64 = 8 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Longest window of zstd, as a power of two: what `zstd --long=31` writes. It takes as much memory.
const WINDOW_LOG_MAX: u32 = 31;
/// Fewest pairs of bytes from which UTF-16 without a mark can be told.
const UTF16_PAIRS_MIN: usize = 8;

/// A file, open at a place in its text.
pub struct Input {
    /// The text from there on, as UTF-8.
    pub text: Box<dyn BufRead>,
    /// Where the text begins: behind a mark that is left out.
    pub start: u64,
    /// Whether it had a byte order mark.
    pub marked: bool,
    /// Whether it was UTF-16.
    pub utf16: bool,
    /// Whether the place counts bytes of text rather than bytes of the file.
    pub changed: bool,
    /// Bytes of the file that were read so far.
    pub file_bytes: Rc<Cell<u64>>,
    /// Halves of characters that were replaced so far.
    pub lone: Rc<Cell<u64>>,
}

impl Input {
    /// Opens a file at a place: an offset in the file where its text stands there as it is, else one in the text.
    pub fn open(place: impl Into<Place>, at: u64) -> io::Result<Self> {
        let place = place.into();
        let file_bytes = Rc::new(Cell::new(0));
        let mut file = place.open()?;
        let mut magic = vec![];
        (&mut file).take(4).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        let counted =
            |file: Box<dyn Bytes>| BufReader::with_capacity(BUFFER_BYTES, Counted { file, bytes: file_bytes.clone() });
        let unpacked: Option<Box<dyn Read>> = match magic[..] {
            [0x1F, 0x8B, ..] => Some(Box::new(Members { member: Some(GzDecoder::new(counted(place.open()?))) })),
            // The second is how a frame that is to be skipped begins; parallel compressors write one first.
            [0x28, 0xB5, 0x2F, 0xFD] | [0x50..=0x5F, 0x2A, 0x4D, 0x18] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(counted(place.open()?))?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Some(Box::new(decoder))
            }
            _ => None,
        };
        let is_packed = unpacked.is_some();
        let mut bytes = unpacked.unwrap_or_else(|| Box::new(counted(file)));
        let mut head = vec![];
        (&mut bytes).take(HEAD_BYTES).read_to_end(&mut head)?;
        let (encoding, mark) = encoding_of(&head);
        let lone = Rc::new(Cell::new(0));
        let whole = |from: usize| {
            let mut head = io::Cursor::new(head);
            head.set_position(from as u64);
            head.chain(bytes)
        };
        let (text, start, changed): (Box<dyn BufRead>, u64, bool) = match encoding {
            Encoding::Utf16 { big_endian } => {
                let decoder =
                    Utf16 { bytes: whole(mark), big_endian, raw: vec![], text: vec![], at: 0, lone: lone.clone() };
                (Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)), 0, true)
            }
            Encoding::Utf8 if is_packed => (Box::new(BufReader::with_capacity(BUFFER_BYTES, whole(mark))), 0, true),
            Encoding::Utf8 => {
                let mut file = place.open()?;
                file.seek(SeekFrom::Start(at.max(mark as u64)))?;
                (Box::new(BufReader::with_capacity(BUFFER_BYTES, file)), mark as u64, false)
            }
        };
        let utf16 = matches!(encoding, Encoding::Utf16 { .. });
        let mut input = Input { text, start, marked: mark > 0, utf16, changed, file_bytes, lone };
        if input.changed {
            io::copy(&mut (&mut input.text).take(at), &mut io::sink())?;
            input.lone.set(0);
        }
        Ok(input)
    }

    /// Halves of characters that were replaced since this was asked last.
    pub fn take_lone(&self) -> u64 {
        self.lone.replace(0)
    }
}

/// Whether a failed read means that the file's content is damaged, rather than that it cannot be read.
pub fn is_damage(error: &io::Error) -> bool {
    // What the system says has a number. A missing file is told so without one.
    error.raw_os_error().is_none() && error.kind() != io::ErrorKind::NotFound
}

/// Counts what is read from a file.
struct Counted {
    file: Box<dyn Bytes>,
    bytes: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// The members of a gzip file, one after another; zeros behind the last are left out, as gzip itself does.
struct Members<R> {
    /// `None` at the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            loop {
                let more = rest.fill_buf()?;
                if more.is_empty() {
                    return Ok(0);
                }
                let zeros = more.iter().take_while(|byte| **byte == 0).count();
                let is_all = zeros == more.len();
                rest.consume(zeros);
                if !is_all {
                    break;
                }
            }
            self.member = Some(GzDecoder::new(rest));
        }
        Ok(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    Utf8,
    Utf16 { big_endian: bool },
}

/// How text is encoded that begins so, and the length of its byte order mark.
fn encoding_of(head: &[u8]) -> (Encoding, usize) {
    match head {
        [0xEF, 0xBB, 0xBF, ..] => (Encoding::Utf8, 3),
        [0xFF, 0xFE, ..] => (Encoding::Utf16 { big_endian: false }, 2),
        [0xFE, 0xFF, ..] => (Encoding::Utf16 { big_endian: true }, 2),
        // JSON begins with a bracket, and then with another character of ASCII.
        [b'{' | b'[', 0, next, 0, ..] if *next != 0 => (Encoding::Utf16 { big_endian: false }, 0),
        [0, b'{' | b'[', 0, next, ..] if *next != 0 => (Encoding::Utf16 { big_endian: true }, 0),
        _ if is_utf16(head, false) => (Encoding::Utf16 { big_endian: false }, 0),
        _ if is_utf16(head, true) => (Encoding::Utf16 { big_endian: true }, 0),
        _ => (Encoding::Utf8, 0),
    }
}

/// Whether bytes without a mark can only be UTF-16: most characters are of the first 256, each a whole one, and none is
/// a control character that text does not have.
fn is_utf16(head: &[u8], big_endian: bool) -> bool {
    let units: Vec<u16> = units_of(head, big_endian).collect();
    let narrow = units.iter().filter(|unit| (1..256).contains(*unit)).count();
    let is_text = |c: &char| !c.is_control() || c.is_ascii_whitespace();
    units.len() >= UTF16_PAIRS_MIN
        && narrow * 10 >= units.len() * 4
        && char::decode_utf16(units[..units.len() - 1].iter().copied()).all(|c| c.is_ok_and(|c| is_text(&c)))
}

fn units_of(bytes: &[u8], big_endian: bool) -> impl Iterator<Item = u16> + '_ {
    let of = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
    bytes.chunks_exact(2).map(move |pair| of([pair[0], pair[1]]))
}

/// UTF-16 as UTF-8; a half of a character without its other half becomes U+FFFD and is counted.
struct Utf16<R> {
    bytes: R,
    big_endian: bool,
    /// Read, but not decoded yet: half of a pair, or the first pair of two.
    raw: Vec<u8>,
    text: Vec<u8>,
    /// What was given out of `text`.
    at: usize,
    lone: Rc<Cell<u64>>,
}

impl<R: Read> Utf16<R> {
    /// Decodes more; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let read = (&mut self.bytes).take(BUFFER_BYTES as u64).read_to_end(&mut self.raw)?;
        if self.raw.is_empty() {
            return Ok(false);
        }
        let mut whole = self.raw.len() / 2 * 2;
        let last = units_of(&self.raw[..whole], self.big_endian).last();
        if read > 0 && last.is_some_and(|unit| (0xD800..0xDC00).contains(&unit)) {
            whole -= 2;
        }
        let mut text = String::with_capacity(whole * 2);
        let mut replaced = 0;
        for c in char::decode_utf16(units_of(&self.raw[..whole], self.big_endian)) {
            replaced += u64::from(c.is_err());
            text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if read == 0 && self.raw.len() > whole {
            text.push(char::REPLACEMENT_CHARACTER);
            replaced += 1;
            whole = self.raw.len();
        }
        self.raw.drain(..whole);
        self.lone.set(self.lone.get() + replaced);
        (self.text, self.at) = (text.into_bytes(), 0);
        Ok(true)
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() {
            if !self.fill()? {
                return Ok(0);
            }
        }
        let read = (&self.text[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn utf16(text: &str, big_endian: bool, mark: bool) -> Vec<u8> {
        let mark = mark.then_some(0xFEFF);
        mark.into_iter()
            .chain(text.encode_utf16())
            .flat_map(|u| if big_endian { u.to_be_bytes() } else { u.to_le_bytes() })
            .collect()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_wrapping_gives_the_same_text_from_every_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let text = "Zwölf Boxkämpfer 🥊 jagen Viktor. ".repeat(20_000);
        let (first, second) = text.as_bytes().split_at(333_333);
        let members = [gz(first), gz(second)].concat();
        let zstd_frames = [zstd::bulk::compress(first, 1).unwrap(), zstd::bulk::compress(second, 1).unwrap()].concat();
        let marked = [b"\xEF\xBB\xBF", text.as_bytes()].concat();
        let all = [
            text.clone().into_bytes(),
            marked.clone(),
            members,
            gz(&marked),
            zstd_frames,
            utf16(&text, false, true),
            utf16(&text, true, true),
            utf16(&text, false, false),
            utf16(&text, true, false),
            gz(&utf16(&text, true, true)),
        ];
        for (i, bytes) in all.iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            for at in [0, 1, 300_000] {
                let mut input = Input::open(&path, at).unwrap();
                let skipped = if input.changed { at as usize } else { (at.max(input.start) - input.start) as usize };
                let mut read = vec![];
                input.text.read_to_end(&mut read).unwrap();
                assert!(read == text.as_bytes()[skipped..], "kind {i} from {at}");
                assert_eq!((input.take_lone(), input.marked), (0, [1, 3, 5, 6, 9].contains(&i)));
            }
        }
    }

    #[test]
    fn halves_of_characters_are_replaced_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut bytes = utf16("a", false, true);
        bytes.extend([0x00, 0xD8, b'b', 0, 0x01, 0xDC, b'c', 0, b'd']);
        std::fs::write(&path, bytes).unwrap();
        let mut input = Input::open(&path, 0).unwrap();
        let mut text = String::new();
        input.text.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), input.take_lone()), ("a\u{FFFD}b\u{FFFD}c\u{FFFD}", 3));
    }

    #[test]
    fn tokens_of_two_bytes_are_not_taken_for_utf16() {
        let bytes: Vec<u8> = (0..4000u16).flat_map(|i| (i * 7 % 65).to_le_bytes()).collect();
        assert_eq!(encoding_of(&bytes), (Encoding::Utf8, 0));
        let bytes: Vec<u8> = (0..4000u16).flat_map(|i| (i * 7 % 256).to_le_bytes()).collect();
        assert_eq!(encoding_of(&bytes), (Encoding::Utf8, 0));
        assert_eq!(encoding_of("plain text of eight bytes and more".as_bytes()), (Encoding::Utf8, 0));
    }

    #[test]
    fn what_other_programs_read_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut read = vec![];
            Input::open(&path, 0).and_then(|mut input| input.text.read_to_end(&mut read)).map(|_| read)
        };
        // Zeros fill up the last block of a tape, and of some downloads.
        let (one, two) = (gz(&[b'x'; 1000]), gz(&[b'y'; 1000]));
        assert_eq!(read(&[&one[..], &[0; 700]].concat()).unwrap(), [b'x'; 1000]);
        assert_eq!(read(&[&one[..], &two, &[0; 3]].concat()).unwrap().len(), 2000);
        assert!(read(&[&one[..], b"\0\0garbage"].concat()).is_err());
        // A long window.
        let mut encoder = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
        encoder.window_log(30).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(&[b'z'; 300_000]).unwrap();
        assert_eq!(read(&encoder.finish().unwrap()).unwrap().len(), 300_000);
    }

    #[test]
    fn a_cut_off_file_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for bytes in [gz(&[b'x'; 100_000]), zstd::bulk::compress(&[b'x'; 100_000], 1).unwrap()] {
            std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
            let error = Input::open(&path, 0).and_then(|mut i| i.text.read_to_end(&mut vec![])).unwrap_err();
            assert!(is_damage(&error), "{error:?}");
        }
        assert!(!is_damage(&Input::open(&folder.path().join("none"), 0).err().unwrap()));
    }
}
