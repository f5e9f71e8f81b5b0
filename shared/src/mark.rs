//! Whose a folder is. A program that fills a folder leaves its *mark* there: a small text file that names the kind of
//! folder. Nothing in a folder without our mark is ever removed or replaced, nor in one that holds anything else than
//! its kind has.

use crate::{
    disk::{Disk, FolderDisk},
    ids::BlobHash,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The mark's file in the folder.
pub const MARK_FILE: &str = "made-by-nightjar.txt";
const FORMAT: u32 = 1;
const FIRST_LINE: &str = "Nightjar made this folder. Leave this file here: it is how the program knows its own.";
/// No mark is longer.
const BYTES_MAX: u64 = 1 << 20;

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An exported model.
    Model,
    /// A coordinator's state.
    State,
    /// A copy of one.
    Backup,
    /// A prepared dataset.
    Dataset,
    /// A device's home.
    Home,
    /// What the demo keeps.
    Demo,
}

impl Kind {
    const ALL: [(Kind, &'static str); 6] = [
        (Kind::Model, "model"),
        (Kind::State, "state"),
        (Kind::Backup, "backup"),
        (Kind::Dataset, "dataset"),
        (Kind::Home, "home"),
        (Kind::Demo, "demo"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    /// As a person would say it.
    pub fn said(self) -> &'static str {
        match self {
            Kind::Model => "an exported model",
            Kind::State => "a coordinator's state",
            Kind::Backup => "a backup of a run",
            Kind::Dataset => "a prepared dataset",
            Kind::Home => "a device's home",
            Kind::Demo => "the demo's output",
        }
    }
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What the folder is for.
    pub kind: Kind,
    /// Whether the folder's making is finished.
    pub is_whole: bool,
    /// Files with their length and hash, where the kind keeps them: a file that was changed since is no longer ours.
    pub files: BTreeMap<String, (u64, BlobHash)>,
}

/// A mark that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// A newer version of the program made the folder.
    #[error("{0} was made by a newer version of Nightjar; upgrade this program")]
    Newer(PathBuf),
    /// It cannot be read.
    #[error("{file} cannot be read: {source}")]
    Io {
        /// The mark's file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Mark {
    /// Of a folder that is only begun.
    pub fn begun(kind: Kind) -> Self {
        Mark { kind, is_whole: false, files: BTreeMap::new() }
    }

    /// Of a finished folder.
    pub fn whole(kind: Kind) -> Self {
        Mark { is_whole: true, ..Mark::begun(kind) }
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let is_whole = if self.is_whole { "yes" } else { "no" };
        let mut text = format!("{FIRST_LINE}\nkind {}\nformat {FORMAT}\nfinished {is_whole}\n", self.kind.word());
        for (name, (bytes, hash)) in &self.files {
            text += &format!("file {bytes} {hash} {name}\n");
        }
        text
    }

    /// Writes it into a folder, in one step. Durable on return.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.write(MARK_FILE, self.text().as_bytes())
    }

    /// The folder's mark; `None` if there is none, or none that a program of ours wrote.
    pub fn read(folder: &Path) -> Result<Option<Mark>, MarkError> {
        let file = folder.join(MARK_FILE);
        let failed = |source| MarkError::Io { file: file.clone(), source };
        // Of a link it would say nothing about this folder.
        match fs::symlink_metadata(&file) {
            Ok(about) if about.is_file() && about.len() <= BYTES_MAX => {}
            Ok(_) => return Ok(None),
            Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&e.kind()) => return Ok(None),
            Err(e) => return Err(failed(e)),
        }
        let bytes = crate::plain::read(&file).map_err(failed)?;
        let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
        match parse(&text) {
            Some((format, _)) if format > FORMAT => Err(MarkError::Newer(folder.to_owned())),
            Some((_, mark)) => Ok(mark),
            None => Ok(None),
        }
    }
}

/// The format, and, if it is one that this version reads, what the mark says.
fn parse(text: &str) -> Option<(u32, Option<Mark>)> {
    let lines = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.strip_suffix('\n')?;
    let (mut kind, mut format, mut is_whole, mut files) = (None, None, None, BTreeMap::new());
    for line in lines.split('\n') {
        match line.split_once(' ') {
            Some(("kind", word)) => kind = Kind::ALL.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind),
            Some(("format", number)) => format = number.parse::<u32>().ok(),
            Some(("finished", word)) => is_whole = Some(word == "yes"),
            Some(("file", rest)) => {
                let mut words = rest.splitn(3, ' ');
                let (bytes, hash, name) = (words.next()?, words.next()?, words.next()?);
                files.insert(name.to_owned(), (bytes.parse().ok()?, hash.parse().ok()?));
            }
            // What a newer version adds.
            _ => {}
        }
    }
    let mark = kind.zip(is_whole).map(|(kind, is_whole)| Mark { kind, is_whole, files });
    Some((format?, mark))
}

/// What an entry of a folder is by itself: a link is a link, wherever it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, a socket, a device.
    Other,
}

