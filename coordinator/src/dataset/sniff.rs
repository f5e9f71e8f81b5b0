//! Records under a name that does not tell of them: many call a file of JSON lines .txt, .log, or nothing at all.

use super::{
    input::{Input, is_damage},
    json::skip_space,
    source::Format,
};
use serde::de::IgnoredAny;
use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
    path::Path,
};

/// Lines that are looked at.
const LINES: usize = 8;
/// Fewest of them; one object by itself describes something.
const LINES_MIN: usize = 2;
/// Most bytes of them.
const BYTES_MAX: u64 = 1 << 20;

/// How a file's records are laid out, where it holds records: its first lines are all JSON objects, or it begins as an
/// array of them does.
pub fn records(path: &Path) -> io::Result<Option<Format>> {
    match look(path) {
        // Whoever reads it tells of it.
        Err(error) if is_damage(&error) => Ok(None),
        found => found,
    }
}

fn look(path: &Path) -> io::Result<Option<Format>> {
    let mut text = Input::open(path, 0)?.text.take(BYTES_MAX);
    match skip_space(&mut text)?.1 {
        Some(b'{') => Ok(has_lines(&mut text)?.then_some(Format::JsonLines)),
        Some(b'[') => Ok(has_array(&mut text)?.then_some(Format::Json)),
        _ => Ok(None),
    }
}

fn has_lines(text: &mut io::Take<Box<dyn BufRead>>) -> io::Result<bool> {
    let mut objects = 0;
    let mut line = vec![];
    while objects < LINES {
        line.clear();
        let read = text.read_until(b'\n', &mut line)?;
        let is_cut_off = text.limit() == 0 && line.last() != Some(&b'\n');
        if read == 0 || is_cut_off {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&line).is_err() {
            return Ok(false);
        }
        objects += 1;
    }
    Ok(objects >= LINES_MIN)
}

fn has_array(text: &mut dyn BufRead) -> io::Result<bool> {
    for wanted in [b'[', b'{', b'"'] {
        if skip_space(text)?.1 != Some(wanted) {
            return Ok(false);
        }
        text.consume(1);
    }
    Ok(true)
}
