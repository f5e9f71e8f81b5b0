//! A CSV file: one number a line.

use super::{Point, Seen, Sink, TrackError};
use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// The first line, by which the file is known.
const HEAD: &str = "unix_ms,version,tokens,name,value\n";

/// See the module.
pub struct Csv {
    path: PathBuf,
    file: File,
}

impl Csv {
    /// Opens the file, or makes it; a last line that was cut off is removed.
    pub fn open(path: &Path) -> Result<(Self, Seen), TrackError> {
        let io = || TrackError::io(path);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(TrackError::io(folder))?;
        }
        let options = OpenOptions::new().read(true).append(true).create(true).clone();
        let mut file = options.open(path).map_err(io())?;
        let (seen, whole_bytes) =
            read(&file).map_err(io())?.ok_or_else(|| TrackError::Foreign { path: path.into() })?;
        file.set_len(whole_bytes).map_err(io())?;
        if whole_bytes == 0 {
            file.write_all(HEAD.as_bytes()).map_err(io())?;
        }
        Ok((Csv { path: path.into(), file }, seen))
    }
}

/// What a file has, and how many of its bytes are whole lines; `None` if it is another file.
fn read(file: &File) -> io::Result<Option<(Seen, u64)>> {
    let (mut lines, mut seen, mut bytes) = (BufReader::new(file), Seen::new(), 0);
    let mut line = vec![];
    loop {
        line.clear();
        lines.by_ref().take(4096).read_until(b'\n', &mut line)?;
        if bytes == 0 && !HEAD.as_bytes().starts_with(&line) {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Ok(Some((seen, bytes)));
        }
        bytes += line.len() as u64;
        let text = String::from_utf8_lossy(&line);
        let mut cells = text.split(',').skip(2);
        if let (Some(Ok(tokens)), Some(name)) = (cells.next().map(str::parse), cells.next()) {
            seen.insert((name.to_owned(), tokens));
        }
    }
}

impl Sink for Csv {
    fn add(&mut self, points: &[Point]) -> io::Result<()> {
        let mut lines = String::new();
        for Point { at, version, tokens, name, value } in points {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{},{version},{tokens},{name},{value}", at.unix_ms);
        }
        self.file.write_all(lines.as_bytes())
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}
