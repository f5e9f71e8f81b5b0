//! `backup.json`: what a backup holds.

use super::{BackupError, failed};
use nightjar_shared::{
    blob::BlobRef,
    disk::{Disk, FolderDisk},
    ids::{BlobHash, Generation, RunId, Version},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The file that names all others.
pub(super) const FILE: &str = "backup.json";
const FORMAT: u32 = 1;

/// What a backup holds, besides the blobs that its ledger names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    format: u32,
    /// The run, as people call it.
    pub run: String,
    /// The run.
    pub run_id: RunId,
    /// Of the coordinator that had written last.
    pub generation: Generation,
    /// When the ledger was copied, for people.
    pub taken: String,
    /// The newest version; `None` before the first.
    pub version: Option<Version>,
    /// The digest of its weights.
    pub digest: Option<BlobHash>,
    /// Merged deltas.
    pub deltas: u64,
    /// Blobs that the ledger needs, and that are here.
    pub blobs: u64,
    /// Blobs that the ledger needs, and that the run itself had lost.
    pub lost: Vec<BlobHash>,
    /// All else, by its name in a state folder; it lies in `files/` under its hash.
    pub files: BTreeMap<String, BlobRef>,
}

impl Contents {
    /// Of what a ledger's copy holds.
    pub(super) fn new(held: &crate::store::copy::Held, files: BTreeMap<String, BlobRef>, lost: Vec<BlobHash>) -> Self {
        Contents {
            format: FORMAT,
            run: held.spec.name.clone(),
            run_id: held.run_id,
            generation: held.generation,
            taken: held.read_at.clone(),
            version: held.newest.map(|(version, _)| version),
            digest: held.newest.map(|(_, digest)| digest),
            deltas: held.deltas,
            blobs: (held.blobs.len() - lost.len()) as u64,
            lost,
            files,
        }
    }

    /// Reads what is in a folder; `None` if no backup was finished there.
    pub fn read(folder: &Path) -> Result<Option<Self>, BackupError> {
        let disk = FolderDisk::open(folder).map_err(failed(folder))?;
        let Some(bytes) = disk.read(FILE).map_err(failed(folder))? else { return Ok(None) };
        let contents = serde_json::from_slice::<Contents>(&bytes).ok().filter(|contents| contents.format == FORMAT);
        contents.map(Some).ok_or_else(|| BackupError::Unreadable(folder.join(FILE)))
    }

    pub(super) fn write(&self, disk: &FolderDisk) -> std::io::Result<()> {
        disk.write(FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// Which state of the run it is, in words.
    pub fn said(&self) -> String {
        let version = self.version.map_or("no version yet".to_owned(), |version| format!("version {version}"));
        format!("{version}, {} merged deltas, taken {}", self.deltas, self.taken)
    }
}
