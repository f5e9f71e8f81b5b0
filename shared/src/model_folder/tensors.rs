//! Safetensors, read a tensor at a time: which are there, in which file, and their values as f32.

use super::{
    ModelFolderError, open_file, refuse_pointer, small_file,
    widen::{widen, width},
};
use crate::model_spec::{ModelSpec, Role, TensorSpec, bare_name, layer_of};
use safetensors::{Dtype, tensor::Metadata};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Longest header that is read, and most bytes of all headers of a folder; safetensors' own bound for one.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Names in a sentence; of the others only the number is told.
const NAMES_TOLD_MAX: usize = 4;

/// All tensors of a folder.
pub(super) struct Shelf {
    /// The file that names the others, or the only one.
    main: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor is.
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Of the first byte, from the file's start.
    from: u64,
}

impl Shelf {
    /// Reads the headers: of model.safetensors, or else of the files that model.safetensors.index.json names.
    pub fn open(folder: &Path) -> Result<Self, ModelFolderError> {
        let (whole, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        // A link that leads nowhere is there, and is told as such when it is opened.
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        let (main, files) = if is_there(&whole) {
            (whole.clone(), vec![whole])
        } else if is_there(&index) {
            let files = files_of(&index)?.into_iter().map(|name| folder.join(name)).collect();
            (index, files)
        } else {
            let reason = "there is none, nor model.safetensors.index.json: write the model with `save_pretrained`, \
                which makes it";
            return Err(ModelFolderError::refused(whole, reason));
        };
        let mut shelf = Shelf { main, files, tensors: BTreeMap::new() };
        let mut header_bytes_left = HEADER_BYTES_MAX;
        for file in 0..shelf.files.len() {
            shelf.add(file, &mut header_bytes_left)?;
        }
        Ok(shelf)
    }

    /// Takes up what a file's header says.
    fn add(&mut self, file: usize, header_bytes_left: &mut u64) -> Result<(), ModelFolderError> {
        let path = &self.files[file];
        let wrong = |reason: String| ModelFolderError::refused(path, reason);
        let (mut open, file_bytes) = open_file(path)?;
        let mut begin = vec![];
        open.by_ref().take(64).read_to_end(&mut begin).map_err(ModelFolderError::read(path))?;
        refuse_pointer(path, &begin)?;
        let length = begin.first_chunk().map(|length| u64::from_le_bytes(*length));
        let length = length.ok_or_else(|| wrong("it is too short for a safetensors file".into()))?;
        if length > *header_bytes_left || length > file_bytes.saturating_sub(8) {
            return Err(wrong("it is no safetensors file: its header would be too long".into()));
        }
        *header_bytes_left -= length;
        let mut json = vec![];
        open.seek(SeekFrom::Start(8)).map_err(ModelFolderError::read(path))?;
        open.take(length).read_to_end(&mut json).map_err(ModelFolderError::read(path))?;
        let header: Metadata = serde_json::from_slice(&json)
            .map_err(|e| wrong(unknown_type(&json).unwrap_or_else(|| format!("its header cannot be read: {e}"))))?;
        let (want, have) = (header.data_len() as u64, file_bytes.saturating_sub(8 + length));
        if want != have {
            return Err(wrong(format!(
                "it is damaged: its header tells of {want} bytes of tensors, and {have} are there"
            )));
        }
        for (name, info) in header.tensors() {
            let from = 8 + length + info.data_offsets.0 as u64;
            let place = Place { file, dtype: info.dtype, shape: info.shape.clone(), from };
            if let Some(other) = self.tensors.insert(name.clone(), place) {
                let other = self.files[other.file].display();
                return Err(wrong(format!("{name} is in {other} too")));
            }
        }
        Ok(())
    }

    /// Whether a head is there that is not the embedding. A head of another shape is one.
    pub fn has_other_head(&self, spec: &ModelSpec) -> Result<bool, ModelFolderError> {
        let tensors = spec.tensors();
        let embedding = tensors.iter().find(|tensor| tensor.role == Role::Embedding);
        let Some(embedding) = embedding.filter(|tensor| self.tensors.contains_key(&tensor.name)) else {
            return Ok(false);
        };
        let head = Role::Head.name(None);
        let Some(place) = self.tensors.get(&head) else { return Ok(false) };
        // A head of a shape that does not fit is told as such, since it is then one of the model's tensors.
        self.check_one(embedding)?;
        if place.shape != embedding.shape {
            return Ok(true);
        }
        let mut other = self.values(&head)?;
        let mut differs = false;
        self.values(&embedding.name)?.each(|values| {
            let mut of_head = vec![0.0; values.len()];
            other.fill(&mut of_head)?;
            differs |= of_head != values;
            Ok(!differs)
        })?;
        Ok(differs)
    }

    /// Refuses a folder that lacks a tensor, or has one of another shape or type, or one that would have to be
    /// computed. Says which are not used.
    pub fn check(&self, spec: &ModelSpec) -> Result<Vec<String>, ModelFolderError> {
        let tensors = spec.tensors();
        tensors.iter().try_for_each(|tensor| self.check_one(tensor))?;
        let known: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let head = Role::Head.name(None);
        let mut layers = BTreeSet::new();
        let mut others = vec![];
        for name in self.tensors.keys().map(String::as_str) {
            // Old files have the rotary embedding's wavelengths, which follow from rope_theta. A head that is the
            // embedding is written by some.
            if known.contains(name) || name.ends_with("rotary_emb.inv_freq") || name == head {
                continue;
            }
            match layer_of(name) {
                Some(layer) if layer >= u64::from(spec.num_hidden_layers) => {
                    layers.insert(layer);
                }
                None if !is_beside(name, &known) => others.push(name),
                _ => {
                    let file = &self.files[self.tensors[name].file];
                    return Err(ModelFolderError::refused(
                        file,
                        format!("{name} is a tensor that this version does not compute"),
                    ));
                }
            }
        }
        let mut notes = vec![];
        if let (Some(first), Some(last)) = (layers.first(), layers.last()) {
            let which = if first == last { format!("layer {first}") } else { format!("layers {first} to {last}") };
            let has = spec.num_hidden_layers;
            notes.push(format!("the tensors of {which} are unused: config.json has num_hidden_layers = {has}"));
        }
        if !others.is_empty() {
            let more = others.len().saturating_sub(NAMES_TOLD_MAX);
            others.truncate(NAMES_TOLD_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            notes.push(format!(
                "the model has no place for these tensors, which are unused: {}{more}",
                others.join(", ")
            ));
        }
        Ok(notes)
    }

    fn check_one(&self, tensor: &TensorSpec) -> Result<(), ModelFolderError> {
        let name = &tensor.name;
        let Some(place) = self.tensors.get(name) else {
            let bare = bare_name(name).filter(|bare| self.tensors.contains_key(*bare));
            let hint = match bare {
                Some(bare) => format!("; there is {bare}: save the whole LlamaForCausalLM, not its LlamaModel"),
                None if tensor.role == Role::Head => {
                    "; where the head is the embedding, tie_word_embeddings must be true".into()
                }
                None => String::new(),
            };
            return Err(ModelFolderError::refused(&self.main, format!("there is no tensor {name}{hint}")));
        };
        let wrong = |reason: String| ModelFolderError::refused(&self.files[place.file], reason);
        if place.shape != tensor.shape {
            return Err(wrong(format!(
                "{name} has the shape {:?}; config.json makes it {:?}",
                place.shape, tensor.shape
            )));
        }
        match width(place.dtype) {
            Some(_) => Ok(()),
            None => Err(wrong(format!("{name} is of type {}; F32, F16 and BF16 can be read", place.dtype))),
        }
    }

    /// Reads a tensor's values; one that is not finite is refused.
    pub fn read(&self, name: &str, into: &mut [f32]) -> Result<(), ModelFolderError> {
        self.values(name)?.fill(into)
    }

    fn values(&self, name: &str) -> Result<Values<'_>, ModelFolderError> {
        let missing = || ModelFolderError::refused(&self.main, format!("there is no tensor {name}"));
        let (name, place) = self.tensors.get_key_value(name).ok_or_else(missing)?;
        let path = &self.files[place.file];
        let (mut file, _) = open_file(path)?;
        file.seek(SeekFrom::Start(place.from)).map_err(ModelFolderError::read(path))?;
        let width =
            width(place.dtype).ok_or_else(|| ModelFolderError::refused(path, format!("{name} cannot be read")))?;
        let left = place.shape.iter().product();
        Ok(Values { path, name, file, dtype: place.dtype, width, left, buffer: vec![0; CHUNK_BYTES] })
    }
}

/// A tensor's values, front to back.
struct Values<'a> {
    path: &'a Path,
    name: &'a str,
    file: File,
    dtype: Dtype,
    width: usize,
    left: usize,
    buffer: Vec<u8>,
}

