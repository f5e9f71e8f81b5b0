//! SwiGLU over packed rows `[gate | up]`: the twin is [`crate::cpu::swiglu`].

use super::host::{Source, Target, is_twins, tensor};
use crate::{
    choice::{self, Op},
    cpu,
    kernel::Launch,
};
use burn::tensor::{DType, Tensor, activation::sigmoid};
use nightjar_wgsl::{SWIGLU, SWIGLU_BACKWARD, SwigluShape};

/// `silu(gate) · up` of packed rows (`[n, 2·width]` to `[n, width]`).
///
/// # Panics
/// If the rows have no halves.
pub fn swiglu(gate_up: &Tensor<2>) -> Tensor<2> {
    let [n, both] = gate_up.dims();
    assert!(both.is_multiple_of(2), "rows of {both} are no gate and up");
    let width = both / 2;
    if let Some(gate_up) = Source::of(gate_up) {
        let mut y = vec![0.0; n * width];
        cpu::swiglu::forward(gate_up.slice(), width, &mut y);
        return tensor(y, [n, width]);
    }
    if choice::takes(Op::Swiglu, gate_up) {
        let shape = SwigluShape { results: (n * width) as u32, width: width as u32 };
        let launch = Launch::new(&SWIGLU, &shape).elem(gate_up.dtype()).read(gate_up);
        return launch.output_of([n, width], gate_up.dtype()).run((n * width).div_ceil(256)).tensor();
    }
    let wide = gate_up.clone().cast(DType::F32);
    let (gate, up) = (wide.clone().narrow(1, 0, width), wide.narrow(1, width, width));
    (gate.clone() * sigmoid(gate) * up).cast(gate_up.dtype())
}

/// What [`swiglu_backward`] makes.
pub struct SwigluBackward {
    /// The gradient in the packed rows.
    pub dgate_up: Tensor<2>,
    /// The result of [`swiglu`] once more: it need not be kept.
    pub y: Tensor<2>,
}

/// The gradient of [`swiglu`], given that in its result, `dy`.
///
/// # Panics
/// If the shapes do not belong together.
pub fn swiglu_backward(gate_up: Tensor<2>, dy: Tensor<2>) -> SwigluBackward {
    let ([n, width], dtype) = (dy.dims(), gate_up.dtype());
    assert_eq!(gate_up.dims(), [n, 2 * width], "rows of gate and up for a gradient of {n} x {width}");
    let dy = dy.cast(dtype);
    if is_twins(&gate_up) {
        let [mut gate_up, mut dy] = [gate_up, dy].map(|t| Target::of(t).expect("all operands are f32 on one device"));
        cpu::swiglu::backward(gate_up.slice(), dy.slice(), width);
        return SwigluBackward { dgate_up: gate_up.tensor(), y: dy.tensor() };
    }
    if choice::takes(Op::SwigluBackward, &gate_up) {
        let shape = SwigluShape { results: (n * width) as u32, width: width as u32 };
        let launch = Launch::new(&SWIGLU_BACKWARD, &shape).elem(dtype).change(gate_up).change(dy);
        let mut made = launch.run((n * width).div_ceil(256));
        return SwigluBackward { dgate_up: made.tensor(), y: made.tensor() };
    }
    let [wide, dy] = [gate_up, dy].map(|tensor| tensor.cast(DType::F32));
    let (gate, up) = (wide.clone().narrow(1, 0, width), wide.narrow(1, width, width));
    let s = sigmoid(gate.clone());
    let silu = gate * s.clone();
    let y = silu.clone() * up.clone();
    let dgate = dy.clone() * up * (s.clone() + silu.clone() * (s.neg() + 1.0));
    SwigluBackward { dgate_up: Tensor::cat(vec![dgate, dy * silu], 1).cast(dtype), y: y.cast(dtype) }
}
