//! The delta: what a device sends up. It encodes the pseudo-gradient (weights at the lease's base version minus weights
//! after its inner steps), with error feedback: what one delta's rounding loses is added to the next (Karimireddy et
//! al., arXiv 1901.09847; with a decay as SparseLoCo has it, arXiv 2508.15706).
//!
//! Layout, little-endian: magic `NJD1`, codec id (u8), three zero bytes, first and end tensor number (u32 each), then
//! the codec's payload. The dense codecs write each tensor in flat order, block by block of 256 values; the sparse one
//! writes k (u16) and one entropy-coded stream. docs/protocol.md has every byte, with test vectors.

mod blocks2;
mod blocks4;
mod blocks8;
mod dense;
pub mod magnitude;
mod plain;
pub mod planes;
mod range_coder;
mod select;
mod spec;
mod subset;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
mod wide;

pub use dense::square_of;
pub use spec::{DeltaSpec, ResidualSpec};

use crate::{
    bytes::{Reader, Truncated},
    fragment::Fragment,
    model_spec::ModelSpec,
};
use blocks2::Blocks2;
use blocks4::Blocks4;
use blocks8::Blocks8;
use plain::Plain;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

const MAGIC: &[u8; 4] = b"NJD1";
const HEADER_BYTES: usize = 16;
const SPARSE_HEADER_BYTES: usize = 2;

/// How a delta's values are coded. The number is what stands in the header and in capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CodecId {
    /// Dense 8-bit blocks of 256 with an f32 scale: 8.125 bits a parameter.
    Blocks8 = 1,
    /// Dense 4-bit blocks of 256 with a bf16 scale: 4.0625 bits a parameter.
    Blocks4 = 2,
    /// Dense 2-bit blocks of 256 with a bf16 scale: 2.0625 bits a parameter.
    Blocks2 = 3,
    /// The k largest of each 4096 values, in 2 bits each and 7.4 for the place: 0.150 bits a parameter at k = 64.
    Sparse2 = 4,
    /// Every value as it is: 32 bits a parameter.
    F32 = 5,
}

impl CodecId {
    /// All codecs that this build can read and write, best first.
    pub const ALL: &'static [CodecId] =
        &[CodecId::Sparse2, CodecId::Blocks8, CodecId::Blocks4, CodecId::Blocks2, CodecId::F32];

    /// The codec of a number; `None` if this build does not know it.
    pub fn from_number(n: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| *c as u32 == n)
    }
}

/// Bytes that are no delta for this model.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DeltaError {
    /// Wrong magic or reserved bytes.
    #[error("it is no delta")]
    NotADelta,
    /// A codec this build does not know.
    #[error("codec {0} is unknown")]
    UnknownCodec(u8),
    /// Another codec than the run's.
    #[error("it is coded as {got:?}, and the run's deltas as {expected:?}")]
    OtherCodec {
        /// The run's.
        expected: CodecId,
        /// The delta's.
        got: CodecId,
    },
    /// A sparse delta of another k than the run's.
    #[error("it sends {got} of each 4096 values, and the run's deltas {expected}")]
    OtherCount {
        /// The run's.
        expected: u32,
        /// The delta's.
        got: u32,
    },
    /// A delta of a part of the model, in a run whose deltas cover all of it.
    #[error("it covers {got} of the model's {expected} tensors, and the run's deltas all of them")]
    Partial {
        /// Tensors of the model.
        expected: usize,
        /// Tensors that it names.
        got: usize,
    },
    /// The tensors that it names are not in the model.
    #[error("it names tensors that the model does not have")]
    WrongFragment,
    /// A scale that is negative, infinite or not a number.
    #[error("a block's scale is not a finite number ≥ 0")]
    BadScale,
    /// A value that is infinite or not a number.
    #[error("a value is not a finite number")]
    NotFinite,
    /// A sparse delta that sends none or more than all of a chunk's values.
    #[error("it sends {0} of each 4096 values")]
    BadCount(u32),
    /// Bits that no encoder writes.
    #[error("its bits are damaged")]
    Damaged,
    /// Too short.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Too long.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
}

/// Calls a function of [`dense`] for the block type of a codec; the sparse one is `$sparse`.
macro_rules! by_block {
    ($codec:expr, $function:ident($($arg:expr),*), $sparse:expr) => {
        match $codec {
            CodecId::Blocks8 => dense::$function::<Blocks8>($($arg),*),
            CodecId::Blocks4 => dense::$function::<Blocks4>($($arg),*),
            CodecId::Blocks2 => dense::$function::<Blocks2>($($arg),*),
            CodecId::F32 => dense::$function::<Plain>($($arg),*),
            CodecId::Sparse2 => $sparse,
        }
    };
}

