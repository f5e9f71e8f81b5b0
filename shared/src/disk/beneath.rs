//! Files beneath a root, whoever else may write there: a name is looked up folder by folder, no link is followed on the
//! way or at its end, and what is opened is a plain file. So no name and no link leads out of the root, and no pipe
//! that lies in a file's place keeps whoever reads it.

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use elsewhere::Folder;
#[cfg(unix)]
pub(super) use unix::Folder;

use std::{ffi::OsString, io, path::Path, time::SystemTime};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading.
    Read,
    /// Writing; it is made if there is none.
    Write,
    /// Writing a new one, which only this user can read if that is asked for.
    New {
        /// Whether it is asked for.
        private: bool,
    },
}

/// What lies in a folder under a name.
pub(super) struct Entry {
    pub name: OsString,
    pub kind: Kind,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A plain file.
    File {
        bytes: u64,
        /// What it takes of the disk, if that is more than its length by more than rounding.
        room: u64,
        changed: SystemTime,
    },
    Folder,
    /// A link, a pipe, a socket or a device.
    Other,
}

/// Something that is no plain file, or a name that is none of a file beneath a root: an [`io::Error`] of the kind
/// `InvalidData` or `InvalidInput`, never the disk's own fault.
#[derive(Debug, thiserror::Error)]
enum Strange {
    #[error("`{0}` is no name of a file in this folder")]
    Name(String),
    #[error("{0} is a link or no folder: files behind it are not used")]
    Way(String),
    #[error("{0} is no plain file: links, pipes and devices are not opened")]
    File(String),
    #[error("{name} has {is} bytes, not {said}")]
    Length { name: String, is: u64, said: u64 },
    #[cfg(unix)]
    #[error("{0} is some other file's second name")]
    SecondName(String),
}

impl From<Strange> for io::Error {
    fn from(strange: Strange) -> Self {
        let kind =
            if let Strange::Name(_) = strange { io::ErrorKind::InvalidInput } else { io::ErrorKind::InvalidData };
        io::Error::new(kind, strange)
    }
}

/// Whether it is what is found that is strange, and not the disk that failed.
pub(super) fn is_strange(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<Strange>())
}

pub(super) fn not_plain(name: &std::ffi::OsStr) -> io::Error {
    Strange::File(name.to_string_lossy().into_owned()).into()
}

pub(super) fn of_another_length(name: &str, is: u64, said: u64) -> io::Error {
    Strange::Length { name: name.to_owned(), is, said }.into()
}

#[cfg(unix)]
pub(super) fn second_name(name: &str) -> io::Error {
    Strange::SecondName(name.to_owned()).into()
}

fn no_way(name: &std::ffi::OsStr) -> io::Error {
    Strange::Way(name.to_string_lossy().into_owned()).into()
}

/// What separates a name's parts, or leads elsewhere, besides `/`.
const SEPARATORS: &[char] = if cfg!(windows) { &['\0', '\\', ':'] } else { &['\0'] };

/// Whether a name can be that of a file or folder in a folder.
fn is_plain(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && !part.contains(SEPARATORS)
}

/// The parts of a relative name with `/`: folders on the way, and the last.
pub(super) fn parts(name: &str) -> io::Result<(Vec<&str>, &str)> {
    let mut parts: Vec<&str> = name.split('/').collect();
    match parts.pop() {
        Some(last) if is_plain(last) && parts.iter().all(|part| is_plain(part)) => Ok((parts, last)),
        _ => Err(Strange::Name(name.to_owned()).into()),
    }
}

/// The parts of a folder's name; the empty one is the root.
pub(super) fn folders(name: &str) -> io::Result<Vec<&str>> {
    if name.is_empty() {
        return Ok(vec![]);
    }
    let (mut folders, last) = parts(name)?;
    folders.push(last);
    Ok(folders)
}

/// Opens the folder at the end of this way.
pub(super) fn find(root: &Path, way: &[&str]) -> io::Result<Folder> {
    way.iter().try_fold(Folder::root(root)?, |folder, name| folder.enter((*name).as_ref()))
}

/// The same, and makes what is missing.
pub(super) fn make(root: &Path, way: &[&str]) -> io::Result<Folder> {
    way.iter().try_fold(Folder::root(root)?, |folder, name| {
        folder.make((*name).as_ref())?;
        folder.enter((*name).as_ref())
    })
}
