//! Room on the state folder's disk. Some is kept in reserve, as a file that is given up where the disk is full, so that
//! the ledger can be written and a start succeeds whoever has taken the rest. A disk is *full* once the next version
//! might not fit on it: then no new work is given out, what was trained is taken if it fits, and all goes on once there
//! is room.

use crate::engine::merge::needs;
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    run_spec::RunSpec,
    wire::limits::{RESERVE_BYTES_MAX, RESERVE_BYTES_MIN},
};
use serde::Serialize;
use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The file that keeps room for the ledger, in the state folder.
pub const RESERVE_FILE: &str = "reserve";
/// Beside what is to be written, so many bytes stay free: folders and file systems take their share.
const MARGIN_BYTES: u64 = 64 << 10;

/// A disk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// That this process may still write.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// Where a disk's free bytes are known. The tests have their own.
pub trait Space: Send + Sync {
    /// How it stands.
    fn bytes(&self) -> io::Result<Bytes>;
}

/// The disk of a folder.
pub struct FolderSpace(pub Arc<FolderDisk>);

impl Space for FolderSpace {
    fn bytes(&self) -> io::Result<Bytes> {
        bytes_of(&self.0.path(""))
    }
}

/// How the disk of a folder stands.
#[cfg(unix)]
pub fn bytes_of(folder: &Path) -> io::Result<Bytes> {
    let disk = rustix::fs::statvfs(folder)?;
    let of = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Bytes { free: of(disk.f_bavail), total: of(disk.f_blocks) })
}

/// How the disk of a folder stands: that of the longest mount point above it.
#[cfg(not(unix))]
pub fn bytes_of(folder: &Path) -> io::Result<Bytes> {
    let folder = std::path::absolute(folder)?;
    let disks = sysinfo::Disks::new_with_refreshed_list().map_err(io::Error::other)?;
    let above = disks.list().iter().filter(|disk| folder.starts_with(disk.mount_point()));
    let nearest = above.max_by_key(|disk| disk.mount_point().as_os_str().len());
    let disk = nearest.ok_or_else(|| io::Error::other("no disk holds the folder"))?;
    Ok(Bytes { free: disk.available_space(), total: disk.total_space() })
}

/// The room at one moment, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskStatus {
    /// Whether the disk is full.
    pub full: bool,
    /// Bytes that are free; null where the system does not say.
    pub free_bytes: Option<u64>,
    /// Bytes that have to be free for new work to be given out.
    pub needed_bytes: u64,
    /// Bytes that are kept for the ledger.
    pub reserve_bytes: u64,
}

/// How a state folder's disk stands, seen from outside the coordinator.
pub fn now(folder: &Path, spec: &RunSpec) -> DiskStatus {
    let needed = needed_bytes(spec);
    let free = bytes_of(folder).ok().map(|bytes| bytes.free);
    let reserve_bytes = std::fs::metadata(folder.join(RESERVE_FILE)).map_or(0, |file| file.len());
    DiskStatus { full: free.is_some_and(|free| free < needed), free_bytes: free, needed_bytes: needed, reserve_bytes }
}

/// Bytes that have to be free for new work to be given out: what the next version may take.
fn needed_bytes(spec: &RunSpec) -> u64 {
    needs::version_bytes(spec) + MARGIN_BYTES
}

/// What is kept of a disk for the ledger.
fn reserve_of(disk: Bytes) -> u64 {
    (disk.total / 16).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX)
}

/// See the module.
pub struct DiskReserve {
    disk: Arc<FolderDisk>,
    space: Box<dyn Space>,
    /// What the next version may take.
    needed: u64,
    is_full: AtomicBool,
    /// Whoever looks changes the reserve: one at a time.
    looking: Mutex<()>,
}

impl DiskReserve {
    /// Of a state folder. Where next to nothing is free, the reserve is given up at once: a start has to write.
    pub fn open(disk: Arc<FolderDisk>, space: Box<dyn Space>, spec: &RunSpec) -> Self {
        let reserve = DiskReserve {
            disk,
            space,
            needed: needed_bytes(spec),
            is_full: AtomicBool::new(false),
            looking: Mutex::new(()),
        };
        if reserve.free().is_some_and(|free| free < RESERVE_BYTES_MIN) {
            reserve.give_up(0);
        }
        reserve
    }

    fn free(&self) -> Option<u64> {
        // A disk that does not say is taken for one with room: its own errors will tell.
        self.space.bytes().ok().map(|bytes| bytes.free)
    }

