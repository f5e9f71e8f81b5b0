//! A published update, unpacked and added to weights that are on the GPU. The twin is [`nightjar_shared::version`],
//! which also takes what the kernel does not: squashes, and anything that is not as it should be.

use crate::{
    kernel::{Kernel, Launch, parameters},
    tuning::{self, Op},
};
use burn::tensor::{Tensor, TensorData};
use nightjar_shared::{
    bytes::Reader,
    delta::CodecId,
    fragment::{self, BLOCK},
    ids::Version,
    model_spec::{ModelSpec, TensorSpec},
    version::{Fixed, VersionError, Weights, update},
};

parameters! {
    /// As in `update_apply.wgsl`.
    pub struct Shape { blocks: u32, bits: u32 }
}

parameters! {
    /// `Block` in `update_apply.wgsl`.
    pub struct Block { start: u32, len: u32, packed: u32, bytes: u32, head: u32, step: f32 }
}

/// Unpacks and adds.
pub static APPLY: Kernel =
    Kernel::new::<Shape>("update_apply", include_str!("../../wgsl/update_apply.wgsl"), [256, 1, 1]).with_table::<Block>();

/// Applies an update that follows `version` to weights as one flat vector; `step_exponents` are the tensors' own, as
/// [`Fixed`] has them. Gives the same bits and makes the same refusals as [`update::apply`].
pub fn update_apply(
    weights: Tensor<1>,
    model: &ModelSpec,
    step_exponents: &[i32],
    version: Version,
    bytes: &[u8],
) -> Result<Tensor<1>, VersionError> {
    let layout = model.tensors();
    if layout.len() != step_exponents.len() || weights.dims() != [model.parameters()] {
        return Err(VersionError::WrongFragment);
    }
    let plan = if tuning::takes(Op::UpdateApply, &weights) { plan(&layout, step_exponents, version, bytes) } else { None };
    let Some((bits, blocks)) = plan else { return apply_on_host(weights, model, step_exponents, version, bytes) };
    if blocks.is_empty() {
        return Ok(weights);
    }
    let words = bytes.chunks(4).map(|four| four.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    let count = blocks.len();
    let launch = Launch::new(&APPLY, &Shape { blocks: count as u32, bits }).table(&blocks).words(words);
    let mut out = launch.change(weights).zeroed([1]).run(count);
    let (weights, flag) = (out.tensor(), out.tensor::<1>());
    let flag = flag.into_data().try_to_vec::<f32>().map_err(|_| VersionError::OutOfRange)?;
    if flag[0].to_bits() == 0 { Ok(weights) } else { Err(VersionError::OutOfRange) }
}

/// Where the blocks are that change anything. Only heads are read: a byte for each 256 values. `None` where the update is
/// not plainly what it should be; the twin then says why, or knows it.
fn plan(layout: &[TensorSpec], step_exponents: &[i32], version: Version, bytes: &[u8]) -> Option<(u32, Vec<Block>)> {
    let mut r = Reader::new(bytes);
    let (magic, [coding, reserved @ ..]) = (r.array::<4>().ok()?, r.array::<4>().ok()?);
    let bits = match CodecId::from_number(u32::from(coding))? {
        CodecId::Blocks8 => 8,
        CodecId::Blocks4 => 4,
        CodecId::Blocks2 => 2,
        CodecId::Sparse2 | CodecId::F32 => return None,
    };
    let (from, to) = (r.u64().ok()?, r.u64().ok()?);
    let (first, end) = (r.u32().ok()?, r.u32().ok()?);
    if &magic != b"NJU1"
        || reserved != [0; 3]
        || from != version.0
        || to != version.next().0
        || (first, end as usize) != (0, layout.len())
    {
        return None;
    }
    let exponent_max = match bits {
        8 => 17,
        4 => 21,
        _ => 22,
    };
    let mut blocks = vec![];
    for (tensor, exponent) in layout.iter().zip(step_exponents) {
        let step = Fixed { step_exponent: *exponent, integers: vec![1] }.values().next()?;
        for range in fragment::blocks(tensor) {
            let head = r.u8().ok()?;
            if head == 0 {
                continue;
            }
            let packed = bytes.len() - r.remaining();
            let payload = r.take((range.len() * bits).div_ceil(8)).ok()?;
            let flags_fit = if bits == 2 { [0, 0x80, 0xc0].contains(&(head & 0xe0)) } else { head & 0xe0 == 0 };
            if !flags_fit || !(1..=exponent_max + 1).contains(&(head & 0x1f)) || !spare_is_zero(payload, range.len(), bits) {
                return None;
            }
            let [start, len, packed, bytes] = [range.start, range.len(), packed, payload.len()].map(|n| n as u32);
            blocks.push(Block { start, len, packed, bytes, head: u32::from(head), step });
        }
    }
    (r.remaining() == 0).then_some((bits as u32, blocks))
}

/// Places of a block's bytes beyond its last value hold zeros; a whole block has none.
fn spare_is_zero(payload: &[u8], values: usize, bits: usize) -> bool {
    let mask = 0xff >> (8 - bits);
    let code = |place: usize| payload[place % payload.len()] >> (bits * (place / payload.len())) & mask;
    values == BLOCK || (values..payload.len() * 8 / bits).all(|place| code(place) == 0u8)
}

fn apply_on_host(
    weights: Tensor<1>,
    model: &ModelSpec,
    step_exponents: &[i32],
    version: Version,
    bytes: &[u8],
) -> Result<Tensor<1>, VersionError> {
    let device = weights.device();
    let flat = weights.into_data().try_to_vec::<f32>().map_err(|_| VersionError::OutOfRange)?;
    if !flat.iter().all(|w| w.is_finite()) {
        return Err(VersionError::OutOfRange);
    }
    let tensors = model.tensors().into_iter().zip(step_exponents).map(|(tensor, exponent)| {
        let step_exponent = *exponent;
        // Whole steps below 2^24: the quotient is exact.
        let step = Fixed { step_exponent, integers: vec![1] }.values().next().unwrap_or(1.0);
        Fixed { step_exponent, integers: flat[tensor.range()].iter().map(|w| (w / step) as i32).collect() }
    });
    let mut weights = Weights { version, tensors: tensors.collect() };
    update::apply(model, &mut weights, bytes)?;
    let flat = weights.flat();
    let length = flat.len();
    Ok(Tensor::from_data(TensorData::new(flat, [length]), &device))
}
