//! The sparse delta on the GPU: encoding with error feedback. The twin is [`nightjar_shared::delta`] itself, which also
//! does the entropy coding, and all of it where no kernel runs.

use crate::{
    choice::{self, Op},
    kernel::{Launch, runs_on},
};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use nightjar_shared::{
    delta::{
        self, CodecId, magnitude,
        planes::{self, Planes},
    },
    model_spec::ModelSpec,
    run_spec::DeltaSpec,
};
use nightjar_wgsl::{DELTA_ENCODE, DeltaChunk, DeltaShape};
use std::ops::Range;

/// Values that are on the GPU at once while a delta is encoded: 64 MiB of each vector.
const SPAN: usize = 1 << 24;

/// All magnitudes, by their codes.
fn magnitudes() -> impl Iterator<Item = u32> {
    (0..=255).map(|code| magnitude::value(code).to_bits())
}

/// What one launch of the encoder gave; the first two hold bits, not numbers.
pub struct Selected {
    kept: Tensor<1>,
    codes: Tensor<1>,
    /// What is left of each value.
    pub residual: Tensor<1>,
}

/// Chooses and quantises `feedback · residual + gradient` (both of one length, on a `wgpu` device, at least one chunk).
/// `chunks` are ranges of it, each of 1 to 4096 values; what lies in none keeps its residual.
pub fn select(gradient: &Tensor<1>, residual: Tensor<1>, chunks: &[Range<usize>], k: u32, feedback: f32) -> Selected {
    let mut entries = 0;
    let mut table = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let keep = planes::kept_of(k, chunk.len());
        let (start, len) = (chunk.start as u32, chunk.len() as u32);
        table.push(DeltaChunk { start, len, entries: entries as u32, keep: keep as u32 });
        entries += keep;
    }
    let shape = DeltaShape { chunks: chunks.len() as u32, feedback, zero: 0 };
    let launch = Launch::new(&DELTA_ENCODE, &shape).table(&table).words(magnitudes()).read(gradient).change(residual);
    let mut out = launch.output([entries]).output([chunks.len()]).run(chunks.len());
    let residual = out.tensor();
    Selected { kept: out.tensor(), codes: out.tensor(), residual }
}

impl Selected {
    /// Reads it from the GPU: appends entries and magnitudes to `planes`, and writes the residual. `None` if the device
    /// failed or a value was not finite; what was appended is then of no use.
    fn read(self, planes: &mut Planes, residual: &mut [f32]) -> Option<()> {
        let all = Transaction::default().register(self.kept).register(self.codes).register(self.residual);
        let data = all.try_execute().ok()?;
        let [kept, codes, left] = &data[..] else { return None };
        let words = |data: &TensorData| -> Option<Vec<u32>> {
            Some(data.as_slice::<f32>().ok()?.iter().map(|word| word.to_bits()).collect())
        };
        let codes = words(codes)?;
        if codes.iter().any(|word| word >> 16 != 0) {
            return None;
        }
        planes.kept.extend(words(kept)?.into_iter().map(|word| word as u16));
        planes.magnitudes.extend(codes.into_iter().map(|word| [word as u8, (word >> 8) as u8]));
        let left = left.as_slice::<f32>().ok().filter(|left| left.len() == residual.len())?;
        residual.copy_from_slice(left);
        Some(())
    }
}

/// Chunks of the model as spans of the flat vector with the chunks that lie in each, relative to its start.
fn spans(model: &ModelSpec) -> Vec<(Range<usize>, Vec<Range<usize>>)> {
    let mut spans: Vec<(Range<usize>, Vec<Range<usize>>)> = vec![];
    for chunk in model.tensors().iter().flat_map(planes::chunks) {
        match spans.last_mut().filter(|(span, _)| chunk.end - span.start <= SPAN) {
            Some((span, chunks)) => {
                chunks.push(chunk.start - span.start..chunk.end - span.start);
                span.end = chunk.end;
            }
            None => spans.push((chunk.clone(), std::iter::once(0..chunk.len()).collect())),
        }
    }
    spans
}

/// What is sent of a pseudo-gradient, and the new residual (which is only touched if all went well), by the kernel;
/// `None` where it cannot run, a value was not finite, or a driver made of the kernel something that nobody can read.
pub fn select_planes(
    model: &ModelSpec,
    spec: &DeltaSpec,
    pseudo_gradient: &[f32],
    residual: &mut [f32],
    device: &Device,
) -> Option<Planes> {
    if !runs_on(device) || spec.codec != CodecId::Sparse2 {
        return None;
    }
    let mut planes = Planes { k: spec.k, ..Planes::default() };
    let mut left = vec![0.0; residual.len()];
    for (span, chunks) in spans(model) {
        let upload = |values: &[f32]| {
            let data = TensorData::new(values[span.clone()].to_vec(), [span.len()]);
            Tensor::<1>::from_data(data, device)
        };
        let selected = select(&upload(pseudo_gradient), upload(residual), &chunks, spec.k, spec.feedback as f32);
        let first = planes.kept.len();
        selected.read(&mut planes, &mut left[span.clone()])?;
        let mut rest = &planes.kept[first..];
        for chunk in &chunks {
            let (entries, after) = rest.split_at_checked(planes::kept_of(spec.k, chunk.len()))?;
            rest = planes::are_in_order(entries, chunk.len()).then_some(after)?;
        }
    }
    residual.copy_from_slice(&left);
    Some(planes)
}

/// As [`delta::encode`], which it is wherever the kernel does not run. The kernel may choose another of two equal
/// values and round a magnitude on the border of two codes the other way; the residual is exact either way, but for
/// values below 2⁻¹²⁶, which a GPU may take for zero.
pub fn encode(
    model: &ModelSpec,
    spec: &DeltaSpec,
    pseudo_gradient: &[f32],
    residual: &mut [f32],
    device: &Device,
) -> Vec<u8> {
    if choice::uses(Op::DeltaEncode, device)
        && let Some(planes) = select_planes(model, spec, pseudo_gradient, residual, device)
    {
        return planes.to_bytes(model);
    }
    delta::encode(model, spec, pseudo_gradient, residual)
}
