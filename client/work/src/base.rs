//! A lease's base weights: from a keyframe or the weights at hand, through the updates, to exactly the version and
//! digest that the lease names.

use crate::files::{self, FileError};
use nightjar_shared::{
    disk::Disk,
    model_spec::ModelSpec,
    version::{VersionError, Weights, keyframe, update},
    wire::worker::Base,
};

/// Base weights that cannot be built. Whatever the reason, a keyframe helps.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file of it cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A keyframe or update is malformed, or not the next one.
    #[error("{file} does not fit: {source}")]
    Version {
        /// Which file.
        file: String,
        /// What is wrong with it.
        source: VersionError,
    },
    /// Neither keyframe nor weights are named.
    #[error("the lease names no weights to start from")]
    Nothing,
    /// The path ends at another version.
    #[error("the weights come out as version {got}, the lease asks for {want}")]
    WrongVersion {
        /// Where it ends.
        got: u64,
        /// Where it should.
        want: u64,
    },
    /// The bits are not the coordinator's.
    #[error("the weights of version {0} differ from what the coordinator published")]
    WrongDigest(u64),
}

/// Builds the weights and checks them.
pub fn build(disk: &dyn Disk, spec: &ModelSpec, base: &Base) -> Result<Weights, BaseError> {
    let version_error = |file: &str, source| BaseError::Version { file: file.into(), source };
    let mut weights = if !base.keyframe_file.is_empty() {
        let bytes = files::read(disk, &base.keyframe_file)?;
        keyframe::decode(spec, &bytes).map_err(|e| version_error(&base.keyframe_file, e))?
    } else if !base.weights_file.is_empty() {
        files::read_weights(disk, &base.weights_file, spec)?
    } else {
        return Err(BaseError::Nothing);
    };
    for step in &base.updates {
        let bytes = files::read(disk, &step.file)?;
        update::apply(spec, &mut weights, &bytes).map_err(|e| version_error(&step.file, e))?;
        if step.redefines {
            keyframe::round(&mut weights);
        }
    }
    if weights.version.0 != base.version {
        return Err(BaseError::WrongVersion { got: weights.version.0, want: base.version });
    }
    if weights.digest().as_slice() != base.digest {
        return Err(BaseError::WrongDigest(base.version));
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{delta::CodecId, disk::FolderDisk, wire::worker::UpdateFile};

    /// A coordinator publishes a keyframe, an update that redefines its version, and another update; a device that
    /// starts from any of them ends at the same bits.
    #[test]
    fn every_path_leads_to_the_same_weights() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let spec = ModelSpec {
            vocab_size: 9,
            hidden_size: 8,
            num_hidden_layers: 1,
            intermediate_size: 12,
            ..ModelSpec::tiny()
        };
        let mut weights = Weights::start(&spec, &spec.draw_all(1));
        let mut feedback = vec![0.0; spec.parameters()];
        disk.write("k0", &keyframe::encode(&spec, &weights)).unwrap();
        files::write_weights(&disk, "w0", &weights).unwrap();
        for name in ["u1", "u2"] {
            feedback.iter_mut().enumerate().for_each(|(i, f)| *f += 1e-3 * (i % 7) as f32);
            disk.write(name, &update::publish(&spec, CodecId::Blocks2, &mut weights, &mut feedback)).unwrap();
            if name == "u1" {
                keyframe::redefine(&mut weights, &mut feedback);
                disk.write("k1", &keyframe::encode(&spec, &weights)).unwrap();
            }
        }
        let step = |file: &str| UpdateFile { file: file.into(), redefines: file == "u1" };
        let base = |weights_file: &str, keyframe_file: &str, updates: &[&str]| Base {
            weights_file: weights_file.into(),
            keyframe_file: keyframe_file.into(),
            updates: updates.iter().map(|u| step(u)).collect(),
            version: 2,
            digest: weights.digest().to_vec(),
        };
        for path in [base("", "k0", &["u1", "u2"]), base("w0", "", &["u1", "u2"]), base("", "k1", &["u2"])] {
            assert_eq!(build(&disk, &spec, &path).unwrap(), weights);
        }
        let mut forgets = base("", "k0", &["u1", "u2"]);
        forgets.updates[0].redefines = false;
        assert!(matches!(build(&disk, &spec, &forgets), Err(BaseError::WrongDigest(2))));
        assert!(matches!(build(&disk, &spec, &base("", "k1", &[])), Err(BaseError::WrongVersion { got: 1, want: 2 })));
        assert!(matches!(build(&disk, &spec, &base("", "k0", &["u2"])), Err(BaseError::Version { .. })));
        assert!(matches!(build(&disk, &spec, &base("", "", &[])), Err(BaseError::Nothing)));
    }
}
