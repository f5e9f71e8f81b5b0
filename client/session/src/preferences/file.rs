//! The owner's `prefs.toml`, as a running program holds it: what is in force, where each value is from, and what is
//! wrong with the file, if anything. A file with a mistake changes nothing: what was last good stays in force, over
//! restarts too.

use super::{
    Preference, Preferences, PreferencesError, Row, Source,
    edit::{self, Edit},
    layers::{self, Laid, Said},
    migrate, row, template,
};
use nightjar_shared::plain;
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The preferences' file in the config folder.
pub const PREFERENCES_FILE: &str = "prefs.toml";
/// The copy of the last file without a mistake, in the home folder.
pub const LAST_GOOD_FILE: &str = "prefs.good.toml";

/// No preferences are longer than this.
const BYTES_MAX: u64 = 256 << 10;

/// The preferences in force.
#[derive(Debug)]
pub struct PreferencesFile {
    /// Empty: there is no file, only defaults.
    path: PathBuf,
    last_good: PathBuf,
    /// What the environment and the flags say.
    said: Vec<Said>,
    laid: Laid,
    stamp: Option<Stamp>,
    /// The file was not there at the last look, though it had been.
    has_vanished: bool,
    error: Option<PreferencesError>,
}

/// What shows that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl PreferencesFile {
    /// The file at `path`, under what the environment and these flags (keys and values) say. If it has a mistake, the
    /// copy of the last good one at `last_good` is in force, and [`PreferencesFile::error`] says what is wrong; fails
    /// where there is no such copy, or where environment or flags have a mistake.
    pub fn load(path: &Path, last_good: &Path, flags: &[(&str, &str)]) -> Result<Self, PreferencesError> {
        // Variables that are not Unicode name no preference.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::load_under(path, last_good, environment, flags)
    }

    fn load_under(
        path: &Path,
        last_good: &Path,
        environment: impl Iterator<Item = (String, String)>,
        flags: &[(&str, &str)],
    ) -> Result<Self, PreferencesError> {
        let mut said = layers::said_in(environment);
        said.extend(flags.iter().map(|(key, value)| Said {
            key: (*key).into(),
            value: (*value).into(),
            place: Source::CommandLine.to_string(),
            source: Source::CommandLine,
        }));
        let laid = layers::lay("", "", &said)?;
        let (path, last_good) = (path.into(), last_good.into());
        let mut file = PreferencesFile { path, last_good, said, laid, stamp: None, has_vanished: false, error: None };
        file.stamp = file.look();
        if let Err(mistake) = file.take() {
            let Some(laid) = file.last_good() else { return Err(mistake) };
            (file.laid, file.error) = (laid, Some(mistake));
        }
        Ok(file)
    }

    /// The defaults, of no file.
    pub fn defaults() -> Result<Self, PreferencesError> {
        Self::unread(Path::new(""), Path::new(""))
    }

    /// The file at `path`, not read yet: the defaults are in force. For who edits it, whatever stands in it.
    pub fn unread(path: &Path, last_good: &Path) -> Result<Self, PreferencesError> {
        let laid = layers::lay("", "", &[])?;
        let (path, last_good) = (path.into(), last_good.into());
        Ok(PreferencesFile { path, last_good, said: vec![], laid, stamp: None, has_vanished: false, error: None })
    }

    /// What is in force.
    pub fn preferences(&self) -> &Preferences {
        &self.laid.preferences
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the file, if anything; then an earlier one is in force.
    pub fn error(&self) -> Option<&PreferencesError> {
        self.error.as_ref()
    }

    /// Where a preference's value is from.
    pub fn source(&self, key: &str) -> Source {
        self.laid.source(key)
    }

    /// The whole table with values, for pages and scripts.
    pub fn rows(&self) -> Vec<Row> {
        row::rows(&self.laid.preferences, |key| self.source(key))
    }

    /// Reads the file again if it has changed since it was last looked at; whether other preferences are in force now.
    /// A mistake in it is kept for [`PreferencesFile::error`].
    pub fn reload_if_changed(&mut self) -> bool {
        let stamp = self.look();
        if stamp == self.stamp {
            self.has_vanished = false;
            return false;
        }
        // Some editors replace a file by removing it first, and the defaults may allow what the owner forbids.
        if stamp.is_none() && !self.has_vanished {
            self.has_vanished = true;
            return false;
        }
        (self.stamp, self.has_vanished) = (stamp, false);
        let before = self.laid.clone();
        self.error = self.take().err();
        self.laid != before
    }

    /// Sets a preference in the file, and leaves every comment and all else in it as it is; `default` takes it out.
    /// Where the environment or a flag says something else, that stays in force: [`PreferencesFile::source`] tells.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), PreferencesError> {
        let preference =
            Preference::find(key).ok_or_else(|| PreferencesError::unknown_key("nothing was changed", key))?;
        let edit = match value.trim() {
            value if value.eq_ignore_ascii_case("default") => Edit::Drop { key: key.into() },
            value => Edit::Put { key: key.into(), value: edit::canonical(preference, value)? },
        };
        let name = self.path.display().to_string();
        let text = self.text()?.unwrap_or_else(template);
        let text = edit::apply(&name, &migrate::text(&name, &text)?, &edit)?;
        self.replace(&text)
    }

    /// Puts a whole new text into the file, if it has no mistake.
    pub fn replace(&mut self, text: &str) -> Result<(), PreferencesError> {
        let text = without_mark(text);
        let laid = layers::lay(&self.path.display().to_string(), text, &self.said)?;
        writable(&self.path)?;
        write(&self.path, text)?;
        self.stamp = self.look();
        (self.laid, self.error) = (laid, None);
        self.keep(text);
        Ok(())
    }

    /// The file's text; `None` if there is none.
    pub fn text(&self) -> Result<Option<String>, PreferencesError> {
        bounded(&self.path)
    }

    /// Reads the file and lays it under the rest. Changes nothing if it has a mistake.
    fn take(&mut self) -> Result<(), PreferencesError> {
        let text = self.text()?;
        self.laid = layers::lay(&self.path.display().to_string(), text.as_deref().unwrap_or_default(), &self.said)?;
        self.keep(text.as_deref().unwrap_or_default());
        Ok(())
    }

    /// What the kept copy says, if there is one without a mistake.
    fn last_good(&self) -> Option<Laid> {
        let text = bounded(&self.last_good).ok()??;
        layers::lay(&self.last_good.display().to_string(), &text, &self.said).ok()
    }

    /// Keeps a copy of a good file for the next start.
    fn keep(&self, text: &str) {
        if self.last_good.as_os_str().is_empty()
            || bounded(&self.last_good).is_ok_and(|kept| kept.unwrap_or_default() == text)
        {
            return;
        }
        if let Err(e) = write(&self.last_good, text) {
            tracing::warn!("the preferences hold, but no copy of them could be kept for a later start: {e}");
        }
    }

    fn look(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode })
    }
}

