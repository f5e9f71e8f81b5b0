//! What this program may keep on the owner's disk. Whatever the journal needs stays; what else there is goes, in the
//! order in which it is missed least, when room is wanted; and a lease that cannot fit is not begun.

use crate::{
    history::{self, LOG_FILE},
    journal::{self, Journal},
    lease::Lease,
};
use nightjar_shared::{
    blob::BlobRef,
    disk::Disk,
    ids::BlobHash,
    run_spec::{InnerState, RunSpec},
    work_files,
};
use std::io;

/// Where graphics drivers keep what they have compiled, in the home folder.
const CACHE_FOLDER: &str = "cache";
/// Folders of this program's own files.
const FOLDERS: [&str; 3] = ["", "blobs", history::HISTORY_FOLDER];
/// Folders in which the worker and its drivers write what they like, at any depth.
const FOREIGN: [&str; 2] = [work_files::FOLDER, CACHE_FOLDER];
/// Timelines that are kept however scarce room is.
const DAYS_KEPT_MIN: usize = 8;
/// What the worker's folder may hold beside twice what training needs: a file that is being replaced is there twice.
const SPARE_BYTES: u64 = 64 << 20;

/// Files and folders in the worker's folder: a lease's are a dozen.
const WORK_ENTRIES_MAX: usize = 1000;
/// What drivers may keep of what they have compiled. They bound it to 1 GiB by themselves.
const CACHE_BYTES_MAX: u64 = 2 << 30;
/// Files and folders of that, a few for each program of a GPU.
const CACHE_ENTRIES_MAX: usize = 50_000;

/// A folder in which a worker has put more than belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has filled {folder} with {} MiB in {entries} files and folders", .bytes >> 20)]
pub struct Overgrown {
    /// Which.
    pub folder: &'static str,
    /// What was seen there.
    pub bytes: u64,
    /// So many files and folders.
    pub entries: usize,
}

/// What making room comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Space {
    /// There is enough, once these shards are forgotten.
    Enough {
        /// Shards that no lease needs now.
        evict: Vec<BlobHash>,
    },
    /// There is not, whatever goes; says what is missing.
    Short(String),
}

/// Bytes that training a model keeps on the disk at its worst: weights before and after, two checkpoints of weights,
/// two moments and a step's gradient each, residual and moments before and after, and a delta of 8 bits a value.
fn state_bytes(spec: &RunSpec) -> u64 {
    let floats = |n: u64| 4 * n * spec.model.parameters() as u64;
    let residuals = if spec.delta.feedback > 0.0 { 2 } else { 0 };
    let moments = if spec.inner.state == InnerState::Keep { 4 } else { 0 };
    floats(2 + 2 * 4 + residuals + moments) + spec.model.parameters() as u64
}

/// Bytes in the home folder, all told.
pub fn used(disk: &dyn Disk) -> io::Result<u64> {
    let mut sum: u64 = 0;
    for folder in FOREIGN {
        sum = sum.saturating_add(disk.walk(folder)?.bytes());
    }
    for folder in FOLDERS {
        sum = sum.saturating_add(bytes_in(disk, folder)?);
    }
    Ok(sum)
}

/// The longest file that a worker has to write for a model, or a driver in its cache.
pub fn file_bytes_max(spec: &RunSpec) -> u64 {
    state_bytes(spec).saturating_add(SPARE_BYTES).max(CACHE_BYTES_MAX / 2)
}

/// The first of the folders in which a worker writes that holds more than an honest one makes of it; says what it
/// holds.
pub fn overgrown(disk: &dyn Disk, spec: &RunSpec) -> io::Result<Option<Overgrown>> {
    let of_state = state_bytes(spec).saturating_mul(2).saturating_add(SPARE_BYTES);
    let bounds = [(work_files::FOLDER, of_state, WORK_ENTRIES_MAX), (CACHE_FOLDER, CACHE_BYTES_MAX, CACHE_ENTRIES_MAX)];
    for (folder, bytes_max, entries_max) in bounds {
        let walk = disk.walk(folder)?;
        let (bytes, entries) = (walk.bytes(), walk.entries);
        if bytes > bytes_max || entries > entries_max || walk.is_cut_short {
            return Ok(Some(Overgrown { folder, bytes, entries }));
        }
    }
    Ok(None)
}

/// Removes from such a folder what the journal does not name.
pub fn cut_back(disk: &dyn Disk, journal: &Journal, folder: &str) -> io::Result<()> {
    if folder == CACHE_FOLDER {
        disk.clear(CACHE_FOLDER, &[])
    } else {
        journal::tidy_folder(disk, folder, &journal.files())
    }
}

/// Removes from the folders of the worker and its drivers what no lease or start of ours left there.
fn weed(disk: &dyn Disk, journal: &Journal) -> io::Result<()> {
    journal::tidy_folder(disk, work_files::FOLDER, &journal.files())?;
    if disk.walk(CACHE_FOLDER)?.is_cut_short {
        // Something is wrong with it, and it is made anew.
        disk.clear(CACHE_FOLDER, &[])?;
    }
    Ok(())
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

/// Makes room for a lease's blobs and what training writes, or says that there is none. Files other than shards are
/// removed here; shards are the journal's to forget.
pub fn make_room(
    disk: &dyn Disk,
    journal: &Journal,
    lease: &Lease,
    spec: &RunSpec,
    bytes_max: u64,
) -> io::Result<Space> {
    weed(disk, journal)?;
    let (blobs, work) = (bytes_in(disk, "blobs")?, disk.walk(work_files::FOLDER)?.bytes());
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
        return Ok(Space::Short(format!(
            "a lease of this run needs {} MiB on the disk, and `quota_mib_max` is {}; it lacks {} MiB: `nightjar prefs set \
             quota_mib_max {}` makes room",
            mib(needed),
            bytes_max >> 20,
            mib(excess),
            mib(bytes_max + excess) + 64
        )));
    }
    Ok(Space::Enough { evict })
}

/// Brings the folder below its bound without a new lease in mind, as far as that goes without what the journal needs;
/// says which shards it is to forget for that.
pub fn tidy(disk: &dyn Disk, journal: &Journal, bytes_max: u64) -> io::Result<Vec<BlobHash>> {
    weed(disk, journal)?;
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
        let bytes = disk.length(&file)?.unwrap_or(0);
        disk.remove(&file)?;
        *excess = excess.saturating_sub(bytes);
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

/// What is missed least comes first: old logs and what was put aside as damaged, then the drivers' caches and the
/// oldest days, each oldest first.
fn dispensable(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let is_old_log = |name: &str| name.ends_with(".log.old") || name.ends_with(".damaged");
    let mut files: Vec<String> = vec![];
    for folder in ["", history::HISTORY_FOLDER] {
        let names = disk.list(folder)?.into_iter().filter(|name| is_old_log(name) && name != LOG_FILE);
        files.extend(names.map(|name| join(folder, &name)));
    }
    let mut cached = disk.walk(CACHE_FOLDER)?.files;
    cached.sort_by_key(|file| file.changed);
    files.extend(cached.into_iter().map(|file| file.name));
    let days = history::days(disk)?;
    let old = days.len().saturating_sub(DAYS_KEPT_MIN);
    files.extend(days.into_iter().take(old));
    Ok(files)
}

#[cfg(test)]
mod tests;
