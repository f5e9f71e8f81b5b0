//! Which files are read: those that the named paths lead to, each once, and a note of all that is left out on the way.

use super::{
    error::DatasetError,
    folder::PLAN,
    measuring::{Place, Split, split_of},
    notes::{Note, Notes},
    pattern::Patterns,
    sniff,
    source::Format,
};
use nightjar_shared::mark::{MARK_FILE, Mark};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, Metadata},
    io::Read,
    path::{Path, PathBuf},
};

/// A file of at most so many bytes may be what Git LFS leaves in place of another.
const LFS_POINTER_BYTES_MAX: u64 = 1 << 10;
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A file that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is read.
    pub path: PathBuf,
    /// How it is laid out, as the name says under which it was found, or else what it holds.
    pub format: Format,
    /// Whether that name has an ending.
    has_ending: bool,
    /// Its name without any link.
    real: PathBuf,
    /// The folder that was named, or that holds the file that was.
    root: PathBuf,
    /// Its place in there.
    relative: PathBuf,
    /// What the system says of it.
    pub metadata: Metadata,
    /// Whether it was named itself.
    named: bool,
}

/// What two names of one file have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Same {
    /// Device and number.
    #[cfg(unix)]
    Inode(u64, u64),
    /// Its name without any link.
    Name(PathBuf),
}

/// Finds files.
pub struct Walk<'a> {
    /// What to take and what to leave.
    pub patterns: &'a Patterns,
    /// The folder that is written, as it is really called: it is no input.
    pub out: Option<PathBuf>,
    /// What was left out.
    pub notes: &'a mut Notes,
}

/// The real name of a path that may not be there yet.
pub fn real_name(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().or_else(|| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(parent).ok()?.join(path.file_name()?))
    })
}

impl Found {
    fn new(
        path: PathBuf,
        real: PathBuf,
        relative: PathBuf,
        metadata: Metadata,
        named: bool,
    ) -> Result<Self, DatasetError> {
        let (format, has_ending) = (Format::of(&path), path.extension().is_some());
        let root = path.ancestors().nth(relative.components().count()).unwrap_or(Path::new("")).to_owned();
        let mut found = Found { path, format, has_ending, real, root, relative, metadata, named };
        if found.metadata.len() <= LFS_POINTER_BYTES_MAX
            && let Some(target) = written_link(&found.path)?
        {
            found.metadata = fs::metadata(&target).map_err(DatasetError::io(&target))?;
            (found.path, found.real) = (target.clone(), target);
        }
        Ok(found)
    }

    /// What its documents are called together: the folder of the input that holds it, or else its name without numbers.
    pub fn domain(&self) -> String {
        let mut parts = self.relative.components().map(|part| part.as_os_str().to_string_lossy());
        let first = parts.next().unwrap_or_default();
        let name = match parts.next() {
            Some(_) => first.as_ref(),
            None => first.split('.').next().unwrap_or_default().trim_end_matches(|c: char| !c.is_alphabetic()),
        };
        // As in web-00003-of-00080.
        let name = name.strip_suffix("-of").unwrap_or(name).trim_end_matches(|c: char| !c.is_alphabetic());
        let root = || self.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.is_empty() { root() } else { name.to_owned() }
    }

    /// What it has in common with its other names.
    fn same(&self) -> Same {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            // Not all file systems number their files.
            if self.metadata.ino() != 0 {
                return Same::Inode(self.metadata.dev(), self.metadata.ino());
            }
        }
        Same::Name(self.real.clone())
    }
}

/// Whether a program of ours made a folder.
fn is_own(folder: &Path) -> bool {
    // Datasets of earlier versions have no mark.
    let is_old_dataset = || folder.join(PLAN).is_file() && folder.join("blobs").is_dir();
    !matches!(Mark::read(folder), Ok(None)) || is_old_dataset()
}

/// Where a link leads that was written as a text file, as Git does on systems without links.
fn written_link(path: &Path) -> Result<Option<PathBuf>, DatasetError> {
    let bytes = fs::read(path).map_err(DatasetError::io(path))?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let is_path = text.starts_with("../") && !text.contains(|c: char| c.is_control());
    let target = path.parent().filter(|_| is_path).and_then(|folder| fs::canonicalize(folder.join(text)).ok());
    Ok(target.filter(|target| target.is_file()))
}

