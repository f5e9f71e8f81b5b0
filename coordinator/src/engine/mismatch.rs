//! Whether a run can be trained on a dataset.

use super::epoch_samples;
use nightjar_shared::{run_spec::RunSpec, shard::Manifest};

/// A run spec that cannot be trained on a dataset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mismatch {
    /// Samples are of another length than the model's context.
    #[error(
        "the dataset's samples hold {data} tokens, model.max_position_embeddings is {model}; prepare it with --context \
        {model}"
    )]
    Context {
        /// In the manifest.
        data: u32,
        /// In the run spec.
        model: u32,
    },
    /// The dataset has tokens that the model does not.
    #[error(
        "the dataset's vocabulary is {data}, model.vocab_size is {model}; set model.vocab_size = {data} in run.toml"
    )]
    Vocabulary {
        /// In the manifest.
        data: u32,
        /// In the run spec.
        model: u32,
    },
    /// No batch can be made of any shard.
    #[error(
        "no shard of the dataset holds inner.batch_samples = {batch} samples; prepare more data or set a smaller batch"
    )]
    TooSmall {
        /// In the run spec.
        batch: u32,
    },
}

/// Refuses a dataset that the run cannot be trained on.
pub fn check(spec: &RunSpec, manifest: &Manifest) -> Result<(), Mismatch> {
    let (model, batch) = (&spec.model, spec.inner.batch_samples);
    if manifest.context != model.max_position_embeddings {
        return Err(Mismatch::Context { data: manifest.context, model: model.max_position_embeddings });
    }
    if manifest.vocab_size > model.vocab_size {
        return Err(Mismatch::Vocabulary { data: manifest.vocab_size, model: model.vocab_size });
    }
    if epoch_samples(manifest, batch) == 0 { Err(Mismatch::TooSmall { batch }) } else { Ok(()) }
}
