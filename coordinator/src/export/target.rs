//! The folder that an export goes to. The new one is made in a folder of its own beside it, whole and synced, before
//! the old one steps aside; and what steps aside is removed only if all of it is an export of ours, unchanged.

use super::{ExportError, is_of_export};
use nightjar_shared::{
    ids::BlobHash,
    mark::{self, EntryKind, Kind, MARK_FILE, Mark},
};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Begins the names of folders beside the target in which exports are made.
const ASIDE: &str = ".nightjar-";
const LOCK: &str = "lock";
/// Names that are tried for a folder of our own; a second is never needed.
const NAMES_MAX: usize = 16;

/// A folder that may be written.
pub(super) struct Target {
    /// Without links and dots; its parent may have to be made.
    folder: PathBuf,
}

/// A new export beside its target. Dropped, it leaves nothing behind.
pub(super) struct Draft {
    aside: PathBuf,
    target: PathBuf,
    _lock: File,
}

impl Target {
    /// Looks whether an export may go there: where nothing is, an empty folder, or an earlier export of ours.
    pub fn find(given: &Path) -> Result<Self, ExportError> {
        // Without a slash at the end, which would follow a link.
        let plain: PathBuf = given.components().collect();
        let not_a_folder = || ExportError::NotAFolder { folder: given.to_owned() };
        match fs::symlink_metadata(&plain) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let name = plain.file_name().ok_or_else(not_a_folder)?;
                let parent = plain.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let parent = std::path::absolute(parent).map_err(ExportError::io(parent))?;
                return Ok(Target { folder: parent.join(name) });
            }
            Err(e) => return Err(ExportError::io(given)(e)),
            Ok(about) if about.is_dir() || about.is_symlink() => {}
            Ok(_) => return Err(not_a_folder()),
        }
        // A link stays, and what it leads to is the target.
        let folder = match plain.canonicalize() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ExportError::DeadLink { folder: given.to_owned() });
            }
            folder => folder.map_err(ExportError::io(given))?,
        };
        if !folder.is_dir() {
            return Err(not_a_folder());
        }
        let is_here =
            std::env::current_dir().and_then(|here| here.canonicalize()).is_ok_and(|here| here.starts_with(&folder));
        if is_here || folder.parent().is_none() {
            return Err(ExportError::Here { folder: given.to_owned() });
        }
        check(&folder, given)?;
        Ok(Target { folder })
    }

    /// Makes a folder beside it in which the export can be written.
    pub fn draft(self) -> Result<Draft, ExportError> {
        let (Some(parent), Some(name)) = (self.folder.parent(), self.folder.file_name()) else {
            return Err(ExportError::NotAFolder { folder: self.folder });
        };
        fs::create_dir_all(parent).map_err(ExportError::io(parent))?;
        let begin = format!(".{}{ASIDE}", name.to_string_lossy());
        let aside = new_folder(parent, &begin)?;
        let made = (|| {
            let lock = File::create_new(aside.join(LOCK))?;
            lock.lock()?;
            mark::leave(&aside, &Mark::begun(Kind::Model))?;
            fs::create_dir(aside.join("new"))?;
            Ok(lock)
        })();
        let failed = ExportError::io(&aside);
        let lock = made.map_err(|error| {
            // The first error says what is wrong.
            let _ = remove_aside(&aside);
            failed(error)
        })?;
        Ok(Draft { aside, target: self.folder, _lock: lock })
    }
}

impl Draft {
    /// Where the files go.
    pub fn folder(&self) -> PathBuf {
        self.aside.join("new")
    }

