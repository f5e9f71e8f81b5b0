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
    fn new(path: PathBuf, real: PathBuf, relative: PathBuf, metadata: Metadata, named: bool) -> Result<Self, DatasetError> {
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

    fn folder(&mut self, folder: &Path, given: &Path, relative: &Path, found: &mut Vec<Found>) -> Result<(), DatasetError> {
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
                    let real =
                        if kind.is_symlink() { fs::canonicalize(&path).map_err(DatasetError::io(&path))? } else { path.clone() };
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

    /// Without what a repository of data has beside the data to train on, unless it was asked for. `splits` tells what files
    /// are for, under the folders that were named.
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
mod tests {
    use super::*;

    /// Names of what is read of a folder, and what is noted.
    fn walk(paths: &[&Path], patterns: &Patterns, out: Option<&Path>) -> (Vec<String>, Notes) {
        let mut notes = Notes::default();
        let paths: Vec<PathBuf> = paths.iter().map(|p| p.to_path_buf()).collect();
        let out = out.and_then(real_name);
        let found = Walk { patterns, out, notes: &mut notes }.files(&paths).unwrap();
        (found.iter().map(|f| f.relative.display().to_string()).collect(), notes)
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("text of {file}")).unwrap();
        }
        folder
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_files_once_each_and_nothing_is_left_out_in_silence() {
        use std::os::unix::fs::symlink;
        let folder = folder(&["in/b.txt", "in/.git/x", "blobs/0f1e", "else/c.txt", "in/sub/d.txt", "in/zero"]);
        let at = |name: &str| folder.path().join(name);
        fs::write(at("in/zero"), "").unwrap();
        symlink("../blobs/0f1e", at("in/a.parquet")).unwrap();
        symlink("../blobs/0f1e", at("in/again.parquet")).unwrap();
        symlink("../else/c.txt", at("in/c.txt")).unwrap();
        symlink("../in", at("in/circle")).unwrap();
        symlink("nowhere", at("in/dead.txt")).unwrap();
        symlink("b.txt", at("in/to-b.txt")).unwrap();
        fs::write(at("in").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xE9.txt")), "text").unwrap();
        let (read, notes) = walk(&[&at("in")], &Patterns::default(), None);
        assert_eq!(read, ["a.parquet", "b.txt", "c.txt", "sub/d.txt"]);
        let kinds = [Note::FolderLink, Note::DeadLink, Note::Twice, Note::Hidden, Note::EmptyFile, Note::OddName];
        assert_eq!(kinds.map(|note| notes.of(note)), [1, 1, 2, 1, 1, 1]);
        // A name with an ending wins over one without; and a link that is named keeps its name.
        let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
        assert!(read.contains(&"in/a.parquet".into()) && !read.iter().any(|r| r.contains("0f1e")), "{read:?}");
        assert_eq!(notes.of(Note::Twice), 4);
        let found = Walk { patterns: &Patterns::default(), out: None, notes: &mut Notes::default() };
        let found = found.files(&[at("in/a.parquet"), at("in")]).unwrap();
        assert!(found[0].path.ends_with("in/a.parquet"), "{found:?}");
    }

    #[test]
    fn links_that_are_written_as_text_lead_to_files_too() {
        let folder = folder(&["in/blobs/0f1e", "in/b.txt"]);
        fs::create_dir_all(folder.path().join("in/snapshots/abc")).unwrap();
        fs::write(folder.path().join("in/snapshots/abc/a.parquet"), "../../blobs/0f1e").unwrap();
        fs::write(folder.path().join("in/c.txt"), "../no/such/file").unwrap();
        let mut notes = Notes::default();
        let walk = Walk { patterns: &Patterns::default(), out: None, notes: &mut notes };
        let found = walk.files(&[folder.path().join("in")]).unwrap();
        let found: Vec<_> = found.iter().map(|f| (f.path.file_name().unwrap().to_str().unwrap(), f.format)).collect();
        assert_eq!(found, [("b.txt", Format::Text), ("c.txt", Format::Text), ("0f1e", Format::Parquet)]);
        assert_eq!(notes.names(Note::Twice), ["blobs/0f1e"]);
    }

    #[test]
    fn a_folder_that_is_written_is_no_input() {
        let folder = folder(&["a.txt", "data/blobs/x"]);
        let (read, notes) = walk(&[folder.path()], &Patterns::default(), Some(&folder.path().join("data")));
        assert_eq!((read, notes.of(Note::Output)), (vec!["a.txt".into()], 1));
        let (read, notes) = walk(&[folder.path()], &Patterns::default(), Some(&folder.path().join("later")));
        assert_eq!((read.len(), notes.of(Note::Output)), (2, 0));
    }

    #[test]
    fn what_stands_beside_data_is_left_out_unless_asked_for() {
        let files = ["README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        let folder =
            folder(&[&files[..], &["data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]].concat());
        let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
        assert_eq!(read, files[1..]);
        assert_eq!((notes.of(Note::Card), notes.of(Note::OtherSplit)), (1, 2));
        let all = Patterns::new(&["**".into()], &[]).unwrap();
        assert_eq!(walk(&[folder.path()], &all, None).0.len(), 5);
        let test = folder.path().join("data/test-00000-of-00001.parquet");
        assert_eq!(walk(&[folder.path(), &test], &Patterns::default(), None).0.len(), 3);
    }

    #[test]
    fn splits_are_told_by_what_lies_beside_them() {
        for (files, kept) in [
            (&["wiki.train.tokens", "wiki.test.tokens", "wiki.valid.tokens"][..], 1),
            (&["train/0.txt", "test/0.txt", "val/1.txt"], 1),
            (&["TinyStories-train.txt", "TinyStories-valid.txt"], 1),
            (&["test.txt", "valid.txt"], 2),
            (&["train.py", "test.txt", "tests/a.txt", "contest.txt"], 4),
            (&["README.md", "notes.txt"], 2),
            (&["docs/README.md", "data/a.jsonl"], 2),
            (&["data/train-00000-of-00001-abc123.parquet", "data/test-00000-of-00001-def456.parquet"], 1),
            (&["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"], 2),
            (&["train/a.jsonl", "test/b.jsonl", "de/validation/c.jsonl"], 1),
            (&["train.jsonl.gz", "test.jsonl", "dev.jsonl.zst", "eval.json"], 1),
            (&["training/a.txt", "testing/b.txt"], 1),
            (&["trainset.txt", "testset.txt", "held-out.txt", "heldout.txt"], 1),
            (&["Train2017/a.txt", "TestSet01.txt", "trainData.txt", "train1.txt", "test1.txt"], 3),
            // A name says more than the folder it is in, and what lies in another kind of place says nothing.
            (&["eval-suite/train.txt", "eval-suite/test.txt"], 1),
            (&["train.txt", "test/b.txt"], 2),
            (&["test.txt", "contrast.txt", "constraint.txt"], 3),
        ] {
            assert_eq!(walk(&[folder(files).path()], &Patterns::default(), None).0.len(), kept, "{files:?}");
        }
    }

    #[test]
    fn folders_that_nightjar_made_are_no_input() {
        use nightjar_shared::mark::{Kind, MARK_FILE, Mark, leave};
        let folder = folder(&["a.txt", "data/blobs/x", "data/work/y", "model/README.md", "b/c.txt"]);
        leave(&folder.path().join("data"), &Mark::begun(Kind::Dataset)).unwrap();
        leave(&folder.path().join("model"), &Mark::whole(Kind::Model)).unwrap();
        fs::write(folder.path().join("b").join(MARK_FILE), "words").unwrap();
        let all = Patterns::new(&["**".into()], &[]).unwrap();
        for patterns in [&Patterns::default(), &all] {
            let (read, notes) = walk(&[folder.path()], patterns, None);
            assert_eq!(read, ["a.txt", "b/c.txt"]);
            assert!(notes.lines().contains(&"left out: 2 folders that Nightjar made: data, model".to_owned()), "{notes:?}");
        }
        let (read, notes) = walk(&[&folder.path().join("data")], &Patterns::default(), None);
        assert!(read.is_empty() && notes.lines()[0].starts_with("left out: a folder that Nightjar made: "), "{notes:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_of_two_names_is_read_once() {
        let folder = folder(&["a.txt", "b.txt"]);
        fs::hard_link(folder.path().join("a.txt"), folder.path().join("c.txt")).unwrap();
        let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
        assert_eq!((read, notes.names(Note::Twice)), (vec!["a.txt".into(), "b.txt".into()], &["c.txt".to_owned()][..]));
    }

    #[test]
    fn records_are_told_by_what_a_file_holds() {
        let folder = folder(&["words.txt"]);
        let lines = "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n";
        let long = format!("{{\"text\": \"{}\"}}\n", "word ".repeat(20_000)).repeat(3);
        for (name, text, format) in [
            ("a.jsonlines", lines, Format::JsonLines),
            ("b.jl", lines, Format::JsonLines),
            ("c.ndjson", lines, Format::JsonLines),
            ("d.jsonl.txt", lines, Format::JsonLines),
            ("e.geojson", "[{\"text\": \"a\"}]", Format::Json),
            ("f", lines, Format::JsonLines),
            ("g.log", &long, Format::JsonLines),
            ("h.data", "\u{FEFF}{\"text\": 1}\r\n{\"text\": 2}", Format::JsonLines),
            ("i.txt", "[\n  {\n    \"text\": \"a\"}]", Format::Json),
            ("j.ipynb", "{\n \"cells\": []\n}\n", Format::Text),
            ("k.map", "{\"version\": 3}", Format::Text),
            ("l.txt", "{a}\n{b}\n", Format::Text),
            ("m.txt", "{\"text\": \"a\"}\nand then words\n", Format::Text),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
            let mut notes = Notes::default();
            let walk = Walk { patterns: &Patterns::default(), out: None, notes: &mut notes };
            let found = walk.files(&[folder.path().join(name)]).unwrap();
            assert_eq!(found[0].format, format, "{name}");
            let is_told = notes.lines().concat().contains("are JSON");
            assert_eq!(is_told, format != Format::of(Path::new(name)), "{name}: {notes:?}");
        }
    }

    #[test]
    fn pointers_of_git_lfs_are_named() {
        let folder = folder(&["a.txt", "b.parquet"]);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n";
        fs::write(folder.path().join("b.parquet"), pointer).unwrap();
        let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
        assert_eq!((read, notes.names(Note::LfsPointer)), (vec!["a.txt".into()], &["b.parquet".to_owned()][..]));
        assert!(notes.lines().concat().contains("git lfs pull"));
    }
}
