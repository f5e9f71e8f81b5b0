//! The worker's state files: weights of a version, and flat vectors (residual, optimizer state). A header, values in
//! little-endian, and a BLAKE3 hash at the end, so that a damaged file is noticed before it is trained on.

use nightjar_shared::{
    bytes::{Reader, Truncated},
    disk::Disk,
    model_spec::ModelSpec,
    version::Weights,
};
use nightjar_train::Moments;
use std::io;

const WEIGHTS_MAGIC: &[u8; 8] = b"NJWEIGH1";
const RESIDUAL_MAGIC: &[u8; 8] = b"NJRESID1";
const OPTIMIZER_MAGIC: &[u8; 8] = b"NJADAMW1";
const HASH_BYTES: usize = 32;

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read or write {file}: {source}")]
    Disk { file: String, source: io::Error },
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0} is damaged, or of another model")]
    Damaged(String),
}

/// Reads a whole file.
pub(super) fn read(disk: &dyn Disk, file: &str) -> Result<Vec<u8>, FileError> {
    let bytes = disk.read(file).map_err(|source| FileError::Disk { file: file.into(), source })?;
    bytes.ok_or_else(|| FileError::Missing(file.into()))
}

/// Writes a whole file; durable on return.
pub(super) fn write(disk: &dyn Disk, file: &str, bytes: &[u8]) -> Result<(), FileError> {
    disk.write(file, bytes).map_err(|source| FileError::Disk { file: file.into(), source })
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    bytes
}

/// The contents after the magic, if the hash fits.
fn opened<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Option<Reader<'a>> {
    let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    (blake3::hash(body).as_bytes() == hash).then_some(())?;
    body.strip_prefix(magic).map(Reader::new)
}

pub(super) fn write_weights(disk: &dyn Disk, file: &str, weights: &Weights) -> Result<(), FileError> {
    let mut bytes = WEIGHTS_MAGIC.to_vec();
    weights.write(&mut bytes);
    write(disk, file, &sealed(bytes))
}

pub(super) fn read_weights(disk: &dyn Disk, file: &str, spec: &ModelSpec) -> Result<Weights, FileError> {
    let bytes = read(disk, file)?;
    let weights = opened(&bytes, WEIGHTS_MAGIC).and_then(|mut r| Weights::read(spec, &mut r).ok());
    weights.ok_or_else(|| FileError::Damaged(file.into()))
}

fn floats(values: &[f32]) -> impl Iterator<Item = u8> + '_ {
    values.iter().flat_map(|v| v.to_le_bytes())
}

fn take_floats(r: &mut Reader<'_>, count: usize) -> Result<Vec<f32>, Truncated> {
    Ok(r.take(4 * count)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

pub(super) fn write_residual(disk: &dyn Disk, file: &str, residual: &[f32]) -> Result<(), FileError> {
    write(disk, file, &sealed(RESIDUAL_MAGIC.iter().copied().chain(floats(residual)).collect()))
}

pub(super) fn read_residual(disk: &dyn Disk, file: &str, parameters: usize) -> Result<Vec<f32>, FileError> {
    let bytes = read(disk, file)?;
    let values = opened(&bytes, RESIDUAL_MAGIC).and_then(|mut r| take_floats(&mut r, parameters).ok());
    values.ok_or_else(|| FileError::Damaged(file.into()))
}

pub(super) fn write_moments(disk: &dyn Disk, file: &str, moments: &Moments) -> Result<(), FileError> {
    let mut bytes = OPTIMIZER_MAGIC.to_vec();
    bytes.extend(moments.t.to_le_bytes());
    bytes.extend(floats(&moments.m).chain(floats(&moments.v)));
    write(disk, file, &sealed(bytes))
}

pub(super) fn read_moments(disk: &dyn Disk, file: &str, parameters: usize) -> Result<Moments, FileError> {
    let bytes = read(disk, file)?;
    let moments = |mut r: Reader<'_>| -> Result<Moments, Truncated> {
        let t = r.u64()?;
        Ok(Moments { t, m: take_floats(&mut r, parameters)?, v: take_floats(&mut r, parameters)? })
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
        let spec = ModelSpec { vocab_size: 9, hidden_size: 8, num_hidden_layers: 1, intermediate_size: 12, ..ModelSpec::tiny() };
        let n = spec.parameters();
        let weights = Weights::start(&spec, &spec.draw_all(1));
        let moments = Moments { t: 7, m: spec.draw_all(2), v: spec.draw_all(3) };
        write_weights(&disk, "w", &weights).unwrap();
        write_residual(&disk, "r", &moments.m).unwrap();
        write_moments(&disk, "o", &moments).unwrap();
        assert_eq!(read_weights(&disk, "w", &spec).unwrap(), weights);
        assert_eq!(read_residual(&disk, "r", n).unwrap(), moments.m);
        assert_eq!(read_moments(&disk, "o", n).unwrap(), moments);

        assert!(matches!(read_residual(&disk, "o", n), Err(FileError::Damaged(_))));
        assert!(matches!(read_residual(&disk, "r", n + 1), Err(FileError::Damaged(_))));
        let mut bytes = read(&disk, "w").unwrap();
        bytes[100] ^= 1;
        write(&disk, "w", &bytes).unwrap();
        assert!(matches!(read_weights(&disk, "w", &spec), Err(FileError::Damaged(_))));
        assert!(matches!(read_weights(&disk, "none", &spec), Err(FileError::Missing(_))));
    }
}
