//! The one way to write what must last. [`Disk`] is the seam: the real one writes files; the simulator's loses or tears
//! what was not synced.

mod beneath;
mod folder_syncs;
mod tree;

pub use tree::{Found, Walk};

use beneath::{Access, Folder, Kind};
use folder_syncs::FolderSyncs;
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Component, Path, PathBuf},
    time::SystemTime,
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
    /// Makes the bytes of a file durable whose name is not to last: it is renamed next.
    fn sync_bytes(&self, name: &str) -> io::Result<()> {
        self.sync(name)
    }
    /// Renames a synced file, replacing what was there. Durable on return.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of the files in a folder, without the folder; empty if there is none.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Removes all that lies in a folder but files of these names: files, links, and folders with all that is in them.
    fn clear(&self, folder: &str, keep: &[&str]) -> io::Result<()> {
        for name in self.list(folder)?.iter().filter(|name| !keep.contains(&name.as_str())) {
            self.remove(&join(folder, name))?;
        }
        Ok(())
    }
    /// The files below a folder, at any depth that makes sense.
    fn walk(&self, folder: &str) -> io::Result<Walk> {
        let mut walk = Walk::default();
        for name in self.list(folder)? {
            let name = join(folder, &name);
            if let Some(bytes) = self.length(&name)? {
                walk.entries += 1;
                walk.files.push(Found { name, bytes, changed: SystemTime::UNIX_EPOCH });
            }
        }
        Ok(walk)
    }
    /// When a file was changed last; `None` if there is none, or nobody knows.
    fn changed(&self, _name: &str) -> io::Result<Option<SystemTime>> {
        Ok(None)
    }
    /// Where a file is, for a process that reads it by itself.
    fn path(&self, name: &str) -> PathBuf;
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A folder of the file system. Whoever else writes in it, no name and no link leads out of it: names are relative and
/// plain, and links in it are not followed. The way to the folder itself may be one.
pub struct FolderDisk {
    root: PathBuf,
    syncs: FolderSyncs,
}

impl FolderDisk {
    /// Opens a folder, creating it.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(FolderDisk { root, syncs: FolderSyncs::default() })
    }

    /// Opens a file that somebody wrote who is not trusted: a plain file with this name alone, of this length. `None`
    /// if there is none. Its bytes may still change while they are read.
    pub fn open_foreign(&self, name: &str, bytes: u64) -> io::Result<Option<fs::File>> {
        let file = found(self.find(name).and_then(|(folder, last)| folder.open(last.as_ref(), Access::Read)))?;
        let Some(file) = file else { return Ok(None) };
        let about = file.metadata()?;
        if about.len() != bytes {
            return Err(beneath::of_another_length(name, about.len(), bytes));
        }
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::nlink(&about) > 1 {
            return Err(beneath::second_name(name));
        }
        Ok(Some(file))
    }

    /// The folder that a file is in, and its name there.
    fn find<'n>(&self, name: &'n str) -> io::Result<(Folder, &'n str)> {
        let (way, last) = beneath::parts(name)?;
        Ok((beneath::find(&self.root, &way)?, last))
    }

    /// The same, and makes the folder.
    fn make<'n>(&self, name: &'n str) -> io::Result<(Folder, &'n str)> {
        let (way, last) = beneath::parts(name)?;
        Ok((beneath::make(&self.root, &way)?, last))
    }

    fn replace(&self, name: &str, bytes: &[u8], private: bool) -> io::Result<()> {
        let (folder, last) = self.make(name)?;
        let temporary = format!("{last}.new");
        // One left by a crash would keep the rights that it has, and a link would lead elsewhere.
        found(folder.remove(temporary.as_ref()))?;
        let mut file = folder.open(temporary.as_ref(), Access::New { private })?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| folder.rename(temporary.as_ref(), &folder, last.as_ref())) {
            // The first error says more than what a full disk may say now.
            let _ = folder.remove(temporary.as_ref());
            return Err(error);
        }
        folder.sync()
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
        let file = found(self.find(name).and_then(|(folder, last)| folder.open(last.as_ref(), Access::Read)))?;
        let Some(mut file) = file else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (folder, last) = self.find(name)?;
        let mut file = folder.open(last.as_ref(), Access::Read)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        let kind = found(self.find(name).and_then(|(folder, last)| Ok((folder.kind(last.as_ref())?, last))))?;
        match kind {
            None => Ok(None),
            Some((Kind::File { bytes, .. }, _)) => Ok(Some(bytes)),
            Some((Kind::Folder | Kind::Other, last)) => Err(beneath::not_plain(last.as_ref())),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, bytes, false)
    }

    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, bytes, true)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (folder, last) = self.make(name)?;
        let mut file = folder.open(last.as_ref(), Access::Write)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let (folder, last) = self.find(name)?;
        folder.open(last.as_ref(), SYNC)?.sync_all()?;
        folder.sync()
    }

    fn sync_bytes(&self, name: &str) -> io::Result<()> {
        let (folder, last) = self.find(name)?;
        folder.open(last.as_ref(), SYNC)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (folder, last) = self.find(from)?;
        let (new_folder, new) = self.make(to)?;
        folder.rename(last.as_ref(), &new_folder, new.as_ref())?;
        self.syncs.sync(to.rsplit_once('/').map_or("", |(folder, _)| folder), || new_folder.sync())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        found(self.find(name).and_then(|(folder, last)| folder.remove(last.as_ref()))).map(|_| ())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let way = beneath::folders(folder)?;
        let entries = found(beneath::find(&self.root, &way).and_then(|folder| folder.entries(usize::MAX)))?;
        let files = entries.unwrap_or_default().into_iter().filter(|entry| matches!(entry.kind, Kind::File { .. }));
        let mut names: Vec<String> = files.filter_map(|entry| entry.name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn clear(&self, folder: &str, keep: &[&str]) -> io::Result<()> {
        tree::clear(&self.root, folder, keep)
    }

    fn walk(&self, folder: &str) -> io::Result<Walk> {
        tree::walk(&self.root, folder)
    }

    fn changed(&self, name: &str) -> io::Result<Option<SystemTime>> {
        found(
            self.find(name).and_then(|(folder, last)| folder.open(last.as_ref(), Access::Read)?.metadata()?.modified()),
        )
    }

    /// Beneath the root, whatever the name: what would lead out of it is left out.
    fn path(&self, name: &str) -> PathBuf {
        let parts = Path::new(name).components().filter(|part| matches!(part, Component::Normal(_)));
        parts.fold(self.root.clone(), |path, part| path.join(part))
    }
}

/// A system that syncs what was opened for writing only must be given that.
const SYNC: Access = if cfg!(unix) { Access::Read } else { Access::Write };

#[cfg(all(test, unix))]
mod hostile_tests;

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
        assert_eq!(
            (disk.read("journal").unwrap(), disk.list("").unwrap()),
            (Some(b"ours".to_vec()), vec!["journal".into()])
        );
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
