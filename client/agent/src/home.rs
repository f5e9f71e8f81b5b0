//! Where a device's files lie. With `--home DIR` all of them are in one folder; without, each kind where the system
//! wants it: what must last in the user's data folder, the preferences in the configuration folder, the control API's
//! token in the runtime folder. One process at a time uses a home. Files in it come and go, so only a folder that is
//! ours becomes one.

use crate::identity::Identity;
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    home_files,
    mark::{self, Kind, Mark, MarkError},
    plain,
};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The variable that names another home folder.
pub const HOME_VARIABLE: &str = "NIGHTJAR_HOME";

/// What can be done about a runtime folder that cannot be used.
const RUNTIME_HINT: &str = ", or have XDG_RUNTIME_DIR name another, or none";

/// A home.
#[derive(Clone)]
pub struct Home {
    folder: PathBuf,
    config: PathBuf,
    runtime: PathBuf,
    /// Whether it is the user's own, not one that was named.
    is_usual: bool,
    disk: Arc<FolderDisk>,
}

/// A home that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The system names no folder for a program's data.
    #[error("this system names no folder for a program's data; choose one with --home DIR")]
    Nowhere,
    /// It has no name. The folder that a program happens to be started in is nobody's home.
    #[error(
        "the home folder's name is empty; name a folder with --home DIR or {HOME_VARIABLE}, or leave both out for the \
        usual one"
    )]
    Nameless,
    /// It begins with a sign that a shell would have put the user's own folder for.
    #[error("{folder} begins with ~, which only a shell knows how to read; write the folder's whole name")]
    Tilde {
        /// What was given.
        folder: String,
    },
    /// It is something else.
    #[error(
        "{folder} is no folder; name another with --home DIR or {HOME_VARIABLE}, or leave both out for the usual one"
    )]
    NoFolder {
        /// What was given.
        folder: String,
    },
    /// A file in the runtime folder cannot be written.
    #[error("cannot write {file} ({source}); make its folder writable{}", if *.is_usual { RUNTIME_HINT } else { "" })]
    Runtime {
        /// Which.
        file: String,
        /// Whether the folder is the one that the system names.
        is_usual: bool,
        /// The disk's words.
        source: io::Error,
    },
    /// It cannot be made or opened.
    #[error("cannot use the home folder {folder} ({source}); make it writable, or choose another with --home DIR")]
    Open {
        /// Which.
        folder: String,
        /// The disk's words.
        source: io::Error,
    },
    /// It holds what this program did not write.
    #[error("{folder} holds {entry}, which is not nightjar's: choose an empty folder, or a new one, with --home DIR")]
    Foreign {
        /// Which.
        folder: String,
        /// What is not ours.
        entry: String,
    },
    /// Another command made it.
    #[error("{folder} is {kind}, no device's home: choose an empty folder, or a new one, with --home DIR")]
    OtherKind {
        /// Which.
        folder: String,
        /// What it is.
        kind: &'static str,
    },
    /// Its mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Another process uses it.
    #[error("nightjar is running already with the home folder {folder}; `nightjar status` shows it")]
    InUse {
        /// Which.
        folder: String,
    },
}

const LOCK_FILE: &str = "lock";
/// Held while a process uses the home; the system lets go of it however the process ends.
pub struct HomeLock {
    _held: Vec<File>,
}

impl Home {
    /// Opens a home, creating its folders: the one given, or the user's.
    pub fn open(given: Option<PathBuf>) -> Result<Self, HomeError> {
        let is_usual = given.is_none();
        if given.as_ref().is_some_and(|folder| folder.to_string_lossy().trim().is_empty()) {
            return Err(HomeError::Nameless);
        }
        if let Some(folder) = given.as_ref().filter(|folder| folder.to_string_lossy().starts_with('~')) {
            return Err(HomeError::Tilde { folder: folder.display().to_string() });
        }
        let [folder, config, runtime] = match given {
            Some(folder) => [folder.clone(), folder.clone(), folder],
            None => {
                let usual = directories::ProjectDirs::from("", "", "nightjar");
                // Where the user's own folder is given by half, all of it would be made wherever the program is
                // started.
                let usual = usual.filter(|usual| usual.data_dir().is_absolute()).ok_or(HomeError::Nowhere)?;
                let data = usual.data_dir().to_path_buf();
                let runtime = usual.runtime_dir().map_or_else(|| data.clone(), Path::to_path_buf);
                [data, usual.config_dir().to_path_buf(), runtime]
            }
        };
        let error = |source| HomeError::Open { folder: folder.display().to_string(), source };
        // The worker and the command line may have other working folders.
        let [folder, config, runtime] =
            [std::path::absolute(&folder), std::path::absolute(config), std::path::absolute(runtime)];
        let (folder, config, runtime) = (folder.map_err(error)?, config.map_err(error)?, runtime.map_err(error)?);
        if fs::metadata(&folder).is_ok_and(|about| !about.is_dir()) {
            return Err(HomeError::NoFolder { folder: folder.display().to_string() });
        }
        let is_marked = look(&folder)?;
        let disk = FolderDisk::open(&folder).map_err(error)?;
        if !is_marked {
            // On a disk that is full or read-only for now the home works as far as it can, and is marked later.
            let _ = Mark::whole(Kind::Home).write(&disk);
        }
        Ok(Home { folder, config, runtime, is_usual, disk: Arc::new(disk) })
    }

