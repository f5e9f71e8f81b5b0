//! By descriptors: each folder is opened from the one before it, so that nobody can put another in its place meanwhile.

use super::{Access, Entry, Kind, no_way, not_plain};
use rustix::{
    fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    time::{Duration, SystemTime},
};

/// A folder that is only passed through: that takes no right to read it.
#[cfg(target_os = "linux")]
const WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const WAY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A pipe must not keep whoever opens it, nor a terminal become theirs.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What a file takes of the disk: its length, or what was set aside for it beyond that.
fn room(bytes: u64, blocks: u64) -> u64 {
    /// Blocks are larger than what is in them, and a file has some that tell where the others are.
    const ROUNDING: u64 = 64 << 10;
    let held = blocks.saturating_mul(512);
    if held > bytes.saturating_add(ROUNDING) { held } else { bytes }
}

/// An open folder.
pub(in super::super) struct Folder(OwnedFd);

impl Folder {
    /// The root. Links on the way there are its owner's own.
    pub fn root(path: &Path) -> io::Result<Self> {
        Ok(Folder(fs::openat(CWD, path, WAY, Mode::empty())?))
    }

    /// A folder in this one.
    pub fn enter(&self, name: &OsStr) -> io::Result<Folder> {
        match fs::openat(&self.0, name, WAY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(folder) => Ok(Folder(folder)),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(no_way(name)),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a folder in this one, if there is nothing of that name.
    pub fn make(&self, name: &OsStr) -> io::Result<()> {
        match fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens a plain file in it.
    pub fn open(&self, name: &OsStr, access: Access) -> io::Result<File> {
        let (flags, mode) = match access {
            Access::Read => (OFlags::RDONLY, 0),
            Access::Write => (OFlags::WRONLY | OFlags::CREATE, 0o666),
            Access::New { private } => {
                (OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, if private { 0o600 } else { 0o666 })
            }
        };
        let file = match fs::openat(&self.0, name, flags | FILE, Mode::from_raw_mode(mode)) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::NXIO) => return Err(not_plain(name)),
            Err(e) => return Err(e.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(not_plain(name));
        }
        Ok(file)
    }

    /// What lies there under a name.
    pub fn kind(&self, name: &OsStr) -> io::Result<Kind> {
        let about = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => Kind::File {
                bytes: u64::try_from(about.st_size).unwrap_or(0),
                room: room(u64::try_from(about.st_size).unwrap_or(0), u64::try_from(about.st_blocks).unwrap_or(0)),
                changed: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(about.st_mtime).unwrap_or(0)),
            },
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        })
    }

    /// Up to `max` of what lies in it, in no order.
    pub fn entries(&self, max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = vec![];
        for entry in Dir::new(self.readable()?)? {
            let name = OsString::from(OsStr::from_bytes(entry?.file_name().to_bytes()));
            if name == "." || name == ".." {
                continue;
            }
            match self.kind(&name) {
                Ok(kind) => entries.push(Entry { name, kind }),
                // It has gone meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            if entries.len() >= max {
                break;
            }
        }
        Ok(entries)
    }

    /// Removes what is no folder; a link goes, not what it leads to.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Gives what lies here under a name another, in another folder.
    pub fn rename(&self, name: &OsStr, to: &Folder, new: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(&self.0, name, &to.0, new)?)
    }

    /// Makes names in it durable.
    pub fn sync(&self) -> io::Result<()> {
        File::from(self.readable()?).sync_all()
    }

    /// Lets its owner look into it and change it, whatever somebody has forbidden.
    pub fn unlock(&self) {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let this = format!("/proc/self/fd/{}", self.0.as_raw_fd());
            // What it stays closed to is refused when it is tried.
            let _ = fs::chmod(this, Mode::from_raw_mode(0o700));
        }
    }

    fn readable(&self) -> io::Result<OwnedFd> {
        Ok(fs::openat(&self.0, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }
}
