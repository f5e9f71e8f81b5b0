//! The device's home folder: where everything it must remember lies. One process at a time uses it.

use nightjar_shared::disk::{Disk, FolderDisk};
use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The variable that names another home folder.
pub const HOME_VARIABLE: &str = "NIGHTJAR_HOME";

/// A home folder.
#[derive(Clone)]
pub struct Home {
    folder: PathBuf,
    disk: Arc<FolderDisk>,
}

/// A home folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The system names no folder for a program's data.
    #[error("this system names no folder for a program's data; choose one with --home DIR")]
    Nowhere,
    /// It cannot be made or opened.
    #[error("cannot use the home folder {folder} ({source}); choose another with --home DIR")]
    Open {
        /// Which.
        folder: String,
        /// The disk's words.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("nightjar is running already with the home folder {folder}; `nightjar status` shows it")]
    InUse {
        /// Which.
        folder: String,
    },
}

/// Held while a process uses the home folder; the system lets go of it however the process ends.
pub struct HomeLock {
    _file: File,
}

impl Home {
    /// Opens a home folder, creating it: the one given, or the user's.
    pub fn open(given: Option<PathBuf>) -> Result<Self, HomeError> {
        let folder = match given {
            Some(folder) => folder,
            None => directories::ProjectDirs::from("", "", "nightjar").ok_or(HomeError::Nowhere)?.data_dir().to_path_buf(),
        };
        let error = |source| HomeError::Open { folder: folder.display().to_string(), source };
        // The worker and the command line may have other working folders.
        let folder = std::path::absolute(&folder).map_err(error)?;
        let disk = FolderDisk::open(&folder).map_err(error)?;
        Ok(Home { folder, disk: Arc::new(disk) })
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The seam through which what must last is written.
    pub fn disk(&self) -> Arc<FolderDisk> {
        self.disk.clone()
    }

    /// Takes the folder for this process alone.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let folder = || self.folder.display().to_string();
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.path("lock"));
        let file = file.map_err(|source| HomeError::Open { folder: folder(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(HomeLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(HomeError::InUse { folder: folder() }),
            Err(TryLockError::Error(source)) => Err(HomeError::Open { folder: folder(), source }),
        }
    }

    /// Replaces a file that only this user may read, atomically.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_private(name, bytes)
    }
}

/// The folder that the environment names, if any.
pub fn folder_from_environment() -> Option<PathBuf> {
    std::env::var_os(HOME_VARIABLE).filter(|v: &OsString| !v.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let lock = home.lock().unwrap();
        let told = home.lock().map(|_| ()).unwrap_err().to_string();
        assert!(told.contains("running already"), "{told}");
        drop(lock);
        home.lock().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().into())).unwrap();
        home.write_private("key", b"one").unwrap();
        home.write_private("key", b"two").unwrap();
        assert_eq!(fs::read(home.path("key")).unwrap(), b"two");
        assert_eq!(fs::metadata(home.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
