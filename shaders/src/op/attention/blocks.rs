//! Attention by Burn's batched matrix products, a block of queries at a time. What is around the products has its twins
//! in [`crate::cpu::heads`] and [`crate::cpu::softmax`].
//!
//! A group's query heads are stacked along the row dimension (`[batch, kv, group·context, size]`), so that keys and
//! values are never repeated and their gradients sum over the group by themselves.

use super::Tables;
use crate::{
    cpu::{self, heads::Heads},
    op::{
        host::{Source, Target, is_host, is_twins, tensor},
        product, rope,
    },
    runtime,
};
use burn::tensor::{Bool, DType, Device, Tensor, activation::softmax};
use nightjar_shared::model_spec::HOST_BLOCK;
use std::ops::Range;

/// Most elsewhere: a GPU wants large products.
const DEVICE_BLOCK: usize = 1024;
/// Most bytes of a sample's scores there; of all samples', what the device gives in one piece.
const SAMPLE_BYTES: u64 = 512 << 20;

/// Queries, keys, values; and the probabilities, if they are one block.
#[derive(Clone, Debug)]
pub struct Saved {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    p: Option<Tensor<4>>,
}

/// Queries of a block.
pub fn length(shape: Heads, device: &Device) -> usize {
    if is_host(device) {
        return HOST_BLOCK;
    }
    queries_within(runtime::allocation_max(device).unwrap_or(u64::MAX), shape)
}

/// Queries whose scores, in f32, take no more than `piece` bytes. One's may, and there is no less.
fn queries_within(piece: u64, shape: Heads) -> usize {
    let of_sample = 4 * (shape.heads * shape.context).max(1) as u64;
    let of_all = of_sample * shape.batch.max(1) as u64;
    let most = (SAMPLE_BYTES / of_sample).min(piece / of_all).clamp(1, DEVICE_BLOCK as u64) as usize;
    // All, or rows of an even length, which products want.
    if most >= shape.context || most < 64 { most } else { most - most % 64 }
}

/// The blocks of queries of a context.
fn blocks(shape: Heads, device: &Device) -> Vec<Range<usize>> {
    let (context, block) = (shape.context, length(shape, device));
    (0..context).step_by(block).map(|start| start..context.min(start + block)).collect()
}

/// The result's rows, `[tokens, heads·size]`.
pub fn forward(packed: Tensor<2>, shape: Heads, tables: &Tables) -> (Tensor<2>, Saved) {
    let blocks = blocks(shape, &packed.device());
    let [q, k, v] = split(packed, shape, tables);
    if let [_] = &blocks[..] {
        let p = probabilities(&q, &k, 0..shape.context, shape, tables);
        let out = merge(product(&p, &v), shape);
        return (out, Saved { q, k, v, p: Some(p) });
    }
    let part = |block: &Range<usize>| {
        let p = probabilities(&rows(&q, block, shape), &k, block.clone(), shape, tables);
        unstack(product(&p, &v.clone().narrow(2, 0, block.end)), block.len(), shape)
    };
    let out = stack(Tensor::cat(blocks.iter().map(part).collect(), 2), shape);
    (merge(out, shape), Saved { q, k, v, p: None })
}

/// The gradient in the packed rows.
pub fn backward(dout: Tensor<2>, saved: Saved, shape: Heads, tables: &Tables) -> Tensor<2> {
    let Saved { q, k, v, p } = saved;
    let dout = unmerge(dout.cast(q.dtype()), shape);
    if let Some(p) = p {
        let [dq, dk, dv] = block_backward(p, dout, q, k, v, shape.scale());
        return join(dq, dk, dv, shape, tables);
    }
    let mut sums: Option<[Tensor<4>; 2]> = None;
    let mut dqs = vec![];
    for block in blocks(shape, &k.device()) {
        let seen = |x: &Tensor<4>| x.clone().narrow(2, 0, block.end);
        let q = rows(&q, &block, shape);
        let p = probabilities(&q, &k, block.clone(), shape, tables);
        let [dq, dk, dv] = block_backward(p, rows(&dout, &block, shape), q, seen(&k), seen(&v), shape.scale());
        dqs.push(unstack(dq, block.len(), shape));
        sums = Some(match sums {
            None => [dk, dv],
            // Keys that earlier blocks saw too, and those that this is the first to see.
            Some([k, v]) => [(k, dk), (v, dv)].map(|(sum, new)| {
                let (old, fresh) = (new.clone().narrow(2, 0, block.start), new.narrow(2, block.start, block.len()));
                Tensor::cat(vec![sum + old, fresh], 2)
            }),
        });
    }
    let [dk, dv] = sums.expect("a context has at least one token");
    join(stack(Tensor::cat(dqs, 2), shape), dk, dv, shape, tables)
}

