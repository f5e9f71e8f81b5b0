//! Blobs on their way: down with resume from what is on the disk, verified before they get their name; up from where the
//! coordinator's copy ends.

use crate::{
    lease::BlobRef,
    link::{Link, LinkError, receive_frame},
    session::Fault,
};
use nightjar_shared::{
    disk::Disk,
    fail,
    ids::{BlobHash, LeaseId},
    wire::{self, BlobGet, BlobHead, BlobPut, BlobStored, limits::CHUNK_BYTES, stream_open::Kind},
};
use std::io;

/// A blob that did not travel.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The link is at fault.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The coordinator refused.
    #[error("the coordinator refused: {}", .0.sentence)]
    Refused(wire::Refusal),
    /// What arrived is not what was asked for.
    #[error("the blob {0} arrived damaged")]
    Damaged(String),
    /// The file to be uploaded is missing or has another length.
    #[error("the file {0} is not as the journal says")]
    FileGone(String),
    /// This device's disk refused.
    #[error("{}", crate::disk_words::refusal(.0))]
    Disk(#[from] io::Error),
}

impl TransferError {
    /// What the session is told.
    pub fn fault(self) -> Fault {
        match self {
            TransferError::Refused(refusal) => Fault::Refused(refusal),
            TransferError::FileGone(_) => Fault::FileGone,
            TransferError::Disk(_) => Fault::Disk(self.to_string()),
            TransferError::Link(_) | TransferError::Damaged(_) => Fault::Broken(self.to_string()),
        }
    }
}

/// Whether a verified blob is on the disk.
pub fn present(disk: &dyn Disk, blob: BlobRef) -> io::Result<bool> {
    Ok(disk.length(&blob.file())? == Some(blob.bytes))
}

/// Downloads a blob, going on from what is there.
pub async fn get(link: &Link, disk: &dyn Disk, blob: BlobRef) -> Result<(), TransferError> {
    let partial = blob.partial_file();
    let mut at = disk.length(&partial)?.unwrap_or(0);
    if at > blob.bytes {
        disk.remove(&partial)?;
        at = 0;
    }
    let (_send, mut receive) = link.open(Kind::Get(BlobGet { hash: blob.hash.0.to_vec(), offset: at })).await?;
    let head: BlobHead = receive_frame(&mut receive).await?;
    if let Some(refusal) = head.refusal {
        return Err(TransferError::Refused(refusal));
    }
    if head.bytes != blob.bytes || head.offset != at {
        return Err(TransferError::Damaged(blob.hash.short()));
    }
    while at < blob.bytes {
        let chunk = receive.read_chunk(CHUNK_BYTES, true).await.map_err(LinkError::broken)?;
        let Some(chunk) = chunk else {
            return Err(LinkError::Broken("the coordinator stopped in the middle of a blob".into()).into());
        };
        if at + chunk.bytes.len() as u64 > blob.bytes {
            return Err(TransferError::Damaged(blob.hash.short()));
        }
        disk.write_at(&partial, at, &chunk.bytes)?;
        at += chunk.bytes.len() as u64;
    }
    keep(disk, blob)
}

/// Gives a complete download its name, if it is what the name says.
fn keep(disk: &dyn Disk, blob: BlobRef) -> Result<(), TransferError> {
    let partial = blob.partial_file();
    if blob.bytes == 0 {
        disk.write_at(&partial, 0, &[])?;
    }
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < blob.bytes {
        let chunk = disk.read_at(&partial, at, CHUNK_BYTES)?;
        if chunk.is_empty() {
            break;
        }
        hasher.update(&chunk);
        at += chunk.len() as u64;
    }
    if BlobHash(*hasher.finalize().as_bytes()) != blob.hash {
        disk.remove(&partial)?;
        return Err(TransferError::Damaged(blob.hash.short()));
    }
    disk.sync(&partial)?;
    fail::point("blob.synced");
    disk.rename(&partial, &blob.file())?;
    Ok(())
}

/// Uploads a delta, from where the coordinator's copy ends.
pub async fn put(link: &Link, disk: &dyn Disk, lease: LeaseId, blob: BlobRef, file: &str) -> Result<(), TransferError> {
    if disk.length(file)? != Some(blob.bytes) {
        return Err(TransferError::FileGone(file.to_owned()));
    }
    let put = BlobPut { blob: Some(blob.to_wire()), lease_id: lease.0 };
    let (mut send, mut receive) = link.open(Kind::Put(put)).await?;
    let head: BlobHead = receive_frame(&mut receive).await?;
    if let Some(refusal) = head.refusal {
        return Err(TransferError::Refused(refusal));
    }
    let mut at = head.offset;
    while at < blob.bytes {
        let chunk = disk.read_at(file, at, CHUNK_BYTES)?;
        if chunk.is_empty() {
            return Err(TransferError::FileGone(file.to_owned()));
        }
        match send.write_all(&chunk).await {
            Ok(()) => at += chunk.len() as u64,
            // The coordinator has heard enough; its answer tells why.
            Err(quinn::WriteError::Stopped(_)) => break,
            Err(e) => return Err(LinkError::broken(e).into()),
        }
        fail::point("delta.chunk_sent");
    }
    // Fails only where the coordinator has stopped the stream, as above.
    let _ = send.finish();
    let stored: BlobStored = receive_frame(&mut receive).await?;
    match stored.refusal {
        Some(refusal) => Err(TransferError::Refused(refusal)),
        None => Ok(()),
    }
}