    /// Whether the disk is full, as it was last seen.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Something could not be written, or would not fit.
    pub fn fill(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// Whether so many bytes fit.
    pub fn fits(&self, bytes: u64) -> bool {
        self.free().is_none_or(|free| free >= bytes.saturating_add(MARGIN_BYTES))
    }

    /// Gives half of what is left of the reserve up, for a start. `false`: there is none.
    pub fn give_up_for_start(&self) -> bool {
        self.give_up(0)
    }

    /// Gives half of the reserve up, for the ledger. The other half is for the next start. `false`: that is all.
    pub fn give_up_while_running(&self) -> bool {
        self.give_up(self.space.bytes().map_or(0, |bytes| reserve_of(bytes) / 2))
    }

    fn give_up(&self, kept: u64) -> bool {
        self.fill();
        let has = self.disk.length(RESERVE_FILE).ok().flatten().unwrap_or(0);
        // The last pages are not worth a half.
        let left = if has < RESERVE_BYTES_MIN / 4 { 0 } else { has / 2 }.max(kept);
        let shorten = || std::fs::OpenOptions::new().write(true).open(self.disk.path(RESERVE_FILE))?.set_len(left);
        left < has && shorten().is_ok()
    }

    /// Looks at the disk. A full one has room again once it has half as much again as is needed, so that it is not full
    /// and not full by turns. While there is room the reserve is kept.
    pub fn look(&self) -> DiskStatus {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let has = || self.disk.length(RESERVE_FILE).ok().flatten().unwrap_or(0);
        let now = |full, free| DiskStatus { full, free_bytes: free, needed_bytes: self.needed, reserve_bytes: has() };
        let Ok(bytes) = self.space.bytes() else { return now(self.is_full(), None) };
        let (free, reserve) = (bytes.free, reserve_of(bytes));
        let missing = reserve.saturating_sub(has());
        let is_full = if self.is_full() { free < self.needed + self.needed / 2 + missing } else { free < self.needed };
        self.is_full.store(is_full, Ordering::Relaxed);
        if !is_full && missing > 0 && free >= self.needed + missing && self.reserve(reserve).is_err() {
            // Half a reserve would be taken for a whole one.
            let _ = self.disk.remove(RESERVE_FILE);
        }
        now(is_full, Some(free))
    }

    /// Takes the reserve's bytes on the disk. They are never read.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.disk.path(RESERVE_FILE);
        let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        #[cfg(target_os = "linux")]
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok() {
            return Ok(());
        }
        // A file system that cannot promise room is given bytes that it has to keep.
        io::copy(&mut io::Read::take(io::repeat(0x5a), bytes), &mut &file)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// A disk of a size that the test chooses; what is written to it counts nothing.
    struct Told(Arc<AtomicU64>);

    impl Space for Told {
        fn bytes(&self) -> io::Result<Bytes> {
            Ok(Bytes { free: self.0.load(Ordering::Relaxed), total: 32 << 20 })
        }
    }

    #[test]
    fn a_disk_is_full_before_it_is_and_has_room_again_by_itself() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(root.path()).unwrap());
        let spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000000}"#).unwrap();
        let free = Arc::new(AtomicU64::new(1 << 30));
        let reserve = DiskReserve::open(disk.clone(), Box::new(Told(free.clone())), &spec);
        let reserved = || disk.length(RESERVE_FILE).unwrap().unwrap_or(0);
        assert!(!reserve.look().full);
        assert_eq!(reserved(), 2 << 20, "a sixteenth of the disk");
        let needed = reserve.look().needed_bytes;
        assert!(needed > 824_448 * 10, "keyframe and checkpoint: {needed}");

        free.store(needed - 1, Ordering::Relaxed);
        assert!(reserve.look().full);
        assert!(reserve.fits(1000) && !reserve.fits(needed));
        assert_eq!(reserved(), 2 << 20, "it is for the ledger alone");
        assert!(reserve.give_up_while_running() && !reserve.give_up_while_running());
        assert_eq!(reserved(), 1 << 20, "the other half is for a start");
        free.store(needed + 1, Ordering::Relaxed);
        assert!(reserve.look().full, "just about enough is not enough to begin again");
        free.store(2 * needed, Ordering::Relaxed);
        assert!(!reserve.look().full);
        assert_eq!(reserved(), 2 << 20);

        // A start on a disk without room makes some, and so does the next.
        free.store(0, Ordering::Relaxed);
        assert!(reserve.give_up_while_running());
        for left in [512 << 10, 256 << 10] {
            let reserve = DiskReserve::open(disk.clone(), Box::new(Told(free.clone())), &spec);
            assert_eq!((reserved(), reserve.is_full()), (left, true));
        }
        while reserve.give_up_for_start() {}
        assert_eq!(reserved(), 0);
    }

    #[test]
    fn the_reserve_takes_room_on_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(root.path()).unwrap());
        let spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000000}"#).unwrap();
        let reserve = DiskReserve::open(disk.clone(), Box::new(FolderSpace(disk.clone())), &spec);
        reserve.reserve(1 << 20).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            assert!(
                std::fs::metadata(disk.path(RESERVE_FILE)).unwrap().blocks() * 512 >= 1 << 20,
                "a hole reserves nothing"
            );
        }
        assert!(reserve.look().free_bytes.is_some());
    }
}