    /// Marks the finished export, and puts it in its target's place.
    pub fn put_in_place(self) -> Result<(), ExportError> {
        let (new, old) = (self.folder(), self.aside.join("old"));
        let mut whole = Mark::whole(Kind::Model);
        for (name, _) in mark::entries(&new).map_err(ExportError::io(&new))? {
            let path = new.join(&name);
            let told = File::open(&path).and_then(|file| file.sync_all()).and_then(|()| length_and_hash(&path));
            whole.files.insert(name, told.map_err(ExportError::io(path))?);
        }
        mark::leave(&new, &whole).map_err(ExportError::io(&new))?;

        // It may have changed since it was looked at. A folder cannot be replaced in one step: the old one steps aside
        // first.
        let failed = ExportError::io(&self.target);
        let was = check(&self.target, &self.target)?;
        let stepped_aside = match was {
            Was::Nothing => Ok(()),
            Was::Empty => fs::remove_dir(&self.target),
            Was::Export => fs::rename(&self.target, &old),
        };
        if let Err(error) = stepped_aside.and_then(|()| fs::rename(&new, &self.target)) {
            if old.exists() {
                // If that fails too, the error says where the earlier export is.
                fs::rename(&old, &self.target).map_err(ExportError::io(&old))?;
            } else if was == Was::Empty && !self.target.exists() {
                fs::create_dir(&self.target).map_err(ExportError::io(&self.target))?;
            }
            return Err(failed(error));
        }
        let parent = self.target.parent().unwrap_or(&self.target);
        #[cfg(unix)]
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(ExportError::io(parent))?;
        remove_aside(&self.aside).map_err(ExportError::io(&self.aside))?;
        remove_left_behind(parent, &self.target);
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // An earlier export that could not go back to its place is the only one there is.
        if !self.aside.join("old").exists() {
            // Gone already where all went well. What cannot be removed bears our mark, and goes with the next export.
            let _ = remove_aside(&self.aside);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Was {
    Nothing,
    Empty,
    Export,
}

/// What a folder is; an error if it is not to be replaced.
fn check(folder: &Path, given: &Path) -> Result<Was, ExportError> {
    if !folder.exists() {
        return Ok(Was::Nothing);
    }
    let entries = mark::entries(folder).map_err(ExportError::io(folder))?;
    let Some((first, _)) = entries.first() else { return Ok(Was::Empty) };
    let given = || given.to_owned();
    let is_ours =
        |(name, kind): &(String, EntryKind)| *kind == EntryKind::File && (name == MARK_FILE || is_of_export(name));
    let foreign = entries.iter().find(|entry| !is_ours(entry)).map(|(name, _)| name.clone());
    let Some(mark) = Mark::read(folder)? else {
        return Err(match foreign {
            None => ExportError::Unmarked { folder: given() },
            Some(_) if folder.join("config.json").exists() => ExportError::Unmarked { folder: given() },
            Some(_) => ExportError::Foreign { folder: given(), entry: first.clone() },
        });
    };
    if mark.kind != Kind::Model {
        return Err(ExportError::OtherKind { folder: given(), kind: mark.kind.said() });
    }
    if let Some(entry) = foreign {
        return Err(ExportError::Foreign { folder: given(), entry });
    }
    for (name, _) in entries.iter().filter(|(name, _)| name != MARK_FILE) {
        let path = folder.join(name);
        let is = length_and_hash(&path).map_err(ExportError::io(path))?;
        if mark.files.get(name) != Some(&is) {
            return Err(ExportError::Changed { folder: given(), entry: name.clone() });
        }
    }
    Ok(Was::Export)
}

fn length_and_hash(path: &Path) -> io::Result<(u64, BlobHash)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok((hasher.count(), BlobHash(*hasher.finalize().as_bytes())))
}

/// A new folder of a name that nobody could foresee.
fn new_folder(parent: &Path, begin: &str) -> Result<PathBuf, ExportError> {
    for _ in 0..NAMES_MAX {
        let mut token = [0; 8];
        let drawn = SystemRandom::new().fill(&mut token);
        drawn
            .map_err(|_| ExportError::io(parent)(io::Error::other("the system gave no random bytes for a new name")))?;
        let folder = parent.join(format!("{begin}{}", data_encoding::HEXLOWER.encode(&token)));
        match fs::create_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder.clone()).map_err(ExportError::io(folder)),
        }
    }
    Err(ExportError::io(parent)(io::ErrorKind::AlreadyExists.into()))
}

/// Removes a folder of ours, name by name: whatever else is in it keeps it.
fn remove_aside(aside: &Path) -> io::Result<()> {
    for part in ["new", "old"].map(|part| aside.join(part)) {
        // What is not there has no entries.
        for (name, _) in mark::entries(&part).unwrap_or_default() {
            if is_of_export(&name) {
                gone(fs::remove_file(part.join(name)))?;
            }
        }
        remove_mark(&part)?;
        gone(fs::remove_dir(part))?;
    }
    gone(fs::remove_file(aside.join(LOCK)))?;
    remove_mark(aside)?;
    gone(fs::remove_dir(aside))
}

fn remove_mark(folder: &Path) -> io::Result<()> {
    gone(fs::remove_file(folder.join(MARK_FILE)))?;
    gone(fs::remove_file(folder.join(format!("{MARK_FILE}.new"))))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Removes what killed exports to the same target left beside it. It is known by its mark; and one that an export is
/// still writing is locked.
fn remove_left_behind(parent: &Path, target: &Path) {
    let Some(name) = target.file_name() else { return };
    let begin = format!(".{}{ASIDE}", name.to_string_lossy());
    for (name, kind) in mark::entries(parent).unwrap_or_default() {
        let aside = parent.join(&name);
        if kind != EntryKind::Folder || !name.starts_with(&begin) || !is_left_behind(&aside).unwrap_or(false) {
            continue;
        }
        if let Err(error) = remove_aside(&aside) {
            tracing::warn!(%error, "{} was left behind by an earlier export, and cannot be removed", aside.display());
        }
    }
}

fn is_left_behind(aside: &Path) -> Result<bool, ExportError> {
    if Mark::read(aside)?.is_none_or(|mark| mark.kind != Kind::Model) {
        return Ok(false);
    }
    let is_free = match File::open(aside.join(LOCK)).map(|file| file.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) => false,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    };
    let part = |name: &str, kind| ["new", "old"].contains(&name) && kind == EntryKind::Folder;
    let is_lock = |name: &str, kind| name == LOCK && kind == EntryKind::File;
    let is_ours = |name: &str, kind| is_of_export(name) && kind == EntryKind::File;
    let at = || ExportError::io(aside);
    let mut foreign = mark::foreign(aside, |name, kind| part(name, kind) || is_lock(name, kind)).map_err(at())?;
    for part in ["new", "old"] {
        foreign = foreign.or(mark::foreign(&aside.join(part), is_ours).map_err(at())?);
    }
    Ok(is_free && foreign.is_none())
}