impl Walk<'_> {
    /// All files of these paths, folders recursively and sorted by name, each once.
    pub fn files(mut self, paths: &[PathBuf]) -> Result<Vec<Found>, DatasetError> {
        let mut found = vec![];
        for path in paths {
            let real = fs::canonicalize(path).map_err(DatasetError::io(path))?;
            let metadata = fs::metadata(&real).map_err(DatasetError::io(path))?;
            if metadata.is_dir() && is_own(&real) {
                self.notes.add(Note::OwnFolder, path.display().to_string());
                continue;
            }
            if !metadata.is_file() {
                self.folder(&real, path, Path::new(""), &mut found)?;
                continue;
            }
            let relative = PathBuf::from(path.file_name().unwrap_or(real.as_os_str()));
            if self.is_wanted(path, &relative) {
                // A link's own name says what the file is; in a cache of downloads the real one is a hash.
                let is_link = fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
                let path = if is_link { real_name_of_link(path).unwrap_or(real.clone()) } else { real.clone() };
                found.push(Found::new(path, real, relative, metadata, true)?);
            }
        }
        // Of all names: a file may be read under another one.
        let splits = found.iter().filter_map(|file| Some((file.root.clone(), split_of(&file.relative, file.format)?)));
        let splits: BTreeSet<_> = splits.collect();
        let found = self.once_each(found);
        let found = self.with_content(found)?;
        let mut found = self.without_the_rest(found, &splits);
        for file in found.iter_mut().filter(|file| file.format == Format::Text) {
            if let Some(format) = sniff::records(&file.path).map_err(DatasetError::io(&file.path))? {
                self.notes.add(Note::Records, file.relative.display().to_string());
                file.format = format;
            }
        }
        Ok(found)
    }

    fn folder(
        &mut self,
        folder: &Path,
        given: &Path,
        relative: &Path,
        found: &mut Vec<Found>,
    ) -> Result<(), DatasetError> {
        let mut entries = vec![];
        for entry in fs::read_dir(folder).map_err(DatasetError::io(folder))? {
            let entry = entry.map_err(DatasetError::io(folder))?;
            let kind = entry.file_type().map_err(DatasetError::io(entry.path()))?;
            entries.push((entry.path(), entry.file_name(), kind));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, name, kind) in entries {
            let relative = relative.join(&name);
            let shown = relative.display().to_string();
            if self.out.as_ref() == Some(&path) {
                self.notes.add(Note::Output, "");
                continue;
            }
            if name.as_encoded_bytes().starts_with(b".") {
                self.notes.add(Note::Hidden, shown);
                continue;
            }
            let given = given.join(&name);
            if self.patterns.excludes(&relative, &given) {
                self.notes.add(Note::Excluded, shown);
                continue;
            }
            if kind.is_dir() && is_own(&path) {
                self.notes.add(Note::OwnFolder, shown);
                continue;
            }
            if name == MARK_FILE {
                self.notes.add(Note::Mark, shown);
                continue;
            }
            if kind.is_dir() {
                self.folder(&path, &given, &relative, found)?;
                continue;
            }
            let Ok(metadata) = fs::metadata(&path) else {
                self.notes.add(Note::DeadLink, shown);
                continue;
            };
            let note = match () {
                () if metadata.is_dir() => Note::FolderLink,
                () if !metadata.is_file() => Note::NoFile,
                () if !self.is_wanted(&given, &relative) => continue,
                () => {
                    let real = if kind.is_symlink() {
                        fs::canonicalize(&path).map_err(DatasetError::io(&path))?
                    } else {
                        path.clone()
                    };
                    found.push(Found::new(path, real, relative, metadata, false)?);
                    continue;
                }
            };
            self.notes.add(note, shown);
        }
        Ok(())
    }

    fn is_wanted(&mut self, given: &Path, relative: &Path) -> bool {
        let note = match self.patterns {
            patterns if patterns.excludes(relative, given) => Note::Excluded,
            patterns if !patterns.includes(relative, given) => Note::NotIncluded,
            _ => return true,
        };
        self.notes.add(note, relative.display().to_string());
        false
    }

    /// Each file under one of its names: the first that has an ending, since that says what it is.
    fn once_each(&mut self, found: Vec<Found>) -> Vec<Found> {
        let mut chosen: HashMap<Same, usize> = HashMap::new();
        for (i, file) in found.iter().enumerate() {
            let best = chosen.entry(file.same()).or_insert(i);
            if !found[*best].has_ending && file.has_ending {
                *best = i;
            }
        }
        let named: BTreeSet<Same> = found.iter().filter(|f| f.named).map(Found::same).collect();
        let mut kept = vec![];
        for (i, mut file) in found.into_iter().enumerate() {
            let same = file.same();
            if chosen.get(&same) == Some(&i) {
                file.named |= named.contains(&same);
                kept.push(file);
            } else {
                self.notes.add(Note::Twice, file.relative.display().to_string());
            }
        }
        kept
    }

    /// Without empty files, files that the plan cannot name, and what stands in place of a file.
    fn with_content(&mut self, found: Vec<Found>) -> Result<Vec<Found>, DatasetError> {
        let mut kept = vec![];
        for file in found {
            let note = match file.metadata.len() {
                0 => Some(Note::EmptyFile),
                _ if file.path.to_str().is_none() => Some(Note::OddName),
                1..=LFS_POINTER_BYTES_MAX if begins_with(&file.path, LFS_POINTER)? => Some(Note::LfsPointer),
                _ => None,
            };
            match note {
                Some(note) => self.notes.add(note, file.relative.display().to_string()),
                None => kept.push(file),
            }
        }
        Ok(kept)
    }

    /// Without what a repository of data has beside the data to train on, unless it was asked for. `splits` tells what
    /// files are for, under the folders that were named.
    fn without_the_rest(&mut self, found: Vec<Found>, splits: &BTreeSet<(PathBuf, (Split, Place))>) -> Vec<Found> {
        if self.patterns.are_chosen() {
            return found;
        }
        let records: Vec<PathBuf> = found.iter().filter(|f| f.format != Format::Text).map(|f| f.path.clone()).collect();
        let mut kept = vec![];
        for file in found {
            let is_card = file.relative.file_name().is_some_and(|name| name.eq_ignore_ascii_case("readme.md"));
            let describes = |folder: &Path| records.iter().any(|record| record.starts_with(folder));
            let is_measuring = || match split_of(&file.relative, file.format) {
                Some((Split::Measuring, place)) => splits.contains(&(file.root.clone(), (Split::Train, place))),
                _ => false,
            };
            let note = match file.named {
                true => None,
                false if is_card && file.path.parent().is_some_and(describes) => Some(Note::Card),
                false => is_measuring().then_some(Note::OtherSplit),
            };
            match note {
                Some(note) => self.notes.add(note, file.relative.display().to_string()),
                None => kept.push(file),
            }
        }
        kept
    }
}