/// A block's probabilities, `[batch, kv, group·block, block.end]`.
fn probabilities(q: &Tensor<4>, k: &Tensor<4>, block: Range<usize>, shape: Heads, tables: &Tables) -> Tensor<4> {
    let k = if block.end == shape.context { k.clone() } else { k.clone().narrow(2, 0, block.end) };
    if is_twins(&k) {
        let scores = product(q, &k.transpose());
        let mut scores = Target::of(scores).expect("is_twins said so");
        cpu::softmax::forward(scores.slice(), block.len(), block.end, shape.scale());
        return scores.tensor();
    }
    // Scaled before the product, which in f16 would end at 65504.
    let scores = product(&q.clone().mul_scalar(shape.scale()), &k.transpose());
    // Rows of stacked heads apart: one mask serves them all.
    let (dims, dtype) = (scores.dims(), scores.dtype());
    let apart = [shape.batch * shape.kv, shape.heads / shape.kv, block.len(), block.end];
    let hidden = hidden(block, shape, tables, &scores.device()).unsqueeze::<4>().expand(apart);
    // A row's sum wants more digits than a product's type may have.
    let scores = scores.reshape(apart).cast(DType::F32);
    softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3).cast(dtype).reshape(dims)
}

/// Which keys a block's queries do not see, `[block, block.end]`: those behind them. Kept only where there is one
/// block, since all blocks' together grow with the square of the context.
fn hidden(block: Range<usize>, shape: Heads, tables: &Tables, device: &Device) -> Tensor<2, Bool> {
    let made = || Tensor::tril_mask([block.len(), block.end], block.start as i64, device);
    if block.len() == shape.context { tables.hidden.get_or_init(made).clone() } else { made() }
}

/// Gradients in a block's queries, and in the keys and values that it sees.
fn block_backward(
    p: Tensor<4>,
    dout: Tensor<4>,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f32,
) -> [Tensor<4>; 3] {
    let dv = product(&p.clone().transpose(), &dout);
    let dp = product(&dout, &v.transpose());
    let dscores = match Source::of(&p) {
        Some(p) => {
            let columns = dp.dims()[3];
            let mut dp = Target::of(dp).expect("all operands are f32 on one device");
            cpu::softmax::backward(p.slice(), dp.slice(), columns, scale);
            dp.tensor::<4>()
        }
        None => {
            let (dtype, p, dp) = (p.dtype(), p.cast(DType::F32), dp.cast(DType::F32));
            let mean = (p.clone() * dp.clone()).sum_dim(3);
            (p * (dp - mean)).mul_scalar(scale).cast(dtype)
        }
    };
    let dk = product(&dscores.clone().transpose(), &q);
    [product(&dscores, &k), dk, dv]
}

/// A block's rows of each stacked head, `[batch, kv, group·block, size]`.
fn rows(x: &Tensor<4>, block: &Range<usize>, shape: Heads) -> Tensor<4> {
    let Heads { batch, context, heads, kv, size } = shape;
    let apart = x.clone().reshape([batch * kv, heads / kv, context, size]);
    apart.narrow(2, block.start, block.len()).reshape([batch, kv, heads / kv * block.len(), size])
}

/// Stacked heads apart again, `[batch·kv, group, rows, size]`, so that blocks can be put together.
fn unstack(x: Tensor<4>, rows: usize, shape: Heads) -> Tensor<4> {
    x.reshape([shape.batch * shape.kv, shape.heads / shape.kv, rows, shape.size])
}

fn stack(x: Tensor<4>, shape: Heads) -> Tensor<4> {
    let Heads { batch, context, heads, kv, size } = shape;
    x.reshape([batch, kv, heads / kv * context, size])
}

