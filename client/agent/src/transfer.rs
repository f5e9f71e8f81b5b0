//! Blobs on their way: down with resume from what is on the disk, verified before they get their name; up from where
//! the coordinator's copy ends.

use crate::{
    link::{Link, LinkError, receive_frame},
    session::Fault,
};
use nightjar_shared::{
    blob::BlobRef,
    delta,
    disk::{Disk, FolderDisk},
    fail,
    ids::{BlobHash, LeaseId},
    model_spec::ModelSpec,
    run_spec::DeltaSpec,
    wire::{self, BlobGet, BlobHead, BlobPut, BlobStored, limits::CHUNK_BYTES, stream_open::Kind},
};
use std::io::{self, Read};

/// Bytes in which a delta shows what it is.
const HEAD_BYTES: usize = 64;

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
    /// What the worker left to be uploaded is not what it said.
    #[error("what the worker left is not the delta that it said ({0})")]
    Untrue(String),
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
            TransferError::Untrue(_) => Fault::Untrue(self.to_string()),
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

/// A delta to be uploaded, and what it must be.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The lease it belongs to.
    pub lease: LeaseId,
    /// Its name.
    pub blob: BlobRef,
    /// The worker's file.
    pub file: String,
    /// The run's model.
    pub model: ModelSpec,
    /// The lease's codec.
    pub delta: DeltaSpec,
}

impl Outgoing {
    /// Copies the worker's file to where the worker cannot write, as the blob that it is said to be; from there it is
    /// sent. What was copied is then checked, so that it does not matter what the worker does to its own file
    /// meanwhile.
    async fn take_in(&self, disk: &FolderDisk) -> Result<(), TransferError> {
        let Outgoing { blob, file, .. } = self;
        let untrue = |what: &str| TransferError::Untrue(what.to_owned());
        if !delta::bytes_allowed(&self.model, &self.delta).contains(&blob.bytes) {
            return Err(untrue("it is longer or shorter than any of this run"));
        }
        if present(disk, *blob)? {
            return self.look_at_head(&disk.read_at(&blob.file(), 0, HEAD_BYTES)?);
        }
        // Whatever stands in the way of reading it, the worker may have put it there.
        let unreadable = |e: io::Error| untrue(&e.to_string());
        let from = disk.open_foreign(file, blob.bytes).map_err(unreadable)?;
        let mut from = from.ok_or_else(|| TransferError::FileGone(file.clone()))?.take(blob.bytes);
        let partial = blob.partial_file();
        disk.remove(&partial)?;
        let (mut at, mut chunk) = (0, vec![0; CHUNK_BYTES]);
        loop {
            let n = read_up_to(&mut from, &mut chunk).map_err(unreadable)?;
            if at == 0 {
                self.look_at_head(&chunk[..n.min(HEAD_BYTES)])?;
            }
            if n == 0 {
                break;
            }
            disk.write_at(&partial, at, &chunk[..n])?;
            at += n as u64;
            // Whoever hangs up ends this too.
            tokio::task::yield_now().await;
        }
        match keep(disk, *blob) {
            Err(TransferError::Damaged(_)) => return Err(untrue("its bytes are others")),
            kept => kept?,
        }
        // One copy is enough; where it stays, it goes with its lease.
        let _ = disk.remove(file);
        Ok(())
    }

    fn look_at_head(&self, head: &[u8]) -> Result<(), TransferError> {
        delta::check_head(&self.model, &self.delta, head).map_err(|e| TransferError::Untrue(e.to_string()))
    }
}

/// Fills the buffer, or as much of it as there is.
fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Uploads a delta, from where the coordinator's copy ends.
pub async fn put(link: &Link, disk: &FolderDisk, delta: &Outgoing) -> Result<(), TransferError> {
    delta.take_in(disk).await?;
    let (lease, blob, file) = (delta.lease, delta.blob, delta.blob.file());
    let put = BlobPut { blob: Some(blob.to_wire()), lease_id: lease.0 };
    let (mut send, mut receive) = link.open(Kind::Put(put)).await?;
    let head: BlobHead = receive_frame(&mut receive).await?;
    if let Some(refusal) = head.refusal {
        return Err(TransferError::Refused(refusal));
    }
    let mut at = head.offset;
    while at < blob.bytes {
        let chunk = disk.read_at(&file, at, CHUNK_BYTES)?;
        if chunk.is_empty() {
            return Err(TransferError::FileGone(file));
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
