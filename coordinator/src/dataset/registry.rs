//! Text that every Rust machine has: the crate sources that Cargo unpacked under `$CARGO_HOME/registry/src`.

use super::{
    error::DatasetError,
    source::{Format, Source},
    walk::plain_files,
};
use nightjar_shared::ids::BlobHash;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which of the registry's sources are taken.
#[derive(Clone, Debug)]
pub struct RegistryLimits {
    /// `$CARGO_HOME`.
    pub cargo_home: PathBuf,
    /// Most bytes of text in all. A crate larger than a sixteenth of it is left out, so that none dominates.
    pub bytes_max: u64,
}

/// A crate's version, ordered as Semantic Versioning says; what follows a `+` does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CrateVersion {
    numbers: [u64; 3],
    /// `true` sorts after `false`: a release is newer than its pre-releases.
    release: bool,
    pre: Vec<PrePart>,
}

/// One dot-separated part of a pre-release; numbers sort before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PrePart {
    Number(u64),
    Word(String),
}

impl CrateVersion {
    fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let numbers: Vec<u64> = core.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let part = |p: &str| p.parse().map_or_else(|_| PrePart::Word(p.to_owned()), PrePart::Number);
        Some(CrateVersion {
            numbers: numbers.try_into().ok()?,
            release: pre.is_none(),
            pre: pre.into_iter().flat_map(|p| p.split('.')).map(part).collect(),
        })
    }
}

/// Splits `sha-1-0.10.1` into `sha-1` and its version.
fn name_and_version(folder: &str) -> Option<(&str, CrateVersion)> {
    folder.match_indices('-').find_map(|(at, _)| Some((&folder[..at], CrateVersion::parse(&folder[at + 1..])?)))
}

/// The `.rs` and `.md` files of the newest version of each crate, crates in the order of their names' hashes, as many
/// whole crates as fit into the limit.
pub fn list(limits: &RegistryLimits) -> Result<Vec<Source>, DatasetError> {
    let root = limits.cargo_home.join("registry").join("src");
    let no_registry = || DatasetError::NoRegistry { path: root.clone() };
    let mut newest: BTreeMap<String, (CrateVersion, PathBuf)> = BTreeMap::new();
    for index in folders(&root).map_err(|_| no_registry())? {
        for folder in folders(&index)? {
            let Some(name) = folder.file_name().and_then(|n| n.to_str()) else { continue };
            let Some((name, version)) = name_and_version(name) else { continue };
            match newest.get(name) {
                Some((known, _)) if *known >= version => {}
                _ => drop(newest.insert(name.to_owned(), (version, folder.clone()))),
            }
        }
    }
    let mut crates: Vec<_> =
        newest.into_iter().map(|(name, (_, folder))| (BlobHash::of(name.as_bytes()), name, folder)).collect();
    crates.sort();
    let mut sources = vec![];
    let mut left = limits.bytes_max;
    for (_, name, folder) in crates {
        let files = files_of(&name, &folder)?;
        let bytes: u64 = files.iter().map(|f| f.bytes).sum();
        if bytes <= left && bytes <= limits.bytes_max / 16 {
            left -= bytes;
            sources.extend(files);
        }
    }
    if sources.is_empty() { Err(no_registry()) } else { Ok(sources) }
}

fn files_of(name: &str, folder: &Path) -> Result<Vec<Source>, DatasetError> {
    let mut files = vec![];
    plain_files(folder, &mut |path, metadata| {
        if path.extension().is_some_and(|e| e == "rs" || e == "md") {
            files.push(Source {
                path: path.to_owned(),
                format: Format::Text,
                bytes: metadata.len(),
                // A published version never changes; unpacking it again only changes its time stamps.
                changed_ns: 0,
                crate_name: Some(name.to_owned()),
                heldout: None,
                domain: "Cargo's registry".to_owned(),
                object: None,
            });
        }
    })?;
    Ok(files)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut folders = vec![];
    for entry in fs::read_dir(path).map_err(DatasetError::io(path))? {
        let entry = entry.map_err(DatasetError::io(path))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> CrateVersion {
        CrateVersion::parse(text).unwrap()
    }

    #[test]
    fn versions_are_ordered_as_semver_says() {
        let ordered = [
            "0.9.0",
            "0.10.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-rc.2",
            "1.0.0-rc.11",
            "1.0.0",
        ];
        for pair in ordered.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.2.3+wasi"), version("1.2.3"));
    }

    #[test]
    fn names_may_hold_hyphens_and_digits() {
        assert_eq!(name_and_version("sha-1-0.10.1"), Some(("sha-1", version("0.10.1"))));
        assert_eq!(name_and_version("x-y-1.0.0-rc.1"), Some(("x-y", version("1.0.0-rc.1"))));
        assert_eq!(name_and_version("no-version"), None);
    }

    #[test]
    fn takes_the_newest_of_each_crate_within_the_limit() {
        let home = tempfile::tempdir().unwrap();
        let write = |folder: &str, bytes: usize| {
            let folder = home.path().join("registry/src/index").join(folder);
            fs::create_dir_all(folder.join("src")).unwrap();
            fs::write(folder.join("src/lib.rs"), vec![b'x'; bytes]).unwrap();
            fs::write(folder.join("Cargo.lock"), "no source").unwrap();
        };
        for (folder, bytes) in [("a-0.9.0", 10), ("a-0.10.0", 11), ("b-1.0.0", 12), ("huge-1.0.0", 200)] {
            write(folder, bytes);
        }
        let limits = |bytes_max| RegistryLimits { cargo_home: home.path().to_owned(), bytes_max };
        let mut sizes: Vec<u64> = list(&limits(1600)).unwrap().iter().map(|s| s.bytes).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [11, 12]);
        let home = tempfile::tempdir().unwrap();
        let none = list(&RegistryLimits { cargo_home: home.path().to_owned(), bytes_max: 1 }).unwrap_err();
        assert!(none.to_string().contains("cargo fetch"), "{none}");
    }
}
