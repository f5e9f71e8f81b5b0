//! An event file of TensorBoard: records of a length and its check, then an event and its check. A record that a kill
//! cut off is removed with the next start. The steps are tokens, so that runs can be laid over each other.

use super::{Point, Seen, Sink, TrackError};
use nightjar_shared::time::Wall;
use prost::Message;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// Longest event that is read. Those that are written here have a few hundred bytes.
const EVENT_BYTES_MAX: u64 = 1 << 20;
/// What the first event says.
const FILE_VERSION: &str = "brain.Event:2";

/// tensorflow/core/util/event.proto, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// See the module.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Opens a run's file in a folder, or makes it. `begun` is part of a new file's name.
    pub fn open(folder: &Path, run: &str, begun: Wall) -> Result<(Self, Seen), TrackError> {
        fs::create_dir_all(folder).map_err(TrackError::io(folder))?;
        let end = format!(".{run}.nightjar");
        let begin = "events.out.tfevents.";
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let names = entries.map_err(TrackError::io(folder))?.into_iter().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.starts_with(begin) && name.ends_with(&end));
        names.sort();
        let name = names.pop().unwrap_or_else(|| format!("{begin}{:010}{end}", begun.unix_ms / 1000));
        let path = folder.join(name);
        let io = || TrackError::io(&path);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(io())?;
        let (seen, whole_bytes) = read(&file).map_err(io())?;
        file.set_len(whole_bytes).map_err(io())?;
        if whole_bytes == 0 {
            let version = Some(FILE_VERSION.to_owned());
            let event = Event { wall_time: seconds(begun), file_version: version, ..Event::default() };
            file.write_all(&record(&event)).map_err(io())?;
        }
        Ok((TensorBoard { path, file }, seen))
    }
}

impl Sink for TensorBoard {
    fn add(&mut self, points: &[Point]) -> io::Result<()> {
        let mut records = vec![];
        for Point { at, tokens, name, value, .. } in points {
            let value = Value { tag: (*name).to_owned(), simple_value: Some(*value as f32) };
            records.extend(record(&Event {
                wall_time: seconds(*at),
                step: i64::try_from(*tokens).unwrap_or(i64::MAX),
                file_version: None,
                summary: Some(Summary { values: vec![value] }),
            }));
        }
        self.file.write_all(&records)
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

fn seconds(at: Wall) -> f64 {
    at.unix_ms as f64 / 1e3
}

/// What a file has, and how many of its bytes are whole records.
fn read(file: &File) -> io::Result<(Seen, u64)> {
    let (mut reader, mut seen, mut bytes) = (BufReader::new(file), Seen::new(), 0);
    while let Some(event) = next(&mut reader)? {
        bytes += 16 + event.len() as u64;
        let Ok(event) = Event::decode(event.as_slice()) else { continue };
        for value in event.summary.into_iter().flat_map(|summary| summary.values) {
            seen.insert((value.tag, event.step.unsigned_abs()));
        }
    }
    Ok((seen, bytes))
}

/// The next event's bytes; `None` where no whole one follows.
fn next(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut part = |length: u64| -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![];
        reader.take(length).read_to_end(&mut bytes)?;
        let (content, check) = bytes.split_at(bytes.len().saturating_sub(4));
        let is_whole = bytes.len() as u64 == length && check == masked(content).to_le_bytes();
        Ok(is_whole.then(|| content.to_vec()))
    };
    let Some(length) = part(12)? else { return Ok(None) };
    let length = length.as_slice().try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    if length > EVENT_BYTES_MAX { Ok(None) } else { part(length + 4) }
}

fn record(event: &Event) -> Vec<u8> {
    let event = event.encode_to_vec();
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), &event, &masked(&event).to_le_bytes()].concat()
}

/// CRC-32C by its table (Castagnoli's polynomial, reflected).
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ crc >> 8)
}

/// The check of a record, which is stored turned, so that a check of a check is not its own.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_those_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }
}
