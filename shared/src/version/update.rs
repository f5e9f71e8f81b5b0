//! An update: the change from one version to a later one, as a whole number of steps a value. The coordinator publishes
//! one a version, in blocks of 8, 4 or 2 bits a value; what rounding takes stays in its error feedback and is published
//! later. Updates in a row can be *squashed* into one, for a device that was away: sums of integers, so nothing is
//! lost.
//!
//! Layout, little-endian: magic `NJU1`, coding (u8), three zero bytes, version it starts from (u64), version it leads
//! to (u64), first and end tensor number (u32 each); then the blocks of 256 values, as [`block`] (one update) or
//! [`sums`] (a squash) lays them out.

mod block;
mod sums;

use super::{INTEGER_LIMIT, VersionError, Weights, power_of_two};
use crate::{
    bytes::Reader,
    delta::CodecId,
    fragment::{self, BLOCK, Fragment},
    ids::Version,
    model_spec::{ModelSpec, TensorSpec},
};
use block::Coding;

pub(super) const MAGIC: &[u8; 4] = b"NJU1";
const HEADER_BYTES: u64 = 32;

/// How the blocks of an update are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// The change of one version, rounded.
    Rounded(Coding),
    /// The exact change of several versions.
    Sums,
}

/// Not one of the codecs' numbers.
const CODING_SUMS: u8 = 16;

impl Layout {
    fn number(self) -> u8 {
        match self {
            Layout::Rounded(coding) => coding as u8,
            Layout::Sums => CODING_SUMS,
        }
    }

    fn of(number: u8) -> Option<Self> {
        match number {
            CODING_SUMS => Some(Layout::Sums),
            number => Coding::ALL.into_iter().find(|c| *c as u8 == number).map(Layout::Rounded),
        }
    }

    /// Reads a block's changes, in steps; each is below 2²⁵ in magnitude.
    fn read(self, r: &mut Reader<'_>, changes: &mut [i32]) -> Result<(), VersionError> {
        match self {
            Layout::Rounded(coding) => block::read(coding, r, changes),
            Layout::Sums => sums::read(r, changes),
        }
    }
}

/// Whether updates can be published in this codec: the block codecs can, `sparse2` and `f32` cannot.
pub fn is_known(codec: CodecId) -> bool {
    Coding::of(codec).is_some()
}

/// The most bytes that an update of the whole model takes, for a codec that [`is_known`]. A block that has nothing to
/// say is one byte.
pub fn bytes_most(spec: &ModelSpec, codec: CodecId) -> u64 {
    let coding = Coding::of(codec).unwrap_or(Coding::Blocks8);
    let block = |range: std::ops::Range<usize>| 1 + coding.payload_bytes(range.len()) as u64;
    HEADER_BYTES + spec.tensors().iter().flat_map(fragment::blocks).map(block).sum::<u64>()
}

fn write_header(spec: &ModelSpec, layout: Layout, from: Version, to: Version, out: &mut Vec<u8>) {
    out.extend(MAGIC);
    out.extend([layout.number(), 0, 0, 0]);
    out.extend(from.0.to_le_bytes());
    out.extend(to.0.to_le_bytes());
    Fragment::all(spec).write(out);
}

/// Publishes a change: encodes the update, applies exactly what was encoded to `weights`, and moves them to the next
/// version. `feedback` (a flat vector, in units of the weights) comes in as the change wanted plus what was never
/// published, and goes out as what is still unpublished. A codec that is not [`is_known`] counts as `blocks8`.
pub fn publish(spec: &ModelSpec, codec: CodecId, weights: &mut Weights, feedback: &mut [f32]) -> Vec<u8> {
    let coding = Coding::of(codec).unwrap_or(Coding::Blocks8);
    let (from, to) = (weights.version, weights.version.next());
    let mut out = Vec::with_capacity(bytes_most(spec, codec) as usize);
    write_header(spec, Layout::Rounded(coding), from, to, &mut out);
    for (tensor, fixed) in spec.tensors().iter().zip(&mut weights.tensors) {
        let step = power_of_two(fixed.step_exponent);
        for range in fragment::blocks(tensor) {
            let integers = &mut fixed.integers[range.start - tensor.offset..range.end - tensor.offset];
            block::publish(coding, step, integers, &mut feedback[range], &mut out);
        }
    }
    weights.version = to;
    out
}

