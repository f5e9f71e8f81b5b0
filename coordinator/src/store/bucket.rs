//! A run's blobs in an S3 store, as the disk that [`super::Blobs`] writes to: blobs and checkpoints are objects, uploads
//! that are not whole yet stay in the state folder. So an upload goes on at any offset, is verified here, and appears
//! in the store under its hash as a whole or not at all.

mod cache;
mod failure;
pub(crate) mod http;
mod inputs;
mod requests;
mod url;

pub use cache::FOLDER as CACHE_FOLDER;
pub use failure::StoreError;
pub use inputs::open_inputs;
pub use url::{BadBucket, BucketUrl};

use cache::{Cache, Source};
use http::Http;
use nightjar_shared::{
    disk::{Disk, FolderDisk, Walk},
    ids::{BlobHash, DeviceId, RunId},
    wire::limits::BLOB_BYTES_MAX,
};
#[cfg(test)]
use object_store::ObjectStore;
use object_store::{
    BackoffConfig, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
};
use requests::Requests;
use std::{
    cell::{Cell, RefCell},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Bytes of blobs that are kept beside the store, for devices, at most.
const CACHE_BYTES_MAX: u64 = 8 << 30;
/// How long a request that failed is tried again.
const RETRY_MAX: Duration = Duration::from_secs(20);
/// How long a command waits for a store that is away. A coordinator does not wait: it tells its devices.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// The object that says whose the others are.
const MARK: &str = "made-by-nightjar.txt";

/// See the module.
pub struct Bucket {
    requests: Requests,
    /// The state folder: uploads, and what is kept of blobs.
    local: Arc<FolderDisk>,
    /// For a coordinator that serves.
    cache: Option<Cache>,
}

/// A bucket that a run cannot have.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another run has it.
    #[error(
        "{place} holds another run's blobs ({owner}): give each run a prefix of its own, or name the --state folder of that \
         run. Nothing was changed"
    )]
    Taken {
        /// Its address.
        place: String,
        /// Whose it is, as its mark says.
        owner: String,
    },
    /// It holds what no coordinator put there.
    #[error("{place} holds {object}, which is no run's: name a prefix that nothing else uses. Nothing was changed")]
    Foreign {
        /// Its address.
        place: String,
        /// One of the objects.
        object: String,
    },
    /// It cannot be looked into.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Bucket {
    /// For a coordinator that serves: what devices ask for is kept in the state folder, and a store that is away is an
    /// error at once. Nothing is asked of the store yet.
    pub fn to_serve(url: &BucketUrl, local: Arc<FolderDisk>) -> io::Result<Self> {
        let cache = Some(Cache::empty(local.clone(), CACHE_BYTES_MAX)?);
        Ok(Bucket { requests: requests(url, Duration::ZERO)?, local, cache })
    }

    /// For a command: nothing is kept, and a store that is away is waited for.
    pub fn to_read(url: &BucketUrl, local: Arc<FolderDisk>) -> io::Result<Self> {
        Ok(Bucket { requests: requests(url, COMMAND_PATIENCE)?, local, cache: None })
    }

    /// Over any store, for tests.
    #[cfg(test)]
    pub fn over(store: Arc<dyn ObjectStore>, local: Arc<FolderDisk>, has_cache: bool) -> Self {
        let cache = has_cache.then(|| Cache::empty(local.clone(), CACHE_BYTES_MAX).unwrap());
        let requests = Requests::new(store, "some/prefix", "s3://test".into(), Duration::ZERO).unwrap();
        Bucket { requests, local, cache }
    }

    /// What is wrong with the store, as far as is known.
    pub fn trouble(&self) -> Option<StoreError> {
        self.requests.trouble()
    }

    /// Asks the store for something small: whether it is there, and takes the key. Gives room on the disk back, where
    /// others have taken it.
    pub fn probe(&self) -> io::Result<()> {
        self.cache.as_ref().map_or(Ok(()), Cache::shrink)?;
        self.requests.list("checkpoints", 1).map(drop)
    }

    /// Marks the place as a run's, where it is nobody's yet; an error where it is another's.
    pub fn claim(&self, run: RunId, key: DeviceId) -> Result<(), ClaimError> {
        let owner = format!("run {}, coordinator {}", BlobHash(run.0), BlobHash(key.0));
        let mark =
            format!("Nightjar keeps the blobs of one run here. Leave this object: it says whose they are.\n{owner}\n");
        let place = || self.requests.place().to_owned();
        if self.requests.get(MARK, 0, MARK_BYTES_MAX)?.is_none()
            && let Some(other) = self.requests.list("", 1)?.first()
            && self.requests.get(MARK, 0, MARK_BYTES_MAX)?.is_none()
        {
            return Err(ClaimError::Foreign { place: place(), object: other.name.clone() });
        }
        if self.requests.put_new(MARK, mark.as_bytes())? {
            return Ok(());
        }
        let there = self.requests.get(MARK, 0, MARK_BYTES_MAX)?.unwrap_or_default();
        let owner = String::from_utf8_lossy(&there).lines().nth(1).unwrap_or("somebody").to_owned();
        Err(ClaimError::Taken { place: place(), owner })
    }

    /// Whether nothing at all is there.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.requests.list("", 1)?.is_empty())
    }

    /// Forgets what is kept of a blob beside the store; `false`: nothing was.
    pub fn forget(&self, hash: BlobHash) -> bool {
        let cache = self.cache.as_ref().filter(|cache| cache.length(hash).is_some());
        cache.map(|cache| cache.forget(hash)).is_some()
    }

    /// Where a name is of a blob, and blobs are kept here.
    fn kept(&self, name: &str) -> Option<(&Cache, BlobHash)> {
        Some((self.cache.as_ref()?, name.strip_prefix("blobs/")?.parse().ok()?))
    }

    /// Fetches a blob into a file here, where it fits; `None` where it does not, or is missing. What comes is not
    /// judged: whoever reads it does.
    fn fetch(&self, cache: &Cache, name: &str, file: &str) -> io::Result<Option<u64>> {
        let at = Cell::new(0);
        let begin = |bytes| {
            at.set(0);
            if cache.fits(bytes) { self.local.remove(file) } else { Err(io::ErrorKind::StorageFull.into()) }
        };
        let take = |piece: &[u8]| {
            self.local.write_at(file, at.get(), piece)?;
            at.set(at.get() + piece.len() as u64);
            Ok(())
        };
        match self.requests.fetch(name, begin, take) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(None),
            fetched => fetched,
        }
    }

    /// A whole object, in memory once.
    fn whole(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let bytes = RefCell::new(vec![]);
        let begin = |length: u64| {
            let length = usize::try_from(length).ok().filter(|_| length <= BLOB_BYTES_MAX);
            let length = length.ok_or_else(|| io::Error::other("it is longer than any blob"))?;
            bytes.take();
            Ok(bytes.borrow_mut().try_reserve_exact(length)?)
        };
        let take = |piece: &[u8]| {
            bytes.borrow_mut().extend_from_slice(piece);
            Ok(())
        };
        Ok(self.requests.fetch(name, begin, take)?.map(|_| bytes.take()))
    }
}

