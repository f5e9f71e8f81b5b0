//! Blobs of a bucket that are sent to many devices, kept on the disk here: so many bytes and no more, the ones asked for
//! last. Whoever asks for a blob that another already fetches waits for that one. What lies here is a copy: it may go
//! at any time.

use super::StoreError;
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    ids::BlobHash,
};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// The folder, below the state's.
pub const FOLDER: &str = "cache";
/// How often a reader whose file goes under it begins again.
const AGAIN_MAX: usize = 4;

/// See the module.
pub(super) struct Cache {
    disk: Arc<FolderDisk>,
    bytes_max: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What is here, with its bytes and when it was last asked for.
    kept: HashMap<BlobHash, (u64, u64)>,
    bytes: u64,
    clock: u64,
    fetching: HashMap<BlobHash, Arc<Fetch>>,
}

/// What several wait for: the end of one fetch, and why it failed.
#[derive(Default)]
struct Fetch {
    ended: Mutex<Option<io::Result<bool>>>,
    told: Condvar,
}

/// Where a blob is read from.
pub(super) enum Source {
    /// The file of this name on the disk.
    File(String),
    /// The store: there is no such blob, or it does not fit here.
    Store,
}

fn file(hash: BlobHash) -> String {
    format!("{FOLDER}/{hash}")
}

/// The same end once more.
fn same(ended: &io::Result<bool>) -> io::Result<bool> {
    match ended {
        Ok(is_here) => Ok(*is_here),
        Err(error) => Err(match StoreError::of(error) {
            Some(store) => store.clone().into(),
            None => io::Error::new(error.kind(), error.to_string()),
        }),
    }
}

