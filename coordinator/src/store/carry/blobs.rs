//! Blobs and checkpoints, several at a time. Each is verified by its hash as it goes, and read back.

use super::{CarryError, Progress};
use crate::store::{BlobError, Blobs};
use nightjar_shared::{blob::BlobRef, fail, ids::BlobHash};
use std::sync::{Mutex, PoisonError};

/// Blobs on their way at once: one waits while another is sent.
const AT_ONCE: usize = 8;
/// Bytes of a blob in memory at once.
const PIECE_BYTES: usize = 4 << 20;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CarriedBlobs {
    /// Blobs that are there now, and right.
    pub blobs: u64,
    /// Those of them that were there before.
    pub were_there: u64,
    /// Checkpoints that are there now.
    pub checkpoints: u64,
    /// Blobs whose bytes are not theirs where they come from: there was nothing to carry.
    pub damaged: Vec<BlobHash>,
}

enum End {
    WasThere,
    Carried,
    Damaged,
}

/// Carries all blobs and checkpoints. Blocks.
pub fn carry_blobs(from: &Blobs, to: &Blobs, progress: &Progress) -> Result<CarriedBlobs, CarryError> {
    let all = from.list_with_bytes()?;
    progress.begin(2 * all.iter().map(|blob| blob.bytes).sum::<u64>());
    let ends = several(all, |blob| Ok::<_, CarryError>((blob.hash, carry(from, to, blob, progress)?)))?;
    let mut carried = CarriedBlobs::default();
    for (hash, end) in ends {
        match end {
            End::Damaged => carried.damaged.push(hash),
            End::WasThere | End::Carried => carried.blobs += 1,
        }
        carried.were_there += u64::from(matches!(end, End::WasThere));
    }
    for version in from.checkpoints()?.into_iter().rev() {
        let Some(bytes) = from.checkpoint(version)? else { continue };
        let is_there = || -> Result<bool, BlobError> { Ok(to.checkpoint(version)?.as_ref() == Some(&bytes)) };
        if !is_there()? {
            to.add_checkpoint(version, &bytes)?;
            if !is_there()? {
                return Err(CarryError::Unlike(BlobHash::of(&bytes)));
            }
        }
        carried.checkpoints += 1;
    }
    Ok(carried)
}

/// Does something with each of these, several at a time; what came of each, in no order. After a failure no more are
/// begun. Blocks.
pub fn several<B: Send, T: Send, E: From<BlobError> + Send>(
    all: Vec<B>,
    work: impl Fn(B) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let (waiting, done) = (Mutex::new(all), Mutex::new(vec![]));
    // Whoever panicked left whole values behind.
    let waiting = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || waiting().pop();
    let working = || -> Result<(), E> {
        while let Some(one) = next() {
            let came = work(one).inspect_err(|_| waiting().clear())?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push(came);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(working)).collect();
        let panicked = || Err(BlobError::Folder(std::io::Error::other("a thread has ended unexpectedly")).into());
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| panicked()))
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn carry(from: &Blobs, to: &Blobs, blob: BlobRef, progress: &Progress) -> Result<End, CarryError> {
    let BlobRef { hash, bytes } = blob;
    if to.is_sound(hash, bytes)? {
        progress.add(2 * bytes);
        return Ok(End::WasThere);
    }
    // What an upload has left under this name is a part of the same bytes at best.
    to.discard(hash)?;
    let mut at = 0;
    while at < bytes {
        let piece = from.read_range(hash, at, PIECE_BYTES.min((bytes - at) as usize))?;
        if piece.is_empty() {
            break;
        }
        to.append(hash, at, &piece)?;
        at += piece.len() as u64;
        progress.add(piece.len() as u64);
    }
    fail::point("carry.blob");
    match to.finish(hash, bytes) {
        Err(BlobError::Corrupt(_)) => return Ok(End::Damaged),
        finished => finished?,
    }
    if !to.is_sound(hash, bytes)? {
        return Err(CarryError::Unlike(hash));
    }
    progress.add(bytes);
    Ok(End::Carried)
}
