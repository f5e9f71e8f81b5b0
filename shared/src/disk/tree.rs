//! What lies in a folder at any depth: looked at, or removed, with an end to both however deep and full somebody has
//! made it.

use super::beneath::{self, Folder, Kind};
use std::{collections::HashSet, ffi::OsString, io, path::Path, time::SystemTime};

/// Deeper than any program of ours, or a driver, makes folders.
const DEPTH_MAX: usize = 24;
/// Files and folders that are looked at or removed in one go.
const ENTRIES_MAX: usize = 100_000;

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name from the root, with `/`.
    pub name: String,
    /// What it takes of the disk: its length, or more where room was set aside for it.
    pub bytes: u64,
    /// When it was changed last.
    pub changed: SystemTime,
}

/// The files below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Those that were seen.
    pub files: Vec<Found>,
    /// How many files, folders and other things there are.
    pub entries: usize,
    /// Whether there are others, or may be: too many, too deep, closed, or with names that are no text.
    pub is_cut_short: bool,
}

impl Walk {
    /// Bytes of all that were seen.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

pub(super) fn walk(root: &Path, folder: &str) -> io::Result<Walk> {
    let (mut walk, mut seen) = (Walk::default(), 0);
    let mut waiting = vec![folder.to_owned()];
    while let Some(at) = waiting.pop() {
        let way = beneath::folders(&at)?;
        let entries = beneath::find(root, &way).and_then(|folder| folder.entries(ENTRIES_MAX - seen));
        let entries = match entries {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            // What cannot be looked into now is not counted; the folder itself must be.
            Err(e) if at == folder => return Err(e),
            Err(_) => {
                walk.is_cut_short = true;
                continue;
            }
        };
        seen += entries.len();
        walk.entries = seen;
        if seen >= ENTRIES_MAX {
            walk.is_cut_short = true;
            return Ok(walk);
        }
        for entry in entries {
            let name =
                entry.name.to_str().map(|name| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") });
            let name = name.filter(|name| beneath::parts(name).is_ok());
            match (name, entry.kind) {
                (Some(name), Kind::File { room, changed, .. }) => walk.files.push(Found { name, bytes: room, changed }),
                (Some(name), Kind::Folder) if way.len() < DEPTH_MAX => waiting.push(name),
                (None, Kind::File { .. }) | (_, Kind::Folder) => walk.is_cut_short = true,
                // It takes no room that counts.
                (_, Kind::Other) => {}
            }
        }
    }
    Ok(walk)
}

/// Removes all that lies in a folder but what has these names and is no folder.
pub(super) fn clear(root: &Path, folder: &str, keep: &[&str]) -> io::Result<()> {
    let top = match beneath::find(root, &beneath::folders(folder)?) {
        Ok(top) => top,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let keep: HashSet<&str> = keep.iter().copied().collect();
    let mut broom = Broom { top: &top, left: ENTRIES_MAX, moved: 0 };
    loop {
        let (left, moved) = (broom.left, broom.moved);
        let entries = top.entries(ENTRIES_MAX).or_else(|e| {
            if e.kind() == io::ErrorKind::PermissionDenied {
                top.unlock();
                return top.entries(ENTRIES_MAX);
            }
            Err(e)
        });
        for entry in entries? {
            let is_kept = entry.kind != Kind::Folder && entry.name.to_str().is_some_and(|name| keep.contains(name));
            if !is_kept {
                broom.remove(&top, &entry.name, entry.kind, 0)?;
            }
        }
        // What was brought up from the depth is in the way of nothing any more. The rest comes next time.
        if broom.moved == moved || broom.left == 0 || broom.left == left {
            return Ok(());
        }
    }
}

struct Broom<'a> {
    /// Where what lies too deep is brought up to.
    top: &'a Folder,
    /// How much it removes yet.
    left: usize,
    /// How much it has brought up.
    moved: u64,
}

impl Broom<'_> {
    fn remove(&mut self, from: &Folder, name: &std::ffi::OsStr, kind: Kind, depth: usize) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let removed = match kind {
            Kind::Folder if depth >= DEPTH_MAX => self.bring_up(from, name),
            Kind::Folder => from.enter(name).and_then(|folder| {
                folder.unlock();
                for entry in folder.entries(self.left)? {
                    self.remove(&folder, &entry.name, entry.kind, depth + 1)?;
                }
                drop(folder);
                // It is not empty where there was too much for one go.
                if self.left == 0 { Ok(()) } else { from.remove_folder(name) }
            }),
            Kind::File { .. } | Kind::Other => from.remove(name),
        };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            // Somebody writes there meanwhile, or has swapped one thing for another.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty || beneath::is_strange(&e) => Ok(()),
            removed => removed,
        }
    }

    fn bring_up(&mut self, from: &Folder, name: &std::ffi::OsStr) -> io::Result<()> {
        loop {
            self.moved += 1;
            let new = OsString::from(format!("deep-{}", self.moved));
            match from.rename(name, self.top, &new) {
                Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
                Err(e) if e.kind() == io::ErrorKind::NotADirectory => {}
                moved => return moved,
            }
        }
    }
}
