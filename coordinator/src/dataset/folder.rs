//! The output folder: whose it is, and how far it is.

use super::{error::DatasetError, journal::JOURNAL};
use nightjar_shared::disk::{Disk, FolderDisk};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

/// The plan's file within the output folder.
pub const PLAN: &str = "prepare.json";

/// What an output folder holds of a plan.
#[derive(PartialEq)]
pub enum Found {
    /// Nothing that would be lost: a run with another plan may have failed before its first checkpoint.
    Nothing,
    /// A beginning.
    Begun,
    /// All of it.
    Done,
}

/// Looks what the output folder holds; an error if it holds something else.
pub fn find(disk: &FolderDisk, out: &Path, plan: &[u8]) -> Result<Found, DatasetError> {
    let exists = |name: &str| Ok(disk.length(name).map_err(DatasetError::io(disk.path(name)))?.is_some());
    match disk.read(PLAN).map_err(DatasetError::io(disk.path(PLAN)))? {
        Some(found) if found == plan => Ok(if exists("manifest.json")? { Found::Done } else { Found::Begun }),
        Some(_) if exists("manifest.json")? || exists(JOURNAL)? => Err(DatasetError::Changed { out: out.to_owned() }),
        None if holds_anything_else(out)? => Err(DatasetError::Foreign { out: out.to_owned() }),
        _ => Ok(Found::Nothing),
    }
}

/// Whether a folder without a plan holds more than what a run makes before it writes one.
fn holds_anything_else(out: &Path) -> Result<bool, DatasetError> {
    let ours = [format!("{PLAN}.new"), "work".to_owned()];
    let mut entries = fs::read_dir(out).map_err(DatasetError::io(out))?.flatten();
    Ok(entries.any(|entry| !ours.iter().any(|name| entry.file_name() == **name)))
}

/// Keeps a second run out of the folder for as long as the file is open.
pub fn lock(disk: &FolderDisk, out: &Path) -> Result<File, DatasetError> {
    fs::create_dir_all(disk.path("work")).map_err(DatasetError::io(disk.path("work")))?;
    let path = disk.path("work/lock");
    let lock = File::create(&path).map_err(DatasetError::io(&path))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(DatasetError::Busy { out: out.to_owned() }),
        Err(TryLockError::Error(e)) => Err(DatasetError::io(path)(e)),
        Ok(()) => Ok(lock),
    }
}

/// Removes what only an unfinished preparation needs.
pub fn remove_work(disk: &FolderDisk) -> Result<(), DatasetError> {
    match fs::remove_dir_all(disk.path("work")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DatasetError::io(disk.path("work"))(e)),
        _ => Ok(()),
    }
}