/// What the length in bytes of a delta that covers the whole model can be: one number for the dense codecs, bounds for
/// the sparse one. What [`encode`] writes is always within.
pub fn bytes_allowed(model: &ModelSpec, delta: &DeltaSpec) -> RangeInclusive<u64> {
    let (tensors, head) = (model.tensors(), HEADER_BYTES as u64);
    if delta.codec == CodecId::Sparse2 {
        let payload = planes::bytes_allowed(&tensors, delta.k);
        return head + payload.start()..=head + payload.end();
    }
    let payload: usize = tensors.iter().map(|tensor| by_block!(delta.codec, tensor_bytes(tensor), 0)).sum();
    head + payload as u64..=head + payload as u64
}

fn header(codec: CodecId, fragment: &Fragment, out: &mut Vec<u8>) {
    out.extend(MAGIC);
    out.extend([codec as u8, 0, 0, 0]);
    fragment.write(out);
}

/// Reads the header up to the codec; the fragment follows.
fn read_codec(r: &mut Reader<'_>) -> Result<CodecId, DeltaError> {
    if &r.array::<4>()? != MAGIC {
        return Err(DeltaError::NotADelta);
    }
    let [codec, reserved @ ..] = r.array::<4>()?;
    if reserved != [0; 3] {
        return Err(DeltaError::NotADelta);
    }
    CodecId::from_number(u32::from(codec)).ok_or(DeltaError::UnknownCodec(codec))
}

/// Refuses a delta that the run did not ask for, however well-formed: one of another codec or k, or of a part of the
/// model. Reads the head alone; what follows is for [`decode`] to judge.
pub fn check_head(model: &ModelSpec, delta: &DeltaSpec, bytes: &[u8]) -> Result<(), DeltaError> {
    let mut r = Reader::new(bytes);
    let (expected, got) = (delta.codec, read_codec(&mut r)?);
    if got != expected {
        return Err(DeltaError::OtherCodec { expected, got });
    }
    let layout = model.tensors();
    let (expected, got) = (layout.len(), Fragment::read(&mut r, &layout)?.ok_or(DeltaError::WrongFragment)?.len());
    if got != expected {
        return Err(DeltaError::Partial { expected, got });
    }
    if delta.codec == CodecId::Sparse2 {
        let (expected, got) = (delta.k, planes::read_k(&mut r)?);
        if got != expected {
            return Err(DeltaError::OtherCount { expected, got });
        }
    }
    Ok(())
}

/// Error feedback: `values` = feedback · residual + pseudo-gradient. With a feedback of 0, whatever the residual.
#[inline(always)]
fn feed(feedback: f32, pseudo_gradient: &[f32], residual: &[f32], values: &mut [f32]) {
    if feedback == 0.0 {
        values.copy_from_slice(pseudo_gradient);
    } else {
        for ((v, r), g) in values.iter_mut().zip(residual).zip(pseudo_gradient) {
            *v = feedback * *r + *g;
        }
    }
}

/// Encodes a pseudo-gradient over the whole model. `residual` comes in with what earlier deltas lost and goes out with
/// what is lost now: exactly `feedback · residual + pseudo_gradient − decoded` in f32, or zeros where `feedback` is 0.
/// All are flat vectors. Values must be finite; if they are not, the delta is refused by whoever decodes it, or leaves
/// them out.
pub fn encode(model: &ModelSpec, delta: &DeltaSpec, pseudo_gradient: &[f32], residual: &mut [f32]) -> Vec<u8> {
    let (tensors, feedback) = (model.tensors(), delta.feedback as f32);
    let mut out = vec![];
    if delta.codec == CodecId::Sparse2 {
        let mut quantiser = planes::Quantiser::new(delta);
        let mut writer = planes::Writer::new(model, delta.k, &mut out);
        for chunk in tensors.iter().flat_map(planes::chunks) {
            let magnitudes = quantiser.chunk(&pseudo_gradient[chunk.clone()], &mut residual[chunk.clone()]);
            writer.chunk(chunk.len(), &quantiser.kept, magnitudes);
        }
        writer.finish();
        return out;
    }
    out.reserve_exact(*bytes_allowed(model, delta).end() as usize);
    header(delta.codec, &Fragment::all(model), &mut out);
    for tensor in &tensors {
        by_block!(delta.codec, encode(tensor, feedback, pseudo_gradient, residual, &mut out), ());
    }
    out
}

