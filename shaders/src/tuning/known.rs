//! One short trial whose result is known: whether a device computes what it is told to. A driver with a bug does not say
//! so, nor does a browser that it has refused a kernel: what is read afterwards is what happened to be in memory.
//! Measuring compares two ways of one device, and notices nothing where both end alike.

use super::{
    measure::agree,
    trials::{UPDATE, read},
};
use crate::{choice::Op, op};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

/// How far a result may be from the processor's: all is a few hundred numbers of f32.
const TOLERANCE: f32 = 1e-3;
/// Rows, and what is in one: more than a workgroup has invocations, and no multiple of them.
const ROWS: usize = 3;
const WIDTH: usize = 300;

/// Computes an operation on a device.
type Computed = fn(&Device) -> Vec<Tensor<2>>;

/// What is tried. No products of matrices: before one of a new shape, a runtime tries dozens of ways to make it.
const KNOWN: [(Op, Computed); 5] = [
    (Op::RmsNorm, |device| {
        <[_; 2]>::from(op::rms_norm(&rows(WIDTH, 1, device), &gain(device), 1e-5, FloatDType::F32)).into()
    }),
    (Op::Swiglu, |device| vec![op::swiglu(&rows(2 * WIDTH, 2, device))]),
    (Op::CrossEntropy, |device| {
        let (nats, gradient) = op::cross_entropy(rows(WIDTH, 3, device), &[0, 7, WIDTH as u32 - 1], Some(1.0));
        [Some(nats.reshape([1, -1])), gradient].into_iter().flatten().collect()
    }),
    (Op::AdamW, |device| {
        let [w, m, v, g] = [4, 5, 6, 7].map(|stream| rows(WIDTH, stream, device));
        op::adamw(w, m, v.abs(), &g, UPDATE).into()
    }),
    (Op::GradNorm, |device| vec![op::sum_of_squares(&rows(WIDTH, 8, device)).reshape([1, 1])]),
];

/// The first operation that a device gives another result for than the processor does; `None` where all are right.
/// Each goes the way that is chosen just then, by our kernel or by Burn's own.
pub fn wrong(device: &Device) -> Option<Op> {
    let is_wrong = |known: Computed| {
        let [got, want] = [device, &Device::flex()].map(|device| read(known(device)));
        !agree(got, want, TOLERANCE)
    };
    KNOWN.into_iter().find(|(_, known)| is_wrong(*known)).map(|(op, _)| op)
}

/// Numbers between -1 and 1, none of them 0, the same on every device.
fn rows(width: usize, stream: usize, device: &Device) -> Tensor<2> {
    let number = |i: usize| ((i * 37 + stream * 11) % 100) as f32 / 50.0 - 0.99;
    let values: Vec<f32> = (0..ROWS * width).map(number).collect();
    Tensor::from_data(TensorData::new(values, [ROWS, width]), device)
}

fn gain(device: &Device) -> Tensor<2> {
    rows(WIDTH, 9, device).narrow(0, 0, 1)
}
