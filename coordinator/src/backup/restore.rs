//! Putting a backup back, into a folder of its own.

use super::{
    BackupError,
    bring::{Brought, Way, read_through},
    contents::Contents,
    failed,
    shown::shown,
    take::{is_backup, stored},
};
use crate::{
    dataset::progress,
    export::COMPANIONS,
    identity::{self, Identity},
    server::state::{LEDGER, RESTORED, StateFolder, StateLock},
    store::{
        BlobError, Blobs, Bucket, BucketUrl, DatabaseUrl, LedgerPlace,
        carry::{Progress, carry_blobs, carry_ledger, several},
        copy,
    },
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
    path::{Path, PathBuf},
    sync::Arc,
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

/// Where a run is put back.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its state folder: new, or empty.
    pub state: PathBuf,
    /// The database that its ledger is to be in; `None`: the state folder.
    pub ledger: Option<DatabaseUrl>,
    /// The bucket that its blobs are to be in; `None`: the state folder.
    pub blobs: Option<BucketUrl>,
}

/// Puts a run back. All is read through and held against its name; the ledger comes last, so what is not finished is
/// nothing that anybody serves. The same call again goes on where one was cut short.
pub async fn restore(from: &Path, target: &Target, quiet: bool) -> Result<Restored, BackupError> {
    let nothing = || BackupError::NoBackup(from.to_owned());
    if !from.is_dir() {
        return Err(nothing());
    }
    is_backup(from)?;
    let contents = Contents::read(from)?.ok_or_else(nothing)?;
    let disk = Arc::new(FolderDisk::open(from).map_err(failed(from))?);
    let _from = shared(from)?;
    let (ledger, key) = (whole(&disk, from, &contents, LEDGER)?, whole(&disk, from, &contents, identity::FILE)?);
    let held = copy::held(&disk.path(&stored(ledger.hash))).await?;
    let pkcs8 = disk.read(&stored(key.hash)).map_err(failed(from))?.ok_or_else(nothing)?;
    let key = Identity::from_pkcs8(pkcs8)?;
    if held.key.is_some_and(|known| known != key.id().0) {
        return Err(BackupError::OtherKey);
    }

    let folder = &target.state;
    let (state, _state) = begun(folder, &note(&contents))?;
    let (place, blobs) = places(&state, target).await?;
    let mut restored = Restored { contents, linked: 0, lost: vec![] };
    let way = Way { from: &*disk, is_folder: true, to: &state.disk, folder, quick: false };
    match &blobs {
        None => bring(&way, &held, &mut restored, quiet)?,
        Some(blobs) => {
            blobs.bucket().map_or(Ok(()), |bucket| bucket.claim(held.run_id, key.id()))?;
            carry_all(&disk, blobs, &held, &mut restored, quiet).await?;
        }
    }
    let io = failed(folder);
    for (name, file) in &restored.contents.files {
        match (checkpoint_of(name), &blobs) {
            (Some(_), None) => drop(put(&way, name, *file, true).map_err(&io)?),
            // Of one that is damaged nothing is said: a start uses the checkpoint before.
            (Some(version), Some(blobs)) => {
                let bytes = disk.read(&stored(file.hash)).map_err(failed(from))?;
                let sound = bytes.filter(|bytes| BlobRef::of(bytes) == *file);
                sound.map_or(Ok(()), |bytes| blobs.add_checkpoint(version, &bytes))?;
            }
            (None, _) => {}
        }
    }
    let beside = identity::BESIDE.into_iter().chain([COMPANIONS]);
    for name in beside.filter(|name| restored.contents.files.contains_key(*name)) {
        let file = whole(&disk, from, &restored.contents, name)?;
        let bytes = disk.read(&stored(file.hash)).map_err(failed(from))?.unwrap_or_default();
        state.disk.write_private(name, &bytes).map_err(&io)?;
    }
    key.store(&*state.disk)?;
    match &place {
        LedgerPlace::Database(_) => {
            let (copy, progress) = (LedgerPlace::File(disk.path(&stored(ledger.hash))), Progress::default());
            shown(progress::rows("ledger", quiet), &progress, carry_ledger(&copy, &place, &progress)).await?;
        }
        LedgerPlace::File(_) if !put(&way, LEDGER, ledger, false).map_err(&io)? => {
            return Err(BackupError::Damaged { folder: from.to_owned(), file: LEDGER.to_owned() });
        }
        LedgerPlace::File(_) => {}
    }
    state.finish()?;
    Ok(restored)
}

