//! Files over a pool of handles. A browser opens a file only by waiting for it, but reads and writes an open one at
//! once: so files are opened before they are needed, and a name is no more than what a file's [`Header`] says. To
//! rename, to remove and to replace is to write headers, in an order that leaves the old or the new after any crash.

use super::header::{HEADER_BYTES, Header, NAME_BYTES_MAX, PLACE_BYTES};
use std::{collections::BTreeMap, io};

/// An open file of the browser's storage, which nobody else can open meanwhile.
pub trait Handle {
    /// Its length.
    fn size(&self) -> io::Result<u64>;
    /// Fills `into` from `at`; fewer bytes only at the file's end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of them.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes it so long.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// Makes all that was written durable. What was not may be there after a crash, in part or not at all.
    fn flush(&self) -> io::Result<()>;
}

struct File<H> {
    handle: H,
    header: Header,
    /// Where the header was not written last.
    next_place: usize,
}

/// See the module.
pub struct Pool<H> {
    files: Vec<File<H>>,
    by_name: BTreeMap<String, usize>,
    free: Vec<usize>,
    /// Of the newest header.
    turn: u64,
}

impl<H> Default for Pool<H> {
    fn default() -> Self {
        Pool { files: vec![], by_name: BTreeMap::new(), free: vec![], turn: 0 }
    }
}

fn none(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"))
}

fn check(name: &str) -> io::Result<()> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no file's name here")))
}

impl<H: Handle> Pool<H> {
    /// Takes files as an earlier page left them, or empty ones.
    pub fn add(&mut self, handles: impl IntoIterator<Item = H>) -> io::Result<()> {
        for handle in handles {
            let mut places = vec![0; HEADER_BYTES as usize];
            let read = handle.read_at(0, &mut places)?;
            let found = Header::newest(&places[..read]);
            let next_place = found.as_ref().map_or(0, |(place, _)| 1 - place);
            let header = found.map(|(_, header)| header).unwrap_or_default();
            self.turn = self.turn.max(header.turn);
            self.files.push(File { handle, header, next_place });
            self.enter(self.files.len() - 1)?;
        }
        Ok(())
    }

    /// Takes a file by its header. Of two with one name, the earlier was replaced, and the page ended before it was
    /// released.
    fn enter(&mut self, new: usize) -> io::Result<()> {
        let Header { turn, name } = self.files[new].header.clone();
        if name.is_empty() {
            self.free.push(new);
            return Ok(());
        }
        match self.by_name.get(&name) {
            Some(&other) if self.files[other].header.turn > turn => self.release(new),
            Some(&other) => {
                self.by_name.insert(name, new);
                self.release(other)
            }
            None => {
                self.by_name.insert(name, new);
                Ok(())
            }
        }
    }

    /// Files that are nobody's.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Files in all.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    fn find(&self, name: &str) -> io::Result<&H> {
        let file = *self.by_name.get(name).ok_or_else(|| none(name))?;
        Ok(&self.files[file].handle)
    }

    /// Names a file; durable on return.
    fn label(&mut self, file: usize, name: &str) -> io::Result<()> {
        self.turn += 1;
        let header = Header { turn: self.turn, name: name.to_owned() };
        let File { handle, next_place, header: before } = &mut self.files[file];
        handle.write_at(*next_place as u64 * PLACE_BYTES, &header.encode())?;
        handle.flush()?;
        *next_place = 1 - *next_place;
        *before = header;
        Ok(())
    }

    /// Makes a file nobody's, and lets go of its bytes.
    fn release(&mut self, file: usize) -> io::Result<()> {
        self.label(file, "")?;
        self.free.push(file);
        self.files[file].handle.truncate(HEADER_BYTES)
    }

    /// An empty file that is nobody's yet.
    fn take(&mut self, name: &str) -> io::Result<usize> {
        check(name)?;
        let full = || io::Error::new(io::ErrorKind::StorageFull, "all files that were opened are in use");
        let file = self.free.pop().ok_or_else(full)?;
        // What a crash left behind.
        let emptied = self.files[file].handle.truncate(HEADER_BYTES);
        if emptied.is_err() {
            self.free.push(file);
        }
        emptied.map(|()| file)
    }

    /// Up to `length` bytes from `offset`.
    pub fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let handle = self.find(name)?;
        let left = handle.size()?.saturating_sub(HEADER_BYTES).saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(length)];
        let read = if bytes.is_empty() { 0 } else { handle.read_at(HEADER_BYTES + offset, &mut bytes)? };
        bytes.truncate(read);
        Ok(bytes)
    }

    /// A file's length; `None` if there is none.
    pub fn length(&self, name: &str) -> io::Result<Option<u64>> {
        match self.find(name) {
            Ok(handle) => Ok(Some(handle.size()?.saturating_sub(HEADER_BYTES))),
            Err(_) => Ok(None),
        }
    }

    /// Replaces a file as a whole; durable on return.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.take(name)?;
        let handle = &self.files[file].handle;
        if let Err(error) = handle.write_at(HEADER_BYTES, bytes).and_then(|()| handle.flush()) {
            self.free.push(file);
            return Err(error);
        }
        self.put(file, name)?.map_or(Ok(()), |replaced| self.release(replaced))
    }

    /// Gives a file its name. The one that had it before is still to be released. If this fails, whether the file has
    /// the name shows when files are opened the next time; until then what was counts.
    fn put(&mut self, file: usize, name: &str) -> io::Result<Option<usize>> {
        self.label(file, name)?;
        Ok(self.by_name.insert(name.to_owned(), file))
    }

    /// Writes at `offset`, creating the file.
    pub fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = match self.by_name.get(name) {
            Some(file) => *file,
            None => {
                let file = self.take(name)?;
                self.put(file, name)?;
                file
            }
        };
        self.files[file].handle.write_at(HEADER_BYTES + offset, bytes)
    }

    /// Makes a file's bytes durable.
    pub fn sync(&self, name: &str) -> io::Result<()> {
        self.find(name)?.flush()
    }

    /// Renames a synced file, replacing what was there; durable on return.
    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        check(to)?;
        let file = *self.by_name.get(from).ok_or_else(|| none(from))?;
        if from == to {
            return Ok(());
        }
        let replaced = self.put(file, to)?;
        self.by_name.remove(from);
        replaced.map_or(Ok(()), |replaced| self.release(replaced))
    }

    /// Removes a file, if it is there.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        match self.by_name.get(name) {
            Some(&file) => {
                self.release(file)?;
                self.by_name.remove(name);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Names of the files in a folder, without the folder.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let within = |name: &String| match folder {
            "" => Some(name.clone()),
            folder => Some(name.strip_prefix(folder)?.strip_prefix('/')?.to_owned()),
        };
        self.by_name.keys().filter_map(within).filter(|name| !name.contains('/')).collect()
    }
}

#[cfg(test)]
mod tests;
