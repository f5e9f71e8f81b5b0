//! A device's state folder: a disk with all that ships, or, in cost mode, the journal and the names of what would be
//! there.

use crate::disk::SimDisk;
use nightjar_session::journal::{self, Journal};
use nightjar_shared::{blob::BlobRef, disk::Disk, ids::BlobHash};
use std::{io, sync::Arc};

const NEVER_FAILS: &str = "the simulated disk never fails";

/// What survives a device's process.
pub enum Home {
    /// Files.
    Disk(Arc<SimDisk>),
    /// Names only.
    Names {
        /// Nobody writes here; all devices share it.
        disk: Arc<SimDisk>,
        /// As it was when the process ended.
        journal: Option<Box<Journal>>,
        /// Blobs that are there, whole.
        blobs: Vec<BlobHash>,
        /// A blob that is there in part.
        partial: Option<(BlobHash, u64)>,
    },
}

impl Home {
    /// The disk that jobs work on.
    pub fn disk(&self) -> &Arc<SimDisk> {
        match self {
            Home::Disk(disk) | Home::Names { disk, .. } => disk,
        }
    }

    /// A process starts: what it goes on from.
    pub fn open(&mut self) -> Journal {
        match self {
            Home::Disk(disk) => {
                let journal = Journal::load(&**disk).expect("a journal is never torn");
                journal::tidy(&**disk, &journal.files()).expect(NEVER_FAILS);
                journal
            }
            Home::Names { journal, .. } => journal.take().map_or_else(Journal::default, |j| *j),
        }
    }

    /// A process ends without notice.
    pub fn close(&mut self, last: &Journal) {
        if let Home::Names { journal, .. } = self {
            *journal = Some(Box::new(last.clone()));
        }
    }

    /// Replaces the journal. Where there are only names, the session's own is the journal while it lives.
    pub fn write_journal(&mut self, journal: &Journal) {
        if let Home::Disk(disk) = self {
            journal.store(&**disk).expect(NEVER_FAILS);
        }
    }

    /// Removes what the journal does not name.
    pub fn tidy(&mut self, keep: &[String]) {
        match self {
            Home::Disk(disk) => journal::tidy(&**disk, keep).expect(NEVER_FAILS),
            Home::Names { blobs, .. } => {
                blobs.retain(|hash| {
                    let name = hash.to_string();
                    keep.iter().any(|file| file.strip_prefix("blobs/") == Some(&name))
                });
            }
        }
    }

    /// Whether a blob is there, whole.
    pub fn has(&self, blob: BlobRef) -> bool {
        match self {
            Home::Disk(disk) => disk.with(&blob.file(), |b| BlobHash::of(b) == blob.hash).unwrap_or(false),
            Home::Names { blobs, .. } => blobs.contains(&blob.hash),
        }
    }

    /// Bytes of a blob that are there.
    pub fn partial(&self, blob: BlobRef) -> u64 {
        match self {
            Home::Disk(disk) => disk.length(&blob.partial_file()).expect(NEVER_FAILS).unwrap_or(0).min(blob.bytes),
            Home::Names { partial, .. } => partial.filter(|(hash, _)| *hash == blob.hash).map_or(0, |(_, bytes)| bytes),
        }
    }

    /// A blob has arrived up to `end`; `bytes` are the whole's, where there are any.
    pub fn receive(&mut self, blob: BlobRef, bytes: &[u8], end: u64) {
        match self {
            Home::Disk(disk) => write_blob(disk, blob, bytes, end as usize).expect(NEVER_FAILS),
            Home::Names { blobs, partial, .. } if end == blob.bytes => {
                *partial = None;
                blobs.push(blob.hash);
            }
            Home::Names { partial, .. } => *partial = Some((blob.hash, end)),
        }
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        match self {
            Home::Disk(disk) => disk.bytes(),
            Home::Names { .. } => 0,
        }
    }
}

fn write_blob(disk: &SimDisk, blob: BlobRef, bytes: &[u8], end: usize) -> io::Result<()> {
    let partial = blob.partial_file();
    let have = disk.length(&partial)?.unwrap_or(0).min(end as u64);
    disk.write_at(&partial, have, &bytes[have as usize..end])?;
    if end < bytes.len() {
        return Ok(());
    }
    if disk.with(&partial, |b| BlobHash::of(b) != blob.hash).unwrap_or(true) {
        // Torn by a power cut: from the start.
        disk.remove(&partial)?;
        disk.write_at(&partial, 0, bytes)?;
    }
    disk.sync(&partial)?;
    disk.rename(&partial, &blob.file())
}
