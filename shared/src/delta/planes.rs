//! What the sparse codec sends, before entropy coding: for each chunk which values, their signs, one bit of magnitude
//! each and what the two magnitudes are. A GPU can fill these arrays; [`Planes::to_bytes`] does the serial rest.

use super::{
    CodecId, DeltaError, DeltaSpec, HEADER_BYTES, SPARSE_HEADER_BYTES, header, magnitude, range_coder,
    select::Selector, subset,
};
use crate::{
    bytes::Reader,
    fragment::Fragment,
    model_spec::{ModelSpec, TensorSpec},
};
use std::ops::Range;

/// Values of a chunk. A tensor's last chunk may be shorter; none crosses a tensor's end.
pub const CHUNK: usize = subset::SIZE_MAX;

/// In an entry of [`Planes::kept`]: the value is negative.
pub const NEGATIVE: u16 = 1 << 15;
/// In an entry of [`Planes::kept`]: the value has the higher of the chunk's two magnitudes.
pub const HIGH: u16 = 1 << 14;
/// In an entry of [`Planes::kept`]: the value's place in its chunk.
pub const PLACE: u16 = (CHUNK - 1) as u16;

/// How many values of a chunk of `len` are sent: ⌈k · len / 4096⌉.
pub fn kept_of(k: u32, len: usize) -> usize {
    (k as usize * len).div_ceil(CHUNK)
}

/// Whether the places of a chunk's entries ascend and lie in it, as all that reads them relies on.
pub fn are_in_order(entries: &[u16], len: usize) -> bool {
    let places = entries.iter().map(|entry| entry & PLACE);
    places.clone().is_sorted_by(|a, b| a < b) && places.max().is_none_or(|place| usize::from(place) < len)
}

/// The chunks of a tensor, as ranges of the flat vector.
pub fn chunks(tensor: &TensorSpec) -> impl Iterator<Item = Range<usize>> + use<> {
    let range = tensor.range();
    range.clone().step_by(CHUNK).map(move |at| at..range.end.min(at + CHUNK))
}

/// A delta of the whole model in the sparse codec's terms: top-k per chunk and 2-bit values (SparseLoCo, Sarfi et al.,
/// arXiv 2508.15706).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Planes {
    /// How many of each 4096 values are sent.
    pub k: u32,
    /// Chunk after chunk in flat order, [`kept_of`] entries each, ascending by place: place (12 bits), [`HIGH`],
    /// [`NEGATIVE`]. In a chunk whose magnitudes are both zero, the first places without further bits.
    pub kept: Vec<u16>,
    /// For each chunk the codes of the low and the high magnitude, as in [`magnitude`].
    pub magnitudes: Vec<[u8; 2]>,
}

impl Planes {
    /// Chooses and quantises; `residual` is treated as [`encode`](super::encode) does. Ends in the same bytes.
    pub fn select(model: &ModelSpec, delta: &DeltaSpec, pseudo_gradient: &[f32], residual: &mut [f32]) -> Self {
        let mut planes = Planes { k: delta.k, ..Planes::default() };
        let mut quantiser = Quantiser::new(delta);
        for chunk in model.tensors().iter().flat_map(chunks) {
            let magnitudes = quantiser.chunk(&pseudo_gradient[chunk.clone()], &mut residual[chunk]);
            planes.kept.extend_from_slice(&quantiser.kept);
            planes.magnitudes.push(magnitudes);
        }
        planes
    }

    /// The encoded delta.
    ///
    /// # Panics
    /// If the arrays do not have the lengths that `model` and `k` call for, or places do not ascend.
    pub fn to_bytes(&self, model: &ModelSpec) -> Vec<u8> {
        let mut out = vec![];
        let mut writer = Writer::new(model, self.k, &mut out);
        let (mut kept, mut magnitudes) = (&self.kept[..], self.magnitudes.iter());
        for chunk in model.tensors().iter().flat_map(chunks) {
            let (of_chunk, rest) = kept.split_at(kept_of(self.k, chunk.len()));
            assert!(are_in_order(of_chunk, chunk.len()), "places of a chunk ascend within it");
            writer.chunk(chunk.len(), of_chunk, *magnitudes.next().expect("magnitudes for each chunk"));
            kept = rest;
        }
        assert!(kept.is_empty() && magnitudes.len() == 0, "more chunks than the model has");
        writer.finish();
        out
    }

