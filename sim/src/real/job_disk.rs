//! The files of one job: what it reads, as it was when the job began, and what it leaves, until the job ends in virtual
//! time. So a thread that trains and the device's disk never touch each other.

use nightjar_shared::{
    disk::Disk,
    wire::worker::{Base, Slice, to_worker},
};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Copies the files that a job names, as far as they are there.
pub fn gather(disk: &dyn Disk, job: &to_worker::Body) -> io::Result<Files> {
    let (base, slice, state) = match job {
        to_worker::Body::Train(t) => (&t.base, &t.slice, [t.residual_file.as_str(), t.optimizer_file.as_str()]),
        to_worker::Body::Evaluate(e) => (&e.base, &e.slice, [""; 2]),
        to_worker::Body::Stop(_) | to_worker::Body::Limits(_) | to_worker::Body::Checkpoint(_) => {
            return Ok(Files::new());
        }
    };
    let of_base = |b: &Base| {
        let updates = b.updates.iter().map(|u| u.file.clone());
        [b.weights_file.clone(), b.keyframe_file.clone()].into_iter().chain(updates).collect::<Vec<_>>()
    };
    let of_slice = |s: &Slice| s.shard_file.clone();
    let names = base.iter().flat_map(of_base).chain(slice.iter().map(of_slice)).chain(state.map(str::to_owned));
    let mut files = Files::new();
    for name in names.filter(|name| !name.is_empty()) {
        if let Some(bytes) = disk.read(&name)? {
            files.insert(name, bytes);
        }
    }
    Ok(files)
}

/// A disk with one job's files.
pub struct JobDisk {
    given: Mutex<Files>,
    left: Mutex<Files>,
}

impl JobDisk {
    /// With copies of the files that the job reads.
    pub fn new(given: Files) -> Self {
        JobDisk { given: Mutex::new(given), left: Mutex::default() }
    }

    /// What the job has written.
    pub fn into_left(self) -> Files {
        self.left.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Files> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> MutexGuard<'_, Files> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_a_job() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a job only reads and writes whole files")
}

impl Disk for JobDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let left = self.left().get(name).cloned();
        Ok(left.or_else(|| self.given().get(name).cloned()))
    }

    fn read_at(&self, _name: &str, _offset: u64, _length: usize) -> io::Result<Vec<u8>> {
        Err(not_a_job())
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        let length = |files: &Files| files.get(name).map(|bytes| bytes.len() as u64);
        Ok(length(&self.left()).or_else(|| length(&self.given())))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.left().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn write_at(&self, _name: &str, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(not_a_job())
    }

    fn sync(&self, _name: &str) -> io::Result<()> {
        Err(not_a_job())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(not_a_job())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.left().remove(name);
        Ok(())
    }

    fn list(&self, _folder: &str) -> io::Result<Vec<String>> {
        Err(not_a_job())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}
