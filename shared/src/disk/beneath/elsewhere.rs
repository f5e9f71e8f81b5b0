//! By paths, each looked at before it is used: systems without descriptors of folders. Compiled, not run. Whoever swaps
//! a folder for a link between the look and the use is not seen; the worker's folder is where that could be tried.

use super::{Access, Entry, Kind, no_way, not_plain};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A folder that was there when it was looked at.
pub(in super::super) struct Folder(PathBuf);

impl Folder {
    /// The root. Links on the way there are its owner's own.
    pub fn root(path: &Path) -> io::Result<Self> {
        if fs::metadata(path)?.is_dir() { Ok(Folder(path.to_owned())) } else { Err(no_way(path.as_os_str())) }
    }

    /// A folder in this one.
    pub fn enter(&self, name: &OsStr) -> io::Result<Folder> {
        match self.kind(name)? {
            Kind::Folder => Ok(Folder(self.0.join(name))),
            Kind::File { .. } | Kind::Other => Err(no_way(name)),
        }
    }

    /// Makes a folder in this one, if there is nothing of that name.
    pub fn make(&self, name: &OsStr) -> io::Result<()> {
        match fs::create_dir(self.0.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// Opens a plain file in it.
    pub fn open(&self, name: &OsStr, access: Access) -> io::Result<File> {
        match self.kind(name) {
            Ok(Kind::File { .. }) => {}
            Ok(Kind::Folder | Kind::Other) => return Err(not_plain(name)),
            Err(e) if e.kind() == io::ErrorKind::NotFound && access != Access::Read => {}
            Err(e) => return Err(e),
        }
        let mut options = fs::OpenOptions::new();
        match access {
            Access::Read => options.read(true),
            Access::Write => options.write(true).create(true).truncate(false),
            Access::New { .. } => options.write(true).create_new(true),
        };
        let file = options.open(self.0.join(name))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_plain(name)) }
    }

    /// What lies there under a name.
    pub fn kind(&self, name: &OsStr) -> io::Result<Kind> {
        let about = fs::symlink_metadata(self.0.join(name))?;
        Ok(if about.is_file() {
            Kind::File {
                bytes: about.len(),
                room: about.len(),
                changed: about.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            }
        } else if about.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        })
    }

    /// Up to `max` of what lies in it, in no order.
    pub fn entries(&self, max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = vec![];
        for entry in fs::read_dir(&self.0)?.take(max) {
            let name = entry?.file_name();
            match self.kind(&name) {
                Ok(kind) => entries.push(Entry { name, kind }),
                // It has gone meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    }

    /// Removes what is no folder; a link goes, not what it leads to.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        let path = self.0.join(name);
        // A link to a folder is removed as a folder is.
        fs::remove_file(&path)
            .or_else(|e| if fs::symlink_metadata(&path)?.is_symlink() { fs::remove_dir(&path) } else { Err(e) })
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_dir(self.0.join(name))
    }

    /// Gives what lies here under a name another, in another folder.
    pub fn rename(&self, name: &OsStr, to: &Folder, new: &OsStr) -> io::Result<()> {
        fs::rename(self.0.join(name), to.0.join(new))
    }

    /// Nothing to do: renames are journaled.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing to do: rights are inherited.
    pub fn unlock(&self) {}
}
