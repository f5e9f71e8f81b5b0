//! A lease's state files: weights of a version, and flat vectors (residual, optimizer state). A header, values in
//! little-endian, and a BLAKE3 hash at the end, so that a damaged file is noticed before it is trained on.

use crate::{Moments, StateSizes};
use nightjar_shared::{
    bytes::{Reader, Truncated},
    disk::Disk,
    ids::BlobHash,
    model_spec::ModelSpec,
    version::Weights,
};
use std::io;

const WEIGHTS_MAGIC: &[u8; 8] = b"NJWEIGH1";
const RESIDUAL_MAGIC: &[u8; 8] = b"NJRESID1";
const OPTIMIZER_MAGIC: &[u8; 8] = b"NJADAMW1";
const HASH_BYTES: usize = 32;

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk failed.
    #[error("cannot read or write {file}: {source}")]
    Disk {
        /// Which file.
        file: String,
        /// The disk's words.
        source: io::Error,
    },
    /// It is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// Its hash or its length is wrong.
    #[error("{0} is damaged, or of another model")]
    Damaged(String),
}

/// Reads a whole file.
pub fn read(disk: &dyn Disk, file: &str) -> Result<Vec<u8>, FileError> {
    let bytes = disk.read(file).map_err(|source| FileError::Disk { file: file.into(), source })?;
    bytes.ok_or_else(|| FileError::Missing(file.into()))
}

/// Writes a whole file, unless it is there already: disks wear out. Durable on return.
pub fn write(disk: &dyn Disk, file: &str, bytes: &[u8]) -> Result<(), FileError> {
    let is_there = disk.length(file).is_ok_and(|length| length == Some(bytes.len() as u64))
        && disk.read(file).is_ok_and(|there| there.as_deref() == Some(bytes));
    if is_there {
        return Ok(());
    }
    disk.write(file, bytes).map_err(|source| FileError::Disk { file: file.into(), source })
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = BlobHash::of(&bytes);
    bytes.extend_from_slice(&hash.0);
    bytes
}

/// The contents after the magic, if the hash fits.
fn opened<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Option<Reader<'a>> {
    let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    (BlobHash::of(body).0 == hash).then_some(())?;
    body.strip_prefix(magic).map(Reader::new)
}

/// Writes the weights of a version. Durable on return.
pub fn write_weights(disk: &dyn Disk, file: &str, weights: &Weights) -> Result<(), FileError> {
    let mut bytes = WEIGHTS_MAGIC.to_vec();
    weights.write(&mut bytes);
    write(disk, file, &sealed(bytes))
}

/// Weights of a published version, whole and undamaged.
pub fn read_weights(disk: &dyn Disk, file: &str, spec: &ModelSpec) -> Result<Weights, FileError> {
    let bytes = read(disk, file)?;
    let weights = opened(&bytes, WEIGHTS_MAGIC).and_then(|mut r| Weights::read(spec, &mut r).ok());
    weights.ok_or_else(|| FileError::Damaged(file.into()))
}

/// Appends values; a copy as fast as memory, which a chain of iterators would not be.
fn put_floats(bytes: &mut Vec<u8>, values: &[f32]) {
    let start = bytes.len();
    bytes.resize(start + 4 * values.len(), 0);
    for (to, value) in bytes[start..].as_chunks_mut().0.iter_mut().zip(values) {
        *to = value.to_le_bytes();
    }
}

fn take_floats(r: &mut Reader<'_>, count: usize) -> Result<Vec<f32>, Truncated> {
    Ok(r.take(4 * count)?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Writes a residual. Durable on return.
pub fn write_residual(disk: &dyn Disk, file: &str, residual: &[f32]) -> Result<(), FileError> {
    let mut bytes = Vec::with_capacity(RESIDUAL_MAGIC.len() + 4 * residual.len() + HASH_BYTES);
    bytes.extend_from_slice(RESIDUAL_MAGIC);
    put_floats(&mut bytes, residual);
    write(disk, file, &sealed(bytes))
}

/// A residual of `parameters` values.
pub fn read_residual(disk: &dyn Disk, file: &str, parameters: usize) -> Result<Vec<f32>, FileError> {
    let bytes = read(disk, file)?;
    let values = opened(&bytes, RESIDUAL_MAGIC).and_then(|mut r| take_floats(&mut r, parameters).ok());
    values.ok_or_else(|| FileError::Damaged(file.into()))
}

/// Writes an optimizer's state. Durable on return.
pub fn write_moments(disk: &dyn Disk, file: &str, moments: &Moments) -> Result<(), FileError> {
    let mut bytes =
        Vec::with_capacity(OPTIMIZER_MAGIC.len() + 8 + 4 * (moments.m.len() + moments.v.len()) + HASH_BYTES);
    bytes.extend_from_slice(OPTIMIZER_MAGIC);
    bytes.extend_from_slice(&moments.t.to_le_bytes());
    put_floats(&mut bytes, &moments.m);
    put_floats(&mut bytes, &moments.v);
    write(disk, file, &sealed(bytes))
}

/// An optimizer's state of these sizes.
pub fn read_moments(disk: &dyn Disk, file: &str, sizes: StateSizes) -> Result<Moments, FileError> {
    let bytes = read(disk, file)?;
    let moments = |mut r: Reader<'_>| -> Result<Moments, Truncated> {
        let t = r.u64()?;
        Ok(Moments { t, m: take_floats(&mut r, sizes.parameters)?, v: take_floats(&mut r, sizes.second_moments)? })
    };
    let reader = opened(&bytes, OPTIMIZER_MAGIC);
    reader.and_then(|r| moments(r).ok()).ok_or_else(|| FileError::Damaged(file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    #[test]
    fn state_survives_the_disk_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let spec = ModelSpec {
            vocab_size: 9,
            hidden_size: 8,
            num_hidden_layers: 1,
            intermediate_size: 12,
            ..ModelSpec::tiny()
        };
        let n = spec.parameters();
        let weights = Weights::start(&spec, &spec.draw_all(1));
        let moments = Moments { t: 7, m: spec.draw_all(2), v: spec.draw_all(3) };
        write_weights(&disk, "w", &weights).unwrap();
        write_residual(&disk, "r", &moments.m).unwrap();
        write_moments(&disk, "o", &moments).unwrap();
        assert_eq!(read_weights(&disk, "w", &spec).unwrap(), weights);
        assert_eq!(read_residual(&disk, "r", n).unwrap(), moments.m);
        assert_eq!(read_moments(&disk, "o", StateSizes { parameters: n, second_moments: n }).unwrap(), moments);

        assert!(matches!(read_residual(&disk, "o", n), Err(FileError::Damaged(_))));
        assert!(matches!(read_residual(&disk, "r", n + 1), Err(FileError::Damaged(_))));
        let mut bytes = read(&disk, "w").unwrap();
        bytes[100] ^= 1;
        write(&disk, "w", &bytes).unwrap();
        assert!(matches!(read_weights(&disk, "w", &spec), Err(FileError::Damaged(_))));
        assert!(matches!(read_weights(&disk, "none", &spec), Err(FileError::Missing(_))));
    }
}
