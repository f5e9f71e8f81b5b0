//! What each operation is measured on: about what a layer of a model of 100 to 500 million parameters works on.

use super::Op;
use crate::op::{self, Heads, Update};
use burn::tensor::{Device, Distribution, Tensor};
use nightjar_shared::{
    delta::{CodecId, planes::Planes},
    ids::Version,
    model_spec::ModelSpec,
    run_spec::DeltaSpec,
    version::{Weights, update},
};
use std::any::Any;

/// Tokens of a micro-batch, and the widths of a model with it.
const TOKENS: usize = 2048;
const WIDTH: usize = 1024;
const INTERMEDIATE: usize = 2816;
/// Rows of logits that are in memory at once, and their width.
const LOSS_ROWS: usize = 256;
const VOCABULARY: usize = 32_768;

/// One run of a trial.
type Run = Box<dyn FnMut() -> Box<dyn Any>>;

/// One operation, ready to run again and again on the same memory.
pub struct Trial {
    /// Which.
    pub op: Op,
    /// Bytes that must be read and written at the least, each value once.
    pub bytes: usize,
    /// Runs it once, the way that is chosen just then. What it gives is to be kept until the device has the run in hand:
    /// a fused operation does not write what nobody holds.
    pub run: Run,
}

impl Trial {
    /// The trial of an operation; `None` where there is nothing to choose.
    pub fn of(op: Op, device: &Device) -> Option<Trial> {
        let random = |rows: usize, width: usize| Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 1.0), device);
        let rows = |width: usize| random(TOKENS, width);
        let values = TOKENS * WIDTH;
        let (bytes, run): (usize, Run) = match op {
            Op::RmsNorm => {
                let (x, gain) = (rows(WIDTH), random(1, WIDTH));
                (8 * values, Box::new(move || Box::new(op::rms_norm(&x, &gain, 1e-5))))
            }
            Op::RmsNormBackward => {
                let (dy, x, gain, inverse) = (rows(WIDTH), rows(WIDTH), random(1, WIDTH), rows(1));
                let state = (rows(WIDTH), gain.clone());
                (16 * values, again(state, move |(dx, _)| Some(op::rms_norm_backward(&dy, &x, &gain, &inverse, dx))))
            }
            Op::Rope => {
                let shape = Heads { batch: 2, context: TOKENS / 2, heads: 16, kv: 4, size: 64 };
                let (cos, sin) = (random(shape.context, shape.size / 2), random(shape.context, shape.size / 2));
                let turned = TOKENS * (shape.heads + shape.kv) * shape.size;
                let packed = rows(shape.packed_width());
                (8 * turned, again(packed, move |packed| Some(op::rope(packed, shape, &cos, &sin, 1.0))))
            }
            Op::Swiglu => {
                let gate_up = rows(2 * INTERMEDIATE);
                (12 * TOKENS * INTERMEDIATE, Box::new(move || Box::new(op::swiglu(&gate_up))))
            }
            Op::SwigluBackward => {
                let (gate_up, dy) = (rows(2 * INTERMEDIATE), rows(INTERMEDIATE));
                (20 * TOKENS * INTERMEDIATE, again(gate_up, move |gate_up| Some(op::swiglu_backward(gate_up, &dy))))
            }
            Op::AdamW => {
                let g = rows(WIDTH);
                let update = Update {
                    gradient_scale: 0.5,
                    decay: 0.9999,
                    beta1: 0.9,
                    beta2: 0.95,
                    step_size: 1e-3,
                    second_correction: 1.0,
                    epsilon: 1e-8,
                };
                let state = [rows(WIDTH), rows(WIDTH), rows(WIDTH).abs()];
                (28 * values, again(state, move |[w, m, v]| Some(op::adamw(w, m, v, &g, update))))
            }
            Op::GradNorm => {
                let g = rows(WIDTH);
                (4 * values, Box::new(move || Box::new(op::sum_of_squares(&g))))
            }
            Op::DeltaEncode => delta_encode(device),
            Op::DeltaAdd => delta_add(device),
            Op::UpdateApply => update_apply(device),
            Op::Attention => {
                let shape = Heads { batch: 2, context: TOKENS / 2, heads: 16, kv: 4, size: 64 };
                let tables = op::Tables::new(shape.context, shape, 10_000.0, device);
                let (packed, dout) = (rows(shape.packed_width()), rows(WIDTH));
                let run = move || -> Box<dyn Any> {
                    let (out, saved) = op::attention(packed.clone(), shape, &tables);
                    Box::new((out, op::attention_backward(dout.clone(), saved, shape, &tables)))
                };
                // Packed rows in, their gradient out, the result out and its gradient in.
                (8 * TOKENS * (shape.packed_width() + WIDTH), Box::new(run))
            }
            Op::CrossEntropy => {
                let targets: Vec<u32> = (0..LOSS_ROWS as u32).map(|i| i * 7 % VOCABULARY as u32).collect();
                let logits = random(LOSS_ROWS, VOCABULARY);
                // From fresh logits each time, as a product makes them; the copy is the same for both ways.
                let run =
                    move || -> Box<dyn Any> { Box::new(op::cross_entropy(logits.clone().mul_scalar(1.5), &targets, Some(1e-3))) };
                (12 * LOSS_ROWS * VOCABULARY, Box::new(run))
            }
        };
        Some(Trial { op, bytes, run })
    }
}

/// A run that changes its state in place; one that failed does nothing from then on.
fn again<T: 'static>(state: T, mut step: impl FnMut(T) -> Option<T> + 'static) -> Run {
    let mut state = Some(state);
    Box::new(move || {
        state = state.take().and_then(&mut step);
        Box::new(())
    })
}

/// 3 million parameters: the CPU's way is part of these trials, and they are to end soon on a slow one too.
fn model() -> (ModelSpec, Vec<f32>) {
    let spec = ModelSpec::small();
    // What is drawn does not matter to the time; drawing all of it by the run's generator would.
    let values = (0..spec.parameters() as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-10 - 8e-4).collect();
    (spec, values)
}

fn sparse() -> DeltaSpec {
    DeltaSpec { codec: CodecId::Sparse2, ..DeltaSpec::default() }
}

fn delta_encode(device: &Device) -> (usize, Run) {
    let ((model, gradient), spec, device) = (model(), sparse(), device.clone());
    let mut residual = vec![0.0; gradient.len()];
    let bytes = 12 * gradient.len();
    (bytes, Box::new(move || Box::new(op::delta::encode(&model, &spec, &gradient, &mut residual, &device))))
}

fn delta_add(device: &Device) -> (usize, Run) {
    let (model, gradient) = model();
    let planes = Planes::select(&model, &sparse(), &gradient, &mut vec![0.0; gradient.len()]);
    let values = Tensor::<1>::zeros([gradient.len()], device);
    let bytes = 10 * planes.kept.len();
    (bytes, again(values, move |values| op::delta::add_planes(values, &model, &planes, 0.5).ok()))
}

fn update_apply(device: &Device) -> (usize, Run) {
    let (model, mut feedback) = model();
    let start = Weights::start(&model, &feedback);
    let steps: Vec<i32> = start.tensors.iter().map(|t| t.step_exponent).collect();
    let flat = Tensor::<1>::from_data(&start.flat()[..], device);
    let bytes = update::publish(&model, CodecId::Blocks2, &mut start.clone(), &mut feedback);
    let moved = 8 * model.parameters() + bytes.len();
    // Every time from the same weights, since an update fits its own version only.
    (moved, Box::new(move || Box::new(op::update::update_apply(flat.clone(), &model, &steps, Version(0), &bytes).ok())))
}
