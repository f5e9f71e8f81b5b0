//! RMSNorm over the last dimension: the twin is [`crate::cpu::rms_norm`].

use super::host::{Source, Target, tensor};
use crate::{
    cpu,
    kernel::{Kernel, Launch, parameters},
    tuning::{self, Op},
};
use burn::tensor::Tensor;

parameters! {
    /// As in `rms_norm.wgsl`.
    pub struct ForwardShape { rows: u32, width: u32, eps: f32 }
}
parameters! {
    /// As in `rms_norm_backward.wgsl`.
    pub struct BackwardShape { rows: u32, width: u32 }
}

/// Result and inverse roots.
pub static FORWARD: Kernel = Kernel::new::<ForwardShape>("rms_norm", include_str!("../../wgsl/rms_norm.wgsl"), [64, 1, 1]);
/// Both gradients.
pub static BACKWARD: Kernel =
    Kernel::new::<BackwardShape>("rms_norm_backward", include_str!("../../wgsl/rms_norm_backward.wgsl"), [64, 1, 1]);

/// Most workgroups of the backward kernel, each of which leaves a partial sum of the gain's width: enough to fill a
/// large GPU, and few enough that adding them up is nothing.
const PARTS_MAX: usize = 512;

/// `gain · x / √(mean(x²) + ε)` for rows `x` (`[n, d]`, gain `[1, d]`), and the rows' inverse roots (`[n, 1]`) for the
/// gradient.
pub fn rms_norm(x: &Tensor<2>, gain: &Tensor<2>, eps: f64) -> (Tensor<2>, Tensor<2>) {
    let [n, d] = x.dims();
    if let (Some(x_host), Some(gain)) = (Source::of(x), Source::of(gain)) {
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(x_host.slice(), gain.slice(), eps as f32, &mut y, &mut inverse);
        return (tensor(y, [n, d]), tensor(inverse, [n, 1]));
    }
    if tuning::takes(Op::RmsNorm, x) {
        let shape = ForwardShape { rows: n as u32, width: d as u32, eps: eps as f32 };
        let mut out = Launch::new(&FORWARD, &shape).read(x).read(gain).output([n, d]).output([n, 1]).run(n);
        return (out.tensor(), out.tensor());
    }
    let inverse = (x.clone() * x.clone()).mean_dim(1).add_scalar(eps).sqrt().recip();
    (x.clone() * inverse.clone() * gain.clone(), inverse)
}

/// The gradient of [`rms_norm`]: adds that in `x` to `dx`, and returns it with that in the gain.
pub fn rms_norm_backward(
    dy: &Tensor<2>,
    x: &Tensor<2>,
    gain: &Tensor<2>,
    inverse: &Tensor<2>,
    dx: Tensor<2>,
) -> (Tensor<2>, Tensor<2>) {
    let [n, d] = x.dims();
    if let (Some(dy), Some(x), Some(gain), Some(inverse)) = (Source::of(dy), Source::of(x), Source::of(gain), Source::of(inverse))
    {
        let mut dx = Target::of(dx).expect("all operands are on one device");
        let dgain = cpu::rms_norm::backward(dy.slice(), x.slice(), gain.slice(), inverse.slice(), dx.slice());
        return (dx.tensor(), tensor(dgain, [1, d]));
    }
    if tuning::takes(Op::RmsNormBackward, x) {
        // A power of two: each is a pipeline of its own.
        let rows = n.div_ceil(PARTS_MAX).next_power_of_two();
        let parts = n.div_ceil(rows);
        let launch = Launch::new(&BACKWARD, &BackwardShape { rows: n as u32, width: d as u32 }).constant("ROWS", rows as u32);
        let mut out = launch.read(dy).read(x).read(gain).read(inverse).change(dx).output([parts, d]).run(parts);
        return (out.tensor(), out.tensor::<2>().sum_dim(0));
    }
    let h = x.clone() * inverse.clone();
    let dgain = (dy.clone() * h.clone()).sum_dim(0);
    let dh = dy.clone() * gain.clone();
    let along = (dh.clone() * h.clone()).mean_dim(1);
    (dx + (dh - h * along) * inverse.clone(), dgain)
}
