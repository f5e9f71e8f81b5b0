//! The state folder: whose it is, one coordinator at a time has it, and what no fact in the ledger names is cleared
//! away.

mod places;

use super::disk_reserve::RESERVE_FILE;
use crate::{
    export::COMPANIONS,
    identity,
    store::{
        BlobError, Blobs, DatabaseUrl, Ledger, LedgerError, LedgerPlace, Unnamed,
        bucket::{BadBucket, CACHE_FOLDER},
        look::Look,
        place::BadUrl,
    },
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    ids::{BlobHash, Version},
    mark::{self, EntryKind, Kind, Mark, MarkError},
    model_spec::ModelSpec,
    time::Wall,
    version::{keyframe, update},
};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

/// The ledger, if it is a file of the folder.
pub const LEDGER: &str = "ledger.sqlite";
/// What is to be told of where the folder comes from, until a start has told it.
pub const RESTORED: &str = "restored.txt";
/// Where the ledger is, if it is no file of the folder: a database's address, without a password.
const PLACE: &str = "ledger.url";
/// Where the blobs are, if they are not in the folder: a bucket's address, without keys.
const BUCKET: &str = "blobs.url";
/// All that a state folder has besides its mark.
const FILES: [&str; 14] = [
    "lock",
    identity::FILE,
    identity::BESIDE[0],
    identity::BESIDE[1],
    identity::BESIDE[2],
    RESERVE_FILE,
    RESTORED,
    COMPANIONS,
    PLACE,
    BUCKET,
    LEDGER,
    "ledger.sqlite-wal",
    "ledger.sqlite-shm",
    "ledger.sqlite-journal",
];
const FOLDERS: [&str; 4] = ["blobs", "checkpoints", "incoming", CACHE_FOLDER];

/// A state folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("another coordinator is running on the state folder {0}; stop it first, or choose another --state")]
    Locked(PathBuf),
    /// There is none.
    #[error("there is no state folder {0}; name the --state folder that `nightjar-coordinator serve` was started with")]
    Missing(PathBuf),
    /// It cannot be created or written.
    #[error("the state folder {folder} cannot be used: {error}; check the path and its permissions")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Something else has the name.
    #[error("{0} is no folder; choose another --state")]
    NotAFolder(PathBuf),
    /// It holds what no coordinator wrote.
    #[error("{folder} holds {entry}, which is not a coordinator's: move it away, or choose another --state folder")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is not ours.
        entry: String,
    },
    /// A link in the place of something of ours.
    #[error(
        "{0} is a link: the coordinator follows none. Put what it leads to in its place; if that is on another disk, mount the \
         disk there, or move the whole state folder and name it with --state. Nothing was changed"
    )]
    Link(PathBuf),
    /// It was made for something else.
    #[error("{folder} is {kind}, and no coordinator's state: choose another --state folder")]
    OtherKind {
        /// The folder.
        folder: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A run's state without its ledger.
    #[error(
        "the state folder {folder} has no ledger ({LEDGER} or {PLACE}), but {holds}: put the run's ledger back, from a backup if need be; \
         for a new run choose another --state folder. Nothing was changed"
    )]
    NoLedger {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        holds: String,
    },
    /// A ledger that knows nothing of what is there.
    #[error(
        "the ledger of the state folder {folder} is empty, but there is {holds}: put the run's own ledger back, from \
         a backup if need be; for a new run choose another --state folder. Nothing was changed"
    )]
    EmptyLedger {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        holds: String,
    },
    /// A ledger somewhere else than where the run's is.
    #[error(
        "the ledger of the run in the state folder {folder} is {LEDGER}, not a database: leave --ledger out; for a new run \
         choose another --state folder. Nothing was changed"
    )]
    OtherPlace {
        /// The folder.
        folder: PathBuf,
    },
    /// The note of where the ledger is cannot be read.
    #[error("{file}: {error}. Name the run's database with --ledger", file = .folder.join(PLACE).display())]
    BadPlace {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        #[source]
        error: BadUrl,
    },
    /// Blobs somewhere else than where the run's are.
    #[error(
        "the blobs of the run in the state folder {folder} are in that folder, not in a bucket: leave --blobs out, or carry them \
         there with `nightjar-coordinator move`. Nothing was changed"
    )]
    BlobsHere {
        /// The folder.
        folder: PathBuf,
    },
    /// The note of where the blobs are cannot be read.
    #[error("{file}: {error}. Name the run's bucket with --blobs", file = .folder.join(BUCKET).display())]
    BadBucket {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        #[source]
        error: BadBucket,
    },
    /// A restoration that was cut short.
    #[error(
        "a run is being restored into the state folder {0}, or that was cut short: run the same `restore` again, which goes on. \
         Nothing was changed"
    )]
    HalfRestored(PathBuf),
    /// A run's state without its key.
    #[error(
        "the state folder {folder} has a ledger, but not the run's key ({key}): put it back from a backup, since no device \
         accepts another; for a new run choose another --state folder. Nothing was changed",
        key = identity::FILE
    )]
    NoKey {
        /// The folder.
        folder: PathBuf,
    },
    /// Its mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Its blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Its ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What there is in a state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or the beginning of a first start that was cut short: no device has ever seen anything of it.
    New,
    /// A run.
    Run,
}

