//! Documents that were read before, so that an exact copy of one is left out. Of each a hash of eight bytes is kept, in
//! memory and in a file beside, from which a killed run has them again.

use super::{error::DatasetError, piece::Piece, remote::Place};
use nightjar_shared::ids::BlobHash;
use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Documents that are remembered, at most: their table takes 600 MB then. Later ones are compared with those.
pub const REMEMBERED_MAX: usize = 7 << 23;
/// The file's name within the work folder.
pub const FILE: &str = "seen";
const HASH_BYTES: u64 = 8;

/// See the module.
pub struct Seen {
    known: HashSet<u64>,
    file: BufWriter<File>,
    path: PathBuf,
    most: usize,
}

impl Seen {
    /// Those of the first so many hashes of the file in `folder`; what stands behind them is forgotten.
    pub fn open(folder: &Path, count: u64, most: usize) -> Result<Self, DatasetError> {
        let path = folder.join(FILE);
        let open = || -> io::Result<(HashSet<u64>, File)> {
            let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
            file.set_len(count * HASH_BYTES)?;
            let mut known = HashSet::new();
            let (mut bytes, mut read) = ([0; HASH_BYTES as usize], BufReader::new(&file));
            for _ in 0..count {
                read.read_exact(&mut bytes)?;
                known.insert(u64::from_le_bytes(bytes));
            }
            file.seek(SeekFrom::End(0))?;
            Ok((known, file))
        };
        let (known, file) = open().map_err(DatasetError::io(&path))?;
        Ok(Seen { known, file: BufWriter::new(file), path, most })
    }

    /// Whether a document was not there before; from now on it was.
    pub fn is_new(&mut self, hash: u64) -> Result<bool, DatasetError> {
        if self.known.contains(&hash) {
            return Ok(false);
        }
        if self.known.len() < self.most {
            self.known.insert(hash);
            self.file.write_all(&hash.to_le_bytes()).map_err(DatasetError::io(&self.path))?;
        }
        Ok(true)
    }

    /// Makes them durable, and says how many there are.
    pub fn checkpoint(&mut self) -> Result<u64, DatasetError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).map_err(DatasetError::io(&self.path))?;
        Ok(self.known.len() as u64)
    }
}

/// The hash of a document that is all here.
pub fn hash_of(pieces: &[Piece]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece.text.as_bytes());
        for id in &piece.ids {
            hasher.update(&id.to_le_bytes());
        }
    }
    short(BlobHash(hasher.finalize().into()))
}

/// The hash of a file that is one document, without holding it.
pub fn hash_of_file(place: &Place) -> Result<u64, DatasetError> {
    let mut hasher = blake3::Hasher::new();
    let hashed = place.open().and_then(|mut file| io::copy(&mut file, &mut hasher));
    hashed.map_err(DatasetError::io(&place.path))?;
    Ok(short(BlobHash(hasher.finalize().into())))
}

fn short(hash: BlobHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_a_checkpoint_is_known_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(folder.path(), 0, 3).unwrap();
        assert_eq!([5, 6, 5].map(|hash| seen.is_new(hash).unwrap()), [true, true, false]);
        assert_eq!(seen.checkpoint().unwrap(), 2);
        // The fourth is not remembered.
        assert_eq!([7, 8, 8, 7].map(|hash| seen.is_new(hash).unwrap()), [true, true, true, false]);
        seen.checkpoint().unwrap();
        let mut seen = Seen::open(folder.path(), 2, 3).unwrap();
        assert_eq!([5, 7, 6].map(|hash| seen.is_new(hash).unwrap()), [false, true, false]);
        assert_eq!(seen.checkpoint().unwrap(), 3);
    }
}