    /// Whether there is a home already, the one given or the user's: who only asks makes none.
    pub fn is_there(given: Option<&Path>) -> bool {
        match given {
            // What is no folder's name is refused where it is opened.
            Some(folder) => {
                folder.exists() || !matches!(folder.to_string_lossy().trim().chars().next(), Some(c) if c != '~')
            }
            None => directories::ProjectDirs::from("", "", "nightjar").is_none_or(|usual| usual.data_dir().exists()),
        }
    }

    /// The folder of what must last.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that was named, for a process that is to use the same home; `None` for the user's own.
    pub fn named(&self) -> Option<&Path> {
        (!self.is_usual).then_some(&*self.folder)
    }

    /// A file of what must last.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file that the owner may edit.
    pub fn config_path(&self, name: &str) -> PathBuf {
        self.config.join(name)
    }

    /// A file that means nothing once the process has ended.
    pub fn runtime_path(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    /// The seam through which what must last is written.
    pub fn disk(&self) -> Arc<FolderDisk> {
        self.disk.clone()
    }

    /// Takes the home for this process alone.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let folder = || self.folder.display().to_string();
        let (mut held, mut refused) = (vec![], None);
        for opened in [self.lock_file(), self.open_folder()] {
            match opened.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file)) {
                Ok(file) => held.push(file),
                Err(TryLockError::WouldBlock) => return Err(HomeError::InUse { folder: folder() }),
                Err(TryLockError::Error(source)) => refused = refused.or(Some(source)),
            }
        }
        match refused {
            // A disk that is full or read-only takes no file, and some disks lock no folder: either will do.
            Some(source) if held.is_empty() => Err(HomeError::Open { folder: folder(), source }),
            _ => Ok(HomeLock { _held: held }),
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        let path = self.path(LOCK_FILE);
        // Made once, it is there where nothing can be written.
        plain::open(&path, fs::OpenOptions::new().create(true).truncate(false).write(true))
            .or_else(|refused| plain::open_to_read(&path).map_err(|_| refused))
    }

    #[cfg(unix)]
    fn open_folder(&self) -> io::Result<File> {
        File::open(&self.folder)
    }

    #[cfg(not(unix))]
    fn open_folder(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Replaces a file of what must last that only this user may read, atomically.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_private(name, bytes)
    }

    /// Replaces a file in the runtime folder that only this user may read, atomically; says where it is.
    pub fn write_runtime(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, HomeError> {
        let path = self.runtime_path(name);
        let written = FolderDisk::open(&self.runtime).and_then(|disk| disk.write_private(name, bytes));
        let is_usual = self.is_usual;
        written.map_err(|source| HomeError::Runtime { file: path.display().to_string(), is_usual, source })?;
        Ok(path)
    }
}

