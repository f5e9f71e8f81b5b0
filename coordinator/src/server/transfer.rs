//! Blobs on their way: shards and versions down, deltas up, each from any offset on. Nothing is held in memory but one
//! chunk a stream and what QUIC has in flight, both paid for from one budget; nothing holds a thread but a read or a
//! write.

use super::{
    catalog::Location,
    context::Context,
    peer::{Peer, Way},
    stream::{Down, StreamError, Up},
    uploads::{Rubbish, Uploads, Writing},
};
use crate::store::{BlobError, Blobs};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, LeaseId},
    wire::{BlobGet, BlobHead, BlobPut, BlobStored, Refusal, RefusalAction, RefusalCode, limits::CHUNK_BYTES},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

/// After how long a device may try again what failed here.
const RETRY: Duration = Duration::from_secs(10);
/// The same, where somebody has to make room on the disk first.
const FULL_RETRY: Duration = Duration::from_secs(60);

/// Runs what blocks on the disk where it does not hold up other streams: few at once, or each stream would take a
/// thread.
pub async fn blocking<T: Send + 'static>(
    files: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StreamError> {
    // The semaphore is never closed.
    let _place = files.clone().acquire_owned().await;
    tokio::task::spawn_blocking(work).await.map_err(|error| StreamError::Internal(error.to_string()))
}

/// Removes what no lease wants any more.
pub fn clear(uploads: &Uploads, blobs: &Blobs, rubbish: Rubbish) -> Result<(), BlobError> {
    uploads.clear(rubbish, || match rubbish {
        Rubbish { hash, is_stored: true } => blobs.remove(hash),
        Rubbish { hash, is_stored: false } => blobs.discard(hash),
    })
}

/// Answers a `BlobGet`.
pub async fn get(peer: &Arc<Peer>, context: &Context, request: BlobGet, mut down: Down) -> Result<(), StreamError> {
    let found = BlobHash::from_bytes(&request.hash).and_then(|hash| context.catalog.get(hash));
    let refuse = |code, action, sentence: &str| Some(Refusal::with(code, action, sentence));
    let mut refusal = match &found {
        _ if !context.members.has(peer.device) => {
            refuse(RefusalCode::Invite, RefusalAction::HelloAgain, "This device is not enrolled in the run.")
        }
        _ if !peer.is_greeted() => {
            refuse(RefusalCode::StaleGeneration, RefusalAction::HelloAgain, "A hello comes before anything else.")
        }
        None => refuse(RefusalCode::NotFound, RefusalAction::DropLease, "The coordinator has no such blob."),
        Some(entry) if request.offset > entry.bytes => {
            refuse(RefusalCode::Limit, RefusalAction::DropLease, "The blob ends before the offset asked for.")
        }
        Some(_) => None,
    };
    if let (Some(entry), None) = (&found, &refusal) {
        let entry = entry.clone();
        if !blocking(&context.files, move || entry.is_sound()).await? {
            refusal = match found.as_ref().map(|entry| entry.location()) {
                // Another lease has other samples.
                Some(Location::Dataset) => refuse(
                    RefusalCode::NotFound,
                    RefusalAction::DropLease,
                    "The coordinator's copy of these samples is damaged.",
                ),
                _ => {
                    let why = "The coordinator has no sound copy at the moment; it is being fetched or made anew.";
                    Some(Refusal::retry(RefusalCode::Internal, why, RETRY))
                }
            };
        }
    }
    let bytes = found.as_ref().map_or(0, |entry| entry.bytes);
    let mut traced = context.traces.fetches(peer.device, found.as_ref(), request.offset);
    let mut permit = None;
    if refusal.is_none() {
        let now = Instant::now().into_std();
        refusal = context.rates.carries(&context.who(peer), bytes - request.offset, now).err();
    }
    if refusal.is_none() {
        match peer.permit(Way::Down, bytes - request.offset, &context.budget).await {
            Ok(room) => permit = Some(room),
            Err(busy) => refusal = Some(busy),
        }
    }
    if let Some(refusal) = &refusal {
        traced.refused(&refusal.sentence);
    }
    down.message(&BlobHead { bytes, offset: request.offset, refusal }).await?;
    if let (Some(entry), Some(_permit)) = (found, permit) {
        let mut at = request.offset;
        let mut hasher = (at == 0).then(blake3::Hasher::new);
        while at < bytes {
            let (from, length) = (entry.clone(), CHUNK_BYTES.min((bytes - at) as usize));
            let read = move || {
                let chunk = from.read(at, length);
                if !chunk.as_ref().is_ok_and(|chunk| !chunk.is_empty()) {
                    from.look_again();
                }
                chunk
            };
            let chunk = blocking(&context.files, read).await?.map_err(|e| StreamError::Internal(e.to_string()))?;
            if chunk.is_empty() {
                return Err(StreamError::Internal("a blob's file is shorter than the ledger says".into()));
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&chunk);
            }
            down.bytes(&chunk).await?;
            at += chunk.len() as u64;
        }
        // The device finds out by itself; for the next one the blob is made anew.
        if hasher.is_some_and(|hasher| !entry.is(hasher.finalize())) {
            blocking(&context.files, move || entry.look_again()).await?;
        }
        // What is not acknowledged yet is still in this process's memory.
        down.finish_and_drain(bytes - request.offset).await?;
        traced.done();
        return Ok(());
    }
    down.finish();
    Ok(())
}

