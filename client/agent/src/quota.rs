//! What this program may keep on the owner's disk. Whatever the journal needs stays; what else there is goes, in the order
//! in which it is missed least, when room is wanted; and a lease that cannot fit is not begun.

use crate::{
    history::{self, LOG_FILE},
    journal::Journal,
    lease::{BlobRef, Lease},
};
use nightjar_shared::{
    disk::Disk,
    ids::BlobHash,
    run_spec::{InnerState, RunSpec},
};
use std::{fs, io, path::Path, time::SystemTime};

/// Where graphics drivers keep what they have compiled, in the home folder.
const CACHE_FOLDER: &str = "cache";
/// Folders of files; the cache has folders in it.
const FOLDERS: [&str; 4] = ["", "blobs", "work", history::HISTORY_FOLDER];
/// Timelines that are kept however scarce room is.
const DAYS_KEPT_MIN: usize = 8;
/// Files and folders of the cache that are looked at; beyond that something is wrong with it.
const CACHE_ENTRIES_MAX: usize = 100_000;

/// What making room comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    /// There is enough, once these shards are forgotten.
    Enough {
        /// Shards that no lease needs now.
        evict: Vec<BlobHash>,
    },
    /// There is not, whatever goes; says what is missing.
    Short(String),
}

/// Bytes that training a model keeps on the disk at its worst: weights before and after, two checkpoints of weights, two
/// moments and a step's gradient each, residual and moments before and after, and a delta of 8 bits a value.
fn state_bytes(spec: &RunSpec) -> u64 {
    let floats = |n: u64| 4 * n * spec.model.parameters() as u64;
    let residuals = if spec.delta.feedback > 0.0 { 2 } else { 0 };
    let moments = if spec.inner.state == InnerState::Keep { 4 } else { 0 };
    floats(2 + 2 * 4 + residuals + moments) + spec.model.parameters() as u64
}

/// Bytes in the home folder, all told.
pub fn used(disk: &dyn Disk) -> io::Result<u64> {
    let mut sum: u64 = cache(disk).iter().map(|file| file.bytes).sum();
    for folder in FOLDERS {
        sum += bytes_in(disk, folder)?;
    }
    Ok(sum)
}

