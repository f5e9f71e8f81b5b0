//! The output folder: whose it is, and how far it is.

use super::{
    error::DatasetError,
    journal::JOURNAL,
    report::{PAGE, REPORT},
    seen,
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    ids::BlobHash,
    mark::{self, EntryKind, Kind, Mark},
};
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

/// Looks what the output folder holds; an error if it holds something else. Nothing is touched.
pub fn find(disk: &FolderDisk, out: &Path, plan: &[u8]) -> Result<Found, DatasetError> {
    let mark = Mark::read(out)?;
    if let Some(mark) = mark.as_ref().filter(|mark| mark.kind != Kind::Dataset) {
        return Err(DatasetError::OtherKind { out: out.to_owned(), kind: mark.kind.said() });
    }
    if mark::is_empty(out).map_err(DatasetError::io(out))? {
        return Ok(Found::Nothing);
    }
    if let Some(entry) = foreign(out)? {
        return Err(DatasetError::Foreign { out: out.to_owned(), entry });
    }
    let exists = |name: &str| -> Result<bool, DatasetError> {
        Ok(disk.length(name).map_err(DatasetError::io(disk.path(name)))?.is_some())
    };
    match disk.read(PLAN).map_err(DatasetError::io(disk.path(PLAN)))? {
        Some(found) if found == plan => Ok(if exists("manifest.json")? { Found::Done } else { Found::Begun }),
        Some(_) if exists("manifest.json")? || exists(JOURNAL)? => Err(DatasetError::Changed { out: out.to_owned() }),
        // What it was prepared of is not known, so that nothing may take its place.
        None if exists("manifest.json")? || exists(JOURNAL)? => Err(DatasetError::NoPlan { out: out.to_owned() }),
        // A run with another plan may have failed before its first checkpoint.
        _ if mark.is_some() => Ok(Found::Nothing),
        // Names alone do not make it ours.
        _ => {
            let entries = mark::entries(out).map_err(DatasetError::io(out))?;
            let entry = entries.into_iter().next().map_or_else(String::new, |(name, _)| name);
            Err(DatasetError::Foreign { out: out.to_owned(), entry })
        }
    }
}

/// The first entry that no preparation writes.
fn foreign(out: &Path) -> Result<Option<String>, DatasetError> {
    let top = |name: &str, kind| match kind {
        EntryKind::File => [PLAN, "tokenizer.json", REPORT, PAGE, "manifest.json"].contains(&name),
        EntryKind::Folder => ["blobs", "work"].contains(&name),
        EntryKind::Other => false,
    };
    let blob = |name: &str, kind| kind == EntryKind::File && name.parse::<BlobHash>().is_ok();
    let find = |folder: &Path, is_ours: &dyn Fn(&str, EntryKind) -> bool| {
        mark::foreign(folder, is_ours).map_err(DatasetError::io(folder))
    };
    if let Some(name) = find(out, &top)? {
        return Ok(Some(name));
    }
    if let Some(name) = find(&out.join("blobs"), &blob)? {
        return Ok(Some(format!("blobs/{name}")));
    }
    Ok(find(&out.join("work"), &is_of_work)?.map(|name| format!("work/{name}")))
}

/// Whether only an unfinished preparation has it.
fn is_of_work(name: &str, kind: EntryKind) -> bool {
    let bucket = name.strip_prefix("train-").or(name.strip_prefix("heldout-"));
    let is_bucket = bucket.is_some_and(|rest| rest.bytes().all(|b| b == b'-' || b.is_ascii_digit()));
    kind == EntryKind::File && (is_bucket || ["lock", "journal.json", seen::FILE].contains(&name))
}

/// Takes a folder that was looked through: marks it as a dataset's, and keeps a second run out of it for as long as the
/// file is open.
pub fn lock(disk: &FolderDisk, out: &Path) -> Result<File, DatasetError> {
    if Mark::read(out)?.is_none() {
        Mark::whole(Kind::Dataset).write(disk).map_err(DatasetError::io(out))?;
    }
    fs::create_dir_all(disk.path("work")).map_err(DatasetError::io(disk.path("work")))?;
    let path = disk.path("work/lock");
    let lock = File::create(&path).map_err(DatasetError::io(&path))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(DatasetError::Busy { out: out.to_owned() }),
        Err(TryLockError::Error(e)) => Err(DatasetError::io(path)(e)),
        Ok(()) => Ok(lock),
    }
}

/// Removes what only an unfinished preparation needs, name by name: whatever else is there keeps the folder.
pub fn remove_work(disk: &FolderDisk) -> Result<(), DatasetError> {
    let work = disk.path("work");
    for (name, kind) in mark::entries(&work).map_err(DatasetError::io(&work))? {
        if is_of_work(name.strip_suffix(".new").unwrap_or(&name), kind) {
            let file = work.join(name);
            fs::remove_file(&file).map_err(DatasetError::io(file))?;
        }
    }
    match fs::remove_dir(&work) {
        Err(e) if ![io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&e.kind()) => {
            Err(DatasetError::io(work)(e))
        }
        _ => Ok(()),
    }
}