/// Answers a `BlobPut`: only the delta of the device's own open lease is taken, only of the length that a delta of this
/// model has, and only if it fits on the disk.
pub async fn put(
    peer: &Arc<Peer>,
    context: &Context,
    request: BlobPut,
    mut up: Up,
    mut down: Down,
) -> Result<(), StreamError> {
    let blob = request.blob.as_ref().and_then(BlobRef::from_wire);
    let blob = blob.ok_or(StreamError::OutOfTurn("an upload without a blob's name"))?;
    let upload = Upload { peer, context, blob, lease: LeaseId(request.lease_id) };
    let mut traced = context.traces.uploads(peer.device, upload.lease, blob.bytes);
    let begun = match context.handle.may_upload(peer.device, upload.lease, blob.bytes).await? {
        Ok(()) => upload.begin().await?,
        Err(refusal) => Err(refusal),
    };
    let (writing, have) = match begun {
        Ok(begun) => begun,
        Err(refusal) => {
            traced.refused(&refusal.sentence);
            down.message(&BlobHead { bytes: blob.bytes, offset: 0, refusal: Some(refusal) }).await?;
            down.finish();
            return Ok(());
        }
    };
    traced = traced.from(have);
    let permit = match peer.permit(Way::Up, blob.bytes - have, &context.budget).await {
        Ok(permit) => permit,
        Err(busy) => {
            traced.refused(&busy.sentence);
            down.message(&BlobHead { bytes: blob.bytes, offset: 0, refusal: Some(busy) }).await?;
            down.finish();
            return Ok(());
        }
    };
    down.message(&BlobHead { bytes: blob.bytes, offset: have, refusal: None }).await?;
    let refusal = match upload.receive(&writing, have, &mut up).await? {
        Ok(()) => None,
        Err(error) => {
            let refusal = upload.refusal_for(error, have > 0, &writing).await;
            drop(writing);
            upload.give_up_hopeless().await;
            Some(refusal)
        }
    };
    drop(permit);
    match &refusal {
        None => traced.done(),
        Some(refusal) => traced.refused(&refusal.sentence),
    }
    down.message(&BlobStored { refusal }).await?;
    down.finish();
    Ok(())
}

/// One delta that comes in.
struct Upload<'a> {
    peer: &'a Arc<Peer>,
    context: &'a Context,
    blob: BlobRef,
    lease: LeaseId,
}

