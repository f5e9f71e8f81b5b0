//! What is read: files named by the user or found in folders, in a fixed order.

use super::{
    error::DatasetError,
    registry::{self, RegistryLimits},
};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// How a file's documents are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The file is one document.
    Text,
    /// Each line is a JSON object; a column of it is a document.
    JsonLines,
    /// Each row has a document in a named column.
    Parquet,
}

/// One file to read. Serialized into the plan, so that a changed input is noticed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: Format,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970; 0 for sources that never change.
    pub changed_ns: u64,
    /// The crate that it belongs to: all files of a crate are held out together.
    pub crate_name: Option<String>,
}

/// Lists the files of `paths`, folders recursively and sorted by name, then those of Cargo's registry.
pub fn list(paths: &[PathBuf], cargo_registry: Option<&RegistryLimits>) -> Result<Vec<Source>, DatasetError> {
    if paths.is_empty() && cargo_registry.is_none() {
        return Err(DatasetError::NoInput);
    }
    let mut sources = vec![];
    for path in paths {
        let path = fs::canonicalize(path).map_err(DatasetError::io(path))?;
        walk(&path, &mut |path, metadata| sources.push(source(path, metadata)))?;
    }
    if let Some(limits) = cargo_registry {
        sources.extend(registry::list(limits)?);
    }
    sources.retain(|s| s.bytes > 0);
    if sources.is_empty() {
        let what = paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(DatasetError::Empty { what });
    }
    Ok(sources)
}

fn source(path: &Path, metadata: &fs::Metadata) -> Source {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let format = match extension.as_str() {
        "jsonl" | "ndjson" => Format::JsonLines,
        "parquet" => Format::Parquet,
        _ => Format::Text,
    };
    let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Source {
        path: path.to_owned(),
        format,
        bytes: metadata.len(),
        changed_ns: changed.map_or(0, |d| d.as_nanos() as u64),
        crate_name: None,
    }
}

/// Calls `found` with each regular file at or under `path`, sorted by name. Links and hidden entries inside folders are
/// left alone: a link may lead in a circle, and `.git` is no text.
pub fn walk(path: &Path, found: &mut dyn FnMut(&Path, &fs::Metadata)) -> Result<(), DatasetError> {
    let metadata = fs::metadata(path).map_err(DatasetError::io(path))?;
    if metadata.is_file() {
        found(path, &metadata);
        return Ok(());
    }
    let mut entries = vec![];
    for entry in fs::read_dir(path).map_err(DatasetError::io(path))? {
        let entry = entry.map_err(DatasetError::io(path))?;
        let kind = entry.file_type().map_err(DatasetError::io(entry.path()))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && (kind.is_file() || kind.is_dir()) {
            entries.push(entry.path());
        }
    }
    entries.sort();
    entries.iter().try_for_each(|entry| walk(entry, found))
}