/// Calls `found` with each regular file under `folder`, sorted by name; hidden entries and links are left alone.
pub fn plain_files(folder: &Path, found: &mut dyn FnMut(&Path, &Metadata)) -> Result<(), DatasetError> {
    let mut entries = vec![];
    for entry in fs::read_dir(folder).map_err(DatasetError::io(folder))? {
        let entry = entry.map_err(DatasetError::io(folder))?;
        let kind = entry.file_type().map_err(DatasetError::io(entry.path()))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && (kind.is_file() || kind.is_dir()) {
            entries.push((entry.path(), kind.is_dir()));
        }
    }
    entries.sort();
    entries.iter().try_for_each(|(path, is_folder)| match is_folder {
        true => plain_files(path, found),
        false => {
            found(path, &fs::metadata(path).map_err(DatasetError::io(path))?);
            Ok(())
        }
    })
}

/// The absolute name of a link, all links before its last part resolved.
fn real_name_of_link(path: &Path) -> Option<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(fs::canonicalize(parent).ok()?.join(path.file_name()?))
}

fn begins_with(path: &Path, magic: &[u8]) -> Result<bool, DatasetError> {
    let mut head = vec![];
    let read = File::open(path).and_then(|file| file.take(magic.len() as u64).read_to_end(&mut head));
    read.map_err(DatasetError::io(path))?;
    Ok(head == magic)
}

#[cfg(test)]
mod tests;
