//! The AdamW update and the gradient's norm: the twin is [`crate::cpu::adamw`].

use super::host::{Source, Target, tensor};
use crate::cpu::{self, adamw::Update};
use burn::tensor::Tensor;

/// Updates a tensor's weights and moments (`w`, `m`, `v`, returned in that order) by its gradient.
pub fn adamw(w: Tensor<2>, m: Tensor<2>, v: Tensor<2>, g: &Tensor<2>, u: Update) -> [Tensor<2>; 3] {
    if let Some(g) = Source::of(g) {
        let [mut w, mut m, mut v] = [w, m, v].map(|t| Target::of(t).expect("all operands are on one device"));
        cpu::adamw::update(w.slice(), m.slice(), v.slice(), g.slice(), u);
        return [w.tensor(), m.tensor(), v.tensor()];
    }
    let g = g.clone().mul_scalar(u.gradient_scale);
    let m = m.mul_scalar(u.beta1) + g.clone().mul_scalar(1.0 - u.beta1);
    let v = v.mul_scalar(u.beta2) + (g.clone() * g).mul_scalar(1.0 - u.beta2);
    let root = v.clone().mul_scalar(u.second_correction).sqrt().add_scalar(u.epsilon);
    let w = w.mul_scalar(u.decay) - m.clone().mul_scalar(u.step_size) / root;
    [w, m, v]
}

/// The sum of a tensor's squares (`[1]`).
pub fn sum_of_squares(g: &Tensor<2>) -> Tensor<1> {
    match Source::of(g) {
        Some(g) => tensor(vec![cpu::adamw::sum_of_squares(g.slice()) as f32], [1]),
        None => (g.clone() * g.clone()).sum(),
    }
}