fn split(packed: Tensor<2>, shape: Heads, tables: &Tables) -> [Tensor<4>; 3] {
    let Heads { batch, context, heads, kv, size } = shape;
    let rows = heads / kv * context;
    if let (Some(packed), Some(cos), Some(sin)) =
        (Source::of(&packed), Source::of(&tables.cos), Source::of(&tables.sin))
    {
        let n = shape.tokens();
        let (mut q, mut k, mut v) = (vec![0.0; n * heads * size], vec![0.0; n * kv * size], vec![0.0; n * kv * size]);
        cpu::heads::split(packed.slice(), shape, cos.slice(), sin.slice(), &mut q, &mut k, &mut v);
        return [
            tensor(q, [batch, kv, rows, size]),
            tensor(k, [batch, kv, context, size]),
            tensor(v, [batch, kv, context, size]),
        ];
    }
    let packed = rope(packed, shape, &tables.cos, &tables.sin, 1.0);
    let part = |first: usize, heads: usize| {
        packed.clone().narrow(1, first * size, heads * size).reshape([batch, context, heads, size]).swap_dims(1, 2)
    };
    [part(0, heads).reshape([batch, kv, rows, size]), part(heads, kv), part(heads + kv, kv)]
}

fn join(dq: Tensor<4>, dk: Tensor<4>, dv: Tensor<4>, shape: Heads, tables: &Tables) -> Tensor<2> {
    let Heads { batch, context, heads, size, kv } = shape;
    if let (Some(dq), Some(dk), Some(dv)) = (Source::of(&dq), Source::of(&dk), Source::of(&dv)) {
        let (Some(cos), Some(sin)) = (Source::of(&tables.cos), Source::of(&tables.sin)) else {
            unreachable!("one device")
        };
        let mut packed = vec![0.0; shape.tokens() * shape.packed_width()];
        cpu::heads::join(dq.slice(), dk.slice(), dv.slice(), shape, cos.slice(), sin.slice(), &mut packed);
        return tensor(packed, [shape.tokens(), shape.packed_width()]);
    }
    let rows = |x: Tensor<4>, heads: usize| x.swap_dims(1, 2).reshape([shape.tokens(), heads * size]);
    let dq = dq.reshape([batch, heads, context, size]);
    let packed = Tensor::cat(vec![rows(dq, heads), rows(dk, kv), rows(dv, kv)], 1);
    rope(packed, shape, &tables.cos, &tables.sin, -1.0)
}

fn merge(blocks: Tensor<4>, shape: Heads) -> Tensor<2> {
    let Heads { batch, context, heads, size, .. } = shape;
    if let Some(blocks) = Source::of(&blocks) {
        let mut rows = vec![0.0; shape.tokens() * heads * size];
        cpu::heads::merge(blocks.slice(), shape, &mut rows);
        return tensor(rows, [shape.tokens(), heads * size]);
    }
    blocks.reshape([batch, heads, context, size]).swap_dims(1, 2).reshape([shape.tokens(), heads * size])
}

fn unmerge(rows: Tensor<2>, shape: Heads) -> Tensor<4> {
    let Heads { batch, context, heads, kv, size } = shape;
    let grouped = [batch, kv, heads / kv * context, size];
    if let Some(rows) = Source::of(&rows) {
        let mut blocks = vec![0.0; shape.tokens() * heads * size];
        cpu::heads::unmerge(rows.slice(), shape, &mut blocks);
        return tensor(blocks, grouped);
    }
    rows.reshape([batch, context, heads, size]).swap_dims(1, 2).reshape(grouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_a_block_stay_within_bounds() {
        let heads = |batch, context| Heads { batch, context, heads: 12, kv: 12, size: 64 };
        // A model of 125 million parameters is not cut up, however many samples; the same on a phone, and a long
        // context, are.
        assert_eq!(queries_within(u64::MAX, heads(64, 1024)), 1024);
        assert_eq!(queries_within(128 << 20, heads(8, 1024)), 320);
        assert_eq!([1, 3].map(|batch| queries_within(u64::MAX, heads(batch, 70_000))), [128; 2]);
        assert_eq!(queries_within(1000, heads(1, 70_000)), 1);
        assert_eq!(queries_within(100, heads(0, 0)), 25);
    }
}