/// What a folder has in it, by name; empty if there is no such folder.
pub fn entries(folder: &Path) -> io::Result<Vec<(String, EntryKind)>> {
    let found = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        found => found?,
    };
    let mut entries = vec![];
    for entry in found {
        let entry = entry?;
        let kind = match entry.file_type()? {
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_dir() => EntryKind::Folder,
            _ => EntryKind::Other,
        };
        // A name that is no text is none of ours, and stays different from all that are.
        entries.push((entry.file_name().to_string_lossy().into_owned(), kind));
    }
    entries.sort();
    Ok(entries)
}

/// The first entry that is none of ours: `is_ours` is told each name and kind. [`Disk::write`]'s unfinished files of
/// our own names, and what a file system keeps at its own root, count as ours; a file with the mark's name only if it
/// says what a mark says.
pub fn foreign(folder: &Path, is_ours: impl Fn(&str, EntryKind) -> bool) -> io::Result<Option<String>> {
    let is_mark = || !matches!(Mark::read(folder), Ok(None));
    let is_known = |name: &str, kind: EntryKind| {
        is_ours(name, kind)
            || ((name, kind) == (MARK_FILE, EntryKind::File) && is_mark())
            || (name, kind) == ("lost+found", EntryKind::Folder)
            || name
                .strip_suffix(".new")
                .is_some_and(|of| kind == EntryKind::File && (of == MARK_FILE || is_ours(of, kind)))
    };
    Ok(entries(folder)?.into_iter().find(|(name, kind)| !is_known(name, *kind)).map(|(name, _)| name))
}

/// Whether a folder holds nothing that would be missed: a mark that is being written, and an empty file named `lock`.
pub fn is_empty(folder: &Path) -> io::Result<bool> {
    let unfinished = format!("{MARK_FILE}.new");
    for (name, kind) in entries(folder)? {
        let is_lock = name == "lock" && kind == EntryKind::File && fs::symlink_metadata(folder.join(&name))?.len() == 0;
        let is_nothing = is_lock || (name == unfinished && kind == EntryKind::File);
        if !is_nothing && (name.as_str(), kind) != ("lost+found", EntryKind::Folder) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Marks a folder whose contents were looked through.
pub fn leave(folder: &Path, mark: &Mark) -> io::Result<()> {
    mark.write(&FolderDisk::open(folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(folder.path()).unwrap(), None);
        let mut mark = Mark::whole(Kind::Model);
        mark.files.insert("a file.json".into(), (3, BlobHash::of(b"abc")));
        for mark in [mark, Mark::begun(Kind::State)] {
            leave(folder.path(), &mark).unwrap();
            assert_eq!(Mark::read(folder.path()).unwrap(), Some(mark));
        }
        for other in
            ["", "something else", "kind model\n", &format!("{FIRST_LINE}\nkind poem\nformat 1\nfinished yes\n")]
        {
            fs::write(folder.path().join(MARK_FILE), other).unwrap();
            assert_eq!(Mark::read(folder.path()).unwrap(), None, "{other}");
        }
        fs::write(folder.path().join(MARK_FILE), format!("{FIRST_LINE}\nkind poem\nformat 2\n")).unwrap();
        assert!(matches!(Mark::read(folder.path()), Err(MarkError::Newer(_))));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_no_mark_and_no_file() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        leave(ours.path(), &Mark::whole(Kind::Model)).unwrap();
        std::os::unix::fs::symlink(ours.path().join(MARK_FILE), theirs.path().join(MARK_FILE)).unwrap();
        assert_eq!(Mark::read(theirs.path()).unwrap(), None);
        assert_eq!(foreign(theirs.path(), |_, _| false).unwrap(), Some(MARK_FILE.to_owned()));
        assert_eq!(foreign(ours.path(), |_, _| false).unwrap(), None);
    }

    #[test]
    fn what_is_not_ours_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_empty(folder.path()).unwrap() && is_empty(&folder.path().join("none")).unwrap());
        fs::write(folder.path().join("lock"), "").unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        assert!(is_empty(folder.path()).unwrap());
        fs::write(folder.path().join("lock"), "a poem").unwrap();
        assert!(!is_empty(folder.path()).unwrap());
        fs::write(folder.path().join("ours.new"), "").unwrap();
        let is_ours = |name: &str, kind| ["lock", "ours"].contains(&name) && kind == EntryKind::File;
        assert_eq!(foreign(folder.path(), is_ours).unwrap(), None);
        fs::write(folder.path().join(MARK_FILE), "dear").unwrap();
        assert_eq!(
            foreign(folder.path(), is_ours).unwrap(),
            Some(MARK_FILE.to_owned()),
            "the name is ours, and no more"
        );
        leave(folder.path(), &Mark::whole(Kind::Home)).unwrap();
        assert_eq!(foreign(folder.path(), is_ours).unwrap(), None);
        fs::create_dir(folder.path().join("ours")).unwrap();
        assert_eq!(foreign(folder.path(), is_ours).unwrap(), Some("ours".to_owned()), "a folder in a file's place");
    }
}