fn bytes_in(disk: &dyn Disk, folder: &str) -> io::Result<u64> {
    let mut sum = 0;
    for name in disk.list(folder)? {
        sum += disk.length(&join(folder, &name))?.unwrap_or(0);
    }
    Ok(sum)
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Makes room for a lease's blobs and what training writes, or says that there is none. Files other than shards are removed
/// here; shards are the journal's to forget.
pub fn make_room(disk: &dyn Disk, journal: &Journal, lease: &Lease, spec: &RunSpec, bytes_max: u64) -> io::Result<Room> {
    let (blobs, work) = (bytes_in(disk, "blobs")?, bytes_in(disk, "work")?);
    // Files come and go in between.
    let rest = used(disk)?.saturating_sub(blobs.saturating_add(work));
    let of_lease: u64 = lease.blobs().map(|blob| blob.bytes).sum();
    // What the lease and its training take once they are there, whatever is there of it already.
    let needed = of_lease + state_bytes(spec).max(work);
    let spare: Vec<BlobRef> = journal.shards.iter().copied().filter(|shard| shard.hash != lease.shard.hash).collect();
    let shards: u64 = spare.iter().map(|shard| shard.bytes).sum();
    let mut excess = (needed + shards + rest).saturating_sub(bytes_max);
    clear(disk, &mut excess)?;
    let evict = evict(&spare, &mut excess);
    if excess > 0 {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Ok(Room::Short(format!(
            "a lease of this run needs {} MiB on the disk, and `quota_mib_max` is {}; it lacks {} MiB: `nightjar prefs set \
             quota_mib_max {}` makes room",
            mib(needed),
            bytes_max >> 20,
            mib(excess),
            mib(bytes_max + excess) + 64
        )));
    }
    Ok(Room::Enough { evict })
}

/// Brings the folder below its bound without a new lease in mind, as far as that goes without what the journal needs; says
/// which shards it is to forget for that.
pub fn tidy(disk: &dyn Disk, journal: &Journal, bytes_max: u64) -> io::Result<Vec<BlobHash>> {
    let mut excess = used(disk)?.saturating_sub(bytes_max);
    if excess == 0 {
        return Ok(vec![]);
    }
    clear(disk, &mut excess)?;
    let at_hand = journal.lease.as_ref().map(|lease| lease.shard.hash);
    let spare: Vec<BlobRef> = journal.shards.iter().copied().filter(|shard| Some(shard.hash) != at_hand).collect();
    Ok(evict(&spare, &mut excess))
}

/// Removes what can go, until nothing is in excess any more.
fn clear(disk: &dyn Disk, excess: &mut u64) -> io::Result<()> {
    for file in dispensable(disk)? {
        if *excess == 0 {
            break;
        }
        *excess = excess.saturating_sub(file.remove(disk)?);
    }
    Ok(())
}

/// The shards to forget, until nothing is in excess any more. Last used come first in the journal.
fn evict(spare: &[BlobRef], excess: &mut u64) -> Vec<BlobHash> {
    let mut evicted = vec![];
    for shard in spare.iter().rev() {
        if *excess == 0 {
            break;
        }
        *excess = excess.saturating_sub(shard.bytes);
        evicted.push(shard.hash);
    }
    evicted
}

/// A file that can go.
#[derive(Debug)]
enum Dispensable {
    /// Of the home folder.
    Named(String),
    /// Of the cache.
    Cached(Cached),
}

impl Dispensable {
    /// Removes it; gives back its bytes.
    fn remove(self, disk: &dyn Disk) -> io::Result<u64> {
        match self {
            Dispensable::Named(file) => {
                let bytes = disk.length(&file)?.unwrap_or(0);
                disk.remove(&file).map(|()| bytes)
            }
            Dispensable::Cached(file) => match fs::remove_file(&file.path) {
                Ok(()) => Ok(file.bytes),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
                Err(e) => Err(e),
            },
        }
    }
}

/// What is missed least comes first: old logs and what was put aside as damaged, then the drivers' caches and the oldest
/// days, each oldest first.
fn dispensable(disk: &dyn Disk) -> io::Result<Vec<Dispensable>> {
    let is_old_log = |name: &str| name.ends_with(".log.old") || name.ends_with(".damaged");
    let mut files: Vec<Dispensable> = vec![];
    for folder in ["", history::HISTORY_FOLDER] {
        let names = disk.list(folder)?.into_iter().filter(|name| is_old_log(name) && name != LOG_FILE);
        files.extend(names.map(|name| Dispensable::Named(join(folder, &name))));
    }
    let mut cached = cache(disk);
    cached.sort_by_key(|file| file.changed);
    files.extend(cached.into_iter().map(Dispensable::Cached));
    let days = history::days(disk)?;
    let old = days.len().saturating_sub(DAYS_KEPT_MIN);
    files.extend(days.into_iter().take(old).map(Dispensable::Named));
    Ok(files)
}

/// A file of the cache.
#[derive(Debug)]
struct Cached {
    path: std::path::PathBuf,
    bytes: u64,
    changed: SystemTime,
}

/// The cache's files. Drivers write there beside us, so that what cannot be read now is as good as gone.
fn cache(disk: &dyn Disk) -> Vec<Cached> {
    let (mut files, mut folders, mut seen) = (vec![], vec![disk.path(CACHE_FOLDER)], 0);
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder) {
            seen += 1;
            if seen > CACHE_ENTRIES_MAX {
                return files;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if let (true, Ok(about)) = (kind.is_file(), entry.metadata()) {
                let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push(Cached { path: entry.path(), bytes: about.len(), changed });
            }
        }
    }
    files
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests;