/// A mark is no longer.
const MARK_BYTES_MAX: usize = 4096;

/// Whether a name is of the state folder: an upload.
fn is_local(name: &str) -> bool {
    name.split('/').next() == Some("incoming")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn requests(url: &BucketUrl, patience: Duration) -> io::Result<Requests> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in url.settings() {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: RETRY_MAX };
    let http = Http::new(url.endpoint().is_some_and(|endpoint| endpoint.starts_with("http://")))?;
    let built = builder.with_retry(retry).with_http_connector(http).build();
    let store = built.map_err(|error| StoreError::Refused { place: url.to_string(), why: error.to_string() })?;
    Requests::new(Arc::new(store), &url.prefix, url.to_string(), patience)
}

impl Disk for Bucket {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if is_local(name) {
            return self.local.read(name);
        }
        if let Some((cache, hash)) = self.kept(name)
            && let Some(file) = cache.find(hash)
        {
            match self.local.read(&file) {
                Ok(Some(bytes)) if BlobHash::of(&bytes) == hash => return Ok(Some(bytes)),
                // What is damaged here may be whole there.
                _ => cache.forget(hash),
            }
        }
        self.whole(name)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let ask = || self.requests.get(name, offset, length)?.ok_or_else(missing);
        match self.kept(name) {
            _ if is_local(name) => self.local.read_at(name, offset, length),
            Some((cache, hash)) => cache.read(
                hash,
                |file| self.fetch(cache, name, file),
                |from| match from {
                    Source::File(file) => self.local.read_at(&file, offset, length),
                    Source::Store => ask(),
                },
            ),
            None => ask(),
        }
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        if is_local(name) {
            return self.local.length(name);
        }
        match self.kept(name).and_then(|(cache, hash)| cache.length(hash)) {
            Some(bytes) => Ok(Some(bytes)),
            None => Ok(self.requests.look(name)?.map(|found| found.bytes)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if is_local(name) {
            return self.local.write(name, bytes);
        }
        let piece = |at: u64, length: usize| {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            Ok(rest[..length.min(rest.len())].to_vec())
        };
        self.requests.put(name, bytes.len() as u64, piece)?;
        if let Some((cache, hash)) = self.kept(name) {
            cache.keep(hash, bytes);
        }
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if is_local(name) { self.local.write_at(name, offset, bytes) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        if is_local(name) { self.local.sync(name) } else { Ok(()) }
    }

    /// An upload that is whole goes to the store, and stays here for those who will read it now.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !is_local(from) || is_local(to) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let bytes = self.local.length(from)?.ok_or_else(missing)?;
        self.requests.put(to, bytes, |at, length| self.local.read_at(from, at, length))?;
        match self.kept(to).filter(|(cache, _)| cache.fits(bytes)) {
            Some((cache, hash)) => cache.take(hash, from, bytes),
            None => self.local.remove(from),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if is_local(name) {
            return self.local.remove(name);
        }
        if let Some((cache, hash)) = self.kept(name) {
            cache.forget(hash);
        }
        self.requests.remove(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        if is_local(folder) {
            return self.local.list(folder);
        }
        let found = self.requests.list(folder, usize::MAX)?;
        let names = found.iter().filter_map(|found| found.name.strip_prefix(folder)?.strip_prefix('/'));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn walk(&self, folder: &str) -> io::Result<Walk> {
        if is_local(folder) {
            return self.local.walk(folder);
        }
        let files = self.requests.list(folder, usize::MAX)?;
        Ok(Walk { entries: files.len(), files, is_cut_short: false })
    }

    fn changed(&self, name: &str) -> io::Result<Option<SystemTime>> {
        if is_local(name) {
            return self.local.changed(name);
        }
        // It is told in whole seconds.
        Ok(self.requests.look(name)?.map(|found| found.changed + Duration::from_secs(1)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.local.path(name)
    }
}

#[cfg(test)]
pub(super) mod tests;