/// Decodes a delta piece by piece: `each(offset, values)` is called with runs of the flat vector in ascending order, so
/// memory stays bounded whatever the model's size. Places that are not visited are zero. An error may come after some
/// calls.
pub fn decode(model: &ModelSpec, bytes: &[u8], mut each: impl FnMut(usize, &[f32])) -> Result<(), DeltaError> {
    let mut r = Reader::new(bytes);
    let codec = read_codec(&mut r)?;
    let layout = model.tensors();
    let tensors = Fragment::read(&mut r, &layout)?.ok_or(DeltaError::WrongFragment)?;
    if codec == CodecId::Sparse2 {
        planes::read(tensors, &mut r, |_, chunk, kept, magnitudes| {
            let values = planes::values(magnitudes);
            for entry in kept {
                let value = values[usize::from(entry >> 14)];
                if value != 0.0 {
                    each(chunk.start + usize::from(entry & planes::PLACE), &[value]);
                }
            }
        })?;
    }
    for tensor in tensors {
        by_block!(codec, decode(tensor, &mut r, &mut each), Ok(()))?;
    }
    at_end(&r)
}

/// How long a delta is.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    /// ‖·‖² of each of the model's tensors; 0 for those that the delta does not cover.
    pub squares: Vec<f64>,
    /// The largest magnitude of all.
    pub largest: f32,
}

/// Reads a delta through once and measures it: what [`decode`] calls out, summed in an order that is the same on any
/// machine, and faster.
pub fn measure(model: &ModelSpec, bytes: &[u8]) -> Result<Lengths, DeltaError> {
    let mut r = Reader::new(bytes);
    let codec = read_codec(&mut r)?;
    let layout = model.tensors();
    let covered = Fragment::read_numbers(&mut r, layout.len())?.ok_or(DeltaError::WrongFragment)?;
    let mut squares = vec![0.0; layout.len()];
    let mut largest = 0f32;
    if codec == CodecId::Sparse2 {
        planes::read(&layout[covered.clone()], &mut r, |tensor, _, kept, magnitudes| {
            let values = planes::values(magnitudes);
            for entry in kept {
                let value = values[usize::from(entry >> 14)];
                squares[covered.start + tensor] += f64::from(value) * f64::from(value);
                largest = largest.max(value.abs());
            }
        })?;
    }
    for number in covered {
        let (square, most) = by_block!(codec, measure(&layout[number], &mut r), Ok((0.0, 0.0)))?;
        squares[number] += square;
        largest = largest.max(most);
    }
    at_end(&r)?;
    Ok(Lengths { squares, largest })
}

/// Adds a delta to the flat vector `into`, times `shares`, one for each of the model's tensors: the same bits as
/// [`decode`] and `into[i] += share * value`, and faster. After an error, some of it may have been added.
///
/// # Panics
/// If there are fewer shares than tensors, or `into` is shorter than the model.
pub fn add_scaled(model: &ModelSpec, bytes: &[u8], shares: &[f32], into: &mut [f32]) -> Result<(), DeltaError> {
    let mut r = Reader::new(bytes);
    let codec = read_codec(&mut r)?;
    let layout = model.tensors();
    let covered = Fragment::read_numbers(&mut r, layout.len())?.ok_or(DeltaError::WrongFragment)?;
    if codec == CodecId::Sparse2 {
        planes::read(&layout[covered.clone()], &mut r, |tensor, chunk, kept, magnitudes| {
            let (share, into) = (shares[covered.start + tensor], &mut into[chunk]);
            let values = planes::values(magnitudes).map(|value| share * value);
            // What is not sent is not touched, and a place without a magnitude is not sent: adding 0 would lose a −0.
            for entry in kept.iter().filter(|entry| magnitudes[usize::from(*entry >> 14 & 1)] != 0) {
                into[usize::from(entry & planes::PLACE)] += values[usize::from(entry >> 14)];
            }
        })?;
    }
    for number in covered {
        by_block!(codec, add_scaled(&layout[number], &mut r, shares[number], into), Ok(()))?;
    }
    at_end(&r)
}

fn at_end(r: &Reader<'_>) -> Result<(), DeltaError> {
    match r.remaining() {
        0 => Ok(()),
        more => Err(DeltaError::Trailing(more)),
    }
}