impl Values<'_> {
    /// The next values, as many as `into` holds.
    fn fill(&mut self, into: &mut [f32]) -> Result<(), ModelFolderError> {
        if into.len() > self.left {
            return Err(ModelFolderError::refused(
                self.path,
                format!("{} has fewer values than were asked for", self.name),
            ));
        }
        self.left -= into.len();
        for part in into.chunks_mut(CHUNK_BYTES / 4) {
            let bytes = &mut self.buffer[..part.len() * self.width];
            self.file.read_exact(bytes).map_err(ModelFolderError::read(self.path))?;
            widen(self.dtype, bytes, part);
            if let Some(bad) = part.iter().find(|value| !value.is_finite()) {
                let reason = format!("{} holds a value that is not finite ({bad})", self.name);
                return Err(ModelFolderError::refused(self.path, reason));
            }
        }
        Ok(())
    }

    /// Hands out all values in parts, until `take` has seen enough.
    fn each(mut self, mut take: impl FnMut(&[f32]) -> Result<bool, ModelFolderError>) -> Result<(), ModelFolderError> {
        let mut part = vec![0.0; CHUNK_BYTES / 4];
        while self.left > 0 {
            let values = &mut part[..self.left.min(CHUNK_BYTES / 4)];
            self.fill(values)?;
            if !take(values)? {
                break;
            }
        }
        Ok(())
    }
}