    /// Reads a sparse delta back; one of another codec is [`DeltaError::UnknownCodec`], one that does not cover the
    /// whole model [`DeltaError::WrongFragment`]. Takes memory by the model's size, not by what the bytes claim.
    pub fn from_bytes(model: &ModelSpec, bytes: &[u8]) -> Result<Self, DeltaError> {
        let mut r = Reader::new(bytes);
        let codec = super::read_codec(&mut r)?;
        if codec != CodecId::Sparse2 {
            return Err(DeltaError::UnknownCodec(codec as u8));
        }
        let layout = model.tensors();
        let tensors =
            Fragment::read(&mut r, &layout)?.filter(|t| t.len() == layout.len()).ok_or(DeltaError::WrongFragment)?;
        let mut planes = Planes::default();
        planes.k = read(tensors, &mut r, |_, _, kept, magnitudes| {
            planes.kept.extend_from_slice(kept);
            planes.magnitudes.push(magnitudes);
        })?;
        super::at_end(&r)?;
        Ok(planes)
    }
}

/// Splits magnitudes at their mean: which are high, and the mean of the low and of the high ones (0 where there are
/// none). Exact zeros, if any, are the low ones.
pub(super) fn split(magnitudes: &[f32], is_high: &mut Vec<bool>) -> [f32; 2] {
    let count = magnitudes.len() as f32;
    let mean = magnitudes.iter().sum::<f32>() / count;
    let threshold = if magnitudes.contains(&0.0) { f32::from_bits(1) } else { mean };
    is_high.clear();
    is_high.extend(magnitudes.iter().map(|m| *m >= threshold));
    let mean_of = |high: bool| {
        let group = || magnitudes.iter().zip(is_high.iter()).filter(|(_, h)| **h == high).map(|(m, _)| m);
        group().sum::<f32>() / (group().count() as f32).max(1.0)
    };
    [mean_of(false), mean_of(true)]
}

/// Chooses and quantises chunk by chunk.
pub(super) struct Quantiser {
    k: u32,
    feedback: f32,
    selector: Selector,
    values: Vec<f32>,
    picked: Vec<f32>,
    is_high: Vec<bool>,
    /// The last chunk's entries, as in [`Planes::kept`].
    pub kept: Vec<u16>,
}

impl Quantiser {
    pub fn new(delta: &DeltaSpec) -> Self {
        let (feedback, selector) = (delta.feedback as f32, Selector::default());
        Quantiser { k: delta.k, feedback, selector, values: vec![], picked: vec![], is_high: vec![], kept: vec![] }
    }

    /// Does one chunk; tells its magnitudes and leaves its entries in `kept`.
    pub fn chunk(&mut self, pseudo_gradient: &[f32], residual: &mut [f32]) -> [u8; 2] {
        self.values.resize(pseudo_gradient.len(), 0.0);
        let values = &mut self.values[..];
        super::feed(self.feedback, pseudo_gradient, residual, values);
        self.kept.clear();
        self.selector.largest(values, kept_of(self.k, values.len()), &mut self.kept);
        self.picked.clear();
        self.picked.extend(self.kept.iter().map(|at| values[usize::from(*at)].abs()));
        let codes = split(&self.picked, &mut self.is_high).map(magnitude::code);
        let [low, high] = codes.map(magnitude::value);
        if codes == [0, 0] {
            for (entry, place) in self.kept.iter_mut().zip(0..) {
                *entry = place;
            }
        } else {
            for (entry, is_high) in self.kept.iter_mut().zip(&self.is_high) {
                let value = &mut values[usize::from(*entry)];
                let sent = if *is_high { high } else { low };
                if *is_high {
                    *entry |= HIGH;
                }
                if value.is_sign_negative() {
                    *entry |= NEGATIVE;
                    *value += sent;
                } else {
                    *value -= sent;
                }
            }
        }
        if self.feedback == 0.0 {
            residual.fill(0.0);
        } else {
            residual.copy_from_slice(values);
        }
        codes
    }
}

/// Writes a sparse delta chunk by chunk.
pub(super) struct Writer<'o> {
    coder: range_coder::Encoder<'o>,
    tables: subset::Tables,
    places: Vec<u16>,
}

