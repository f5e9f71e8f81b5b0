//! Blobs on their way: down with resume from what is on the disk, verified before they get their name; up from where
//! the coordinator's copy ends.

use crate::{
    browser::transport::Broken,
    link::{Link, LinkError},
};
use nightjar_session::{disk_words, session::Fault};
use nightjar_shared::{
    blob::BlobRef,
    disk::Disk,
    ids::{BlobHash, LeaseId},
    wire::{BlobGet, BlobHead, BlobPut, BlobStored, Refusal, limits::CHUNK_BYTES, stream_open::Kind},
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
    Refused(Refusal),
    /// What arrived is not what was asked for.
    #[error("the blob {0} arrived damaged")]
    Damaged(String),
    /// The file to be uploaded is not as it was when it was trained.
    #[error("the file of the trained change is not as the journal says")]
    FileGone,
    /// The browser's storage refused.
    #[error("{}", disk_words::refusal(.0))]
    Disk(#[from] io::Error),
}

impl TransferError {
    /// What the session is told.
    pub fn fault(self) -> Fault {
        match self {
            TransferError::Refused(refusal) => Fault::Refused(refusal),
            TransferError::FileGone => Fault::FileGone,
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
    let mut stream = link.open(Kind::Get(BlobGet { hash: blob.hash.0.to_vec(), offset: at })).await?;
    let head: BlobHead = stream.receive().await?;
    if let Some(refusal) = head.refusal {
        return Err(TransferError::Refused(refusal));
    }
    if head.bytes != blob.bytes || head.offset != at {
        return Err(TransferError::Damaged(blob.hash.short()));
    }
    while at < blob.bytes {
        let Some(chunk) = stream.bytes().await? else {
            return Err(LinkError::from(Broken("the coordinator stopped in the middle of a blob".into())).into());
        };
        if at + chunk.len() as u64 > blob.bytes {
            return Err(TransferError::Damaged(blob.hash.short()));
        }
        disk.write_at(&partial, at, &chunk)?;
        at += chunk.len() as u64;
    }
    keep(disk, blob)
}

/// Gives a complete download its name, if it is what the name says.
fn keep(disk: &dyn Disk, blob: BlobRef) -> Result<(), TransferError> {
    let partial = blob.partial_file();
    if blob.bytes == 0 {
        disk.write_at(&partial, 0, &[])?;
    }
    if hash(disk, &partial, blob.bytes)? != blob.hash {
        disk.remove(&partial)?;
        return Err(TransferError::Damaged(blob.hash.short()));
    }
    disk.sync(&partial)?;
    Ok(disk.rename(&partial, &blob.file())?)
}

/// The name of what a file holds.
fn hash(disk: &dyn Disk, file: &str, bytes: u64) -> io::Result<BlobHash> {
    let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
    while at < bytes {
        let chunk = disk.read_at(file, at, CHUNK_BYTES)?;
        if chunk.is_empty() {
            break;
        }
        hasher.update(&chunk);
        at += chunk.len() as u64;
    }
    Ok(BlobHash(*hasher.finalize().as_bytes()))
}

/// Uploads a delta from the trainer's file, from where the coordinator's copy ends.
pub async fn put(link: &Link, disk: &dyn Disk, lease: LeaseId, blob: BlobRef, file: &str) -> Result<(), TransferError> {
    if disk.length(file)? != Some(blob.bytes) || hash(disk, file, blob.bytes)? != blob.hash {
        return Err(TransferError::FileGone);
    }
    let mut stream = link.open(Kind::Put(BlobPut { blob: Some(blob.to_wire()), lease_id: lease.0 })).await?;
    let head: BlobHead = stream.receive().await?;
    if let Some(refusal) = head.refusal {
        return Err(TransferError::Refused(refusal));
    }
    let mut at = head.offset;
    while at < blob.bytes {
        let chunk = disk.read_at(file, at, CHUNK_BYTES)?;
        if chunk.is_empty() {
            return Err(TransferError::FileGone);
        }
        // A coordinator that has heard enough stops the stream; its answer tells why.
        if stream.send_bytes(&chunk).await.is_err() {
            break;
        }
        at += chunk.len() as u64;
    }
    // Fails only where the stream was stopped, as above.
    let _ = stream.finish().await;
    let stored: BlobStored = stream.receive().await?;
    stored.refusal.map_or(Ok(()), |refusal| Err(TransferError::Refused(refusal)))
}
