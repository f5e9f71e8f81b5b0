//! What each operation is measured on: about what a layer of a model of 100 to 500 million parameters works on.

use crate::{
    choice::{Op, halves_products},
    op::{self, Heads, Update},
};
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor, TensorData, Transaction};
use nightjar_shared::{
    delta::{self, CodecId, planes},
    model_spec::ModelSpec,
    run_spec::DeltaSpec,
};
use std::ops::Range;

/// Tokens of a micro-batch, enough to fill a large GPU.
pub const TOKENS: usize = 2048;
/// The widths of the model.
const WIDTH: usize = 1024;
const INTERMEDIATE: usize = 2816;
/// The width of a row of logits; an eighth of the tokens have theirs in memory at once.
const VOCABULARY: usize = 32_768;

/// An update as an optimizer asks for it.
pub(super) const UPDATE: Update = Update {
    gradient_scale: 0.5,
    decay: 0.9999,
    beta1: 0.9,
    beta2: 0.95,
    step_size: 1e-3,
    second_correction: 1.0,
    epsilon: 1e-8,
};

/// Takes its state, gives the state anew, then what else it makes.
type Step = Box<dyn FnMut(Vec<Tensor<2>>) -> Vec<Tensor<2>>>;

/// One operation, ready to run again and again on the same memory.
pub struct Trial {
    /// Which.
    pub op: Op,
    /// Bytes that must be read and written at the least, each value once.
    pub bytes: usize,
    /// The type of products, and of what stands between two of them.
    pub products: FloatDType,
    /// What the operation changes in place.
    state: Vec<Tensor<2>>,
    step: Step,
}

impl Trial {
    /// The trial of an operation on so many tokens, at least 2: [`TOKENS`], or fewer where a software adapter computes.
    /// What stands between two products is of their type.
    pub fn of(op: Op, device: &Device, tokens: usize, products: FloatDType) -> Trial {
        // What comes after the last product knows of no other type.
        let comes_after = matches!(op, Op::AdamW | Op::GradNorm | Op::DeltaEncode);
        let products = if comes_after { FloatDType::F32 } else { products };
        let random =
            |rows: usize, width: usize| Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 1.0), device);
        let rows = |width: usize| random(tokens, width);
        let between = |rows: usize, width: usize| random(rows, width).cast(products);
        let wide = DType::from(products).size();
        let (values, rows_of_logits) = (tokens * WIDTH, tokens.div_ceil(8));
        let heads = Heads { batch: 2, context: tokens / 2, heads: 16, kv: 4, size: WIDTH / 16 };
        let (bytes, state, step): (usize, Vec<Tensor<2>>, Step) = match op {
            Op::RmsNorm => {
                let (x, gain) = (rows(WIDTH), random(1, WIDTH));
                let step = move |_| <[_; 2]>::from(op::rms_norm(&x, &gain, 1e-5, products)).into();
                ((4 + wide) * values, vec![], Box::new(step))
            }
            Op::RmsNormBackward => {
                let (x, gain, inverse) = (rows(WIDTH), random(1, WIDTH), rows(1));
                let step = move |mut state: Vec<_>| {
                    let [dx, dy] = [state.remove(0), state.remove(0)];
                    let made = op::rms_norm_backward(dy, &x, &gain, &inverse, dx);
                    vec![made.dx, made.y, made.dgain]
                };
                ((12 + 2 * wide) * values, vec![rows(WIDTH), between(tokens, WIDTH)], Box::new(step))
            }
            Op::Rope => {
                let (cos, sin) = (random(heads.context, heads.size / 2), random(heads.context, heads.size / 2));
                let turned = heads.tokens() * (heads.heads + heads.kv) * heads.size;
                let step = move |mut state: Vec<_>| vec![op::rope(state.remove(0), heads, &cos, &sin, 1.0)];
                (2 * wide * turned, vec![between(heads.tokens(), heads.packed_width())], Box::new(step))
            }
            Op::Swiglu => {
                let gate_up = between(tokens, 2 * INTERMEDIATE);
                (3 * wide * tokens * INTERMEDIATE, vec![], Box::new(move |_| vec![op::swiglu(&gate_up)]))
            }
            Op::SwigluBackward => {
                let step = move |mut state: Vec<_>| {
                    let made = op::swiglu_backward(state.remove(0), state.remove(0));
                    vec![made.dgate_up, made.y]
                };
                let state = [2, 1].map(|widths| between(tokens, widths * INTERMEDIATE));
                (6 * wide * tokens * INTERMEDIATE, state.into(), Box::new(step))
            }
            Op::Attention => {
                let tables = op::Tables::new(heads.context, heads, 10_000.0, device);
                let (packed, dout) = (between(heads.tokens(), heads.packed_width()), between(heads.tokens(), WIDTH));
                let step = move |_| {
                    let (out, saved) = op::attention(packed.clone(), heads, &tables);
                    vec![out, op::attention_backward(dout.clone(), saved, heads, &tables)]
                };
                // Packed rows in, their gradient out, the result out and its gradient in.
                (2 * wide * heads.tokens() * (heads.packed_width() + WIDTH), vec![], Box::new(step))
            }
            Op::CrossEntropy => {
                let targets: Vec<u32> = (0..rows_of_logits as u32).map(|i| i * 7 % VOCABULARY as u32).collect();
                let logits = between(rows_of_logits, VOCABULARY);
                let step = move |_| {
                    // Fresh logits each time, as a product makes them; making them is the same for both ways.
                    let (nats, gradient) = op::cross_entropy(logits.clone().mul_scalar(1.5), &targets, Some(1.0));
                    [Some(nats.reshape([1, -1])), gradient].into_iter().flatten().collect()
                };
                (3 * wide * rows_of_logits * VOCABULARY, vec![], Box::new(step))
            }
            Op::Product => {
                // The three of a layer's widest matrix.
                let f16 = |rows, width| random(rows, width).cast(DType::F16);
                let (x, w, dy) = (f16(tokens, WIDTH), f16(INTERMEDIATE, WIDTH), f16(tokens, INTERMEDIATE));
                let step = move |mut state: Vec<_>| {
                    let dw = op::linear_backward_weight(Some(state.remove(0)), &dy, &x);
                    vec![dw, op::linear(&x, &w), op::linear_backward(&dy, &w)]
                };
                let bytes = 6 * (values + tokens * INTERMEDIATE) + 12 * WIDTH * INTERMEDIATE;
                (bytes, vec![Tensor::zeros([INTERMEDIATE, WIDTH], device)], Box::new(step))
            }
            Op::HalfProducts => {
                // A layer's widest product, as a step makes it: the matrix is there in f16, the rows come from f32.
                let (x, w) = (rows(WIDTH), random(INTERMEDIATE, WIDTH).div_scalar((WIDTH as f32).sqrt()));
                let half = device.supports_dtype(DType::F16).then(|| w.clone().cast(DType::F16));
                let step = move |_| {
                    let y = match &half {
                        Some(half) if halves_products(&x.device()) => op::linear(&x.clone().cast(DType::F16), half),
                        _ => op::linear(&x, &w),
                    };
                    vec![y.cast(DType::F32)]
                };
                (4 * (values + WIDTH * INTERMEDIATE + tokens * INTERMEDIATE), vec![], Box::new(step))
            }
            Op::AdamW => {
                let g = rows(WIDTH);
                let step = move |mut state: Vec<_>| {
                    let [w, m, v] = [state.remove(0), state.remove(0), state.remove(0)];
                    op::adamw(w, m, v, &g, UPDATE).into()
                };
                (28 * values, vec![rows(WIDTH), rows(WIDTH), rows(WIDTH).abs()], Box::new(step))
            }
            Op::GradNorm => {
                let g = rows(WIDTH);
                // The root: a sum of so many squares is compared by its own size.
                let step =
                    move |_| vec![op::sum_of_squares(&g).sqrt().div_scalar((values as f32).sqrt()).reshape([1, 1])];
                (4 * values, vec![], Box::new(step))
            }
            Op::DeltaEncode => delta_encode(device),
        };
        Trial { op, bytes, products, state, step }
    }

    /// Runs it once, the way that is chosen just then. What it gives is to be kept until the device has the run in
    /// hand: a fused operation does not write what nobody holds.
    pub fn run(&mut self) -> Vec<Tensor<2>> {
        let kept = self.state.len();
        let mut made = (self.step)(std::mem::take(&mut self.state));
        let rest = made.split_off(kept.min(made.len()));
        self.state = made;
        rest
    }

    /// All that a run gives, tensor by tensor, from the same start every time; `None` if the device fails at it.
    pub fn result(&mut self) -> Option<Vec<Vec<f32>>> {
        read((self.step)(self.state.clone()))
    }
}

