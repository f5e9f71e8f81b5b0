//! One file brought from folder to folder: linked or copied, read through, and only then given its name.

use super::{BackupError, failed};
use nightjar_shared::{
    blob::BlobRef,
    disk::{Disk, FolderDisk},
    ids::BlobHash,
};
use std::{fs, io, path::Path};

/// Bytes read at a time; each time is a request, where they come from a bucket.
const PIECE_BYTES: usize = 4 << 20;
/// What a blob's name ends with while it is on its way.
pub const PART: &str = ".part";

/// What happened to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It was there, whole.
    WasThere,
    /// Both folders have it now, and it takes room once.
    Linked,
    /// It takes room twice.
    Copied,
    /// It is not where it should have come from, or its bytes are not those of its name.
    Lost,
}

/// Where blobs come from and go to.
pub struct Way<'a> {
    /// From here.
    pub from: &'a dyn Disk,
    /// Whether it is a folder, whose files can be given a second name.
    pub is_folder: bool,
    /// To here.
    pub to: &'a FolderDisk,
    /// Its folder, for messages.
    pub folder: &'a Path,
    /// Whether what is there already is believed to be whole, if its length is right.
    pub quick: bool,
}

impl Way<'_> {
    /// Brings a blob.
    pub fn blob(&self, hash: BlobHash, told: &mut dyn FnMut(u64)) -> Result<Brought, BackupError> {
        let name = format!("blobs/{hash}");
        if self.has(&name, hash, told).map_err(failed(self.folder))? {
            return Ok(Brought::WasThere);
        }
        let part = format!("{name}{PART}");
        let (found, is_linked) = match self.draw(&name, &part, true, told) {
            Ok(drawn) => drawn,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Brought::Lost),
            Err(error) => return Err(failed(self.folder)(error)),
        };
        if found.hash != hash {
            self.to.remove(&part).map_err(failed(self.folder))?;
            return Ok(Brought::Lost);
        }
        // Its folder is synced with the last of them.
        fs::rename(self.to.path(&part), self.to.path(&name)).map_err(failed(self.folder))?;
        Ok(if is_linked { Brought::Linked } else { Brought::Copied })
    }

    /// Links or copies a file, and says what it is. A file that goes on changing must not be linked.
    pub fn draw(&self, name: &str, to: &str, may_link: bool, told: &mut dyn FnMut(u64)) -> io::Result<(BlobRef, bool)> {
        self.to.remove(to)?;
        let is_linked = may_link && self.is_folder && self.link(name, to)?;
        if !is_linked {
            let mut at = 0;
            loop {
                let piece = self.from.read_at(name, at, PIECE_BYTES)?;
                self.to.write_at(to, at, &piece)?;
                at += piece.len() as u64;
                if piece.len() < PIECE_BYTES {
                    break;
                }
            }
            self.to.sync(to)?;
        }
        // What was written is what is read, so a disk that errs is noticed.
        Ok((read_through(self.to, to, told)?, is_linked))
    }

    /// Gives a file a second name; whether that is possible depends on disks and file systems.
    fn link(&self, name: &str, to: &str) -> io::Result<bool> {
        let (from, to) = (self.from.path(name), self.to.path(to));
        if !fs::symlink_metadata(&from).is_ok_and(|about| about.is_file()) {
            return Ok(false);
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::hard_link(from, to).is_ok())
    }

    fn has(&self, name: &str, hash: BlobHash, told: &mut dyn FnMut(u64)) -> io::Result<bool> {
        let Some(bytes) = self.to.length(name)? else { return Ok(false) };
        if self.quick && self.from.length(name)?.is_none_or(|of_source| of_source == bytes) {
            told(bytes);
            return Ok(true);
        }
        Ok(read_through(self.to, name, told)?.hash == hash)
    }
}

/// Name and length of what is in a file; holds a piece of it at a time.
pub fn read_through(disk: &dyn Disk, name: &str, told: &mut dyn FnMut(u64)) -> io::Result<BlobRef> {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    loop {
        let piece = disk.read_at(name, bytes, PIECE_BYTES)?;
        hasher.update(&piece);
        bytes += piece.len() as u64;
        told(piece.len() as u64);
        if piece.len() < PIECE_BYTES {
            return Ok(BlobRef { hash: BlobHash(*hasher.finalize().as_bytes()), bytes });
        }
    }
}
