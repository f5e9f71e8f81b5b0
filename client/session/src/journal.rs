//! The journal: the device's transaction. One small file, replaced as a whole, names the lease at hand and the delta,
//! residual, optimizer state and weights that belong together. It is written before the first byte of a delta goes up,
//! so a retry after any crash offers the same blob; what it does not name is removed.

use crate::{disk_words, lease::Lease};
use nightjar_shared::{
    blob::BlobRef,
    disk::Disk,
    fail, home_files,
    ids::{BlobHash, RunId, Version},
    lease::Trained,
    work_files,
};
use serde::{Deserialize, Serialize};
use std::io;

/// The journal's file in the home folder.
pub const JOURNAL_FILE: &str = "journal.json";
/// Where the worker keeps its checkpoints of the lease at hand, in the home folder: two slots, `.0` and `.1`.
pub const CHECKPOINT: &str = "work/checkpoint";
const FORMAT: u32 = 1;
/// Shards kept on the disk, so that later leases on them need no download.
const SHARDS_KEPT_MAX: usize = 4;

/// All that a device must remember between two starts. File names are relative to the home folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// Of this layout.
    pub format: u32,
    /// The run, once the coordinator has welcomed this device.
    pub run: Option<Run>,
    /// The newest weights on the disk.
    pub weights: Option<HeldWeights>,
    /// What earlier deltas lost to rounding; `None`: nothing yet.
    pub residual: Option<String>,
    /// The version whose weights the lease of that residual started from; its age is counted from here.
    #[serde(default)]
    pub residual_version: Version,
    /// The inner optimizer's state; `None`: fresh.
    pub optimizer: Option<String>,
    /// Shards on the disk, last used first.
    pub shards: Vec<BlobRef>,
    /// The lease at hand.
    pub lease: Option<Lease>,
    /// What was trained under it, if that is finished: it is offered until it is acknowledged or dropped.
    pub delta: Option<PendingDelta>,
    /// What this device has done so far.
    pub totals: Totals,
}

/// The run that this device is in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its spec, as it was sent.
    pub spec_json: String,
    /// A lease is renewed at least this often.
    pub keep_alive_ms: u64,
}

/// Weights of a published version in a file that the worker wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldWeights {
    /// Which version.
    pub version: Version,
    /// Their digest.
    pub digest: BlobHash,
    /// Where.
    pub file: String,
}

/// A delta that is not acknowledged yet, and the state that counts if it is merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingDelta {
    /// What was trained.
    #[serde(flatten)]
    pub trained: Trained,
    /// Where the delta is.
    pub file: String,
    /// The residual after it; empty: none is kept.
    pub residual: String,
    /// The optimizer's state after it; empty: none is kept.
    pub optimizer: String,
}

/// What this device has done in this run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Leases whose delta was acknowledged.
    pub leases: u64,
    /// Deltas that count in the model.
    pub merged: u64,
    /// Samples that they were trained on.
    pub samples: u64,
    /// Held-out measurements delivered.
    pub evaluations: u64,
}

/// A journal that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("cannot {verb} the journal at {file} ({source}); check free space and permissions, then start again")]
    Disk {
        /// Read or write.
        verb: &'static str,
        /// Where.
        file: String,
        /// The disk's words.
        source: io::Error,
    },
    /// Another version of this program wrote it.
    #[error(
        "the journal at {file} is of format {format}, and this program reads {FORMAT}; start the program that wrote it"
    )]
    OtherFormat {
        /// Where it is.
        file: String,
        /// Its format.
        format: u32,
    },
    /// It is there, but not as this program wrote it.
    #[error(
        "the journal at {file} is damaged ({why}); move it away to start afresh: only a delta not yet delivered is lost"
    )]
    Damaged {
        /// Where.
        file: String,
        /// What is wrong.
        why: String,
    },
}

