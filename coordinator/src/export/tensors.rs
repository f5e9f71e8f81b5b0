//! Safetensors, written a tensor at a time: one file, or several with an index where that would be too large.

use super::{Dtype, ExportError, Form, Weights};
use nightjar_shared::model_spec::{ModelSpec, TensorSpec};
use safetensors::{View, serialize_to_file};
use serde_json::json;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

/// The one file.
pub const FILE: &str = "model.safetensors";
/// Which tensor is in which of several.
pub const INDEX: &str = "model.safetensors.index.json";

/// The name of one of several files.
fn shard(number: usize, of: usize) -> String {
    format!("model-{number:05}-of-{of:05}.safetensors")
}

/// Whether a name is that of one of several files.
pub fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let is_number = |digits: &str| digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(n, of)| is_number(n) && is_number(of))
}

/// One tensor, read when it is its turn to be written.
struct Part<'a> {
    dtype: Dtype,
    weights: &'a Weights<'a>,
    at: usize,
    tensor: &'a TensorSpec,
}

impl View for Part<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F16 => safetensors::Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![];
        self.dtype.write(&self.weights.tensor(self.at, self.tensor), &mut bytes);
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.len() * self.dtype.bytes()
    }
}

/// Writes all weights under Hugging Face's names, beside a config.json. No file is longer than `file_bytes_max`,
/// but for its header, unless a single tensor is.
pub fn write(
    folder: &Path,
    model: &ModelSpec,
    weights: &Weights<'_>,
    Form { dtype, file_bytes_max, .. }: Form,
) -> Result<(), ExportError> {
    let tensors = model.tensors();
    let parts = tensors.iter().enumerate().map(|(at, tensor)| Part { dtype, weights, at, tensor });
    let mut files: Vec<Vec<Part<'_>>> = vec![];
    let mut room = 0;
    for part in parts {
        let bytes = part.data_len() as u64;
        match files.last_mut().filter(|_| bytes <= room) {
            Some(file) => file.push(part),
            None => {
                room = file_bytes_max;
                files.push(vec![part]);
            }
        }
        room = room.saturating_sub(bytes);
    }
    if files.len() == 1 {
        return write_file(&folder.join(FILE), files.swap_remove(0));
    }
    let of = files.len();
    let mut places = BTreeMap::new();
    for (number, parts) in (1..).zip(files) {
        let name = shard(number, of);
        places.extend(parts.iter().map(|part| (part.tensor.name.clone(), name.clone())));
        write_file(&folder.join(name), parts)?;
    }
    let total_size = model.parameters() * dtype.bytes();
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": places});
    super::write_new(&folder.join(INDEX), &super::pretty(&index))
}

fn write_file(path: &Path, parts: Vec<Part<'_>>) -> Result<(), ExportError> {
    let named = parts.into_iter().map(|part| (part.tensor.name.as_str(), part));
    // `transformers` refuses a file that does not say which framework's layout it has.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(named, Some(format), path)
        .map_err(|e| ExportError::Tensors { path: path.to_owned(), reason: e.to_string() })?;
    // The library makes the file for its owner alone; it is to be as public as its neighbours.
    let folder = path.parent().unwrap_or(path);
    let public = fs::metadata(folder.join("config.json")).map_err(ExportError::io(folder))?.permissions();
    fs::set_permissions(path, public).map_err(ExportError::io(path))
}