impl<'o> Writer<'o> {
    pub fn new(model: &ModelSpec, k: u32, out: &'o mut Vec<u8>) -> Self {
        // At k = 64 a delta takes 1 byte for 53 parameters.
        out.reserve(HEADER_BYTES + SPARSE_HEADER_BYTES + model.parameters() / 48);
        header(CodecId::Sparse2, &Fragment::all(model), out);
        out.extend((k as u16).to_le_bytes());
        Writer { coder: range_coder::Encoder::new(out), tables: subset::Tables::new(), places: vec![] }
    }

    /// Writes a chunk of `len` values, of which `kept` are sent.
    pub fn chunk(&mut self, len: usize, kept: &[u16], [low, high]: [u8; 2]) {
        self.coder.put_bits(u32::from(low) | u32::from(high) << 8, 16);
        if [low, high] == [0, 0] {
            return;
        }
        self.places.clear();
        self.places.extend(kept.iter().map(|entry| entry & PLACE));
        subset::encode(&mut self.tables, &mut self.coder, 0, len as u32, &self.places);
        for eight in kept.chunks(8) {
            let bits = eight.iter().rev().fold(0, |bits, entry| bits << 2 | u32::from(entry >> 14));
            self.coder.put_bits(bits, 2 * eight.len() as u32);
        }
    }

    pub fn finish(self) {
        self.coder.finish();
    }
}

/// Reads how many of each 4096 values are sent: what a sparse payload begins with.
pub(super) fn read_k(r: &mut Reader<'_>) -> Result<u32, DeltaError> {
    let k = u32::from(u16::from_le_bytes(r.array()?));
    if (1..=CHUNK as u32).contains(&k) { Ok(k) } else { Err(DeltaError::BadCount(k)) }
}

/// Reads a sparse payload: `each(tensor, chunk, kept, magnitudes)` for every chunk of `tensors`, whose numbers begin at
/// 0 here. Tells k.
pub(super) fn read(
    tensors: &[TensorSpec],
    r: &mut Reader<'_>,
    mut each: impl FnMut(usize, Range<usize>, &[u16], [u8; 2]),
) -> Result<u32, DeltaError> {
    let k = read_k(r)?;
    let mut coder = range_coder::Decoder::new(r)?;
    let mut tables = subset::Tables::new();
    let mut room = [0u16; CHUNK];
    let all = tensors.iter().enumerate().flat_map(|(number, tensor)| chunks(tensor).map(move |chunk| (number, chunk)));
    for (tensor, chunk) in all {
        let kept = &mut room[..kept_of(k, chunk.len())];
        let [low, high, ..] = coder.bits(16)?.to_le_bytes();
        if [low, high] == [0, 0] {
            for (entry, place) in kept.iter_mut().zip(0..) {
                *entry = place;
            }
        } else {
            subset::decode(&mut tables, &mut coder, 0, chunk.len() as u32, kept)?;
            for eight in kept.chunks_mut(8) {
                let mut bits = coder.bits(2 * eight.len() as u32)?;
                for entry in eight {
                    *entry |= (bits as u16 & 3) << 14;
                    bits >>= 2;
                }
            }
        }
        each(tensor, chunk, kept, [low, high]);
    }
    coder.finish()?;
    Ok(k)
}

/// The values of a chunk's entries, by their upper two bits.
pub(super) fn values([low, high]: [u8; 2]) -> [f32; 4] {
    let [low, high] = [low, high].map(magnitude::value);
    [low, high, -low, -high]
}

/// Bounds on the length of the payload of `tensors`. Every chunk takes 16 bits; one with anything to send at most
/// log2 C(len, kept) + 2 · kept more, and the entropy coder 0.2 % on top (it is less than half of that).
pub(super) fn bytes_allowed(tensors: &[TensorSpec], k: u32) -> std::ops::RangeInclusive<u64> {
    let bits_of = |len: usize| {
        let kept = kept_of(k, len);
        if len == 0 { 0.0 } else { 16.0 + 2.0 * kept as f64 + subset::information_bits(len, kept) }
    };
    let whole_chunk = bits_of(CHUNK);
    let (mut chunks, mut bits) = (0u64, 0.0);
    for len in tensors.iter().map(TensorSpec::len) {
        chunks += len.div_ceil(CHUNK) as u64;
        bits += (len / CHUNK) as f64 * whole_chunk + bits_of(len % CHUNK);
    }
    let fixed = SPARSE_HEADER_BYTES as u64 + 8;
    fixed + (2 * chunks).saturating_sub(8)..=fixed + (1.002 * bits / 8.0) as u64 + 8
}
