//! What a preparation has finished: one small file, replaced atomically. After a kill the next run takes it from there,
//! and comes to the same bytes as a run that was never killed.

use super::{encoder::Seam, error::DatasetError, notes::Notes, read::Position, report::Report, stream::StreamState};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    shard::ShardInfo,
};
use serde::{Deserialize, Serialize};

/// Name of the journal within the output folder.
pub const JOURNAL: &str = "work/journal.json";

/// Everything that a later run needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// What is to be said about what was read so far.
    #[serde(default)]
    pub notes: Notes,
    /// What it is made of so far.
    #[serde(default)]
    pub report: Report,
    /// How far it is.
    pub stage: Stage,
}

/// The two passes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Text becomes samples in buckets.
    Read(ReadState),
    /// Buckets become shards.
    Shuffle(ShuffleState),
}

/// How far reading is; the buckets' files hold exactly what was read before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadState {
    /// Number of the source being read.
    pub source: usize,
    /// Where in it.
    pub position: Position,
    /// Groups begun so far.
    pub groups: u64,
    /// The crate that the last group begun is, if it is one.
    pub group_crate: Option<String>,
    /// Bytes of text read so far.
    pub text_bytes: u64,
    /// Those of files that are only measured on.
    #[serde(default)]
    pub heldout_bytes: u64,
    /// Documents that are remembered so far.
    #[serde(default)]
    pub seen: u64,
    /// What the piece before says about the next, within a document.
    #[serde(default)]
    pub seam: Seam,
    /// What is trained on.
    pub train: StreamState,
    /// What is held out: one stream, or one for each set of files that are only measured on.
    pub heldout: Vec<StreamState>,
}

/// How far shuffling is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShuffleState {
    /// Buckets to come, next first.
    pub pending: Vec<Bucket>,
    /// Finished shards to train on.
    pub train: Vec<ShardInfo>,
    /// Finished held-out shards.
    pub heldout: Vec<ShardInfo>,
    /// How many of them each set has.
    #[serde(default)]
    pub sets: Vec<usize>,
}

/// A file of samples that belong together at random.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The file's name within the work folder; what is drawn for the bucket depends on it.
    pub name: String,
    /// Whether its samples are held out.
    pub heldout: bool,
    /// As part of which set.
    #[serde(default)]
    pub set: usize,
}

impl Journal {
    /// What an earlier run left; `None` before the first checkpoint.
    pub fn load(disk: &FolderDisk) -> Result<Option<Self>, DatasetError> {
        let Some(json) = disk.read(JOURNAL).map_err(DatasetError::io(disk.path(JOURNAL)))? else { return Ok(None) };
        let damaged = |e| DatasetError::Damaged { what: format!("{}: {e}", disk.path(JOURNAL).display()) };
        serde_json::from_slice(&json).map_err(damaged).map(Some)
    }

    /// Makes this the state to go on from.
    pub fn save(&self, disk: &FolderDisk) -> Result<(), DatasetError> {
        let failed = |e| DatasetError::Damaged { what: format!("the journal cannot be written: {e}") };
        let json = serde_json::to_vec(self).map_err(failed)?;
        disk.write(JOURNAL, &json).map_err(DatasetError::io(disk.path(JOURNAL)))
    }
}