impl JournalError {
    /// What the disk says, for the owner.
    pub fn of_disk(&self) -> String {
        match self {
            JournalError::Disk { source, .. } => disk_words::refusal(source),
            other @ (JournalError::Damaged { .. } | JournalError::OtherFormat { .. }) => other.to_string(),
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Journal {
            format: FORMAT,
            run: None,
            weights: None,
            residual: None,
            residual_version: Version::default(),
            optimizer: None,
            shards: vec![],
            lease: None,
            delta: None,
            totals: Totals::default(),
        }
    }
}

/// What every journal begins with.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Journal {
    /// As [`Journal::load`]; one that is damaged is put aside, and the device begins anew, with a sentence about it.
    pub fn load_or_put_aside(disk: &dyn Disk) -> Result<(Self, Option<String>), JournalError> {
        match Self::load(disk) {
            Err(JournalError::Damaged { file, why }) => {
                let aside = format!("{JOURNAL_FILE}.damaged");
                let failed = |source| JournalError::Disk { verb: "put aside", file: file.clone(), source };
                disk.rename(JOURNAL_FILE, &aside).map_err(failed)?;
                let told = format!(
                    "the journal was damaged ({why}): it is kept as {file}.damaged, and this device begins anew; a delta that was not \
                     delivered yet is lost"
                );
                Ok((Journal::default(), Some(told)))
            }
            loaded => Ok((loaded?, None)),
        }
    }

    /// Reads the journal; a fresh one if there is none.
    pub fn load(disk: &dyn Disk) -> Result<Self, JournalError> {
        let file = || disk.path(JOURNAL_FILE).display().to_string();
        let bytes =
            disk.read(JOURNAL_FILE).map_err(|source| JournalError::Disk { verb: "read", file: file(), source })?;
        let Some(bytes) = bytes else { return Ok(Journal::default()) };
        let damaged = |why: String| JournalError::Damaged { file: file(), why };
        if let Ok(Format { format }) = serde_json::from_slice(&bytes)
            && format != FORMAT
        {
            return Err(JournalError::OtherFormat { file: file(), format });
        }
        let journal: Journal = serde_json::from_slice(&bytes).map_err(|e| damaged(of_json(&e)))?;
        if journal.delta.is_some() && journal.lease.is_none() {
            return Err(damaged("it has a delta without a lease".into()));
        }
        Ok(journal.inside())
    }

    /// Without what it names outside of the worker's folder, where no worker leaves anything: one that was taken over
    /// said so before names were fixed.
    fn inside(mut self) -> Self {
        let is_inside = |file: &String| work_files::is_inside(file);
        self.weights = self.weights.filter(|held| is_inside(&held.file));
        self.residual = self.residual.filter(is_inside);
        self.optimizer = self.optimizer.filter(is_inside);
        self.delta = self.delta.filter(|delta| {
            is_inside(&delta.file)
                && [&delta.residual, &delta.optimizer].iter().all(|file| file.is_empty() || is_inside(file))
        });
        self
    }

    /// Replaces the journal on the disk; durable on return.
    pub fn store(&self, disk: &dyn Disk) -> Result<(), JournalError> {
        let error =
            |source| JournalError::Disk { verb: "write", file: disk.path(JOURNAL_FILE).display().to_string(), source };
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| error(e.into()))?;
        disk.write(JOURNAL_FILE, &bytes).map_err(error)?;
        fail::point("journal.written");
        Ok(())
    }

    /// Remembers that a shard is on the disk, and lets go of the one unused longest.
    pub fn used_shard(&mut self, shard: BlobRef) {
        self.shards.retain(|s| s.hash != shard.hash);
        self.shards.insert(0, shard);
        self.shards.truncate(SHARDS_KEPT_MAX);
    }

    /// All files that must stay.
    pub fn files(&self) -> Vec<String> {
        let state = self.weights.iter().map(|w| &w.file).chain(&self.residual).chain(&self.optimizer);
        let delta = self.delta.iter().flat_map(|d| [&d.file, &d.residual, &d.optimizer]);
        let mut files: Vec<String> = state.chain(delta).filter(|f| !f.is_empty()).cloned().collect();
        files.extend(self.shards.iter().map(BlobRef::file));
        // The delta as the agent took it in.
        files.extend(self.delta.iter().flat_map(|d| [d.trained.delta.file(), d.trained.delta.partial_file()]));
        if let (Some(lease), None) = (&self.lease, &self.delta) {
            files.extend(lease.blobs().flat_map(|b| [b.file(), b.partial_file()]));
            files.extend(work_of(lease).flat_map(|file| [format!("{file}.new"), file]));
        }
        files
    }
}

/// What is wrong with a text, in words for whoever looks at it.
fn of_json(e: &serde_json::Error) -> String {
    let place =
        if e.line() > 0 { format!(", from line {}, column {} on", e.line(), e.column()) } else { String::new() };
    match e.classify() {
        _ if e.is_eof() => format!("it breaks off{place}"),
        serde_json::error::Category::Data => format!("it does not hold what a journal does{place}"),
        _ => format!("it is no JSON{place}"),
    }
}