/// Where ledger and blobs are to be, if not in the state folder; noted there. What is not empty is somebody's, unless it
/// was noted before: then it is what a restoration that was cut short has left.
async fn places(state: &StateFolder, target: &Target) -> Result<(LedgerPlace, Option<Blobs>), BackupError> {
    let place = target.ledger.clone().map_or_else(|| state.ledger_file(), LedgerPlace::Database);
    let is_noted = state.ledger(None)?.to_string() == place.to_string();
    if !is_noted && place.look().await?.has_run {
        return Err(BackupError::TakenPlace(place.to_string()));
    }
    let noted = state.bucket(None)?;
    let blobs = target.blobs.as_ref().map(|url| state.blobs_to_read(Some(url))).transpose()?;
    if let Some((blobs, url)) = blobs.as_ref().zip(target.blobs.as_ref())
        && !noted.is_some_and(|noted| noted.is_same_place(url))
        && !blobs.bucket().map_or(Ok(true), Bucket::is_empty).map_err(failed(&target.state))?
    {
        return Err(BackupError::TakenPlace(url.to_string()));
    }
    state.switch_ledger(&place)?;
    state.switch_bucket(target.blobs.as_ref())?;
    Ok((place, blobs))
}

/// Brings all blobs into the state folder.
fn bring(way: &Way<'_>, held: &copy::Held, restored: &mut Restored, quiet: bool) -> Result<(), BackupError> {
    // What the ledger needs, and what else the run had: old versions that are kept for their keyframes, say.
    let others = way.from.list("blobs").map_err(failed(way.folder))?;
    let names = held.blobs.iter().copied().chain(others.iter().filter_map(|name| name.parse().ok()));
    let names: BTreeSet<BlobHash> = names.collect();
    let bytes = names.iter().filter_map(|hash| way.from.length(&format!("blobs/{hash}")).ok().flatten()).sum();
    let bar = progress::progress("restoring", bytes, quiet);
    let one = |hash: BlobHash| -> Result<_, BackupError> { Ok((hash, way.blob(hash, &mut |bytes| bar.inc(bytes))?)) };
    let mut last = None;
    for (hash, how) in several(names.into_iter().collect(), one)? {
        match how {
            Brought::Lost if restored.contents.lost.contains(&hash) || !held.blobs.contains(&hash) => {}
            Brought::Lost => restored.lost.push(hash),
            Brought::Linked => restored.linked += 1,
            Brought::Copied | Brought::WasThere => {}
        }
        last = if how == Brought::Lost { last } else { Some(hash) };
    }
    bar.finish_and_clear();
    // With it all names in its folder.
    last.map_or(Ok(()), |last| way.to.sync(&format!("blobs/{last}"))).map_err(failed(way.folder))
}

/// Carries all blobs into a bucket.
async fn carry_all(
    from: &Arc<FolderDisk>,
    to: &Blobs,
    held: &copy::Held,
    restored: &mut Restored,
    quiet: bool,
) -> Result<(), BackupError> {
    let (here, there, progress) = (Blobs::new(from.clone()), to.clone(), Arc::new(Progress::default()));
    let missing = here.list()?.into_iter().fold(held.blobs.clone(), |mut missing, name| {
        missing.remove(&name);
        missing
    });
    let of_work = progress.clone();
    let work = tokio::task::spawn_blocking(move || carry_blobs(&here, &there, &of_work));
    let carried = shown(progress::progress("restoring", 0, quiet), &progress, work).await;
    let carried = carried.map_err(|error| BlobError::Folder(io::Error::other(error)))??;
    let lost = carried.damaged.into_iter().chain(missing);
    restored.lost = lost.filter(|hash| held.blobs.contains(hash) && !restored.contents.lost.contains(hash)).collect();
    Ok(())
}

/// The version of a file of this name in a state folder, if it is a checkpoint.
fn checkpoint_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoints/")?.strip_suffix(".njc")?.parse().ok()
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
