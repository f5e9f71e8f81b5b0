//! What is read: files named by the user or found in folders, in a fixed order.

use super::{
    bucket,
    error::DatasetError,
    notes::Notes,
    pattern::{self, Patterns},
    registry::{self, RegistryLimits},
    remote::{Object, OpenObjects, Place},
    walk::{Found, Walk, real_name},
};
use serde::Serialize;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    str::FromStr,
    time::UNIX_EPOCH,
};

/// How much longer text is than its packed file, for estimates.
const PACKED_RATIO: u64 = 6;

/// How a file's documents are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The file is one document.
    Text,
    /// Each line is a JSON object; a column of it is a document.
    JsonLines,
    /// One array of JSON objects, or several objects one after another.
    Json,
    /// Each row has a document in a named column.
    Parquet,
    /// The same, in an Arrow stream or a Feather file.
    Arrow,
    /// Ids of tokens.
    Tokens,
}

/// How wide the ids of a file of tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdWidth {
    /// Two bytes each.
    Two,
    /// Four bytes each.
    Four,
}

impl IdWidth {
    /// Bytes of an id.
    pub fn bytes(self) -> u64 {
        match self {
            IdWidth::Two => 2,
            IdWidth::Four => 4,
        }
    }
}

impl FromStr for IdWidth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "uint16" => Ok(IdWidth::Two),
            "uint32" => Ok(IdWidth::Four),
            _ => Err("ids are uint16, as nanoGPT writes them, or uint32"),
        }
    }
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
    /// The number of the held-out set that it is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout: Option<usize>,
    /// What its documents are called together, for people.
    #[serde(skip)]
    pub domain: String,
    /// Where it is, if it is no file.
    #[serde(skip)]
    pub object: Option<Object>,
}

/// Files that are only measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldoutPath {
    /// What they are called.
    pub name: String,
    /// A file, a folder, or a pattern.
    pub path: PathBuf,
}

impl FromStr for HeldoutPath {
    type Err = &'static str;

    /// `NAME=PATH`, or a path by itself, whose last part is the name then.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        let (name, path) = match text.split_once('=') {
            Some((name, path)) if is_name(name) => (name.to_owned(), path),
            _ => {
                let stem = Path::new(text).file_stem().unwrap_or_default().to_string_lossy();
                (stem.split('.').next().unwrap_or_default().to_owned(), text)
            }
        };
        match is_name(&name) && !path.is_empty() {
            true => Ok(HeldoutPath { name, path: path.into() }),
            false => Err("name a file or folder, as in --heldout-path news=heldout/news.jsonl"),
        }
    }
}

/// What a list is made of.
pub struct Wanted<'a> {
    /// Files and folders.
    pub paths: &'a [PathBuf],
    /// Those that are only measured on.
    pub heldout: &'a [HeldoutPath],
    /// Which of their files.
    pub patterns: &'a Patterns,
    /// The folder that is written.
    pub out: &'a Path,
    /// Whether files that end in .bin hold ids of tokens.
    pub has_ids: bool,
    /// Opens the objects of a bucket.
    pub open_objects: Option<OpenObjects>,
    /// What of Cargo's registry.
    pub cargo_registry: Option<&'a RegistryLimits>,
}

