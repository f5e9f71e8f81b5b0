//! Putting a backup back, into a folder of its own.

use super::{
    BackupError,
    bring::{Brought, Way, read_through},
    contents::Contents,
    failed,
    take::{is_backup, stored},
};
use crate::{
    dataset::progress::progress,
    identity::{self, Identity},
    server::state::{LEDGER, RESTORED, StateFolder, StateLock},
    store::copy,
};
use nightjar_shared::{
    blob::BlobRef,
    disk::{Disk, FolderDisk},
    ids::BlobHash,
    mark::{self, Kind, Mark},
};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

/// A run that was put back.
#[derive(Debug)]
pub struct Restored {
    /// What the backup held.
    pub contents: Contents,
    /// Blobs that share their room with the backup's.
    pub linked: u64,
    /// Blobs that the backup should have, and that are missing or damaged there; the run goes on without them where it
    /// can.
    pub lost: Vec<BlobHash>,
}

/// Puts a run back into a new folder. All is read through and held against its name; the ledger comes last, so a folder
/// that is not finished is nothing that anybody serves. The same call again goes on where one was cut short.
pub async fn restore(from: &Path, folder: &Path, quiet: bool) -> Result<Restored, BackupError> {
    let nothing = || BackupError::NoBackup(from.to_owned());
    if !from.is_dir() {
        return Err(nothing());
    }
    is_backup(from)?;
    let contents = Contents::read(from)?.ok_or_else(nothing)?;
    let disk = FolderDisk::open(from).map_err(failed(from))?;
    let _from = shared(from)?;
    let (ledger, key) = (whole(&disk, from, &contents, LEDGER)?, whole(&disk, from, &contents, identity::FILE)?);
    let held = copy::held(&disk.path(&stored(ledger.hash))).await?;
    let pkcs8 = disk.read(&stored(key.hash)).map_err(failed(from))?.ok_or_else(nothing)?;
    let key = Identity::from_pkcs8(pkcs8)?;
    if held.key.is_some_and(|known| known != key.id().0) {
        return Err(BackupError::OtherKey);
    }

    let (state, _state) = begun(folder, &note(&contents))?;
    let way = Way { from: &disk, to: &state.disk, folder, quick: false };
    // What the ledger needs, and what else the run had: old versions that are kept for their keyframes, say.
    let others = disk.list("blobs").map_err(failed(from))?;
    let names = held.blobs.iter().copied().chain(others.iter().filter_map(|name| name.parse().ok()));
    let names: BTreeSet<BlobHash> = names.collect();
    let bytes = names.iter().filter_map(|hash| disk.length(&format!("blobs/{hash}")).ok().flatten()).sum();
    let bar = progress("restoring", bytes, quiet);
    let mut restored = Restored { contents, linked: 0, lost: vec![] };
    let mut last = None;
    for hash in &names {
        let how = way.blob(*hash, &mut |bytes| bar.inc(bytes))?;
        match how {
            Brought::Lost if restored.contents.lost.contains(hash) || !held.blobs.contains(hash) => {}
            Brought::Lost => restored.lost.push(*hash),
            Brought::Linked => restored.linked += 1,
            Brought::Copied | Brought::WasThere => {}
        }
        last = if how == Brought::Lost { last } else { Some(*hash) };
    }
    bar.finish_and_clear();
    let io = failed(folder);
    // With it all names in its folder.
    last.map_or(Ok(()), |last| state.disk.sync(&format!("blobs/{last}"))).map_err(&io)?;
    for (name, file) in restored.contents.files.iter().filter(|(name, _)| name.starts_with("checkpoints/")) {
        put(&way, name, *file, true).map_err(&io)?;
    }
    for name in identity::BESIDE.into_iter().filter(|name| restored.contents.files.contains_key(*name)) {
        let file = whole(&disk, from, &restored.contents, name)?;
        let bytes = disk.read(&stored(file.hash)).map_err(failed(from))?.unwrap_or_default();
        state.disk.write_private(name, &bytes).map_err(&io)?;
    }
    key.store(&*state.disk)?;
    if !put(&way, LEDGER, ledger, false).map_err(&io)? {
        return Err(BackupError::Damaged { folder: from.to_owned(), file: LEDGER.to_owned() });
    }
    state.finish()?;
    Ok(restored)
}

/// What the next start tells of it.
fn note(contents: &Contents) -> String {
    format!(
        "this run was restored from a backup: {}. What was acknowledged after that is not in it; devices drop the leases that it \
         does not know, and go on from its newest version",
        contents.said()
    )
}

/// Puts one of the files in its place, under its own name; `false` if it is not what it should be.
fn put(way: &Way<'_>, name: &str, file: BlobRef, may_link: bool) -> io::Result<bool> {
    let new = format!("{name}.new");
    let is_right = match way.draw(&stored(file.hash), &new, may_link, &mut |_| {}) {
        Ok((found, _)) => found == file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_right {
        way.to.rename(&new, name)?;
    } else {
        // A start uses the checkpoint before.
        way.to.remove(&new)?;
    }
    Ok(is_right)
}

/// A file that nothing can do without: it is there, and as it was.
fn whole(disk: &FolderDisk, from: &Path, contents: &Contents, name: &str) -> Result<BlobRef, BackupError> {
    let damaged = || BackupError::Damaged { folder: from.to_owned(), file: name.to_owned() };
    let file = *contents.files.get(name).ok_or_else(damaged)?;
    match read_through(disk, &stored(file.hash), &mut |_| {}) {
        Ok(found) if found == file => Ok(file),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(from)(error)),
        _ => Err(damaged()),
    }
}

/// The state folder, for this process alone: new, or as a restoration of the same backup left it.
fn begun(folder: &Path, note: &str) -> Result<(StateFolder, StateLock), BackupError> {
    let io = failed(folder);
    let is_begun = Mark::read(folder)? == Some(Mark::begun(Kind::State));
    let is_of_it = fs::read(folder.join(RESTORED)).is_ok_and(|told| told == note.as_bytes());
    let is_free = mark::is_empty(folder).map_err(&io)? || (is_begun && is_of_it);
    if !is_free {
        return Err(BackupError::NotEmpty(folder.to_owned()));
    }
    fs::create_dir_all(folder).map_err(&io)?;
    let state = StateFolder::open(folder)?;
    let lock = state.lock()?;
    state.begin()?;
    state.disk.write(RESTORED, note.as_bytes()).map_err(&io)?;
    Ok((state, lock))
}

/// Keeps others from making another backup of this one meanwhile; a backup that cannot be written is left as it is.
fn shared(folder: &Path) -> Result<Option<File>, BackupError> {
    let Ok(file) = File::open(folder.join("lock")) else { return Ok(None) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(BackupError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(folder)(error)),
        Ok(()) => Ok(Some(file)),
    }
}