/// A file's text, if there is one and it is not too long.
fn bounded(path: &Path) -> Result<Option<String>, PreferencesError> {
    let file = || path.display().to_string();
    let opened = match plain::open_to_read(path) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PreferencesError::Read { file: file(), source }),
    };
    let mut bytes = vec![];
    let read = opened.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|source| PreferencesError::Read { file: file(), source })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(PreferencesError::TooLong { file: file(), bytes_max: BYTES_MAX });
    }
    String::from_utf8(bytes).map(|text| Some(without_mark(&text).to_owned())).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        PreferencesError::NotText { place: format!("{}, line {line}", file()), byte: good + 1 }
    })
}

/// The text without the byte-order mark that some editors put before it, which means nothing in UTF-8.
fn without_mark(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
}

/// Whether the file may be changed. Taking its place takes nothing but its folder's leave, so that it must be asked
/// itself: it may be made read-only, for root as well, or be somebody else's. A link that leads nowhere waits for what
/// is not there now.
fn writable(path: &Path) -> Result<(), PreferencesError> {
    let read_only = || PreferencesError::ReadOnly { file: path.display().to_string() };
    match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().readonly() => Err(read_only()),
        Ok(_) => match plain::open(path, fs::OpenOptions::new().write(true)) {
            Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                Err(read_only())
            }
            Err(source) => Err(PreferencesError::Write { file: path.display().to_string(), source }),
            Ok(_) => Ok(()),
        },
        Err(_) if path.is_symlink() => {
            let source = io::Error::other("it is a link to a file that is not there");
            Err(PreferencesError::Write { file: path.display().to_string(), source })
        }
        // None is there; if it cannot be made, writing it says why.
        Err(_) => Ok(()),
    }
}

/// Replaces a file as a whole; where it is a link, what it points to. Its folder is the owner's: what is there beside
/// it, by whatever name, stays.
fn write(path: &Path, text: &str) -> Result<(), PreferencesError> {
    let error = |source| PreferencesError::Write { file: path.display().to_string(), source };
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(error(io::Error::other("it has no name")));
    };
    fs::create_dir_all(folder).map_err(error)?;
    let mut number = 0_u32;
    let (temporary, mut file) = loop {
        let temporary = folder.join(format!(".{}.{}-{number}", name.display(), std::process::id()));
        match fs::File::options().write(true).create_new(true).open(&temporary) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < 99 => number += 1,
            opened => break (temporary.clone(), opened.map_err(error)?),
        }
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| fs::rename(&temporary, &path));
    if replaced.is_err() {
        // The first error says more than what a full disk may say now.
        let _ = fs::remove_file(&temporary);
    }
    replaced.map_err(error)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