/// Lists the files of the paths, folders recursively and sorted by name, then those of Cargo's registry.
pub fn list(wanted: &Wanted, notes: &mut Notes) -> Result<Vec<Source>, DatasetError> {
    if wanted.paths.is_empty() && wanted.cargo_registry.is_none() {
        return Err(DatasetError::NoInput);
    }
    let out = real_name(wanted.out);
    let mut heldout = vec![];
    for (set, HeldoutPath { path, .. }) in wanted.heldout.iter().enumerate() {
        let found = find(std::slice::from_ref(path), &Patterns::default(), out.clone(), wanted.open_objects, notes)?;
        if found.is_empty() {
            return Err(DatasetError::Empty { what: path.display().to_string() });
        }
        heldout.extend(found.into_iter().map(|found| Source { heldout: Some(set), ..found }));
    }
    let mut sources = find(wanted.paths, wanted.patterns, out, wanted.open_objects, notes)?;
    // A file that is held out may lie in a folder that is trained on.
    let kept: HashSet<&PathBuf> = heldout.iter().map(|source: &Source| &source.path).collect();
    sources.retain(|source| !kept.contains(&source.path));
    wanted.patterns.note_unused(notes);
    if let Some(limits) = wanted.cargo_registry {
        let known: HashSet<PathBuf> = sources.iter().map(|s| s.path.clone()).collect();
        sources.extend(registry::list(limits)?.into_iter().filter(|s| s.bytes > 0 && !known.contains(&s.path)));
    }
    if sources.is_empty() {
        let what = wanted.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(DatasetError::Empty { what });
    }
    // What is held out comes first, so that a copy of it is not trained on.
    let mut sources = [heldout, sources].concat();
    for source in sources.iter_mut().filter(|source| wanted.has_ids && ending(&source.path) == "bin") {
        source.format = Format::Tokens;
    }
    Ok(sources)
}

/// The files of some paths, and the objects of those that are addresses.
fn find(
    paths: &[PathBuf],
    patterns: &Patterns,
    out: Option<PathBuf>,
    open: Option<OpenObjects>,
    notes: &mut Notes,
) -> Result<Vec<Source>, DatasetError> {
    let (addresses, paths): (Vec<PathBuf>, _) = paths.iter().cloned().partition(|path| bucket::is_address(path));
    let walk = Walk { patterns, out, notes };
    let mut sources: Vec<Source> = walk.files(&pattern::expand(&paths)?)?.iter().map(source).collect();
    for address in &addresses {
        sources.extend(bucket::list(address, patterns, open, notes)?);
    }
    Ok(sources)
}

impl Format {
    /// As a file's name says; what it is packed with does not count.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (name, is_packed) = unpacked(&name).map_or((&*name, false), |inner| (inner, true));
        // Some systems add an ending so that a file can be shown.
        let inner = [".txt", ".text"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
        match inner.rsplit_once('.').map_or("", |(_, extension)| extension) {
            "jsonl" | "ndjson" | "jsonlines" | "jl" | "ldjson" | "ndjsonl" => Format::JsonLines,
            "json" | "geojson" => Format::Json,
            // A packed one would have to be unpacked as a whole: it is left out by name, as text that is none.
            "parquet" if !is_packed && inner == name => Format::Parquet,
            "arrow" | "feather" | "ipc" if !is_packed && inner == name => Format::Arrow,
            _ => Format::Text,
        }
    }
}

/// The end of a file's name, small; what it is packed with does not count.
pub fn ending(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = unpacked(&name).unwrap_or(&name);
    name.rsplit_once('.').map_or_else(String::new, |(_, ending)| ending.to_owned())
}

/// A name without the ending that says what the file is packed with.
fn unpacked(name: &str) -> Option<&str> {
    [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).filter(|name| !name.is_empty())
}

impl Source {
    /// Where it is.
    pub fn place(&self) -> Place {
        Place { path: self.path.clone(), object: self.object.clone() }
    }

    /// The end of its name, to count files by.
    pub fn kind(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let inner = unpacked(&name).unwrap_or(&name);
        match inner.rfind('.') {
            Some(at) if at > 0 && name.len() - at <= 16 => name[at..].to_owned(),
            _ => "no ending".to_owned(),
        }
    }

    /// About how much text it holds, in bytes.
    pub fn text_bytes(&self) -> u64 {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if unpacked(&name).is_some() { self.bytes.saturating_mul(PACKED_RATIO) } else { self.bytes }
    }
}

fn source(found: &Found) -> Source {
    let changed = found.metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Source {
        path: found.path.clone(),
        format: found.format,
        bytes: found.metadata.len(),
        changed_ns: changed.map_or(0, |d| d.as_nanos() as u64),
        crate_name: None,
        heldout: None,
        domain: found.domain(),
        object: None,
    }
}
