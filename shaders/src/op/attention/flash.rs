//! Attention by the `attention_*` kernels, over packed rows that are rotated already.

use crate::{
    choice::{self, Op},
    cpu::heads::Heads,
    kernel::{GROUPS_MAX, Kernel, Launch, parameters},
};
use burn::tensor::{DType, Tensor};

parameters! {
    /// As in the three kernels.
    pub struct Shape { context: u32, heads: u32, kv: u32, scale: f32 }
}

/// The result, and the logarithm of each row's sum.
pub static FORWARD: Kernel =
    Kernel::new::<Shape>("attention_forward", include_str!("../../../wgsl/attention_forward.wgsl"), [256, 1, 1]);
/// The gradient in the queries.
pub static BACKWARD_QUERIES: Kernel = Kernel::new::<Shape>(
    "attention_backward_queries",
    include_str!("../../../wgsl/attention_backward_queries.wgsl"),
    [256, 1, 1],
);
/// The gradients in keys and values.
pub static BACKWARD_KEYS: Kernel = Kernel::new::<Shape>(
    "attention_backward_keys",
    include_str!("../../../wgsl/attention_backward_keys.wgsl"),
    [256, 1, 1],
);

/// Queries, and keys, of a workgroup's tile.
const TILE: usize = 64;
/// Widest head that an invocation's registers hold its share of.
const SIZE_MAX: usize = 128;

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
    let fits = size.is_multiple_of(4) && (4..=SIZE_MAX).contains(&size);
    let groups = [context.div_ceil(TILE), heads, batch];
    fits && groups.iter().all(|n| (1..=GROUPS_MAX).contains(n))
}

/// Whether they run for these rows, on this device.
pub fn takes(packed: &Tensor<2>, shape: Heads) -> bool {
    holds(shape) && choice::takes(Op::Attention, packed)
}

fn launch(kernel: &'static Kernel, shape: Heads, dtype: DType) -> Launch {
    let Heads { context, heads, kv, size, .. } = shape;
    let parameters = Shape { context: context as u32, heads: heads as u32, kv: kv as u32, scale: shape.scale() };
    Launch::new(kernel, &parameters).constant("HEAD", size as u32).constant("GROUP", (heads / kv) as u32).elem(dtype)
}

fn groups(shape: Heads, heads: usize) -> [u32; 3] {
    [shape.context.div_ceil(TILE) as u32, heads as u32, shape.batch as u32]
}

/// The result's rows, `[tokens, heads·size]`.
pub fn forward(packed: Tensor<2>, shape: Heads) -> (Tensor<2>, Saved) {
    let Heads { batch, context, heads, size, .. } = shape;
    let dtype = packed.dtype();
    let launch = launch(&FORWARD, shape, dtype).read(&packed);
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
    let first = launch(&BACKWARD_QUERIES, shape, dtype).read(&packed).read(&out).read(&lse).read(&dout);
    let first = first.output_of([shape.tokens(), shape.packed_width()], dtype).output([batch * heads, context]);
    let mut made = first.run_3d(groups(shape, heads));
    let (dpacked, delta) = (made.tensor::<2>(), made.tensor::<2>());
    let second = launch(&BACKWARD_KEYS, shape, dtype).read(&packed).read(&lse).read(&dout).read(&delta).change(dpacked);
    second.run_3d(groups(shape, kv)).tensor()
}
