//! Rows that were run already, by the hash of all that decides them, so that a study goes on where it was broken off.

use super::row::Row;
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Goes into every hash. Raise it when code changes what any configuration comes to.
const MEANING: u32 = 1;

/// A folder of rows, one JSON file each, and rows known from elsewhere.
#[derive(Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
    known: BTreeMap<String, Row>,
}

/// The name of a row: BLAKE3 of what is run and its seed, in hex.
pub fn name(work: &impl Serialize, seed: u64) -> Result<String> {
    let text = serde_json::to_vec(&(MEANING, work, seed)).context("a configuration must be JSON")?;
    Ok(blake3::hash(&text).to_hex()[..32].to_owned())
}

impl Cache {
    /// In a folder, which is made; beside it, rows of an earlier study.json count as run.
    pub fn open(folder: PathBuf, known: impl IntoIterator<Item = Row>) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let known = known.into_iter().map(|row| (row.config.clone(), row)).collect();
        Ok(Cache { folder: Some(folder), known })
    }

    /// A row that was run already. A file that cannot be read is a row that was not run.
    pub fn get(&self, name: &str) -> Option<Row> {
        let file = self.folder.as_ref()?.join(format!("{name}.json"));
        let read = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Row>(&text).ok());
        read.filter(|row| row.config == name).or_else(|| self.known.get(name).cloned())
    }

    /// Keeps a row: whole or, if this process ends first, not at all.
    pub fn put(&self, row: &Row) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (half, file) = (folder.join(format!("{}.new", row.config)), folder.join(format!("{}.json", row.config)));
        let write = || fs::write(&half, serde_json::to_vec(row)?).and_then(|()| fs::rename(&half, &file));
        write().with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_again_by_what_was_run() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), []).unwrap();
        let config = name(&("mean", 0.5), 1).unwrap();
        assert_eq!(cache.get(&config), None);
        let row = Row { config: config.clone(), seed: 1, loss: Some(2.0), ..Row::default() };
        cache.put(&row).unwrap();
        assert_eq!(cache.get(&config), Some(row));
        // Another seed or setting is another row.
        assert!(cache.get(&name(&("mean", 0.5), 2).unwrap()).is_none());
        assert!(cache.get(&name(&("mean", 0.6), 1).unwrap()).is_none());
    }

    #[test]
    fn a_torn_file_is_run_again_and_published_rows_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let known = Row { config: "k".into(), loss: Some(1.0), ..Row::default() };
        let cache = Cache::open(folder.path().to_owned(), [known.clone()]).unwrap();
        fs::write(folder.path().join("torn.json"), "{\"study\":\"co").unwrap();
        assert_eq!(cache.get("torn"), None);
        assert_eq!(cache.get("k"), Some(known));
    }
}
