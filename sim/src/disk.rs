//! A disk that can lose power: what was written but not synced is, after [`SimDisk::crash`], gone, whole or torn, as
//! the seed decides.

use nightjar_shared::{disk::Disk, rng};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A file as programs see it, and as it would be found after a power cut.
#[derive(Default)]
struct File {
    seen: Vec<u8>,
    unsynced: Option<Durable>,
}

/// What is durable of a file with unsynced bytes: `None` if it would not be there.
type Durable = Option<Vec<u8>>;

/// Files in memory, with their durable state apart.
#[derive(Default)]
pub struct SimDisk {
    files: Mutex<BTreeMap<String, File>>,
}

impl SimDisk {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power. Of a file with unsynced bytes, one of three is found afterwards: what was durable, all that was
    /// written, or a torn mixture of the two.
    pub fn crash(&self, seed: u64) {
        let mut files = self.files();
        let mut draw = (0..).map(|i| rng::draw(seed, rng::stream::SIM, i));
        let mut next = || draw.next().unwrap_or_default();
        files.retain(|_, file| {
            let Some(durable) = file.unsynced.take() else { return true };
            let was_there = durable.is_some();
            let old = durable.unwrap_or_default();
            match next() % 3 {
                0 => file.seen = old,
                1 => {}
                _ => {
                    let torn_at = next() as usize % (file.seen.len() + 1);
                    file.seen.truncate(torn_at);
                    file.seen.extend(old.get(torn_at..).unwrap_or_default());
                }
            }
            was_there || !file.seen.is_empty()
        });
    }
}

impl SimDisk {
    /// Looks at a file's bytes where they lie; `None` if there is no such file.
    pub fn with<T>(&self, name: &str, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.files().get(name).map(|f| look(&f.seen))
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.files().values().map(|f| f.seen.len() as u64).sum()
    }
}

fn none(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl Disk for SimDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().get(name).map(|f| f.seen.clone()))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let files = self.files();
        let rest = files.get(name).ok_or_else(|| none(name))?.seen.get(offset as usize..).unwrap_or_default();
        Ok(rest[..rest.len().min(length)].to_vec())
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.files().get(name).map(|f| f.seen.len() as u64))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files().insert(name.to_owned(), File { seen: bytes.to_vec(), unsynced: None });
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files();
        let is_new = !files.contains_key(name);
        let File { seen, unsynced } = files.entry(name.to_owned()).or_default();
        if unsynced.is_none() {
            *unsynced = Some((!is_new).then(|| seen.clone()));
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if seen.len() < end {
            seen.resize(end, 0);
        }
        seen[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.get_mut(name).ok_or_else(|| none(name))?;
        file.unsynced = None;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or_else(|| none(from))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        let files = self.files();
        let inside = files.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(inside.filter(|rest| !rest.contains('/')).map(str::to_owned).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        // Nowhere: who looks there for files that do not go through the seam must not find this computer's.
        Path::new("/dev/null").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_spares_what_was_synced_and_only_that() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::default();
            disk.write("safe", b"safe").unwrap();
            disk.write_at("loose", 0, b"0123456789").unwrap();
            disk.crash(seed);
            assert_eq!(disk.read("safe").unwrap().as_deref(), Some(&b"safe"[..]));
            match disk.read("loose").unwrap() {
                None => lost += 1,
                Some(bytes) if bytes == b"0123456789" => kept += 1,
                Some(bytes) => {
                    assert!(b"0123456789".starts_with(&bytes));
                    torn += 1;
                }
            }
        }
        assert!(kept > 30 && lost > 30 && torn > 30, "{kept} {lost} {torn}");
    }

    #[test]
    fn it_behaves_like_a_folder() {
        let disk = SimDisk::default();
        disk.write_at("in/x", 2, b"b").unwrap();
        assert_eq!(disk.read("in/x").unwrap().as_deref(), Some(&[0, 0, b'b'][..]));
        disk.sync("in/x").unwrap();
        disk.rename("in/x", "out/y").unwrap();
        disk.crash(1);
        assert_eq!(disk.list("out").unwrap(), ["y"]);
        assert_eq!(disk.read_at("out/y", 1, 9).unwrap(), [0, b'b']);
        assert!(disk.read_at("nowhere", 0, 1).is_err());
    }
}
