//! A lab's message, read an object at a time: only the values of one array are in memory besides the weights.

use super::{
    npy::{self, Dtype, NpyError},
    object::{Object, ObjectError},
};
use crate::job::{Model, OtherModel};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use std::fmt;

/// How a lab has arranged its arrays: a reply is arranged alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrangement {
    /// What the record of arrays is called.
    pub record: String,
    /// For each array in turn: its tensor's place in the model, and its type.
    pub arrays: Vec<(usize, Dtype)>,
}

/// A message's weights.
#[derive(Debug, PartialEq)]
pub struct Incoming {
    /// How they were arranged.
    pub arrangement: Arrangement,
    /// All values, in the model's order.
    pub flat: Vec<f32>,
}

/// A message that no weights can be read from; `E` is what pulling an object may meet.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError<E> {
    /// An object cannot be had.
    #[error("{0}")]
    Pull(E),
    /// It is no proper object.
    #[error("{0}")]
    Object(#[from] ObjectError),
    /// It is of another model.
    #[error("{0}")]
    Model(#[from] OtherModel),
    /// An array cannot be read.
    #[error("the array {0} cannot be taken: {1}")]
    Array(String, NpyError),
    /// It is arranged otherwise than Flower's strategies do.
    #[error("{0}")]
    Arranged(&'static str),
}

/// Reads the message of this name; `pull` gives an object's bytes.
pub fn read<E>(
    root: &str,
    model: &Model,
    mut pull: impl FnMut(&str) -> Result<Vec<u8>, E>,
) -> Result<Incoming, IncomingError<E>> {
    let mut get = |name: &str| pull(name).map_err(IncomingError::Pull);
    let message = get(root)?;
    let message = Object::read_as(root, &message, "Message")?;
    let content = message.children.first().ok_or(IncomingError::Arranged("the message has no content"))?;
    let records = get(content)?;
    let records = names(Object::read_as(content, &records, "RecordDict")?.body)?;
    let mut found = None;
    for (record, name) in records {
        let bytes = get(&name)?;
        let object = Object::read(&name, &bytes)?;
        match object.kind {
            "ArrayRecord" if found.is_some() => {
                return Err(IncomingError::Arranged("the message has several array records; one is taken"));
            }
            "ArrayRecord" => found = Some((record, names(object.body)?)),
            // What a lab configures is for its ClientApp, which does not run here.
            _ => {}
        }
    }
    let (record, arrays) = found.ok_or(IncomingError::Arranged("the message has no array record"))?;
    let places = model.places(arrays.iter().map(|(name, _)| name.as_str()))?;
    let mut flat = vec![0.0; model.tensors.iter().map(crate::job::Tensor::len).sum()];
    let mut arrangement = Arrangement { record, arrays: vec![] };
    for (place, (name, object)) in places.into_iter().zip(arrays) {
        let bytes_max = 8 * model.tensors[place].len() + npy::HEAD_BYTES_MAX + 64;
        let bytes = array(&object, bytes_max, &mut get)?;
        let array = npy::Array::read(&bytes).map_err(|why| IncomingError::Array(name, why))?;
        model.check_shape(place, &array.shape)?;
        flat[model.range(place)].copy_from_slice(&array.values);
        arrangement.arrays.push((place, array.dtype));
    }
    Ok(Incoming { arrangement, flat })
}

/// Names of objects, in the order in which they stand.
fn names<E>(body: &[u8]) -> Result<Vec<(String, String)>, IncomingError<E>> {
    let read = serde_json::Deserializer::from_slice(body).deserialize_map(Pairs);
    read.map_err(|_| IncomingError::Arranged("a record of the message cannot be read"))
}

/// Keeps the order of a JSON object's entries.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, String)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut pairs = vec![];
        while let Some(pair) = entries.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// What an array's object says of it.
#[derive(Deserialize)]
struct Said {
    stype: String,
    arraychunk_ids: Vec<usize>,
}

/// The bytes of an array, put together.
fn array<E>(
    name: &str,
    bytes_max: usize,
    get: &mut impl FnMut(&str) -> Result<Vec<u8>, IncomingError<E>>,
) -> Result<Vec<u8>, IncomingError<E>> {
    let object = get(name)?;
    let object = Object::read_as(name, &object, "Array")?;
    let said: Said =
        serde_json::from_slice(object.body).map_err(|_| IncomingError::Arranged("an array cannot be read"))?;
    if said.stype != "numpy.ndarray" {
        return Err(IncomingError::Arranged("an array is not written by numpy; send ArrayRecord of numpy or torch"));
    }
    let mut bytes = vec![];
    for at in said.arraychunk_ids {
        let piece = object.children.get(at).ok_or(IncomingError::Arranged("a piece of an array is missing"))?;
        let content = get(piece)?;
        let body = Object::read_as(piece, &content, "ArrayChunk")?.body;
        if bytes.len() + body.len() > bytes_max {
            return Err(IncomingError::Arranged("an array is longer than its tensor"));
        }
        bytes.extend_from_slice(body);
    }
    Ok(bytes)
}
