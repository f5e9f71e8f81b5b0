//! Counts what the worker writes to the disk, so that its owner can see how much that wears it.

use nightjar_shared::{
    disk::{Disk, FolderDisk},
    wire::worker::from_worker,
};
use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

/// The home folder, and the bytes that were written there since this process began.
pub(super) struct Written {
    disk: FolderDisk,
    bytes: AtomicU64,
}

impl Written {
    /// Nothing yet.
    pub fn to(disk: FolderDisk) -> Self {
        Written { disk, bytes: AtomicU64::new(0) }
    }

    /// The same report with the count in it, where it has a place for it.
    pub fn counted_in(&self, mut report: from_worker::Body) -> from_worker::Body {
        let bytes = self.bytes.load(Ordering::Relaxed);
        match &mut report {
            from_worker::Body::Progress(progress) => progress.written_bytes = bytes,
            from_worker::Body::Trained(trained) => trained.written_bytes = bytes,
            _ => {}
        }
        report
    }

    fn count(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Disk for Written {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(name, offset, length)
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        self.disk.length(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.count(bytes);
        self.disk.write(name, bytes)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.count(bytes);
        self.disk.write_at(name, offset, bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.disk.sync(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}