/// What an update's first bytes say.
struct Header<'l> {
    layout: Layout,
    from: Version,
    to: Version,
    tensors: &'l [TensorSpec],
}

impl<'l> Header<'l> {
    fn read(r: &mut Reader<'_>, model: &'l [TensorSpec]) -> Result<Self, VersionError> {
        if &r.array::<4>()? != MAGIC {
            return Err(VersionError::WrongKind("update"));
        }
        let [number, reserved @ ..] = r.array::<4>()?;
        let layout = Layout::of(number).ok_or(VersionError::UnknownCodec(number))?;
        let (from, to) = (Version(r.u64()?), Version(r.u64()?));
        let fits = match layout {
            Layout::Rounded(_) => from.0.checked_add(1) == Some(to.0),
            Layout::Sums => from < to,
        };
        if reserved != [0; 3] || !fits {
            return Err(VersionError::WrongKind("update"));
        }
        let tensors = Fragment::read(r, model)?.ok_or(VersionError::WrongFragment)?;
        if tensors.len() != model.len() {
            return Err(VersionError::WrongFragment);
        }
        Ok(Header { layout, from, to, tensors })
    }
}

/// Applies an update or a squash. On an error the weights may be half changed: apply to a copy, or throw them away.
pub fn apply(spec: &ModelSpec, weights: &mut Weights, bytes: &[u8]) -> Result<(), VersionError> {
    let mut r = Reader::new(bytes);
    let model = spec.tensors();
    let Header { layout, from, to, tensors } = Header::read(&mut r, &model)?;
    if from != weights.version {
        return Err(VersionError::WrongVersion { expected: from, have: weights.version });
    }
    let mut changes = [0i32; BLOCK];
    for (tensor, fixed) in tensors.iter().zip(&mut weights.tensors) {
        for range in fragment::blocks(tensor) {
            let changes = &mut changes[..range.len()];
            layout.read(&mut r, changes)?;
            let integers = &mut fixed.integers[range.start - tensor.offset..range.end - tensor.offset];
            let mut largest = 0;
            for (n, change) in integers.iter_mut().zip(changes) {
                *n += *change;
                largest = n.unsigned_abs().max(largest);
            }
            if largest >= INTEGER_LIMIT.unsigned_abs() {
                return Err(VersionError::OutOfRange);
            }
        }
    }
    match r.remaining() {
        0 => {
            weights.version = to;
            Ok(())
        }
        more => Err(VersionError::Trailing(more)),
    }
}

/// Makes one update of several in a row (squashes among them are welcome): applying it gives the same bits as applying
/// them one after the other. None but the last may lead to a version that a keyframe redefines, because rounding does
/// not add up. Reads all of them at once, a block at a time.
pub fn squash(spec: &ModelSpec, updates: &[&[u8]]) -> Result<Vec<u8>, VersionError> {
    let model = spec.tensors();
    let mut parts = Vec::with_capacity(updates.len());
    let mut span: Option<(Version, Version)> = None;
    for bytes in updates {
        let mut r = Reader::new(bytes);
        let header = Header::read(&mut r, &model)?;
        let (first, have) = span.unwrap_or((header.from, header.from));
        if header.from != have {
            return Err(VersionError::WrongVersion { expected: header.from, have });
        }
        span = Some((first, header.to));
        parts.push((header.layout, r));
    }
    let (from, to) = span.ok_or(VersionError::WrongKind("row of updates"))?;
    let mut out = vec![];
    write_header(spec, Layout::Sums, from, to, &mut out);
    let (mut changes, mut sum) = ([0i32; BLOCK], [0i32; BLOCK]);
    for range in model.iter().flat_map(fragment::blocks) {
        let (changes, sum) = (&mut changes[..range.len()], &mut sum[..range.len()]);
        sum.fill(0);
        for (layout, r) in &mut parts {
            layout.read(r, changes)?;
            for (sum, change) in sum.iter_mut().zip(&*changes) {
                *sum += *change;
            }
            // What lies between two versions' weights; so the next addition cannot overflow either.
            if sum.iter().any(|s| s.unsigned_abs() >= sums::LIMIT) {
                return Err(VersionError::OutOfRange);
            }
        }
        sums::write(sum, &mut out);
    }
    match parts.iter().map(|(_, r)| r.remaining()).sum() {
        0 => Ok(out),
        more => Err(VersionError::Trailing(more)),
    }
}

#[cfg(test)]
mod tests;
