//! Arrays as numpy writes them (`.npy`, format 1 to 3): a head that names type, order and shape, and the values.

use std::ops::Range;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of a head at most: numpy refuses longer ones too.
pub const HEAD_BYTES_MAX: usize = 10_000;
/// What comes before a head's text: magic, version, length.
const PREFIX_BYTES: usize = 12;

/// Bytes that are no array that can be trained from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NpyError {
    /// No `.npy`, or one of a later format.
    #[error("it is no numpy array")]
    Foreign,
    /// A type that holds no weights.
    #[error("its type is {0}; float32, float64, int32 and int64 can be taken")]
    Dtype(String),
    /// Values are missing, or too many.
    #[error("it has {got} bytes of values, and its shape takes {expected}")]
    Length {
        /// By its shape.
        expected: usize,
        /// That came.
        got: usize,
    },
}

/// What an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Four bytes, as devices train.
    Float32,
    /// Eight bytes.
    Float64,
    /// Whole numbers of four bytes.
    Int32,
    /// Whole numbers of eight bytes.
    Int64,
}

impl Dtype {
    fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "f4" => Dtype::Float32,
            "f8" => Dtype::Float64,
            "i4" => Dtype::Int32,
            "i8" => Dtype::Int64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Dtype::Float32 | Dtype::Int32 => 4,
            Dtype::Float64 | Dtype::Int64 => 8,
        }
    }

    /// The type of what is trained from it: whole numbers become what Flower's own mean makes of them.
    pub fn trained(self) -> Dtype {
        match self {
            Dtype::Float32 => Dtype::Float32,
            Dtype::Float64 | Dtype::Int32 | Dtype::Int64 => Dtype::Float64,
        }
    }

    /// As numpy names it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::Float64 => "float64",
            Dtype::Int32 => "int32",
            Dtype::Int64 => "int64",
        }
    }
}

/// An array that came.
#[derive(Debug, PartialEq)]
pub struct Array {
    /// Its type.
    pub dtype: Dtype,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Row after row.
    pub values: Vec<f32>,
}

impl Array {
    /// Reads an array. What no `f32` holds is rounded.
    pub fn read(bytes: &[u8]) -> Result<Array, NpyError> {
        let (head, data) = split(bytes).ok_or(NpyError::Foreign)?;
        let descr = quoted(head, "descr").ok_or(NpyError::Foreign)?;
        let is_fortran = match after(head, "fortran_order").ok_or(NpyError::Foreign)? {
            rest if rest.starts_with("True") => true,
            rest if rest.starts_with("False") => false,
            _ => return Err(NpyError::Foreign),
        };
        let shape = shape(head).ok_or(NpyError::Foreign)?;
        let (order, kind) = descr.split_at_checked(1).ok_or(NpyError::Foreign)?;
        let dtype = Dtype::of(kind).filter(|_| matches!(order, "<" | ">"));
        let dtype = dtype.ok_or_else(|| NpyError::Dtype(descr.chars().take(16).collect()))?;
        let count = shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let expected = count.and_then(|count| count.checked_mul(dtype.bytes())).ok_or(NpyError::Foreign)?;
        if data.len() != expected {
            return Err(NpyError::Length { expected, got: data.len() });
        }
        let values = values(dtype, order == ">", data);
        let values = if is_fortran { in_rows(&shape, &values) } else { values };
        Ok(Array { dtype, shape, values })
    }
}

fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest))?,
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest))?,
        _ => return None,
    };
    let (head, data) = rest.split_at_checked(length).filter(|_| length <= HEAD_BYTES_MAX)?;
    Some((str::from_utf8(head).ok()?, data))
}

/// What follows a key of the head.
fn after<'a>(head: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = head.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn quoted<'a>(head: &'a str, key: &str) -> Option<&'a str> {
    after(head, key)?.strip_prefix('\'')?.split_once('\'').map(|(text, _)| text)
}

fn shape(head: &str) -> Option<Vec<usize>> {
    let (inside, _) = after(head, "shape")?.strip_prefix('(')?.split_once(')')?;
    inside.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
}

fn values(dtype: Dtype, is_big: bool, data: &[u8]) -> Vec<f32> {
    macro_rules! each {
        ($number:ty) => {{
            let (numbers, _) = data.as_chunks();
            let read = if is_big { <$number>::from_be_bytes } else { <$number>::from_le_bytes };
            numbers.iter().map(|bytes| read(*bytes) as f32).collect()
        }};
    }
    match dtype {
        Dtype::Float32 => each!(f32),
        Dtype::Float64 => each!(f64),
        Dtype::Int32 => each!(i32),
        Dtype::Int64 => each!(i64),
    }
}

/// Values that lie column after column, row after row.
fn in_rows(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let mut at = vec![0; shape.len()];
    let mut rows = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let place = shape.iter().zip(&at).rev().fold(0, |place, (size, i)| place * size + i);
        rows.push(values[place]);
        for (i, size) in at.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    rows
}

/// An array to be sent: its bytes can be had a piece at a time.
pub struct Writer<'a> {
    head: Vec<u8>,
    dtype: Dtype,
    values: &'a [f32],
}

impl<'a> Writer<'a> {
    /// Of floating-point numbers of this type.
    pub fn new(dtype: Dtype, shape: &[usize], values: &'a [f32]) -> Self {
        let dtype = dtype.trained();
        let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
        let sizes = if shape.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
        let descr = if dtype == Dtype::Float32 { "<f4" } else { "<f8" };
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
        // Values begin at a multiple of 64 bytes.
        let bytes = (PREFIX_BYTES + text.len() + 1).next_multiple_of(64);
        let mut head = [MAGIC, &[2, 0]].concat();
        head.extend(((bytes - PREFIX_BYTES) as u32).to_le_bytes());
        head.extend(format!("{text:<width$}\n", width = bytes - PREFIX_BYTES - 1).into_bytes());
        Writer { head, dtype, values }
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.head.len() + self.values.len() * self.dtype.bytes()
    }

    /// Some of its bytes; both ends are multiples of 8, or its end.
    pub fn piece(&self, range: Range<usize>) -> Vec<u8> {
        let head = self.head.len();
        let mut out = Vec::with_capacity(range.len());
        out.extend_from_slice(&self.head[range.start.min(head)..range.end.min(head)]);
        let [from, to] = [range.start, range.end].map(|at| at.saturating_sub(head) / self.dtype.bytes());
        for value in &self.values[from..to] {
            match self.dtype {
                Dtype::Float32 => out.extend(value.to_le_bytes()),
                _ => out.extend(f64::from(*value).to_le_bytes()),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