/// Whether a folder bears a home's mark; an error if it is none and does not become one. Nothing is touched.
fn look(folder: &Path) -> Result<bool, HomeError> {
    let named = || folder.display().to_string();
    let io = |source| HomeError::Open { folder: named(), source };
    match Mark::read(folder)? {
        Some(mark) if mark.kind == Kind::Home => return Ok(true),
        Some(mark) => return Err(HomeError::OtherKind { folder: named(), kind: mark.kind.said() }),
        None => {}
    }
    if let Some(entry) = mark::foreign(folder, home_files::is_ours).map_err(io)? {
        return Err(HomeError::Foreign { folder: named(), entry });
    }
    // Names alone do not make it ours: in a home of an earlier version is a device's key.
    let entries = mark::entries(folder).map_err(io)?;
    let first = entries.into_iter().map(|(name, _)| name).find(|name| name != "lost+found");
    match first {
        Some(entry) if !mark::is_empty(folder).map_err(io)? && !Identity::is_in(folder) => {
            Err(HomeError::Foreign { folder: named(), entry })
        }
        _ => Ok(false),
    }
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

    #[test]
    fn only_a_folder_of_ours_becomes_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let told = |name: &str| {
            let home = folder.path().join(name);
            let before = mark::entries(&home).unwrap();
            let told = Home::open(Some(home.clone())).err().expect("it is refused").to_string();
            assert_eq!(mark::entries(&home).unwrap(), before, "{told}");
            told
        };
        let make = |file: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "dear").unwrap();
        };
        make("project/src/main.rs");
        assert!(told("project").contains("holds src"));
        // The names are ours, and the folder is not.
        make("thesis/work/chapter-1");
        assert!(told("thesis").contains("holds work"));
        make("old/work/weights-1");
        make("old/identity.pk8");
        make("old/membership.json");
        assert!(told("old").contains("holds identity.pk8"), "what is no key");
        fs::write(folder.path().join("old/identity.pk8"), Identity::generate().unwrap().as_file()).unwrap();
        Home::open(Some(folder.path().join("old"))).expect("a home of an earlier version");
        make("old/holiday.bin");
        Home::open(Some(folder.path().join("old"))).expect("it is marked now");
        for theirs in ["policy.json", "agent.log", "x.damaged", "cache/x", "history/notes", "prefs.toml", "lock"] {
            let name = format!("with-{}", theirs.replace('/', "-"));
            make(&format!("{name}/{theirs}"));
            assert!(told(&name).contains(theirs.split('/').next().unwrap()), "{theirs}");
        }
        make("dear/made-by-nightjar.txt");
        assert!(told("dear").contains("made-by-nightjar.txt"));
        assert_eq!(fs::read(folder.path().join("dear/made-by-nightjar.txt")).unwrap(), b"dear");
        fs::create_dir(folder.path().join("model")).unwrap();
        mark::leave(&folder.path().join("model"), &Mark::whole(Kind::Model)).unwrap();
        assert!(told("model").contains("an exported model"));
    }

    #[test]
    fn what_is_no_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Home::is_there(Some(folder.path())) && !Home::is_there(Some(&folder.path().join("none"))));
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let told = |home: PathBuf| Home::open(Some(home)).map(|_| ()).unwrap_err().to_string();
        assert!(told(file).contains("file is no folder"));
        assert!(told("~/nightjar".into()).contains("only a shell") && !Path::new("~").exists());
    }

    /// A disk that takes no new file, or on which nothing can be written, locks the home all the same.
    #[cfg(unix)]
    #[test]
    fn a_home_without_a_file_to_lock_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        // Nothing can be opened at its place, as nothing can be made on such a disk.
        fs::create_dir(home.path(LOCK_FILE)).unwrap();
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(HomeError::InUse { .. })));
        // The disk recovers meanwhile, and there is one process still.
        fs::remove_dir(home.path(LOCK_FILE)).unwrap();
        assert!(matches!(home.lock(), Err(HomeError::InUse { .. })));
        drop(lock);
        home.lock().unwrap();
    }

    #[test]
    fn every_file_of_ours_is_known_as_one() {
        use crate::{control, history, journal, membership, pause, preferences, worker};
        let files = [
            journal::JOURNAL_FILE,
            membership::MEMBERSHIP_FILE,
            pause::PAUSE_FILE,
            preferences::PREFERENCES_FILE,
            preferences::LAST_GOOD_FILE,
            control::CONTROL_FILE,
            control::PORT_FILE,
            control::PROBE_FILE,
            history::LOG_FILE,
            worker::crashes::CRASHES_FILE,
        ];
        for file in files {
            assert!(home_files::is_ours(file, mark::EntryKind::File), "{file}");
        }
    }

    #[test]
    fn a_named_home_is_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().into())).unwrap();
        for path in [home.path("x"), home.config_path("x"), home.runtime_path("x")] {
            assert_eq!(path, folder.path().join("x"));
        }
        assert_eq!(home.named(), Some(folder.path()));
    }

    /// A variable that was set to nothing names no folder: neither the one that the program was started in, nor the
    /// usual one.
    #[test]
    fn a_home_without_a_name_is_refused_in_words() {
        for nothing in ["", " "] {
            let told = Home::open(Some(nothing.into())).map(|_| ()).unwrap_err().to_string();
            assert!(told.contains(HOME_VARIABLE) && told.contains("is empty"), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_written_in_the_runtime_folder_is_told_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let mut home = Home::open(Some(folder.path().join("home"))).unwrap();
        let taken = folder.path().join("taken");
        fs::write(&taken, b"a file, not a folder").unwrap();
        home.runtime.clone_from(&taken);
        let told = |home: &Home| home.write_runtime("token", b"x").unwrap_err().to_string();
        let path = taken.join("token").display().to_string();
        assert!(told(&home).contains(&path) && !told(&home).contains("XDG_RUNTIME_DIR"), "{}", told(&home));
        home.is_usual = true;
        assert!(told(&home).contains(&path) && told(&home).contains("XDG_RUNTIME_DIR"), "{}", told(&home));
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().into())).unwrap();
        home.write_private("key", b"one").unwrap();
        home.write_private("key", b"two").unwrap();
        let token = home.write_runtime("token", b"three").unwrap();
        assert_eq!(fs::read(home.path("key")).unwrap(), b"two");
        for path in [home.path("key"), token] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