/// What a worker writes for a lease, which may be under way or just done.
fn work_of(lease: &Lease) -> impl Iterator<Item = String> {
    let made = [work_files::delta(lease.id), work_files::residual(lease.id), work_files::optimizer(lease.id)];
    let slots = [0, 1].map(|slot| format!("{CHECKPOINT}.{slot}"));
    made.into_iter().chain(slots).chain([work_files::weights(lease.base_version)])
}

/// Removes what the journal no longer names from the folders of blobs and of the worker, whatever it is.
pub fn tidy(disk: &dyn Disk, keep: &[String]) -> io::Result<()> {
    // A name that no blob has is not ours: the worker cannot write here.
    for name in disk.list("blobs")?.iter().filter(|name| home_files::is_blob(name.strip_suffix(".new").unwrap_or(name)))
    {
        let file = format!("blobs/{name}");
        if !keep.contains(&file) {
            disk.remove(&file)?;
        }
    }
    tidy_folder(disk, work_files::FOLDER, keep)
}

/// The same, from one folder.
pub fn tidy_folder(disk: &dyn Disk, folder: &str, keep: &[String]) -> io::Result<()> {
    let keep: Vec<&str> = keep.iter().filter_map(|file| file.strip_prefix(folder)?.strip_prefix('/')).collect();
    match disk.clear(folder, &keep) {
        // A worker that is not confined may put a link in its folder's place: it goes, not what it leads to.
        Err(e) if e.kind() == io::ErrorKind::InvalidData && folder == work_files::FOLDER => disk.remove(folder),
        cleared => cleared,
    }
}

