//! model.safetensors, written a tensor at a time.

use super::ExportError;
use nightjar_shared::model_spec::ModelSpec;
use safetensors::{Dtype, View, serialize_to_file};
use std::{borrow::Cow, collections::HashMap, fs::File, path::Path};

/// One tensor's part of the flat vector.
struct Part<'a> {
    shape: &'a [usize],
    weights: &'a [f32],
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.weights.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.weights)
    }
}

/// Writes all weights as f32 under Hugging Face's names, and syncs the file.
pub fn write(path: &Path, model: &ModelSpec, weights: &[f32]) -> Result<(), ExportError> {
    let tensors = model.tensors();
    let parts = tensors.iter().map(|t| (t.name.as_str(), Part { shape: &t.shape, weights: &weights[t.range()] }));
    // `transformers` refuses a file that does not say which framework's layout it has.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(parts, Some(format), path)
        .map_err(|e| ExportError::Tensors { path: path.to_owned(), reason: e.to_string() })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(ExportError::io(path))
}
