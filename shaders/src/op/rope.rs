//! Rotary embedding of packed rows, in place: the twin is [`crate::cpu::rope`].

use super::host::{Source, Target, is_twins};
use crate::{
    choice::{self, Op},
    cpu::{self, heads::Heads},
    kernel::Launch,
};
use burn::tensor::{DType, Tensor};
use nightjar_wgsl::{ROPE, RopeShape};

/// Rotates the heads of queries and keys of packed rows (`[tokens, (heads + 2·kv)·size]`) by `cos`, `sin` (`[context,
/// size/2]`); `direction` is 1, or −1 to turn back, which is also the gradient.
///
/// # Panics
/// If the shapes do not belong together, or a head's size is odd.
pub fn rope(packed: Tensor<2>, shape: Heads, cos: &Tensor<2>, sin: &Tensor<2>, direction: f32) -> Tensor<2> {
    assert_fit(&packed, shape, [cos, sin]);
    if let (true, Some(cos), Some(sin)) = (is_twins(&packed), Source::of(cos), Source::of(sin)) {
        let mut packed = Target::of(packed).expect("is_twins said so");
        cpu::rope::rotate(packed.slice(), shape, cos.slice(), sin.slice(), direction);
        return packed.tensor();
    }
    let Heads { batch, context, heads, kv, size } = shape;
    let half = size / 2;
    if choice::takes(Op::Rope, &packed) {
        let pairs = shape.tokens() * (heads + kv) * half;
        let [context, heads, row] = [context, heads + kv, shape.packed_width()].map(|n| n as u32);
        let parameters = RopeShape { pairs: pairs as u32, context, heads, half: half as u32, row, direction };
        let launch = Launch::new(&ROPE, &parameters).elem(packed.dtype()).change(packed).read(cos).read(sin);
        return launch.run(pairs.div_ceil(256)).tensor();
    }
    let (dtype, packed) = (packed.dtype(), packed.cast(DType::F32));
    let rotated = packed.clone().narrow(1, 0, (heads + kv) * size).reshape([batch, context, heads + kv, size]);
    let table = |t: &Tensor<2>| t.clone().reshape([1, context, 1, half]);
    let (cos, sin) = (table(cos), table(sin).mul_scalar(direction));
    let (a, b) = (rotated.clone().narrow(3, 0, half), rotated.narrow(3, half, half));
    let turned = Tensor::cat(vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin], 3);
    let values = packed.narrow(1, (heads + kv) * size, kv * size);
    Tensor::cat(vec![turned.reshape([shape.tokens(), (heads + kv) * size]), values], 1).cast(dtype)
}

/// Whether packed rows and tables are of this shape, and its heads of pairs.
pub(super) fn assert_fit(packed: &Tensor<2>, shape: Heads, tables: [&Tensor<2>; 2]) {
    assert_eq!(packed.dims(), [shape.tokens(), shape.packed_width()], "packed rows for {shape:?}");
    assert!(shape.size >= 2 && shape.size.is_multiple_of(2), "a head of {} is not of pairs", shape.size);
    assert_eq!(tables.map(Tensor::dims), [[shape.context, shape.size / 2]; 2], "tables for {shape:?}");
}
