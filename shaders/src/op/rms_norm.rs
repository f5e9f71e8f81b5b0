//! RMSNorm over the last dimension: the twin is [`crate::cpu::rms_norm`].

use super::host::{Source, Target, tensor};
use crate::{
    choice::{self, Op},
    cpu,
    kernel::{Launch, elem_of},
};
use burn::tensor::{DType, FloatDType, Tensor};
use nightjar_wgsl::{RMS_NORM, RMS_NORM_BACKWARD, RmsNormBackwardShape, RmsNormShape, rms_norm_backward_rows};

/// `gain · x / √(mean(x²) + ε)` for rows `x` (`[n, d]`, gain `[1, d]`) in the type that a product is to take, and the
/// rows' inverse roots (`[n, 1]`, f32) for the gradient.
///
/// # Panics
/// If the shapes do not belong together.
pub fn rms_norm(x: &Tensor<2>, gain: &Tensor<2>, eps: f64, into: FloatDType) -> (Tensor<2>, Tensor<2>) {
    let [n, d] = x.dims();
    assert_eq!(gain.dims(), [1, d], "a gain for rows of {d}");
    if let (Some(x_host), Some(gain)) = (Source::of(x), Source::of(gain)) {
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(x_host.slice(), gain.slice(), eps as f32, &mut y, &mut inverse);
        return (tensor(y, [n, d]).cast(into), tensor(inverse, [n, 1]));
    }
    if choice::takes(Op::RmsNorm, x) && elem_of(into.into()).is_some() {
        let shape = RmsNormShape { rows: n as u32, width: d as u32, eps: eps as f32 };
        let launch = Launch::new(&RMS_NORM, &shape).elem(into.into()).read(x).read(gain);
        let mut out = launch.output_of([n, d], into.into()).output([n, 1]).run(n);
        return (out.tensor(), out.tensor());
    }
    let inverse = (x.clone() * x.clone()).mean_dim(1).add_scalar(eps).sqrt().recip();
    ((x.clone() * inverse.clone() * gain.clone()).cast(into), inverse)
}

/// What [`rms_norm_backward`] makes.
pub struct RmsNormBackward {
    /// What flows past the norm, with the gradient in `x`.
    pub dx: Tensor<2>,
    /// The gradient in the gain (`[1, d]`).
    pub dgain: Tensor<2>,
    /// The result of [`rms_norm`] once more, of the type of its gradient: it need not be kept.
    pub y: Tensor<2>,
}

/// The gradient of [`rms_norm`], given that in its result (of any type), `dy`; that in `x` is added to `dx`.
///
/// # Panics
/// If the shapes do not belong together.
pub fn rms_norm_backward(
    dy: Tensor<2>,
    x: &Tensor<2>,
    gain: &Tensor<2>,
    inverse: &Tensor<2>,
    dx: Tensor<2>,
) -> RmsNormBackward {
    let ([n, d], dtype) = (x.dims(), dy.dtype());
    assert_eq!(
        [dy.dims(), gain.dims(), inverse.dims(), dx.dims()],
        [[n, d], [1, d], [n, 1], [n, d]],
        "for rows of {n} x {d}"
    );
    if let (Some(x), Some(gain), Some(inverse)) = (Source::of(x), Source::of(gain), Source::of(inverse)) {
        let [mut dy, mut dx] =
            [dy.cast(DType::F32), dx].map(|t| Target::of(t).expect("all operands are f32 on one device"));
        let dgain = cpu::rms_norm::backward(dy.slice(), x.slice(), gain.slice(), inverse.slice(), dx.slice());
        return RmsNormBackward { dx: dx.tensor(), dgain: tensor(dgain, [1, d]), y: dy.tensor().cast(dtype) };
    }
    if choice::takes(Op::RmsNormBackward, x) && elem_of(dtype).is_some() {
        let rows = rms_norm_backward_rows(n);
        let parts = n.div_ceil(rows);
        let launch = Launch::new(&RMS_NORM_BACKWARD, &RmsNormBackwardShape { rows: n as u32, width: d as u32 });
        let launch = launch.constant("ROWS", rows as u32).elem(dtype);
        let launch = launch.change(dy).read(x).read(gain).read(inverse).change(dx).output([parts, d]);
        let mut made = launch.run(parts);
        let (y, dx) = (made.tensor(), made.tensor());
        return RmsNormBackward { dx, dgain: made.tensor::<2>().sum_dim(0), y };
    }
    let (h, dy) = (x.clone() * inverse.clone(), dy.cast(DType::F32));
    let y = (h.clone() * gain.clone()).cast(dtype);
    let dgain = (dy.clone() * h.clone()).sum_dim(0);
    let dh = dy * gain.clone();
    let along = (dh.clone() * h.clone()).mean_dim(1);
    RmsNormBackward { dx: dx + (dh - h * along) * inverse.clone(), dgain, y }
}
