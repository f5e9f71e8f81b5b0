//! The delta: what a device sends up. It encodes the pseudo-gradient (weights at the lease's base version minus weights
//! after its inner steps), with error feedback: what one delta's rounding loses is added to the next.
//!
//! Layout, little-endian: magic `NJD1`, codec id (u8), three zero bytes, first and end tensor number (u32 each), then
//! the codec's payload for each tensor in flat order. [`blocks8`] is the codec of today; ids 2 and up are kept for the
//! 4-bit, 2-bit and sparse codecs.

pub mod blocks8;

use crate::{
    bytes::{Reader, Truncated},
    fragment::Fragment,
    model_spec::{ModelSpec, TensorSpec},
};

const MAGIC: &[u8; 4] = b"NJD1";
const HEADER_BYTES: usize = 16;

/// How a delta's values are coded. The number is what stands in the header and in capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CodecId {
    /// Dense 8-bit blocks of 256 with an f32 scale: 8.125 bits a parameter.
    Blocks8 = 1,
}

impl CodecId {
    /// All codecs that this build can read and write, best first.
    pub const ALL: &'static [CodecId] = &[CodecId::Blocks8];

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
    /// The tensors that it names are not in the model.
    #[error("it names tensors that the model does not have")]
    WrongFragment,
    /// A scale that is negative, infinite or not a number.
    #[error("a block's scale is not a finite number ≥ 0")]
    BadScale,
    /// Too short.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Too long.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
}

/// Length in bytes of a delta that covers the whole model.
pub fn encoded_bytes(spec: &ModelSpec, codec: CodecId) -> u64 {
    let payload: usize = match codec {
        CodecId::Blocks8 => spec.tensors().iter().map(blocks8::tensor_bytes).sum(),
    };
    (HEADER_BYTES + payload) as u64
}

/// Encodes a pseudo-gradient over the whole model. `residual` comes in with what earlier deltas lost and goes out with
/// what this one lost: exactly `pseudo_gradient + residual − decoded`. All three are flat vectors.
pub fn encode(spec: &ModelSpec, codec: CodecId, pseudo_gradient: &[f32], residual: &mut [f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_bytes(spec, codec) as usize);
    out.extend(MAGIC);
    out.extend([codec as u8, 0, 0, 0]);
    Fragment::all(spec).write(&mut out);
    for tensor in spec.tensors() {
        match codec {
            CodecId::Blocks8 => blocks8::encode(&tensor, pseudo_gradient, residual, &mut out),
        }
    }
    out
}

/// Decodes a delta block by block: `each(offset, values)` is called with runs of the flat vector in ascending order, so
/// memory stays bounded whatever the model's size. An error may come after some calls.
pub fn decode(spec: &ModelSpec, bytes: &[u8], mut each: impl FnMut(usize, &[f32])) -> Result<(), DeltaError> {
    let mut r = Reader::new(bytes);
    if &r.array::<4>()? != MAGIC {
        return Err(DeltaError::NotADelta);
    }
    let [codec, reserved @ ..] = r.array::<4>()?;
    if reserved != [0; 3] {
        return Err(DeltaError::NotADelta);
    }
    let codec = CodecId::from_number(u32::from(codec)).ok_or(DeltaError::UnknownCodec(codec))?;
    let layout = spec.tensors();
    let tensors: &[TensorSpec] = Fragment::read(&mut r, &layout)?.ok_or(DeltaError::WrongFragment)?;
    for tensor in tensors {
        match codec {
            CodecId::Blocks8 => blocks8::decode(tensor, &mut r, &mut each)?,
        }
    }
    match r.remaining() {
        0 => Ok(()),
        more => Err(DeltaError::Trailing(more)),
    }
}
