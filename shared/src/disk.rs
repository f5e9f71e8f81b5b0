//! The one way to write what must last. [`Disk`] is the seam: the real one writes files; the simulator's loses or tears
//! what was not synced.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Files under one root, named by relative paths with `/`. All calls block.
pub trait Disk: Send + Sync {
    /// The whole file; `None` if there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Up to `length` bytes from `offset`; fewer only at the file's end.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// The file's length; `None` if there is none.
    fn length(&self, name: &str) -> io::Result<Option<u64>>;
    /// Replaces the file as a whole: after a crash it holds the old bytes or the new, never a mix. Durable on return.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// As [`Disk::write`], and nobody but this user can read the file, not even while it is being written.
    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(name, bytes)
    }
    /// Writes at `offset`, creating the file. Not durable until [`Disk::sync`].
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Renames a synced file, replacing what was there. Durable on return.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of the files in a folder, without the folder; empty if there is none.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Where a file is, for a process that reads it by itself.
    fn path(&self, name: &str) -> PathBuf;
}

/// A folder of the file system.
pub struct FolderDisk {
    root: PathBuf,
}

impl FolderDisk {
    /// Opens a folder, creating it.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(FolderDisk { root })
    }

    /// The unfinished file is always made anew: one that a crash left would keep its rights, and a link that somebody laid
    /// in its place would lead the bytes elsewhere.
    fn replace(&self, name: &str, bytes: &[u8], options: &mut fs::OpenOptions) -> io::Result<()> {
        let path = self.with_folder(name)?;
        let unfinished = format!("{name}.new");
        self.remove(&unfinished)?;
        let mut file = options.write(true).create_new(true).open(self.path(&unfinished))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(self.path(&unfinished), &path)) {
            // The first error says more than what a full disk may say now.
            let _ = self.remove(&unfinished);
            return Err(error);
        }
        self.sync_folder_of(&path)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        // Windows has no way to sync a folder, and needs none: renames there are journaled.
        #[cfg(unix)]
        fs::File::open(path.parent().unwrap_or(&self.root))?.sync_all()?;
        let _ = path;
        Ok(())
    }

    fn with_folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(path)
    }
}

/// Turns "there is none" into `None`.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Disk for FolderDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        found(fs::read(self.path(name)))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(self.path(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(found(fs::metadata(self.path(name)))?.map(|m| m.len()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, bytes, &mut fs::OpenOptions::new())
    }

    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        self.replace(name, bytes, &mut options)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.with_folder(name)?;
        let mut file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        fs::File::open(&path)?.sync_all()?;
        self.sync_folder_of(&path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let to = self.with_folder(to)?;
        fs::rename(self.path(from), &to)?;
        self.sync_folder_of(&to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        found(fs::remove_file(self.path(name))).map(|_| ())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let Some(entries) = found(fs::read_dir(self.path(folder)))? else { return Ok(vec![]) };
        let mut names = vec![];
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_for_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(root.path()).unwrap();
        disk.write("key.new", b"left by a crash").unwrap();
        disk.write_private("key", b"secret").unwrap();
        assert_eq!(fs::metadata(disk.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(disk.read("key").unwrap(), Some(b"secret".to_vec()));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_unfinished_files_place_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(root.path().join("disk")).unwrap();
        let theirs = root.path().join("thesis");
        fs::write(&theirs, "dear").unwrap();
        std::os::unix::fs::symlink(&theirs, disk.path("journal.new")).unwrap();
        disk.write("journal", b"ours").unwrap();
        assert_eq!(fs::read(&theirs).unwrap(), b"dear");
        assert_eq!((disk.read("journal").unwrap(), disk.list("").unwrap()), (Some(b"ours".to_vec()), vec!["journal".into()]));
        fs::create_dir(disk.path("taken")).unwrap();
        assert!(disk.write("taken", b"x").is_err());
        assert_eq!(disk.length("taken.new").unwrap(), None, "a failed write leaves nothing behind");
    }

    #[test]
    fn a_folder_keeps_what_it_is_given() {
        let root = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(root.path().join("new")).unwrap();
        assert_eq!(disk.read("a").unwrap(), None);
        disk.write("deep/er/a", b"one").unwrap();
        disk.write("deep/er/a", b"two").unwrap();
        assert_eq!(disk.read("deep/er/a").unwrap(), Some(b"two".to_vec()));
        assert_eq!(disk.list("deep/er").unwrap(), ["a"]);
        disk.write_at("part", 0, b"hello").unwrap();
        disk.write_at("part", 3, b"p!").unwrap();
        disk.sync("part").unwrap();
        disk.rename("part", "deep/whole").unwrap();
        assert_eq!(disk.read_at("deep/whole", 2, 100).unwrap(), b"lp!");
        assert_eq!(disk.length("part").unwrap(), None);
        disk.remove("deep/whole").unwrap();
        disk.remove("deep/whole").unwrap();
        assert!(disk.list("nowhere").unwrap().is_empty());
    }
}
