//! What a preparation has to say about its inputs: what it left out, passed over or replaced, by name and count. Names
//! are kept up to a bound; counts are exact.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names that are kept of a kind.
const NAMES_MAX: usize = 16;
/// Longest name that is kept, in characters.
const NAME_CHARACTERS_MAX: usize = 300;

/// A kind of note, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Files that gave text, by the end of their names.
    Read,
    /// Hidden files and folders, which no walk enters.
    Hidden,
    /// Links to folders.
    FolderLink,
    /// Links that lead nowhere.
    DeadLink,
    /// Pipes, sockets and devices.
    NoFile,
    /// The output folder, where it lies inside an input.
    Output,
    /// Folders that a program of ours made, whatever for.
    OwnFolder,
    /// Files by which our programs know their folders.
    Mark,
    /// What `--exclude` names.
    Excluded,
    /// What `--include` does not name.
    NotIncluded,
    /// Further names of a file that is read already.
    Twice,
    /// Files without a byte.
    EmptyFile,
    /// Files whose names are no text.
    OddName,
    /// What Git LFS left in place of a file.
    LfsPointer,
    /// The page that describes a dataset.
    Card,
    /// Files that are meant for measuring, beside those that are meant for training.
    OtherSplit,
    /// Files whose names do not say that they hold records.
    Records,
    /// Files that are no text.
    NoText,
    /// .json files that are no records.
    NoRecords,
    /// Records that cannot be read.
    Bad,
    /// Records whose text is null.
    Null,
    /// Records whose text is empty.
    Empty,
    /// Documents that were there before.
    Duplicate,
    /// Characters that are not UTF-8.
    InvalidUtf8,
    /// Halves of characters without their other half.
    LoneSurrogate,
    /// Text that was UTF-16.
    Utf16,
    /// Byte order marks.
    ByteOrderMark,
    /// Files that were read and gave no text.
    Nothing,
    /// A pattern that matches nothing.
    UnusedPattern,
    /// The vocabulary has nothing to put between documents.
    NoEndOfText,
    /// Bytes of text that became the unknown token.
    Unknown,
    /// Bytes of text that became no token.
    Lost,
}

/// How often, and the first few names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    count: u64,
    names: Vec<String>,
}

/// All notes of a preparation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes(BTreeMap<Note, Noted>);

impl Notes {
    /// Notes one more, by name.
    pub fn add(&mut self, note: Note, name: impl Into<String>) {
        let noted = self.0.entry(note).or_default();
        noted.count += 1;
        let name = name.into();
        if noted.names.len() < NAMES_MAX && !name.is_empty() && !noted.names.contains(&name) {
            noted.names.push(name.chars().take(NAME_CHARACTERS_MAX).collect());
        }
    }

    /// Notes `count` more that have no names of their own.
    pub fn count(&mut self, note: Note, count: u64) {
        if count > 0 {
            self.0.entry(note).or_default().count += count;
        }
    }

    /// Adds a name, or other words, to what is counted already.
    pub fn tell(&mut self, note: Note, name: impl Into<String>) {
        self.add(note, name);
        self.0.entry(note).and_modify(|noted| noted.count -= 1);
    }

    /// How many there are of a kind.
    pub fn of(&self, note: Note) -> u64 {
        self.0.get(&note).map_or(0, |noted| noted.count)
    }

    /// The names that are kept of a kind.
    pub fn names(&self, note: Note) -> &[String] {
        self.0.get(&note).map_or(&[], |noted| &noted.names)
    }

    /// Forgets a kind, since it is told elsewhere.
    pub fn forget(&mut self, note: Note) {
        self.0.remove(&note);
    }

    /// Adds what another part of the work noted.
    pub fn merge(&mut self, other: &Notes) {
        for (note, noted) in &other.0 {
            let mine = self.0.entry(*note).or_default();
            mine.count += noted.count;
            let room = NAMES_MAX.saturating_sub(mine.names.len());
            mine.names.extend(noted.names.iter().take(room).cloned());
        }
    }

    /// A line for each kind, and more where each name is a sentence.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![];
        for (note, Noted { count, names }) in &self.0 {
            let more = count.saturating_sub(names.len() as u64);
            let head = note.words(*count);
            if *note == Note::Bad {
                lines.push(format!("{head}:"));
                lines.extend(names.iter().map(|name| format!("  {name}")));
                lines.extend((more > 0).then(|| format!("  and {more} more")));
            } else if names.is_empty() {
                lines.push(head);
            } else {
                let and_more = if more > 0 && !note.repeats() { format!(", and {more} more") } else { String::new() };
                lines.push(format!("{head}: {}{and_more}", names.join(", ")));
            }
        }
        lines
    }
}