/// Forgets a run: first the journal, so that no crash leaves one that names what is gone.
pub fn forget(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(JOURNAL_FILE)?;
    tidy(disk, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{disk::FolderDisk, ids::LeaseId, lease::LeaseKind};

    fn disk() -> (tempfile::TempDir, FolderDisk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        (folder, disk)
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let (_folder, disk) = disk();
        assert_eq!(Journal::load(&disk).unwrap(), Journal::default());
        let mut journal = Journal { residual: Some("work/r".into()), ..Journal::default() };
        journal.used_shard(BlobRef::of(b"s"));
        journal.store(&disk).unwrap();
        assert_eq!(Journal::load(&disk).unwrap(), journal);
    }

    /// A device that is upgraded between training and delivery delivers.
    #[test]
    fn what_older_versions_wrote_is_read_and_written_alike() {
        let blob = |name: u8, bytes| BlobRef { hash: BlobHash([name; 32]), bytes };
        let (_folder, disk) = disk();
        let older = include_bytes!("journal/format-1.json");
        disk.write(JOURNAL_FILE, older).unwrap();
        let journal = Journal::load(&disk).unwrap();
        let lease = journal.lease.as_ref().unwrap();
        assert_eq!((lease.id, lease.kind, lease.steps), (LeaseId(12), LeaseKind::Train, 60));
        assert_eq!((lease.keyframe, lease.shard), (None, blob(3, 30)));
        assert_eq!((lease.updates[0].blob, lease.updates[0].redefines), (blob(5, 50), true));
        assert_eq!((lease.ahead_steps, lease.ahead_of), (30, Some(LeaseId(11))));
        let delta = journal.delta.as_ref().unwrap();
        let (steps, samples, train_ms, loss_first, loss_last) = (60, 240, 59_000, 5.5, 5.25);
        let trained = Trained { steps, samples, train_ms, loss_first, loss_last, delta: blob(6, 60) };
        assert_eq!((delta.trained, delta.file.as_str()), (trained, "work/lease-12.delta"));
        assert_eq!((delta.residual.as_str(), delta.optimizer.as_str()), ("work/lease-12.residual", ""));
        journal.store(&disk).unwrap();
        let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let stored = disk.read(JOURNAL_FILE).unwrap().unwrap();
        assert_eq!(json(&stored), json(older));
    }

    /// A crash before the rename leaves the new bytes beside the journal, cut anywhere: the old journal counts.
    #[test]
    fn a_torn_write_leaves_the_journal_before_it() {
        let (_folder, disk) = disk();
        let journal = Journal { optimizer: Some("work/o".into()), ..Journal::default() };
        journal.store(&disk).unwrap();
        disk.write_at(&format!("{JOURNAL_FILE}.new"), 0, b"{\"format\": 1, \"ru").unwrap();
        assert_eq!(Journal::load(&disk).unwrap(), journal);
    }

    /// A worker that was taken over once told an agent of then where its files were.
    #[test]
    fn names_outside_of_the_workers_folder_are_forgotten() {
        let (_folder, disk) = disk();
        let journal = Journal {
            weights: Some(HeldWeights { version: Version(1), digest: BlobHash::of(b"w"), file: "/etc/passwd".into() }),
            residual: Some("work/../identity.pk8".into()),
            optimizer: Some("work/o".into()),
            ..Journal::default()
        };
        journal.store(&disk).unwrap();
        let loaded = Journal::load(&disk).unwrap();
        assert_eq!((loaded.weights, loaded.residual, loaded.optimizer.as_deref()), (None, None, Some("work/o")));
    }

    #[test]
    fn damage_is_told_with_file_and_remedy() {
        let (_folder, disk) = disk();
        Journal::default().store(&disk).unwrap();
        let whole = disk.read(JOURNAL_FILE).unwrap().unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            disk.write(JOURNAL_FILE, &whole[..cut]).unwrap();
            let told = Journal::load(&disk).unwrap_err().to_string();
            assert!(told.contains("journal.json") && told.contains("move it away"), "{told}");
        }
    }

    #[test]
    fn a_damaged_journal_is_put_aside_and_told_and_a_newer_one_is_not() {
        let (_folder, disk) = disk();
        assert_eq!(Journal::load_or_put_aside(&disk).unwrap(), (Journal::default(), None));
        disk.write(JOURNAL_FILE, b"{\"format\": 1, \"run\": ").unwrap();
        let (journal, told) = Journal::load_or_put_aside(&disk).unwrap();
        assert!(journal == Journal::default() && told.is_some_and(|told| told.contains("journal.json.damaged")));
        assert_eq!(disk.read("journal.json.damaged").unwrap().unwrap(), b"{\"format\": 1, \"run\": ");
        assert_eq!(disk.length(JOURNAL_FILE).unwrap(), None);
        disk.write(JOURNAL_FILE, b"{\"format\": 2, \"ways\": []}").unwrap();
        let told = Journal::load_or_put_aside(&disk).unwrap_err().to_string();
        assert!(told.contains("format 2") && disk.length(JOURNAL_FILE).unwrap().is_some(), "{told}");
    }

    #[cfg(unix)]
    #[test]
    fn tidying_removes_folders_and_links_too() {
        let (folder, disk) = disk();
        let owners = folder.path().join("owners");
        std::fs::create_dir(&owners).unwrap();
        std::fs::write(owners.join("thesis"), b"thesis").unwrap();
        for file in ["work/weights-1", "work/a/deep/folder/file", "blobs/x"] {
            disk.write(file, b"").unwrap();
        }
        std::os::unix::fs::symlink(&owners, disk.path("work/a/link")).unwrap();
        std::os::unix::fs::symlink(owners.join("thesis"), disk.path("work/link")).unwrap();
        tidy(&disk, &["work/weights-1".into()]).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(disk.path("work")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["weights-1"]);
        disk.remove("work/weights-1").unwrap();
        std::fs::remove_dir(disk.path("work")).unwrap();
        std::os::unix::fs::symlink(&owners, disk.path("work")).unwrap();
        tidy(&disk, &[]).unwrap();
        assert!(std::fs::symlink_metadata(disk.path("work")).is_err());
        assert_eq!(std::fs::read(owners.join("thesis")).unwrap(), b"thesis");
    }

    #[test]
    fn tidying_keeps_what_is_named() {
        let (_folder, disk) = disk();
        let [kept, gone] = [b"kept", b"gone"].map(|bytes| format!("blobs/{}", BlobHash::of(bytes)));
        let partial = format!("{gone}.part");
        for file in
            ["work/weights-1", "work/old", &kept, &gone, &partial, "blobs/thesis", "blobs/photos/a.jpg", "prefs.toml"]
        {
            disk.write(file, b"").unwrap();
        }
        tidy(&disk, &["work/weights-1".into(), kept.clone()]).unwrap();
        assert_eq!(disk.list("work").unwrap(), ["weights-1"]);
        assert_eq!(disk.list("blobs").unwrap(), [kept.strip_prefix("blobs/").unwrap(), "thesis"], "the owner's stay");
        assert!(disk.path("blobs/photos/a.jpg").exists());
        assert_eq!(disk.length("prefs.toml").unwrap(), Some(0));
    }
}
