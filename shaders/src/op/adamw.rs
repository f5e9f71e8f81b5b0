//! The AdamW update and the gradient's norm: the twin is [`crate::cpu::adamw`].

use super::host::{Source, Target, tensor};
use crate::{
    choice::{self, Op},
    cpu::{self, adamw::Update},
    kernel::Launch,
};
use burn::tensor::Tensor;
use nightjar_wgsl::{ADAMW, AdamWShape, GRAD_NORM, GRAD_NORM_SPAN, SpanShape};

/// Updates a tensor's weights and moments (`w`, `m`, `v`, returned in that order) by its gradient.
///
/// # Panics
/// If they are not all of one shape.
pub fn adamw(w: Tensor<2>, m: Tensor<2>, v: Tensor<2>, g: &Tensor<2>, u: Update) -> [Tensor<2>; 3] {
    assert_eq!([w.dims(), m.dims(), v.dims()], [g.dims(); 3], "weights and moments for their gradient");
    if let Some(g) = Source::of(g) {
        let [mut w, mut m, mut v] = [w, m, v].map(|t| Target::of(t).expect("all operands are f32 on one device"));
        cpu::adamw::update(w.slice(), m.slice(), v.slice(), g.slice(), u);
        return [w.tensor(), m.tensor(), v.tensor()];
    }
    if choice::takes(Op::AdamW, g) {
        let values = g.shape().num_elements();
        let Update { gradient_scale, decay, beta1, beta2, step_size, second_correction, epsilon } = u;
        let shape = AdamWShape {
            values: values as u32,
            gradient_scale,
            decay,
            beta1,
            beta2,
            step_size,
            second_correction,
            epsilon,
        };
        let mut out = Launch::new(&ADAMW, &shape).change(w).change(m).change(v).read(g).run(values.div_ceil(256));
        return [out.tensor(), out.tensor(), out.tensor()];
    }
    let g = g.clone().mul_scalar(u.gradient_scale);
    let m = m.mul_scalar(u.beta1) + g.clone().mul_scalar(1.0 - u.beta1);
    let v = v.mul_scalar(u.beta2) + (g.clone() * g).mul_scalar(1.0 - u.beta2);
    let root = v.clone().mul_scalar(u.second_correction).sqrt().add_scalar(u.epsilon);
    let w = w.mul_scalar(u.decay) - m.clone().mul_scalar(u.step_size) / root;
    [w, m, v]
}

/// The sum of a tensor's squares (`[1]`); not finite where a value is not.
pub fn sum_of_squares(g: &Tensor<2>) -> Tensor<1> {
    if let Some(g) = Source::of(g) {
        return tensor(vec![cpu::adamw::sum_of_squares(g.slice()) as f32], [1]);
    }
    if choice::takes(Op::GradNorm, g) {
        let values = g.shape().num_elements();
        let spans = values.div_ceil(GRAD_NORM_SPAN);
        let shape = SpanShape { values: values as u32, span: GRAD_NORM_SPAN as u32 };
        let sums: Tensor<1> = Launch::new(&GRAD_NORM, &shape).read(g).output([spans]).run(spans).tensor();
        let shape = SpanShape { values: spans as u32, span: spans as u32 };
        return Launch::new(&GRAD_NORM, &shape).constant("SQUARE", 0).read(&sums).output([1]).run(1).tensor();
    }
    (g.clone() * g.clone()).sum()
}