/// An open state folder.
pub struct StateFolder {
    /// Its files.
    pub disk: Arc<FolderDisk>,
    folder: PathBuf,
}

/// Held by the coordinator that serves; the system lets go of it when the process ends, however it ends.
pub struct StateLock {
    _file: File,
}

fn failed(folder: &Path) -> impl Fn(io::Error) -> StateError {
    move |error| StateError::Io { folder: folder.to_owned(), error }
}

impl StateFolder {
    /// Opens a folder that is there.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        if !folder.is_dir() {
            return Err(StateError::Missing(folder.to_owned()));
        }
        Ok(StateFolder { disk: Arc::new(FolderDisk::open(folder).map_err(failed(folder))?), folder: folder.to_owned() })
    }

    /// Takes a folder for this process alone, to serve the run in it or a new one. What is not a coordinator's, or not
    /// all of it, is left as it is.
    pub fn take(folder: &Path) -> Result<(Self, StateLock, Found), StateError> {
        find(folder)?;
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let state = Self::open(folder)?;
        let lock = state.lock()?;
        // Now that nobody else changes it.
        let found = find(folder)?;
        Ok((state, lock, found))
    }

    /// Looks what a folder is, without touching it; an error if no coordinator may have it.
    pub fn look(folder: &Path) -> Result<Found, StateError> {
        find(folder)
    }

    /// Whether a coordinator has a folder now. Nothing is changed.
    pub fn is_taken(folder: &Path) -> bool {
        let lock = fs::OpenOptions::new().write(true).open(folder.join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Where the ledger of a folder is, or of a new run in it would be; `given` is where somebody says it is.
    pub fn place(folder: &Path, given: Option<&DatabaseUrl>) -> Result<LedgerPlace, StateError> {
        places::ledger(folder, given)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a run has begun in a folder.
    pub fn has_ledger(folder: &Path) -> bool {
        folder.join(LEDGER).exists() || folder.join(PLACE).exists()
    }

    /// Whether the blobs of a folder's run are in a bucket.
    pub fn has_bucket(folder: &Path) -> bool {
        folder.join(BUCKET).exists()
    }

    /// Whether a run in a folder has a version, so that it needs no start. Of a ledger that cannot be looked at,
    /// whoever opens it tells more.
    pub async fn has_begun(folder: &Path, ledger: Option<&DatabaseUrl>) -> bool {
        let Ok(place) = places::ledger(folder, ledger) else { return false };
        place.look().await.is_ok_and(|look| look.versions > 0)
    }

    /// Takes the folder for this process alone.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let failed = failed(&self.folder);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.folder.join("lock"));
        let file = file.map_err(&failed)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(self.folder.clone())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Marks a new folder as a coordinator's, before anything is written to it.
    pub fn begin(&self) -> Result<(), StateError> {
        Mark::begun(Kind::State).write(&*self.disk).map_err(failed(&self.folder))
    }

    /// Marks the folder as one that has a ledger and a key: from here on neither is ever made anew.
    pub fn finish(&self) -> Result<(), StateError> {
        let whole = Mark::whole(Kind::State);
        if Mark::read(&self.folder)?.as_ref() == Some(&whole) {
            return Ok(());
        }
        whole.write(&*self.disk).map_err(failed(&self.folder))
    }

    /// Holds the ledger against what else there is.
    pub fn check_ledger(&self, look: &Look, blobs: &Blobs) -> Result<(), StateError> {
        if look.has_run && look.versions > 0 {
            return Ok(());
        }
        let mut others = 0;
        for hash in blobs.list()? {
            // A start that was cut short may have stored version 0 already.
            let is_first = look.has_run && blobs.version_of(hash)? == Some(Version(0));
            others += usize::from(!is_first);
        }
        if look.has_run && others == 0 {
            return Ok(());
        }
        Err(StateError::EmptyLedger { folder: self.folder.clone(), holds: holds(&self.folder)? })
    }

    /// What is to be told of where the folder comes from; nothing the next time.
    pub fn note_to_tell(&self) -> Option<String> {
        let note = self.disk.read(RESTORED).ok().flatten().and_then(|note| String::from_utf8(note).ok())?;
        // Where it cannot be removed, it is told again.
        let _ = self.disk.remove(RESTORED);
        Some(note)
    }
}

fn is_ours(name: &str, kind: EntryKind) -> bool {
    match kind {
        EntryKind::File => FILES.contains(&name),
        EntryKind::Folder => FOLDERS.contains(&name),
        EntryKind::Other => false,
    }
}

/// Looks what a folder is, without touching it; an error if no coordinator may have it.
fn find(folder: &Path) -> Result<Found, StateError> {
    let io = failed(folder);
    match fs::metadata(folder) {
        Ok(about) if about.is_dir() => {}
        Ok(_) => return Err(StateError::NotAFolder(folder.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::New),
        Err(e) => return Err(io(e)),
    }
    if mark::is_empty(folder).map_err(&io)? {
        return Ok(Found::New);
    }
    let mark = Mark::read(folder)?;
    if let Some(mark) = mark.as_ref().filter(|mark| mark.kind != Kind::State) {
        return Err(StateError::OtherKind { folder: folder.to_owned(), kind: mark.kind.said() });
    }
    if let Some(entry) = mark::foreign(folder, is_ours).map_err(&io)? {
        // Beside a marked state others may keep things of theirs. Nothing may take the place of ours.
        let takes_a_place = FILES.contains(&&*entry) || FOLDERS.contains(&&*entry) || entry == mark::MARK_FILE;
        if takes_a_place && fs::symlink_metadata(folder.join(&entry)).is_ok_and(|about| about.is_symlink()) {
            return Err(StateError::Link(folder.join(&entry)));
        }
        if mark.is_none() || takes_a_place {
            return Err(StateError::Foreign { folder: folder.to_owned(), entry });
        }
        tracing::warn!("{} holds {entry}, which is not the coordinator's; it is left alone", folder.display());
    }
    let has = |name: &str| folder.join(name).is_file();
    let is_begun = mark.as_ref().is_some_and(|mark| !mark.is_whole);
    if is_begun && has(RESTORED) {
        return Err(StateError::HalfRestored(folder.to_owned()));
    }
    match (has(LEDGER) || has(PLACE), has(identity::FILE)) {
        _ if is_begun && stored(folder)? == (0, 0) => Ok(Found::New),
        (true, true) => Ok(Found::Run),
        (true, false) => Err(StateError::NoKey { folder: folder.to_owned() }),
        (false, _) => Err(StateError::NoLedger { folder: folder.to_owned(), holds: holds(folder)? }),
    }
}

/// How many blobs and checkpoints there are.
fn stored(folder: &Path) -> Result<(usize, usize), StateError> {
    let count = |name: &str| mark::entries(&folder.join(name)).map(|entries| entries.len()).map_err(failed(folder));
    Ok((count("blobs")?, count("checkpoints")?))
}

/// What of a run is there, in words.
fn holds(folder: &Path) -> Result<String, StateError> {
    let (blobs, checkpoints) = stored(folder)?;
    let key = folder.join(identity::FILE).is_file().then(|| format!("the run's key ({})", identity::FILE));
    let blobs = (blobs > 0).then(|| of_them(blobs));
    let checkpoints =
        (checkpoints > 0).then(|| format!("{checkpoints} checkpoint{}", if checkpoints == 1 { "" } else { "s" }));
    let all: Vec<String> = key.into_iter().chain(blobs).chain(checkpoints).collect();
    Ok(if all.is_empty() { "the folders of a run".to_owned() } else { all.join(", ") })
}

/// What a start did with blobs and uploads that nothing in the ledger names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// How many went.
    pub removed: usize,
    /// For the operator: why others stay, where the ledger may be older than they are.
    pub note: Option<String>,
}

/// What a ledger knows, as far as clearing away goes by it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The newest version.
    pub newest: Version,
    /// Leases that have not ended.
    pub open_leases: usize,
    /// Of the stored blobs.
    pub unnamed: Unnamed,
}

impl Known {
    /// `None` where nothing may be cleared away: no version is published yet, or a row that names a blob cannot be
    /// read.
    pub async fn of(
        ledger: &dyn Ledger,
        blobs: &Blobs,
        newest: Option<Version>,
        open_leases: usize,
        now: Wall,
    ) -> Result<Option<Self>, StateError> {
        let Some(newest) = newest else { return Ok(None) };
        match ledger.unnamed(blobs.list()?.into_iter().collect(), now).await {
            Ok(unnamed) => Ok(Some(Known { newest, open_leases, unnamed })),
            Err(LedgerError::Row(bad)) => {
                tracing::warn!("no blob is cleared away as long as the ledger has a row that cannot be read ({bad})");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Removes blobs and uploads that nothing in the ledger names: deltas that were screened out, uploads given up. While
/// there are no more of them than open leases they stay: a device may be about to offer them.
///
/// A ledger that knows less than the folder is no reason to remove anything. So all stays where the version after the
/// newest is there: the ledger may be an older copy. What was stored after the ledger's last entry stays, too, until
/// the next start. No device can keep the rest for long: its blobs are older than the next entry, and the next version
/// is soon there.
pub fn clear_away(known: Known, blobs: &Blobs, model: &ModelSpec) -> Result<Cleared, BlobError> {
    let Known { newest, open_leases, unnamed: Unnamed { blobs: unnamed, last_entry } } = known;
    let mut ahead = BTreeSet::new();
    for hash in &unnamed {
        ahead.extend(version_ahead(blobs, model, newest, *hash)?);
    }
    // Versions follow each other without a gap.
    if let Some(last) = (newest.0 + 1..).map(Version).take_while(|version| ahead.contains(version)).last() {
        let note = format!(
            "version {last} is stored, and the ledger ends with version {newest}: either the last stop came in \
             between, or the ledger is an older copy. What it does not name ({}) is kept. If it is a copy, stop now and put \
             the newest ledger back: what is trained from here on takes the place of what it holds",
            of_them(unnamed.len())
        );
        return Ok(Cleared { removed: 0, note: Some(note) });
    }
    let is_newer = |hash: &BlobHash| {
        let stored = blobs.stored_at(*hash).ok().flatten();
        let since_1970 = stored.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since_1970.is_none_or(|at| at.as_millis() >= u128::from(last_entry.unix_ms))
    };
    let (newer, older): (Vec<BlobHash>, Vec<BlobHash>) = unnamed.into_iter().partition(is_newer);
    let mut cleared = Cleared::default();
    if newer.len() > open_leases {
        cleared.note = Some(format!(
            "{} stored after the ledger's last entry, which is of version {newest}, and kept until the next start. If the \
             ledger is an older copy, stop now and put the newest one back",
            if newer.len() == 1 { "a blob was".to_owned() } else { format!("{} were", of_them(newer.len())) },
        ));
    }
    if older.len() > open_leases {
        cleared.removed += older.len();
        older.into_iter().try_for_each(|hash| blobs.remove(hash))?;
    }
    let uploads = blobs.list_incoming()?;
    if uploads.len() > open_leases {
        cleared.removed += uploads.len();
        uploads.into_iter().try_for_each(|hash| blobs.discard(hash))?;
    }
    Ok(cleared)
}

fn of_them(blobs: usize) -> String {
    if blobs == 1 { "1 blob".to_owned() } else { format!("{blobs} blobs") }
}

/// The version that a blob leads to, if it is one after the newest, and the blob is wholly what its first bytes say:
/// anybody can upload those.
fn version_ahead(
    blobs: &Blobs,
    model: &ModelSpec,
    newest: Version,
    hash: BlobHash,
) -> Result<Option<Version>, BlobError> {
    let Some(version) = blobs.version_of(hash)?.filter(|version| *version > newest) else { return Ok(None) };
    let bytes = match blobs.read(hash) {
        Ok(bytes) => bytes,
        Err(BlobError::Corrupt(_) | BlobError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_whole = update::squash(model, &[&bytes]).is_ok() || keyframe::decode(model, &bytes).is_ok();
    Ok(is_whole.then_some(version))
}

#[cfg(test)]
mod tests;
