//! Requests to an object store for callers that block, as those of a disk do: sent from a small runtime of its own, a
//! piece at a time, tried again a few times. A store that does not answer is left alone for a while, so that nobody
//! else waits for it in vain.

use super::failure::{Failure, StoreError, failure, is_past_end};
use nightjar_shared::disk::Found;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path,
};
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Bytes that one request carries at most. A larger object is sent and fetched in pieces.
pub const PIECE_BYTES: usize = 8 << 20;
/// Pieces on their way at once.
const PIECES_AT_ONCE: usize = 2;
/// How long one request may take, tried again or not, with all that it carries.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// How long a store that did not answer is left alone, at first and at most.
const LEFT_ALONE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// See the module.
pub(super) struct Requests {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Its address, for people.
    place: String,
    /// How long a caller waits for a store that is away, before it hears of it.
    patience: Duration,
    /// `None` once dropped.
    runtime: Option<Runtime>,
    outage: Mutex<Option<Outage>>,
}

/// A store that did not answer, or refused.
struct Outage {
    why: StoreError,
    /// Nobody asks before.
    until: Instant,
    wait: Duration,
}

/// The end of a request, once there is one.
type Answer<T> = Receiver<object_store::Result<T>>;

impl Requests {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str, place: String, patience: Duration) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("objects").enable_all().build()?;
        let (runtime, outage) = (Some(runtime), Mutex::default());
        Ok(Requests { store, prefix: Path::from(prefix), place, patience, runtime, outage })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        // Whoever panicked left a whole value behind.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its address, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong with the store, as far as is known.
    pub fn trouble(&self) -> Option<StoreError> {
        self.outage().as_ref().map(|outage| outage.why.clone())
    }

    /// Sends something. Its end is waited for by [`Requests::heard`].
    fn send<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Answer<T> {
        let (tell, told) = sync_channel(1);
        if let Some(runtime) = &self.runtime {
            // Who no longer listens has heard of a failure before.
            runtime.spawn(async move {
                let ended = timeout(REQUEST_MAX, request).await;
                let in_vain = |elapsed| object_store::Error::Generic { store: "S3", source: Box::new(elapsed) };
                drop(tell.send(ended.unwrap_or_else(|elapsed| Err(in_vain(elapsed)))));
            });
        }
        told
    }

    /// Waits for an answer; `None`: there is no such object.
    fn heard<T>(&self, answer: &Answer<T>) -> Result<Option<T>, StoreError> {
        let ended = answer.recv().map_err(|_| StoreError::Away {
            place: self.place.clone(),
            why: "a request has ended unexpectedly".to_owned(),
        })?;
        match ended.map_err(|error| failure(&error, &self.place)) {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Missing) => Ok(None),
            Err(Failure::Store(error)) => Err(error),
        }
    }

    /// Does something with the store, and again while it is away, as long as there is patience. Where it was away a
    /// moment ago, one caller tries and the others hear so at once.
    fn attempt<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        loop {
            let done = self.enter().and_then(|tries| {
                let done = work();
                match done.as_ref().map_err(StoreError::of) {
                    Ok(_) => *self.outage() = None,
                    Err(Some(why)) => self.failed(why, tries),
                    // What failed without the store, a file say, tells nothing of it.
                    Err(None) => {}
                }
                done
            });
            let is_away = |error| StoreError::of(error).is_some_and(|why| !why.is_refusal());
            if !done.as_ref().is_err_and(is_away) || begun.elapsed() >= self.patience {
                return done;
            }
            std::thread::sleep(LEFT_ALONE[0]);
        }
    }

    /// Whether the store may be asked now; `true`: as the one who finds out whether it is back.
    fn enter(&self) -> io::Result<bool> {
        let now = Instant::now();
        match &mut *self.outage() {
            Some(outage) if now < outage.until => Err(outage.why.clone().into()),
            Some(outage) => {
                outage.until = now + outage.wait;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn failed(&self, why: &StoreError, tried: bool) {
        let now = Instant::now();
        let mut outage = self.outage();
        let wait = match &*outage {
            Some(known) if tried => (known.wait * 2).min(LEFT_ALONE[1]),
            // Of several that were on their way when it began, the first counts.
            Some(_) => return,
            None => LEFT_ALONE[0],
        };
        *outage = Some(Outage { why: why.clone(), until: now + wait, wait });
    }

    /// Up to [`PIECE_BYTES`] from an offset, and the object's length; `None`: there is none.
    fn piece(&self, name: &str, offset: u64, length: usize) -> Answer<(Vec<u8>, u64)> {
        let (store, path) = (self.store.clone(), self.path(name));
        let range = offset..offset.saturating_add(length.min(PIECE_BYTES) as u64);
        self.send(async move {
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            match store.get_opts(&path, options).await {
                Ok(got) => {
                    let size = got.meta.size;
                    Ok((got.bytes().await?.to_vec(), size))
                }
                Err(error) if is_past_end(&error) => Ok((vec![], offset)),
                Err(error) => Err(error),
            }
        })
    }

    /// Up to `length` bytes from an offset; `None`: there is no such object.
    pub fn get(&self, name: &str, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        self.attempt(|| Ok(self.heard(&self.piece(name, offset, length))?.map(|(bytes, _)| bytes)))
    }

    /// Hands an object's bytes to `take` from the first to the last, a piece at a time; before the first, its length
    /// to `begin`. `None`: there is no such object.
    pub fn fetch(
        &self,
        name: &str,
        mut begin: impl FnMut(u64) -> io::Result<()>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<u64>> {
        self.attempt(|| {
            let Some((first, length)) = self.heard(&self.piece(name, 0, PIECE_BYTES))? else { return Ok(None) };
            begin(length)?;
            take(&first)?;
            let (mut asked, mut had, mut coming) = (first.len() as u64, first.len() as u64, VecDeque::new());
            while had < length {
                while asked < length && coming.len() < PIECES_AT_ONCE {
                    let bytes = PIECE_BYTES.min((length - asked) as usize);
                    coming.push_back(self.piece(name, asked, bytes));
                    asked += bytes as u64;
                }
                let next = coming.pop_front().map(|answer| self.heard(&answer)).transpose()?.flatten();
                let Some((bytes, _)) = next.filter(|(bytes, _)| !bytes.is_empty()) else { return Ok(None) };
                had += bytes.len() as u64;
                take(&bytes)?;
            }
            Ok(Some(length))
        })
    }

    /// Stores an object of this length, whatever was there. `read` gives its bytes: up to so many from an offset. It is
    /// there as a whole or not at all.
    pub fn put(&self, name: &str, length: u64, read: impl Fn(u64, usize) -> io::Result<Vec<u8>>) -> io::Result<()> {
        self.attempt(|| {
            if length <= PIECE_BYTES as u64 {
                let (store, path, payload) = (self.store.clone(), self.path(name), payload(&read, 0, length)?);
                return self.done(&self.send(async move { store.put(&path, payload).await }));
            }
            let (store, path) = (self.store.clone(), self.path(name));
            let upload = self.heard(&self.send(async move { store.put_multipart(&path).await }))?;
            let mut upload = upload.ok_or_else(|| self.gone())?;
            match self.put_pieces(upload.as_mut(), length, &read) {
                Ok(()) => self.done(&self.send(async move { upload.complete().await })),
                Err(error) => {
                    // What is left of it is the store's to clear away; the first error says more.
                    let _ = self.send(async move { upload.abort().await }).recv();
                    Err(error)
                }
            }
        })
    }

    fn put_pieces(
        &self,
        upload: &mut dyn MultipartUpload,
        length: u64,
        read: &impl Fn(u64, usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let mut going = VecDeque::new();
        for at in (0..length).step_by(PIECE_BYTES) {
            if going.len() == PIECES_AT_ONCE
                && let Some(oldest) = going.pop_front()
            {
                self.done(&oldest)?;
            }
            going.push_back(self.send(upload.put_part(payload(read, at, length)?)));
        }
        going.iter().try_for_each(|answer| self.done(answer))
    }

    /// Waits for the end of what names no object that may be missing.
    fn done<T>(&self, answer: &Answer<T>) -> io::Result<()> {
        self.heard(answer)?.map(drop).ok_or_else(|| self.gone())
    }

    fn gone(&self) -> io::Error {
        StoreError::Away { place: self.place.clone(), why: "what was being written is gone".to_owned() }.into()
    }

    /// Stores an object where there is none; `false`: there is one.
    pub fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.attempt(|| {
            let (store, path, payload) = (self.store.clone(), self.path(name), PutPayload::from(bytes.to_vec()));
            self.done(&self.send(async move {
                let options = PutOptions::from(PutMode::Create);
                match store.put_opts(&path, payload.clone(), options).await {
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
                    // A store without conditions: whoever comes second finds the first one's.
                    Err(object_store::Error::NotImplemented { .. }) => store.put(&path, payload).await.map(drop),
                    put => put.map(drop),
                }
            }))?;
            Ok(self.heard(&self.piece(name, 0, PIECE_BYTES))?.is_some_and(|(there, _)| there == bytes))
        })
    }

    /// An object's length and when it was stored; `None`: there is none.
    pub fn look(&self, name: &str) -> io::Result<Option<Found>> {
        self.attempt(|| {
            let (store, path) = (self.store.clone(), self.path(name));
            let found = self.heard(&self.send(async move { store.head(&path).await }))?;
            match found {
                Some(about) => {
                    Ok(Some(Found { name: name.to_owned(), bytes: about.size, changed: about.last_modified.into() }))
                }
                // A bucket that is not there answers the same, and says so only where an answer has a body.
                None => self.heard(&self.piece(name, 0, 1)).map(|_| None).map_err(Into::into),
            }
        })
    }

    /// The objects below a folder, with names that begin with it.
    pub fn list(&self, folder: &str, most: usize) -> io::Result<Vec<Found>> {
        self.attempt(|| {
            let (store, path) = (self.store.clone(), self.path(folder));
            let (below, folder) = (path.clone(), folder.to_owned());
            let listed = self.send(async move {
                let mut pages = store.list(Some(&path));
                let mut found = vec![];
                while found.len() < most
                    && let Some(about) = std::future::poll_fn(|context| pages.as_mut().poll_next(context)).await
                {
                    let about = about?;
                    let Some(rest) = about.location.prefix_match(&below) else { continue };
                    let name = rest.fold(folder.clone(), |name, part| match name.as_str() {
                        "" => part.as_ref().to_owned(),
                        _ => format!("{name}/{}", part.as_ref()),
                    });
                    found.push(Found { name, bytes: about.size, changed: about.last_modified.into() });
                }
                Ok(found)
            });
            Ok(self.heard(&listed)?.unwrap_or_default())
        })
    }

    /// Removes an object, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.attempt(|| {
            let (store, path) = (self.store.clone(), self.path(name));
            self.heard(&self.send(async move { store.delete(&path).await })).map(drop).map_err(Into::into)
        })
    }
}

fn payload(read: &impl Fn(u64, usize) -> io::Result<Vec<u8>>, at: u64, length: u64) -> io::Result<PutPayload> {
    let bytes = read(at, PIECE_BYTES.min((length - at) as usize))?;
    Ok(PutPayload::from(bytes))
}

impl Drop for Requests {
    fn drop(&mut self) {
        // Whoever drops it may be a task itself, which may not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
