//! Taking a backup.

use super::{
    BackupError,
    bring::{Brought, PART, Way, read_through},
    contents::{self, Contents},
    failed,
    shown::shown,
};
use crate::{
    dataset::progress::{progress, rows},
    export::COMPANIONS,
    identity::{self, Identity},
    server::state::{LEDGER, StateFolder},
    store::{
        Blobs, BucketUrl, DatabaseUrl, LedgerPlace,
        carry::{Progress, several},
        copy,
    },
};
use nightjar_shared::{
    blob::BlobRef,
    disk::{Disk, FolderDisk},
    ids::{BlobHash, Version},
    mark::{self, EntryKind, Kind, Mark},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The ledger's copy, before it has its name; and what SQLite has beside it while it is written.
const LEDGER_NEW: [&str; 3] = ["files/ledger.new", "files/ledger.new-wal", "files/ledger.new-shm"];
/// A file, before it has its name.
const FILE_NEW: &str = "files/file.new";
/// As the run was described, for whoever serves it again.
const RUN_FILE: &str = "run.toml";
/// How often the ledger is copied at most, where blobs are removed meanwhile.
const ROUNDS_MAX: usize = 4;

/// What to back up, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run's state folder.
    pub state: PathBuf,
    /// The database that its ledger is in, if somebody says so.
    pub ledger: Option<DatabaseUrl>,
    /// The bucket that its blobs are in, if somebody says so.
    pub blobs: Option<BucketUrl>,
    /// The backup's folder: new, empty, or of an earlier backup of this run.
    pub to: PathBuf,
    /// Whether earlier backups' blobs are believed to be whole.
    pub quick: bool,
    /// Whether no progress is shown.
    pub quiet: bool,
}

/// A backup that was taken.
#[derive(Debug)]
pub struct Taken {
    /// What it holds.
    pub contents: Contents,
    /// Blobs that share their room with the run's.
    pub linked: u64,
    /// Blobs that were copied.
    pub copied: u64,
    /// Blobs of earlier backups that the run does not have any more, and that were removed here too.
    pub removed: u64,
}

/// Backs up a run, whether it is being served or not.
pub async fn take(options: &Options) -> Result<Taken, BackupError> {
    let Options { state: folder, to, quick, quiet, .. } = options;
    let state = StateFolder::open(folder)?;
    let ledger = state.ledger(options.ledger.as_ref())?;
    let blobs = state.blobs_to_read(state.bucket(options.blobs.as_ref())?.as_ref())?;
    let key = Identity::open(&*state.disk)?;
    let (disk, _lock) = open_to_write(to)?;
    if let Some(last) = Contents::read(to)? {
        is_of(&last, &ledger, to).await?;
    }
    let from: &dyn Disk = match blobs.bucket() {
        Some(bucket) => bucket,
        None => &*state.disk,
    };
    let way = Way { from, is_folder: blobs.bucket().is_none(), to: &disk, folder: to, quick: *quick };
    let mut bringing = Bringing { way, brought: BTreeMap::new(), last: None };
    // The long part, before the ledger is copied: what comes after it is short.
    bringing.all(&blobs, *quiet)?;
    let (held, mut files, lost) = one_state(&mut bringing, &blobs, &ledger, *quiet).await?;
    if held.key.is_some_and(|known| known != key.id().0) {
        return Err(BackupError::OtherKey);
    }
    let io = failed(to);
    let run_file = toml::to_string(&held.spec).map_err(|error| io(io::Error::other(error)))?;
    disk.write(RUN_FILE, run_file.as_bytes()).map_err(&io)?;
    let secret = BlobRef::of(key.pkcs8());
    disk.write_private(&stored(secret.hash), key.pkcs8()).map_err(&io)?;
    files.insert(identity::FILE.to_owned(), secret);
    for name in identity::BESIDE.into_iter().chain([COMPANIONS]) {
        if let Some(bytes) = state.disk.read(name).map_err(failed(folder))? {
            let file = BlobRef::of(&bytes);
            disk.write_private(&stored(file.hash), &bytes).map_err(&io)?;
            files.insert(name.to_owned(), file);
        }
    }
    bringing.sync().map_err(&io)?;

    let contents = Contents::new(&held, files, lost);
    contents.write(&disk).map_err(&io)?;
    Mark::whole(Kind::Backup).write(&disk).map_err(&io)?;
    let kept = held.blobs.iter().chain(bringing.brought.keys()).copied().collect();
    let removed = cleared(&disk, &contents, &kept).map_err(&io)?;
    let came = |wanted| held.blobs.iter().filter(|hash| bringing.brought.get(hash) == Some(&wanted)).count() as u64;
    let (linked, copied) = (came(Brought::Linked), came(Brought::Copied));
    Ok(Taken { contents, linked, copied, removed })
}

