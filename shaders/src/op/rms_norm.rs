//! RMSNorm over the last dimension: the twin is [`crate::cpu::rms_norm`].

use super::host::{Source, Target, tensor};
use crate::cpu;
use burn::tensor::Tensor;

/// `gain · x / √(mean(x²) + ε)` for rows `x` (`[n, d]`, gain `[1, d]`), and the rows' inverse roots (`[n, 1]`) for the
/// gradient.
pub fn rms_norm(x: &Tensor<2>, gain: &Tensor<2>, eps: f64) -> (Tensor<2>, Tensor<2>) {
    if let (Some(x_host), Some(gain)) = (Source::of(x), Source::of(gain)) {
        let [n, d] = x.dims();
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(x_host.slice(), gain.slice(), eps as f32, &mut y, &mut inverse);
        return (tensor(y, [n, d]), tensor(inverse, [n, 1]));
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
    let d = gain.dims()[1];
    if let (Some(dy), Some(x), Some(gain), Some(inverse)) = (Source::of(dy), Source::of(x), Source::of(gain), Source::of(inverse))
    {
        let mut dx = Target::of(dx).expect("all operands are on one device");
        let dgain = cpu::rms_norm::backward(dy.slice(), x.slice(), gain.slice(), inverse.slice(), dx.slice());
        return (dx.tensor(), tensor(dgain, [1, d]));
    }
    let h = x.clone() * inverse.clone();
    let dgain = (dy.clone() * h.clone()).sum_dim(0);
    let dh = dy.clone() * gain.clone();
    let along = (dh.clone() * h.clone()).mean_dim(1);
    (dx + (dh - h * along) * inverse.clone(), dgain)
}
