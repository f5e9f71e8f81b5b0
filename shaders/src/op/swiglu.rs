//! SwiGLU over packed rows `[gate | up]`: the twin is [`crate::cpu::swiglu`].

use super::host::{Source, Target, tensor};
use crate::cpu;
use burn::tensor::{Tensor, activation::sigmoid};

/// `silu(gate) · up` of packed rows (`[n, 2·width]` to `[n, width]`).
pub fn swiglu(gate_up: &Tensor<2>) -> Tensor<2> {
    let [n, width] = [gate_up.dims()[0], gate_up.dims()[1] / 2];
    if let Some(gate_up) = Source::of(gate_up) {
        let mut y = vec![0.0; n * width];
        cpu::swiglu::forward(gate_up.slice(), width, &mut y);
        return tensor(y, [n, width]);
    }
    let (gate, up) = (gate_up.clone().narrow(1, 0, width), gate_up.clone().narrow(1, width, width));
    gate.clone() * sigmoid(gate) * up
}

/// The gradient of [`swiglu`] in its packed input, given that in its output.
pub fn swiglu_backward(gate_up: Tensor<2>, dy: &Tensor<2>) -> Tensor<2> {
    let width = gate_up.dims()[1] / 2;
    if let Some(dy) = Source::of(dy) {
        let mut gate_up = Target::of(gate_up).expect("all operands are on one device");
        cpu::swiglu::backward(gate_up.slice(), dy.slice(), width);
        return gate_up.tensor();
    }
    let (gate, up) = (gate_up.clone().narrow(1, 0, width), gate_up.narrow(1, width, width));
    let s = sigmoid(gate.clone());
    let silu = gate * s.clone();
    let dgate = dy.clone() * up * (s.clone() + silu.clone() * (s.neg() + 1.0));
    Tensor::cat(vec![dgate, dy.clone() * silu], 1)
}