/// What a header says that cannot be read for a type of numbers that nobody here knows.
fn unknown_type(header: &[u8]) -> Option<String> {
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let mut tensors = header.as_object()?.iter().filter_map(|(name, tensor)| Some((name, tensor.get("dtype")?)));
    let (name, dtype) = tensors.find(|(_, dtype)| serde_json::from_value::<Dtype>((*dtype).clone()).is_err())?;
    let dtype: String = dtype.as_str().unwrap_or_default().chars().take(40).collect();
    Some(format!("{name} is of type {dtype}; F32, F16 and BF16 can be read"))
}

/// The names in an index: of plain files beside it, so that nothing outside of the folder is named.
fn files_of(index: &Path) -> Result<BTreeSet<String>, ModelFolderError> {
    let wrong = |reason: String| ModelFolderError::refused(index, reason);
    let json: serde_json::Value =
        serde_json::from_slice(&small_file(index)?).map_err(|e| wrong(format!("it is no JSON ({e})")))?;
    let map = json.get("weight_map").and_then(|map| map.as_object());
    let map = map.ok_or_else(|| wrong("there is no weight_map, which names each tensor's file".into()))?;
    let mut files = BTreeSet::new();
    for (tensor, file) in map {
        let name =
            file.as_str().ok_or_else(|| wrong(format!("weight_map gives {tensor} {file}; a file's name is needed")))?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', ':', '\0']) {
            return Err(wrong(format!("weight_map gives {tensor} {file}, which is no plain file name")));
        }
        files.insert(name.to_owned());
    }
    Ok(files)
}

/// Whether a tensor belongs to a part that has a tensor of the model: its bias, or a scale.
fn is_beside(name: &str, known: &BTreeSet<&str>) -> bool {
    let part = |name: &str| name.rsplit_once('.').map(|(part, _)| part.to_owned());
    part(name).is_some_and(|of_this| known.contains(format!("{of_this}.weight").as_str()))
}
