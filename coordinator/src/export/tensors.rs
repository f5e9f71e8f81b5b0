//! model.safetensors, written and read a tensor at a time.

use super::ExportError;
use nightjar_shared::model_spec::{ModelSpec, TensorSpec};
use safetensors::{Dtype, View, serialize_to_file, tensor::Metadata};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Longest header that is read; safetensors' own bound.
const HEADER_BYTES_MAX: u64 = 100_000_000;

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

/// Reads all weights of a model from a folder, from one file or from several that an index names.
pub fn read(folder: &Path, model: &ModelSpec) -> Result<Vec<f32>, ExportError> {
    let whole = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    let mut weights = vec![0.0; model.parameters()];
    let tensors = model.tensors();
    if whole.is_file() {
        read_file(&whole, &tensors, &mut weights)?;
    } else if index.is_file() {
        for (file, tensors) in files_of(&index, tensors)? {
            read_file(&folder.join(file), &tensors, &mut weights)?;
        }
    } else {
        let reason = "there is none: export the model with `save_pretrained`, which writes it".to_owned();
        return Err(ExportError::Tensors { path: whole, reason });
    }
    Ok(weights)
}

/// Which tensors are in which file.
fn files_of(index: &Path, tensors: Vec<TensorSpec>) -> Result<BTreeMap<String, Vec<TensorSpec>>, ExportError> {
    let wrong = |reason: String| ExportError::Tensors { path: index.to_owned(), reason };
    let json = fs::read(index).map_err(ExportError::io(index))?;
    let json: serde_json::Value = serde_json::from_slice(&json).map_err(|e| wrong(format!("no JSON ({e})")))?;
    let mut files: BTreeMap<String, Vec<TensorSpec>> = BTreeMap::new();
    for tensor in tensors {
        let file =
            json["weight_map"][&tensor.name].as_str().ok_or_else(|| wrong(format!("there is no tensor {}", tensor.name)))?;
        if Path::new(file).file_name().is_none_or(|name| name != file) {
            return Err(wrong(format!("{file} is no plain file name")));
        }
        files.entry(file.to_owned()).or_default().push(tensor);
    }
    Ok(files)
}

/// Reads some tensors from one file into their places.
fn read_file(path: &Path, tensors: &[TensorSpec], weights: &mut [f32]) -> Result<(), ExportError> {
    let mut file = BufReader::new(File::open(path).map_err(ExportError::io(path))?);
    let (header, data_at) = read_header(path, &mut file)?;
    for tensor in tensors {
        let wrong = |reason: String| ExportError::Tensors { path: path.to_owned(), reason };
        let info = header.info(&tensor.name).ok_or_else(|| wrong(format!("there is no tensor {}", tensor.name)))?;
        if info.shape != tensor.shape {
            return Err(wrong(format!(
                "{} has the shape {:?}; config.json makes it {:?}",
                tensor.name, info.shape, tensor.shape
            )));
        }
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        let read = file.seek(SeekFrom::Start(data_at + from as u64)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|e| wrong(format!("{} cannot be read: {e}", tensor.name)))?;
        let place = &mut weights[tensor.range()];
        fill(place, info.dtype, &bytes)
            .ok_or_else(|| wrong(format!("{} is {:?}; F32, F16 and BF16 can be read", tensor.name, info.dtype)))?;
        if place.iter().any(|w| !w.is_finite()) {
            return Err(wrong(format!("{} holds values that are not finite", tensor.name)));
        }
    }
    Ok(())
}

/// The header, and where the data begins.
fn read_header(path: &Path, file: &mut impl Read) -> Result<(Metadata, u64), ExportError> {
    let wrong = |reason: &str| ExportError::Tensors { path: PathBuf::from(path), reason: reason.to_owned() };
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| wrong("it is too short for a safetensors file"))?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        return Err(wrong("it is no safetensors file: its header would be too long"));
    }
    let mut json = vec![];
    file.take(length).read_to_end(&mut json).map_err(ExportError::io(path))?;
    let header: Metadata = serde_json::from_slice(&json).map_err(|e| wrong(&format!("its header cannot be read: {e}")))?;
    Ok((header, 8 + length))
}

/// Widens to f32; `None` for other types or lengths.
fn fill(place: &mut [f32], dtype: Dtype, bytes: &[u8]) -> Option<()> {
    let width = match dtype {
        Dtype::F32 => 4,
        Dtype::F16 | Dtype::BF16 => 2,
        _ => return None,
    };
    if bytes.len() != place.len() * width {
        return None;
    }
    for (weight, bytes) in place.iter_mut().zip(bytes.chunks_exact(width)) {
        *weight = match (dtype, bytes) {
            (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Dtype::BF16, &[a, b]) => f32::from_le_bytes([0, 0, a, b]),
            (_, &[a, b]) => f32_of_f16(u16::from_le_bytes([a, b])),
            _ => return None,
        };
    }
    Some(())
}

/// IEEE 754 half precision, widened exactly.
fn f32_of_f16(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1F), f32::from(half & 0x3FF));
    sign * match exponent {
        0 => fraction * (-24f32).exp2(),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * ((exponent - 25) as f32).exp2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_widened_exactly() {
        let cases =
            [(0x3C00, 1.0), (0xC000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0x7BFF, 65504.0), (0x8000, -0.0)];
        for (half, whole) in cases {
            assert_eq!(f32_of_f16(half).to_bits(), f32::to_bits(whole), "{half:#x}");
        }
        assert!(f32_of_f16(0x7C00).is_infinite() && f32_of_f16(0x7E00).is_nan());
    }
}