impl Note {
    /// Whether a name stands for many.
    fn repeats(self) -> bool {
        matches!(
            self,
            Note::Read
                | Note::Null
                | Note::Empty
                | Note::Duplicate
                | Note::InvalidUtf8
                | Note::LoneSurrogate
                | Note::ByteOrderMark
                | Note::Unknown
                | Note::Lost
        )
    }

    fn words(self, count: u64) -> String {
        let of = |one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        match self {
            Note::Read => format!("read: {}", of("file with text", "files with text")),
            Note::Hidden => format!("left out: {}", of("hidden file or folder", "hidden files and folders")),
            Note::FolderLink => {
                format!("left out: {} (name the folder itself to read it)", of("link to a folder", "links to folders"))
            }
            Note::DeadLink => format!("left out: {}", of("link that leads nowhere", "links that lead nowhere")),
            Note::NoFile => format!("left out: {}", of("pipe, socket or device", "pipes, sockets and devices")),
            Note::Output => "left out: the output folder, which lies inside an input".to_owned(),
            Note::OwnFolder if count == 1 => "left out: a folder that Nightjar made".to_owned(),
            Note::OwnFolder => format!("left out: {count} folders that Nightjar made"),
            Note::Mark => {
                format!(
                    "left out: {}",
                    of("file by which Nightjar knows a folder", "files by which Nightjar knows folders")
                )
            }
            Note::Excluded => format!("left out by --exclude: {}", of("file or folder", "files and folders")),
            Note::NotIncluded => format!("left out, since no --include names them: {}", of("file", "files")),
            Note::Twice => {
                format!("read once: {} for a file that is read already", of("further name", "further names"))
            }
            Note::EmptyFile => format!("left out: {}", of("empty file", "empty files")),
            Note::OddName => {
                format!("left out: {} not UTF-8 (rename them)", of("file whose name is", "files whose names are"))
            }
            Note::LfsPointer => format!(
                "left out: {} in place of a file (run `git lfs pull` to fetch what belongs there)",
                of("pointer of Git LFS", "pointers of Git LFS")
            ),
            Note::Card => format!(
                "left out: {} (name it, or pass --include, to read it)",
                of("README.md that describes the data", "README.md files that describe the data")
            ),
            Note::OtherSplit => format!(
                "left out: {} beside the one to train on (name them, or pass --include, to read them)",
                of("file of a split for measuring", "files of splits for measuring")
            ),
            Note::Records => {
                format!("read as records: {} (the lines are JSON, or the file is an array)", of("file", "files"))
            }
            Note::NoText => format!("left out: {}", of("file that is no text", "files that are no text")),
            Note::NoRecords => format!(
                "left out: {} without the text column",
                of(".json file that is one object", ".json files that are one object")
            ),
            Note::Bad => format!("left out: {}", of("record that cannot be read", "records that cannot be read")),
            Note::Null => format!("passed over: {}", of("record whose text is null", "records whose text is null")),
            Note::Empty => format!("passed over: {}", of("record without text", "records without text")),
            Note::Duplicate => format!(
                "left out: {} (--keep-duplicates keeps them)",
                of("exact copy of a document", "exact copies of documents")
            ),
            Note::InvalidUtf8 => {
                format!("replaced: {}", of("character that is not UTF-8", "characters that are not UTF-8"))
            }
            Note::Unknown => {
                format!("warning: the tokenizer knows no token for {}", of("byte of text", "bytes of text"))
            }
            Note::Lost => format!("warning: the tokenizer makes nothing of {}", of("byte of text", "bytes of text")),
            Note::LoneSurrogate => format!("replaced: {}", of("lone half of a character", "lone halves of characters")),
            Note::Utf16 => format!("decoded: {} of UTF-16", of("file", "files")),
            Note::ByteOrderMark => format!("taken away: {}", of("byte order mark", "byte order marks")),
            Note::Nothing => format!("left out: {}", of("file that gave no text", "files that gave no text")),
            Note::UnusedPattern => format!("note: {} no file", of("pattern matches", "patterns match")),
            Note::NoEndOfText => {
                "warning: the tokenizer has no end-of-text token that is known, so nothing stands between \
                                  documents; name one with --end-of-text TOKEN"
                    .to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_counts_are_exact() {
        let mut notes = Notes::default();
        (0..1000).for_each(|i| notes.add(Note::DeadLink, format!("link {i}")));
        let mut other = Notes::default();
        other.add(Note::DeadLink, "last");
        other.count(Note::Null, 3);
        notes.merge(&other);
        assert_eq!((notes.of(Note::DeadLink), notes.of(Note::Null), notes.of(Note::Hidden)), (1001, 3, 0));
        let lines = notes.lines();
        assert!(lines[0].starts_with("left out: 1001 links that lead nowhere: link 0, link 1,"), "{lines:?}");
        assert!(lines[0].ends_with("link 15, and 985 more"), "{lines:?}");
        assert_eq!(lines[1], "passed over: 3 records whose text is null");
    }
}
