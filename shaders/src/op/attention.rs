//! Causal attention with rotary embedding and grouped heads, from packed projections to packed rows, by one of two
//! ways.
//!
//! **Flash** (`flash.rs`: the `attention_*` kernels, on `wgpu` where they were measured to gain). The scores of one
//! head are a matrix of context × context. Written out, as single operations must, they are the largest thing in the
//! model: at a context of 1024 with 12 heads, 48 MiB a sequence and layer, read and written half a dozen times. A
//! workgroup of the kernel keeps 64 × 64 of them in registers and walks along the keys: with each tile the running
//! maximum of a row may rise, and what was summed so far is scaled down to it. What is saved for the gradient is the
//! result and one logarithm a row; the backward kernels compute the probabilities anew from it, which costs a seventh
//! more arithmetic and saves nearly all of the memory. There are two of them, one that owns queries and one that owns
//! keys, instead of one with atomic additions: WGSL has no floating-point atomics, and the same input gives the same
//! bits. Queries, keys and values are read where the projection left them, so nothing is split, stacked or merged
//! around it. Tiles are sized for WebGPU's smallest promises: 256 invocations and 12 KiB of the 16 KiB of workgroup
//! memory; subgroup operations are not used, as a third of adapters lack them and the row maximum is their only place
//! here.
//!
//! **Blocks** (`blocks.rs`, everywhere else, the processor included): Burn's batched matrix products, a block of
//! queries at a time against the keys up to its end, which leaves out the half above the diagonal. A context that fits
//! one block keeps its probabilities; with more, each block computes them anew, and memory is block × context.
//!
//! Both hold against the twin, [`crate::cpu::attention`].

mod blocks;
mod flash;

use super::{rope, rope::assert_fit};
use crate::{
    choice::{self, Op},
    cpu::heads::Heads,
};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use std::sync::OnceLock;

/// How many scores of a head are in memory for each query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// From the forward pass to the backward pass.
    pub kept: usize,
    /// While attention is computed.
    pub at_once: usize,
}

/// The scores in memory for such heads: with the kernels none, else those of a block, kept where it is the only one.
pub fn attention_scores(shape: Heads, device: &Device) -> Scores {
    if flash::holds(shape) && choice::uses(Op::Attention, device) {
        return Scores::default();
    }
    let at_once = shape.context.min(blocks::length(shape, device));
    Scores { kept: if at_once == shape.context { at_once } else { 0 }, at_once }
}

/// What attention needs for one context length: rotary tables, and a mask where Burn's own operations run.
#[derive(Clone, Debug)]
pub struct Tables {
    cos: Tensor<2>,
    sin: Tensor<2>,
    /// Which keys a query does not see, `[context, context]`; made when first asked for.
    hidden: OnceLock<Tensor<2, Bool>>,
}

impl Tables {
    /// Tables for `context` tokens; `theta` is the base of the wavelengths.
    pub fn new(context: usize, shape: Heads, theta: f64, device: &Device) -> Self {
        let table = |values| Tensor::from_data(TensorData::new(values, [context, shape.size / 2]), device);
        let [cos, sin] = nightjar_wgsl::rope_tables(context, shape.size, theta).map(table);
        Tables { cos, sin, hidden: OnceLock::new() }
    }
}

impl Tables {
    /// Whether they are of a device that records.
    pub(crate) fn is_autodiff(&self) -> bool {
        self.cos.is_autodiff()
    }
}

/// What [`attention_backward`] reads.
#[derive(Clone, Debug)]
pub struct Saved(Way);

#[derive(Clone, Debug)]
enum Way {
    /// There were no tokens.
    Nothing,
    Flash(Box<flash::Saved>),
    Blocks(Box<blocks::Saved>),
}

/// `softmax(q·kᵀ/√size)·v` under the causal mask, for packed rows `[tokens, (heads + 2·kv)·size]`; the result's rows
/// are `[tokens, heads·size]`.
///
/// # Panics
/// If the shapes do not belong together, a head's size is odd, or query heads cannot share the others evenly.
pub fn attention(packed: Tensor<2>, shape: Heads, tables: &Tables) -> (Tensor<2>, Saved) {
    assert!(
        shape.kv >= 1 && shape.heads.is_multiple_of(shape.kv),
        "{} query heads for {} others",
        shape.heads,
        shape.kv
    );
    assert_fit(&packed, shape, [&tables.cos, &tables.sin]);
    if shape.tokens() == 0 {
        return (Tensor::zeros([0, shape.heads * shape.size], (&packed.device(), packed.dtype())), Saved(Way::Nothing));
    }
    if flash::takes(&packed, shape) {
        let packed = rope(packed, shape, &tables.cos, &tables.sin, 1.0);
        let (out, saved) = flash::forward(packed, shape);
        return (out, Saved(Way::Flash(Box::new(saved))));
    }
    let (out, saved) = blocks::forward(packed, shape, tables);
    (out, Saved(Way::Blocks(Box::new(saved))))
}

/// The gradient of [`attention`] in its packed rows, given that in its result.
///
/// # Panics
/// If the shapes do not belong together.
pub fn attention_backward(dout: Tensor<2>, saved: Saved, shape: Heads, tables: &Tables) -> Tensor<2> {
    assert_eq!(dout.dims(), [shape.tokens(), shape.heads * shape.size], "a gradient for {shape:?}");
    match saved.0 {
        Way::Nothing => Tensor::zeros([0, shape.packed_width()], (&dout.device(), dout.dtype())),
        Way::Flash(saved) => rope(flash::backward(dout, *saved, shape), shape, &tables.cos, &tables.sin, -1.0),
        Way::Blocks(saved) => blocks::backward(dout, *saved, shape, tables),
    }
}