/// A state of the ledger with all that it names, and what of it the run does not have itself.
async fn one_state(
    bringing: &mut Bringing<'_>,
    blobs: &Blobs,
    ledger: &LedgerPlace,
    quiet: bool,
) -> Result<(copy::Held, BTreeMap<String, BlobRef>, Vec<BlobHash>), BackupError> {
    let (mut lost_before, mut round) = (None, 1);
    loop {
        // Before the ledger: so it knows the versions of these checkpoints, or at least of the older ones.
        let mut files = bringing.checkpoints(blobs)?;
        let (held, file) = copied_ledger(ledger, bringing.way.to, bringing.way.folder, quiet).await?;
        files.insert(LEDGER.to_owned(), file);
        let lost = bringing.those(&held.blobs)?;
        // What is lost for good is missing again. What was removed meanwhile, a newer ledger does not name.
        if lost.is_empty() || lost_before.as_ref() == Some(&lost) || round == ROUNDS_MAX {
            return Ok((held, files, lost));
        }
        (lost_before, round) = (Some(lost), round + 1);
    }
}

/// Where a file that is no blob lies.
pub(super) fn stored(hash: BlobHash) -> String {
    format!("files/{hash}")
}

/// Blobs and checkpoints on their way.
struct Bringing<'a> {
    way: Way<'a>,
    brought: BTreeMap<BlobHash, Brought>,
    /// That was given its name last.
    last: Option<BlobHash>,
}