impl Upload<'_> {
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blobs) -> T + Send + 'static,
    ) -> Result<T, StreamError> {
        let blobs = self.context.blobs.clone();
        blocking(&self.context.files, move || work(&blobs)).await
    }

    /// Takes the lease's place for an upload; says how much is here already.
    async fn begin(&self) -> Result<Result<(Writing, u64), Refusal>, StreamError> {
        let BlobRef { hash, bytes } = self.blob;
        let have = self.on_disk(move |blobs| -> Result<u64, BlobError> {
            if blobs.length(hash)? == Some(bytes) {
                return Ok(bytes);
            }
            let have = blobs.incoming(hash)?;
            // More than the whole is nothing to go on from.
            if have > bytes {
                blobs.discard(hash)?;
                return Ok(0);
            }
            Ok(have)
        });
        let have = match have.await? {
            Ok(have) => have,
            Err(error) => return Ok(Err(self.not_stored(&error))),
        };
        if !self.context.reserve.fits(bytes - have) {
            self.context.reserve.fill();
            return Ok(Err(full()));
        }
        let now = Instant::now().into_std();
        if let Err(refusal) = self.context.rates.carries(&self.context.who(self.peer), bytes - have, now) {
            return Ok(Err(refusal));
        }
        let (writing, rubbish) = match self.context.uploads.begin(self.peer.device, self.lease, hash, bytes - have, now)
        {
            Ok(begun) => begun,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(rubbish) = rubbish {
            self.clear(rubbish).await?;
        }
        Ok(Ok((writing, have)))
    }

    async fn clear(&self, rubbish: Rubbish) -> Result<(), StreamError> {
        let uploads = self.context.uploads.clone();
        // It is swept, if this fails.
        let _ = self.on_disk(move |blobs| clear(&uploads, blobs, rubbish)).await?;
        Ok(())
    }

    async fn receive(&self, writing: &Writing, from: u64, up: &mut Up) -> Result<Result<(), BlobError>, StreamError> {
        let BlobRef { hash, bytes } = self.blob;
        let mut at = from;
        while at < bytes {
            let (chunk, end) = up.chunk(bytes - at).await;
            let n = chunk.len() as u64;
            // What has come is kept, even if it is the last that comes: the next try goes on from there.
            if n > 0
                && let Err(error) = self.on_disk(move |blobs| blobs.append(hash, at, &chunk)).await?
            {
                return Ok(Err(error));
            }
            at += n;
            writing.received(n);
            end?;
            if n == 0 {
                return Err(StreamError::OutOfTurn("an upload is shorter than announced"));
            }
        }
        let finished = self.on_disk(move |blobs| match blobs.length(hash)? {
            Some(length) if length == bytes => Ok(true),
            _ => blobs.finish(hash, bytes).map(|()| false),
        });
        let was_there = match finished.await? {
            Ok(was_there) => was_there,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(rubbish) = writing.stored(was_there) {
            // The lease has ended meanwhile: nobody will ask for it.
            self.clear(rubbish).await?;
        }
        Ok(Ok(()))
    }

    async fn refusal_for(&self, error: BlobError, resumed: bool, writing: &Writing) -> Refusal {
        match error {
            // The first part may have been torn here, by a crash; now it is gone, and the whole is sent anew.
            BlobError::Corrupt(_) if resumed => {
                writing.failed();
                Refusal::retry(RefusalCode::BadDelta, "The upload arrived damaged; it starts anew.", Duration::ZERO)
            }
            BlobError::Corrupt(_) => {
                writing.failed();
                let sentence = "The bytes are not those that the delta's name promises.";
                Refusal::with(RefusalCode::BadDelta, RefusalAction::DropLease, sentence)
            }
            // What lay here has changed under it: it was given up, or another device writes the very same.
            BlobError::Gap { .. } => {
                Refusal::retry(RefusalCode::Busy, "The same delta is being uploaded already.", Duration::from_secs(1))
            }
            error => self.not_stored(&error),
        }
    }

    fn not_stored(&self, error: &BlobError) -> Refusal {
        if matches!(error, BlobError::DiskFull) {
            self.context.reserve.fill();
            return full();
        }
        tracing::error!(
            lease = self.lease.0,
            device = self.peer.device.short(),
            %error,
            "an upload could not be stored"
        );
        Refusal::retry(RefusalCode::Internal, "The coordinator could not store the delta.", RETRY)
    }

    /// The last word about a lease whose uploads come to nothing again and again: it ends, so that the device is not
    /// given the same again.
    async fn give_up_hopeless(&self) {
        if let Some((device, generation)) = self.context.uploads.is_hopeless(self.lease) {
            self.context.handle.give_up(device, self.lease, generation).await;
        }
    }
}

fn full() -> Refusal {
    let sentence = "The coordinator's disk is full. What this device has trained is kept here until there is room.";
    Refusal::retry(RefusalCode::Busy, sentence, FULL_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// However many devices want something: each read or write takes a thread.
    #[tokio::test]
    async fn few_threads_read_or_write_at_once() {
        let (files, busy, most) =
            (Arc::new(Semaphore::new(2)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (files, busy, most) = (files.clone(), busy.clone(), most.clone());
            streams.spawn(async move {
                let slow_disk = move || {
                    most.fetch_max(busy.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                    busy.fetch_sub(1, Ordering::Relaxed);
                };
                blocking(&files, slow_disk).await.unwrap();
            });
        }
        while let Some(done) = streams.join_next().await {
            done.unwrap();
        }
        assert!(most.load(Ordering::Relaxed) <= 2);
    }
}
