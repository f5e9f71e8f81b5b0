//! Inputs that lie in a bucket: which of its objects are read. What is left out is the same as of a folder, as far as
//! names tell it.

use super::{
    error::DatasetError,
    measuring::{Split, split_of},
    notes::{Note, Notes},
    pattern::Patterns,
    remote::{Object, OpenObjects},
    source::{Format, Source},
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Whether a path is the address of a bucket.
pub fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with("s3://"))
}

/// The objects below an address, sorted by name.
pub fn list(
    address: &Path,
    patterns: &Patterns,
    open: Option<OpenObjects>,
    notes: &mut Notes,
) -> Result<Vec<Source>, DatasetError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => DatasetError::NotFound { path: address.to_owned() },
        _ => DatasetError::Io { path: address.to_owned(), source: error },
    };
    let text = address.to_str().unwrap_or_default();
    let objects = open.ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?(text).map_err(failed)?;
    // What stands behind the question mark tells where the bucket is, and is no part of a name.
    let root = PathBuf::from(text.split('?').next().unwrap_or_default());
    let mut kept = vec![];
    for found in objects.list().map_err(failed)? {
        let path = if found.name.is_empty() { root.clone() } else { root.join(&found.name) };
        let relative = PathBuf::from(if found.name.is_empty() {
            path.file_name().unwrap_or_default()
        } else {
            found.name.as_ref()
        });
        let is_hidden = found.name.split('/').any(|name| name.starts_with('.'));
        let note = match () {
            () if is_hidden => Some(Note::Hidden),
            () if patterns.excludes(&relative, &path) => Some(Note::Excluded),
            () if !patterns.includes(&relative, &path) => Some(Note::NotIncluded),
            () if found.bytes == 0 => Some(Note::EmptyFile),
            () => None,
        };
        if let Some(note) = note {
            notes.add(note, relative.display().to_string());
            continue;
        }
        let first = relative.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let source = Source {
            format: Format::of(&path),
            path,
            bytes: found.bytes,
            changed_ns: found.changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
            crate_name: None,
            heldout: None,
            domain: first.unwrap_or_default(),
            object: Some(Object { objects: objects.clone(), name: found.name, bytes: found.bytes }),
        };
        kept.push((relative, source));
    }
    Ok(without_the_rest(kept, patterns, notes))
}

/// Without what lies beside the data to train on, unless objects were chosen by pattern.
fn without_the_rest(found: Vec<(PathBuf, Source)>, patterns: &Patterns, notes: &mut Notes) -> Vec<Source> {
    let splits: BTreeSet<_> = found.iter().filter_map(|(relative, source)| split_of(relative, source.format)).collect();
    let has_records = found.iter().any(|(_, source)| source.format != Format::Text);
    let mut kept = vec![];
    for (relative, source) in found {
        let is_card = relative.file_name().is_some_and(|name| name.eq_ignore_ascii_case("readme.md"));
        let is_measuring = || match split_of(&relative, source.format) {
            Some((Split::Measuring, place)) => splits.contains(&(Split::Train, place)),
            _ => false,
        };
        let note = match () {
            () if patterns.are_chosen() => None,
            () if is_card && has_records => Some(Note::Card),
            () if is_measuring() => Some(Note::OtherSplit),
            () => None,
        };
        match note {
            Some(note) => notes.add(note, relative.display().to_string()),
            None => kept.push(source),
        }
    }
    kept
}
