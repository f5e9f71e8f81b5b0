//! Blobs on their way: shards and versions down, deltas up, each from any offset on. Nothing is held in memory but one
//! chunk a stream.

use super::{
    catalog::Catalog,
    desk::Desk,
    stream::{Down, StreamError, Up},
};
use crate::store::{BlobError, Blobs};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, LeaseId},
    wire::{BlobGet, BlobHead, BlobPut, BlobStored, Refusal, RefusalAction, RefusalCode, limits::CHUNK_BYTES},
};
use std::time::Duration;

/// After how long a device may try again what failed here.
const RETRY: Duration = Duration::from_secs(10);

/// Runs what blocks on the disk where it does not hold up other streams.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StreamError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StreamError::Internal(error.to_string()))
}

/// Answers a `BlobGet`.
pub async fn get(catalog: &Catalog, is_enrolled: bool, request: BlobGet, mut down: Down) -> Result<(), StreamError> {
    let found = BlobHash::from_bytes(&request.hash).and_then(|hash| catalog.get(hash));
    let refusal = match &found {
        _ if !is_enrolled => {
            Some(Refusal::with(RefusalCode::Invite, RefusalAction::HelloAgain, "This device is not enrolled in the run."))
        }
        None => Some(Refusal::with(RefusalCode::NotFound, RefusalAction::DropLease, "The coordinator has no such blob.")),
        Some(entry) if request.offset > entry.bytes => {
            Some(Refusal::with(RefusalCode::Limit, RefusalAction::DropLease, "The blob ends before the offset asked for."))
        }
        Some(_) => None,
    };
    let refusal = match (&found, refusal) {
        (Some(entry), None) => {
            let entry = entry.clone();
            let is_sound = blocking(move || entry.is_sound()).await?;
            let why = "The coordinator's copy is damaged; it is being made anew.";
            (!is_sound).then(|| Refusal::retry(RefusalCode::Internal, why, RETRY))
        }
        (_, refusal) => refusal,
    };
    let bytes = found.as_ref().map_or(0, |entry| entry.bytes);
    down.message(&BlobHead { bytes, offset: request.offset, refusal: refusal.clone() }).await?;
    if let (Some(entry), None) = (found, refusal) {
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
            let chunk = blocking(read).await?.map_err(|e| StreamError::Internal(e.to_string()))?;
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
            blocking(move || entry.look_again()).await?;
        }
    }
    down.finish();
    Ok(())
}

/// Answers a `BlobPut`: only the delta of the device's own open lease is taken, and only of the length that a delta of this
/// model has.
pub async fn put(
    device: DeviceId,
    blobs: &Blobs,
    desk: &Desk,
    request: BlobPut,
    mut up: Up,
    mut down: Down,
) -> Result<(), StreamError> {
    let blob = request.blob.unwrap_or_default();
    let hash = blob.name().ok_or(StreamError::OutOfTurn("an upload without a blob's name"))?;
    if !desk.may_upload(device, LeaseId(request.lease_id), blob.bytes).await? {
        let refusal = Refusal::lease_gone("The lease has ended, or what was offered is no delta of this model.");
        down.message(&BlobHead { bytes: blob.bytes, offset: 0, refusal: Some(refusal) }).await?;
        down.finish();
        return Ok(());
    }
    let refusal = match receive(hash, blob.bytes, blobs, &mut up, &mut down).await? {
        Ok(()) => None,
        Err(Fault { error, resumed }) => Some(refusal_for(error, resumed, desk).await),
    };
    down.message(&BlobStored { refusal }).await?;
    down.finish();
    Ok(())
}

/// An upload that failed on this side's disk, or whose bytes are not those of its name.
struct Fault {
    error: BlobError,
    /// Whether it had gone on from bytes that an earlier stream left here.
    resumed: bool,
}

async fn receive(
    hash: BlobHash,
    bytes: u64,
    blobs: &Blobs,
    up: &mut Up,
    down: &mut Down,
) -> Result<Result<(), Fault>, StreamError> {
    let state = blobs.clone();
    let have = blocking(move || -> Result<u64, BlobError> {
        if state.length(hash)? == Some(bytes) {
            return Ok(bytes);
        }
        let have = state.incoming(hash)?;
        // More than the whole is nothing to go on from.
        if have > bytes {
            state.discard(hash)?;
            return Ok(0);
        }
        Ok(have)
    });
    let from = match have.await? {
        Ok(have) => have,
        Err(error) => return Ok(Err(Fault { error, resumed: false })),
    };
    down.message(&BlobHead { bytes, offset: from, refusal: None }).await?;
    let mut at = from;
    while at < bytes {
        let (chunk, end) = up.chunk(bytes - at).await;
        let n = chunk.len() as u64;
        // What has come is kept, even if it is the last that comes: the next try goes on from there.
        let state = blobs.clone();
        if let Err(error) = blocking(move || if n > 0 { state.append(hash, at, &chunk) } else { Ok(()) }).await? {
            return Ok(Err(Fault { error, resumed: from > 0 }));
        }
        at += n;
        end?;
        if n == 0 {
            return Err(StreamError::OutOfTurn("an upload is shorter than announced"));
        }
    }
    let state = blobs.clone();
    let finished = blocking(move || match state.length(hash)? {
        Some(length) if length == bytes => Ok(()),
        _ => state.finish(hash, bytes),
    });
    Ok(finished.await?.map_err(|error| Fault { error, resumed: from > 0 }))
}

async fn refusal_for(error: BlobError, resumed: bool, desk: &Desk) -> Refusal {
    match error {
        // The first part may have been torn here, by a crash; now it is gone, and the whole is sent anew.
        BlobError::Corrupt(_) if resumed => {
            Refusal::retry(RefusalCode::BadDelta, "The upload arrived damaged; it starts anew.", Duration::ZERO)
        }
        BlobError::Corrupt(_) => Refusal::with(
            RefusalCode::BadDelta,
            RefusalAction::DropLease,
            "The bytes are not those that the delta's name promises.",
        ),
        // Another stream of the same device is still writing.
        BlobError::Gap { .. } => {
            Refusal::retry(RefusalCode::Busy, "The same delta is being uploaded already.", Duration::from_secs(1))
        }
        error => {
            tracing::error!(%error, "an upload could not be stored");
            let refusal = Refusal::retry(RefusalCode::Internal, "The coordinator could not store the delta.", RETRY);
            if matches!(error, BlobError::DiskFull) {
                desk.disk_is_full(error).await;
            }
            refusal
        }
    }
}