impl Cache {
    /// An empty one: what an earlier process left is not known to be whole.
    pub fn empty(disk: Arc<FolderDisk>, bytes_max: u64) -> io::Result<Self> {
        let ours = |name: &String| name.split('.').next().is_some_and(|hash| hash.parse::<BlobHash>().is_ok());
        for name in disk.list(FOLDER)?.into_iter().filter(ours) {
            disk.remove(&format!("{FOLDER}/{name}"))?;
        }
        Ok(Cache { disk, bytes_max, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked left whole maps behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a part of a blob's file, which nobody else has.
    fn part(&self, hash: BlobHash) -> String {
        let mut inner = self.lock();
        inner.clock += 1;
        format!("{}.{}", file(hash), inner.clock)
    }

    /// The length of a blob that is here.
    pub fn length(&self, hash: BlobHash) -> Option<u64> {
        self.lock().kept.get(&hash).map(|(bytes, _)| *bytes)
    }

    /// The file of a blob, if it is here.
    pub fn find(&self, hash: BlobHash) -> Option<String> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        inner.kept.get_mut(&hash).map(|(_, asked)| *asked = now)?;
        Some(file(hash))
    }

    /// Reads from a blob's file with `read`; where it is not here, one caller has it fetched by `fetch` into the file
    /// named, and says how many bytes it has (`None`: it cannot be kept), and all others wait.
    pub fn read<T>(
        &self,
        hash: BlobHash,
        fetch: impl Fn(&str) -> io::Result<Option<u64>>,
        read: impl Fn(Source) -> io::Result<T>,
    ) -> io::Result<T> {
        for _ in 0..AGAIN_MAX {
            if let Some(name) = self.find(hash) {
                match read(Source::File(name)) {
                    // It made room for another.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget(hash),
                    done => return done,
                }
            }
            if !self.have_fetched(hash, &fetch)? {
                break;
            }
        }
        read(Source::Store)
    }

    /// Whether the blob is here now.
    fn have_fetched(&self, hash: BlobHash, fetch: impl Fn(&str) -> io::Result<Option<u64>>) -> io::Result<bool> {
        let (mine, is_first) = {
            let mut inner = self.lock();
            if inner.kept.contains_key(&hash) {
                return Ok(true);
            }
            match inner.fetching.get(&hash) {
                Some(others) => (others.clone(), false),
                None => (inner.fetching.entry(hash).or_default().clone(), true),
            }
        };
        if !is_first {
            let ended = mine.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = mine.told.wait_while(ended, |ended| ended.is_none()).unwrap_or_else(PoisonError::into_inner);
            return ended.as_ref().map_or(Ok(false), same);
        }
        let part = self.part(hash);
        let fetched = fetch(&part).and_then(|bytes| match bytes {
            Some(bytes) => self.take(hash, &part, bytes).map(|()| true),
            None => Ok(false),
        });
        if fetched.as_ref().is_ok_and(|is_here| !is_here) || fetched.is_err() {
            // What cannot be removed is overwritten, or goes with the next start.
            let _ = self.disk.remove(&part);
        }
        self.lock().fetching.remove(&hash);
        *mine.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(same(&fetched));
        mine.told.notify_all();
        fetched
    }

    /// Takes a file of the disk in as a blob's, and removes what there is no room for any more.
    pub fn take(&self, hash: BlobHash, name: &str, bytes: u64) -> io::Result<()> {
        self.disk.rename(name, &file(hash))?;
        {
            let mut inner = self.lock();
            inner.clock += 1;
            let now = inner.clock;
            let before = inner.kept.insert(hash, (bytes, now)).map_or(0, |(bytes, _)| bytes);
            inner.bytes = inner.bytes + bytes - before;
        }
        self.shrink()
    }

    /// Removes what there is no room for.
    pub fn shrink(&self) -> io::Result<()> {
        let gone = {
            let mut inner = self.lock();
            let room = self.room(inner.bytes);
            inner.make_room(room)
        };
        gone.into_iter().try_for_each(|hash| self.disk.remove(&file(hash)))
    }

    /// Keeps bytes that were just stored; where that fails they are fetched when somebody asks.
    pub fn keep(&self, hash: BlobHash, bytes: &[u8]) {
        let (part, length) = (self.part(hash), bytes.len() as u64);
        if !self.fits(length) {
            return;
        }
        // Nothing of it has to last.
        let kept = self.disk.write_at(&part, 0, bytes);
        if let Err(error) = kept.and_then(|()| self.take(hash, &part, length)) {
            tracing::debug!(%error, "a blob is not kept beside the store");
            let _ = self.disk.remove(&part);
        }
    }

    /// Forgets a blob.
    pub fn forget(&self, hash: BlobHash) {
        let mut inner = self.lock();
        if let Some((bytes, _)) = inner.kept.remove(&hash) {
            inner.bytes -= bytes;
        }
        drop(inner);
        let _ = self.disk.remove(&file(hash));
    }

    /// Whether a blob of this length may be kept.
    pub fn fits(&self, bytes: u64) -> bool {
        bytes <= self.room(self.lock().bytes)
    }

    /// Bytes that may be kept now: half of what is free and what is kept stays for others.
    fn room(&self, kept: u64) -> u64 {
        #[cfg(unix)]
        if let Ok(disk) = rustix::fs::statvfs(self.disk.path("")) {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            return self.bytes_max.min(free.saturating_add(kept) / 2);
        }
        self.bytes_max
    }
}

impl Inner {
    /// The blobs that go, so that no more than so many bytes are kept: those asked for longest ago. The newest stays.
    fn make_room(&mut self, bytes_max: u64) -> Vec<BlobHash> {
        let mut gone = vec![];
        while self.bytes > bytes_max && self.kept.len() > 1 {
            let Some((hash, (bytes, _))) = self.kept.iter().min_by_key(|(_, (_, asked))| *asked) else { break };
            let (hash, bytes) = (*hash, *bytes);
            self.kept.remove(&hash);
            self.bytes -= bytes;
            gone.push(hash);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
        (folder, Cache::empty(disk, bytes_max).unwrap())
    }

    fn read(cache: &Cache, bytes: &[u8], fetches: &AtomicUsize) -> io::Result<Vec<u8>> {
        let fetch = |name: &str| {
            fetches.fetch_add(1, Ordering::Relaxed);
            if !cache.fits(bytes.len() as u64) {
                return Ok(None);
            }
            cache.disk.write_at(name, 0, bytes)?;
            Ok(Some(bytes.len() as u64))
        };
        cache.read(BlobHash::of(bytes), fetch, |from| match from {
            Source::File(name) => cache.disk.read_at(&name, 0, bytes.len()),
            Source::Store => Ok(b"from the store".to_vec()),
        })
    }

    #[test]
    fn many_who_ask_at_once_have_one_fetch() {
        let (_folder, cache) = cache(1 << 20);
        let (fetches, begin) = (AtomicUsize::new(0), Barrier::new(16));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    begin.wait();
                    assert_eq!(read(&cache, b"an update", &fetches).unwrap(), b"an update");
                });
            }
        });
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_was_asked_for_longest_ago_makes_room() {
        let (folder, cache) = cache(20);
        let fetches = AtomicUsize::new(0);
        for bytes in [b"aaaaaaaa", b"bbbbbbbb", b"aaaaaaaa", b"cccccccc", b"aaaaaaaa"] {
            assert_eq!(read(&cache, bytes, &fetches).unwrap(), bytes);
        }
        assert_eq!(fetches.load(Ordering::Relaxed), 3, "a was asked for again and stayed");
        assert_eq!(cache.length(BlobHash::of(b"bbbbbbbb")), None);
        assert_eq!(std::fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 2);
        assert_eq!(read(&cache, &[7; 21], &fetches).unwrap(), b"from the store");
        assert_eq!(cache.lock().bytes, 16);
    }

    #[test]
    fn a_file_that_goes_under_a_reader_is_fetched_again_and_a_failure_is_told_to_all() {
        let (folder, cache) = cache(1 << 20);
        let fetches = AtomicUsize::new(0);
        read(&cache, b"an update", &fetches).unwrap();
        std::fs::remove_file(folder.path().join(file(BlobHash::of(b"an update")))).unwrap();
        let fetch = |_: &str| Err(io::Error::other("away"));
        let failed = cache.read(BlobHash::of(b"an update"), fetch, |from| match from {
            Source::File(name) => cache.disk.read_at(&name, 0, 1),
            Source::Store => Ok(vec![]),
        });
        assert_eq!(failed.unwrap_err().to_string(), "away");
        assert_eq!(read(&cache, b"an update", &fetches).unwrap(), b"an update");
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }
}