/// From the device, tensor by tensor; `None` if it fails.
pub(super) fn read(tensors: Vec<Tensor<2>>) -> Option<Vec<Vec<f32>>> {
    let all = tensors.into_iter().fold(Transaction::default(), |all, tensor| all.register(tensor.cast(DType::F32)));
    all.try_execute().ok()?.into_iter().map(|data| data.try_to_vec::<f32>().ok()).collect()
}

/// 3 million parameters: the CPU's way is part of these trials, and they are to end soon on a slow one too.
fn model() -> (ModelSpec, Vec<f32>) {
    let spec = ModelSpec::small();
    // What is drawn does not matter to the time; drawing all of it by the run's generator would.
    let values =
        (0..spec.parameters() as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-10 - 8e-4).collect();
    (spec, values)
}

fn sparse() -> DeltaSpec {
    DeltaSpec { codec: CodecId::Sparse2, ..DeltaSpec::default() }
}

fn delta_encode(device: &Device) -> (usize, Vec<Tensor<2>>, Step) {
    let ((model, gradient), spec, device) = (model(), sparse(), device.clone());
    let length = gradient.len();
    let step = move |_| {
        let mut residual = vec![0.0; length];
        let delta = op::delta::encode(&model, &spec, &gradient, &mut residual, &device);
        // How much of each chunk was chosen: the largest, or something else.
        let chosen = |chunk: Range<usize>| {
            let both = gradient[chunk.clone()].iter().zip(&residual[chunk]);
            both.filter(|(gradient, left)| gradient != left).map(|(gradient, _)| gradient.abs()).sum::<f32>()
        };
        let chosen: Vec<f32> = model.tensors().iter().flat_map(planes::chunks).map(chosen).collect();
        // Sent and left are together what there was, whichever values were chosen. An encoder that lost some of it, or
        // a delta that nobody can read, shows.
        let whole = vec![1.0; model.tensors().len()];
        if delta::add_scaled(&model, &delta, &whole, &mut residual).is_err() {
            return vec![];
        }
        let row = |values: Vec<f32>| {
            let width = values.len();
            Tensor::from_data(TensorData::new(values, [1, width]), &Device::flex())
        };
        vec![row(chosen), row(residual)]
    };
    (12 * length, vec![], Box::new(step))
}