impl Bringing<'_> {
    /// Every blob that the run has now.
    fn all(&mut self, blobs: &Blobs, quiet: bool) -> Result<(), BackupError> {
        let all = blobs.list_with_bytes()?;
        let bar = progress("backing up", all.iter().map(|blob| blob.bytes).sum(), quiet);
        let way = &self.way;
        let one = |blob: BlobRef| -> Result<_, BackupError> {
            Ok((blob.hash, way.blob(blob.hash, &mut |bytes| bar.inc(bytes))?))
        };
        for (name, how) in several(all, one)? {
            self.note(name, how);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// These, if they did not come before; those that are nowhere.
    fn those(&mut self, names: &BTreeSet<BlobHash>) -> Result<Vec<BlobHash>, BackupError> {
        let mut lost = vec![];
        for name in names {
            if self.one(*name)? == Brought::Lost {
                lost.push(*name);
            }
        }
        Ok(lost)
    }

    fn one(&mut self, name: BlobHash) -> Result<Brought, BackupError> {
        if let Some(how) = self.brought.get(&name).filter(|how| **how != Brought::Lost) {
            return Ok(*how);
        }
        let how = self.way.blob(name, &mut |_| {})?;
        self.note(name, how);
        Ok(how)
    }

    fn note(&mut self, name: BlobHash, how: Brought) {
        self.brought.insert(name, how);
        if matches!(how, Brought::Linked | Brought::Copied) {
            self.last = Some(name);
        }
    }

    /// The checkpoints that are there. One may be removed meanwhile: a newer one has come.
    fn checkpoints(&mut self, blobs: &Blobs) -> Result<BTreeMap<String, BlobRef>, BackupError> {
        let versions = blobs.checkpoints()?;
        let mut files = BTreeMap::new();
        for version in versions {
            let name = format!("checkpoints/{version}.njc");
            match self.way.draw(&name, FILE_NEW, true, &mut |_| {}) {
                Ok((file, _)) => {
                    self.way.to.rename(FILE_NEW, &stored(file.hash)).map_err(failed(self.way.folder))?;
                    files.insert(name, file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(self.way.folder)(error)),
            }
        }
        Ok(files)
    }

    /// Makes the names of all that came last.
    fn sync(&self) -> io::Result<()> {
        self.last.map_or(Ok(()), |last| self.way.to.sync(&format!("blobs/{last}")))
    }
}

/// The ledger as it is now, under its hash.
async fn copied_ledger(
    ledger: &LedgerPlace,
    disk: &FolderDisk,
    to: &Path,
    quiet: bool,
) -> Result<(copy::Held, BlobRef), BackupError> {
    let io = failed(to);
    LEDGER_NEW.iter().try_for_each(|file| disk.remove(file)).map_err(&io)?;
    fs::create_dir_all(to.join("files")).map_err(&io)?;
    let [name, ..] = LEDGER_NEW;
    let (new, progress) = (disk.path(name), Progress::default());
    shown(rows("ledger", quiet), &progress, copy::copy(ledger, &new, &progress)).await?;
    let held = copy::held(&new).await?;
    disk.sync(name).map_err(&io)?;
    let file = read_through(disk, name, &mut |_| {}).map_err(&io)?;
    disk.rename(name, &stored(file.hash)).map_err(&io)?;
    Ok((held, file))
}

/// Refuses to put a run's backup in the place of another's, or of one that knows more.
async fn is_of(last: &Contents, ledger: &LedgerPlace, to: &Path) -> Result<(), BackupError> {
    let (run, digest) = copy::run_and_digest(ledger, last.version.unwrap_or(Version(0))).await?;
    if run != last.run_id {
        return Err(BackupError::OtherRun { folder: to.to_owned(), run: last.run.clone() });
    }
    match last.version {
        Some(version) if last.digest.is_some() && digest != last.digest => {
            Err(BackupError::Ahead { folder: to.to_owned(), version: version.0 })
        }
        _ => Ok(()),
    }
}

/// Opens the folder for this process alone; a new one is marked before anything is written to it.
fn open_to_write(folder: &Path) -> Result<(FolderDisk, File), BackupError> {
    let io = failed(folder);
    match fs::metadata(folder) {
        Ok(about) if !about.is_dir() => return Err(BackupError::NotAFolder(folder.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let is_new = mark::is_empty(folder).map_err(&io)?;
    if !is_new {
        is_backup(folder)?;
        is_nobody_elses(folder)?;
    }
    let disk = FolderDisk::open(folder).map_err(&io)?;
    let lock = locked(folder)?;
    if is_new {
        Mark::begun(Kind::Backup).write(&disk).map_err(&io)?;
    }
    Ok((disk, lock))
}

fn locked(folder: &Path) -> Result<File, BackupError> {
    let io = failed(folder);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"));
    let file = file.map_err(&io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Makes sure that a folder was made for a backup.
pub(super) fn is_backup(folder: &Path) -> Result<(), BackupError> {
    match Mark::read(folder)? {
        Some(mark) if mark.kind == Kind::Backup => Ok(()),
        Some(mark) => Err(BackupError::OtherKind { folder: folder.to_owned(), kind: mark.kind.said() }),
        None => {
            let entries = mark::entries(folder).map_err(failed(folder))?;
            let entry = entries.into_iter().next().map_or_else(String::new, |(name, _)| name);
            Err(BackupError::Foreign { folder: folder.to_owned(), entry })
        }
    }
}

/// Makes sure that nothing of somebody else's is in the place of what is written.
fn is_nobody_elses(folder: &Path) -> Result<(), BackupError> {
    let is_ours = |name: &str, kind: EntryKind| match kind {
        EntryKind::File => ["lock", contents::FILE, RUN_FILE].contains(&name),
        EntryKind::Folder => ["blobs", "files"].contains(&name),
        EntryKind::Other => false,
    };
    match mark::foreign(folder, is_ours).map_err(failed(folder))? {
        Some(entry) => Err(BackupError::Foreign { folder: folder.to_owned(), entry }),
        None => Ok(()),
    }
}

/// Removes what earlier backups needed and this one does not; how many blobs those were.
fn cleared(disk: &FolderDisk, contents: &Contents, named: &BTreeSet<BlobHash>) -> io::Result<u64> {
    let files: BTreeSet<BlobHash> = contents.files.values().map(|file| file.hash).collect();
    let mut removed = 0;
    for (folder, needed) in [("blobs", named), ("files", &files)] {
        for name in disk.list(folder)? {
            // Whatever has another name is nothing of ours.
            let Ok(hash) = name.trim_end_matches(PART).parse::<BlobHash>() else { continue };
            if name.ends_with(PART) || !needed.contains(&hash) {
                disk.remove(&format!("{folder}/{name}"))?;
                removed += u64::from(folder == "blobs" && !name.ends_with(PART));
            }
        }
    }
    Ok(removed)
}
