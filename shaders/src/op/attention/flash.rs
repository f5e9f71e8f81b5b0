//! Attention by the `attention_*` kernels, over packed rows that are rotated already.

use crate::{
    choice::{self, Op},
    cpu::heads::Heads,
    kernel::{Kernel, Launch},
};
use burn::tensor::{DType, Tensor};
use nightjar_wgsl::{
    ATTENTION_BACKWARD_KEYS, ATTENTION_BACKWARD_QUERIES, ATTENTION_FORWARD, ATTENTION_TILE, AttentionShape, GROUPS_MAX,
    attention_holds,
};

/// Rows, results and logarithms: all that the gradient needs.
#[derive(Clone, Debug)]
pub struct Saved {
    packed: Tensor<2>,
    out: Tensor<2>,
    /// `[batch·heads, context]`.
    lse: Tensor<2>,
}

/// Whether the kernels hold such heads: rows that can be read in quads, and not more of them than workgroups.
pub fn holds(shape: Heads) -> bool {
    let Heads { batch, context, heads, size, .. } = shape;
    let groups = [context.div_ceil(ATTENTION_TILE), heads, batch];
    attention_holds(size) && groups.iter().all(|n| (1..=GROUPS_MAX).contains(n))
}

/// Whether they run for these rows, on this device.
pub fn takes(packed: &Tensor<2>, shape: Heads) -> bool {
    holds(shape) && choice::takes(Op::Attention, packed)
}

fn launch(kernel: &'static Kernel, shape: Heads, dtype: DType) -> Launch {
    let Heads { context, heads, kv, size, .. } = shape;
    let parameters =
        AttentionShape { context: context as u32, heads: heads as u32, kv: kv as u32, scale: shape.scale() };
    Launch::new(kernel, &parameters).constant("HEAD", size as u32).constant("GROUP", (heads / kv) as u32).elem(dtype)
}

fn groups(shape: Heads, heads: usize) -> [u32; 3] {
    [shape.context.div_ceil(ATTENTION_TILE) as u32, heads as u32, shape.batch as u32]
}

/// The result's rows, `[tokens, heads·size]`.
pub fn forward(packed: Tensor<2>, shape: Heads) -> (Tensor<2>, Saved) {
    let Heads { batch, context, heads, size, .. } = shape;
    let dtype = packed.dtype();
    let launch = launch(&ATTENTION_FORWARD, shape, dtype).read(&packed);
    let launch = launch.output_of([shape.tokens(), heads * size], dtype).output([batch * heads, context]);
    let mut made = launch.run_3d(groups(shape, heads));
    let (out, lse) = (made.tensor(), made.tensor());
    (Tensor::clone(&out), Saved { packed, out, lse })
}

/// The gradient in the packed rows.
pub fn backward(dout: Tensor<2>, saved: Saved, shape: Heads) -> Tensor<2> {
    let Heads { batch, context, heads, kv, .. } = shape;
    let Saved { packed, out, lse } = saved;
    let dtype = packed.dtype();
    let dout = dout.cast(dtype);
    let first = launch(&ATTENTION_BACKWARD_QUERIES, shape, dtype).read(&packed).read(&out).read(&lse).read(&dout);
    let first = first.output_of([shape.tokens(), shape.packed_width()], dtype).output([batch * heads, context]);
    let mut made = first.run_3d(groups(shape, heads));
    let (dpacked, delta) = (made.tensor::<2>(), made.tensor::<2>());
    let second = launch(&ATTENTION_BACKWARD_KEYS, shape, dtype)
        .read(&packed)
        .read(&lse)
        .read(&dout)
        .read(&delta)
        .change(dpacked);
    second.run_3d(groups(shape, kv)).tensor()
}
