//! Causal attention with rotary embedding and grouped heads, from packed projections to packed rows. The products are
//! Burn's batched matrix products; what is around them has its twins in [`crate::cpu::heads`] and [`crate::cpu::softmax`].
//!
//! A group's query heads are stacked along the row dimension (`[batch, kv, group·context, size]`), so that keys and
//! values are never repeated and their gradients sum over the group by themselves.

use super::host::{Source, Target, tensor};
use crate::cpu::{self, heads::Heads};
use burn::tensor::{Bool, Device, Tensor, TensorData, activation::softmax};

/// What attention needs for one context length: rotary tables and, where Burn's own operations run, the causal mask.
#[derive(Clone, Debug)]
pub struct Tables {
    cos: Tensor<2>,
    sin: Tensor<2>,
    hidden: Option<Tensor<4, Bool>>,
}

impl Tables {
    /// Tables for `context` tokens; `theta` is the base of the wavelengths.
    pub fn new(context: usize, shape: Heads, theta: f64, device: &Device) -> Self {
        let half = shape.size / 2;
        let angle = |i: usize| (i / half) as f64 * theta.powf(-2.0 * (i % half) as f64 / shape.size as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..context * half).map(|i| f(angle(i)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [context, half]), device)
        };
        let hidden = (!super::is_host(device)).then(|| {
            let rows = shape.heads / shape.kv * context;
            let hidden: Vec<bool> = (0..rows * context).map(|i| i % context > i / context % context).collect();
            Tensor::from_data(TensorData::new(hidden, [1, 1, rows, context]), device)
        });
        Tables { cos: table(f64::cos), sin: table(f64::sin), hidden }
    }
}

/// What [`attention_backward`] reads: queries, keys, values and probabilities.
#[derive(Clone, Debug)]
pub struct Saved {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    p: Tensor<4>,
}

fn scale(shape: Heads) -> f32 {
    1.0 / (shape.size as f32).sqrt()
}

/// `softmax(q·kᵀ/√size)·v` under the causal mask, for packed rows `[tokens, (heads + 2·kv)·size]`; the result's rows are
/// `[tokens, heads·size]`.
pub fn attention(packed: Tensor<2>, shape: Heads, tables: &Tables) -> (Tensor<2>, Saved) {
    let [q, k, v] = split(packed, shape, tables);
    let scores = q.clone().matmul(k.clone().transpose());
    let p = match &tables.hidden {
        None => {
            let mut scores = Target::of(scores).expect("tables without a mask are for the host");
            cpu::softmax::forward(scores.slice(), shape.context, scale(shape));
            scores.tensor()
        }
        Some(hidden) => {
            let dims = scores.dims();
            softmax(scores.mul_scalar(scale(shape)).mask_fill(hidden.clone().expand(dims), f32::NEG_INFINITY), 3)
        }
    };
    let out = merge(p.clone().matmul(v.clone()), shape);
    (out, Saved { q, k, v, p })
}

/// The gradient of [`attention`] in its packed rows.
pub fn attention_backward(dout: Tensor<2>, saved: Saved, shape: Heads, tables: &Tables) -> Tensor<2> {
    let Saved { q, k, v, p } = saved;
    let dout = unmerge(dout, shape);
    let dv = p.clone().transpose().matmul(dout.clone());
    let dp = dout.matmul(v.transpose());
    let dscores = match Source::of(&p) {
        Some(p) => {
            let mut dp = Target::of(dp).expect("all operands are on one device");
            cpu::softmax::backward(p.slice(), dp.slice(), shape.context, scale(shape));
            dp.tensor::<4>()
        }
        None => {
            let mean = (p.clone() * dp.clone()).sum_dim(3);
            (p * (dp - mean)).mul_scalar(scale(shape))
        }
    };
    let dk = dscores.clone().transpose().matmul(q);
    let dq = dscores.matmul(k);
    join(dq, dk, dv, shape, tables)
}

fn split(packed: Tensor<2>, shape: Heads, tables: &Tables) -> [Tensor<4>; 3] {
    let Heads { batch, context, heads, kv, size } = shape;
    let rows = heads / kv * context;
    if let (Some(packed), Some(cos), Some(sin)) = (Source::of(&packed), Source::of(&tables.cos), Source::of(&tables.sin)) {
        let n = shape.tokens();
        let (mut q, mut k, mut v) = (vec![0.0; n * heads * size], vec![0.0; n * kv * size], vec![0.0; n * kv * size]);
        cpu::heads::split(packed.slice(), shape, cos.slice(), sin.slice(), &mut q, &mut k, &mut v);
        return [
            tensor(q, [batch, kv, rows, size]),
            tensor(k, [batch, kv, context, size]),
            tensor(v, [batch, kv, context, size]),
        ];
    }
    let part = |first: usize, heads: usize| {
        packed.clone().narrow(1, first * size, heads * size).reshape([batch, context, heads, size]).swap_dims(1, 2)
    };
    let q = rotate(part(0, heads), shape, tables, 1.0).reshape([batch, kv, rows, size]);
    [q, rotate(part(heads, kv), shape, tables, 1.0), part(heads + kv, kv)]
}

fn join(dq: Tensor<4>, dk: Tensor<4>, dv: Tensor<4>, shape: Heads, tables: &Tables) -> Tensor<2> {
    let Heads { batch, context, heads, kv, size } = shape;
    if let (Some(dq), Some(dk), Some(dv)) = (Source::of(&dq), Source::of(&dk), Source::of(&dv)) {
        let (Some(cos), Some(sin)) = (Source::of(&tables.cos), Source::of(&tables.sin)) else { unreachable!("one device") };
        let mut packed = vec![0.0; shape.tokens() * shape.packed_width()];
        cpu::heads::join(dq.slice(), dk.slice(), dv.slice(), shape, cos.slice(), sin.slice(), &mut packed);
        return tensor(packed, [shape.tokens(), shape.packed_width()]);
    }
    let rows = |x: Tensor<4>, heads: usize| x.swap_dims(1, 2).reshape([shape.tokens(), heads * size]);
    let dq = rotate(dq.reshape([batch, heads, context, size]), shape, tables, -1.0);
    let dk = rotate(dk, shape, tables, -1.0);
    Tensor::cat(vec![rows(dq, heads), rows(dk, kv), rows(dv, kv)], 1)
}

fn rotate(x: Tensor<4>, shape: Heads, tables: &Tables, direction: f32) -> Tensor<4> {
    let half = shape.size / 2;
    let cos = tables.cos.clone().reshape([1, 1, shape.context, half]);
    let sin = tables.sin.clone().reshape([1, 1, shape.context, half]).mul_scalar(direction);
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    Tensor::cat(vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin], 3)
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
