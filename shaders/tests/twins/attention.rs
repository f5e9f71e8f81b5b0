//! Causal attention, forward and backward.

use super::common::{close, draw, read, recording, same_bits, upload, upload_half};
use burn::tensor::{DType, Device};
use nightjar_shaders::{
    choice::{self, Choices},
    cpu,
    op::{self, Heads, Scores, Tables},
};

const THETA: f64 = 100.0;

/// Result and gradient by the twin: rotated, attended, and the gradient turned back.
fn twin(x: &[f32], dout: &[f32], shape: Heads) -> (Vec<f32>, Vec<f32>) {
    let Heads { batch, context, heads, size, .. } = shape;
    let half = size / 2;
    let angle = |i: usize| (i / half) as f64 * THETA.powf(-2.0 * (i % half) as f64 / size as f64);
    let [cos, sin] = [f64::cos, f64::sin].map(|f| (0..context * half).map(|i| f(angle(i)) as f32).collect::<Vec<_>>());
    let scale = 1.0 / (size as f32).sqrt();
    let mut packed = x.to_vec();
    cpu::rope::rotate(&mut packed, shape, &cos, &sin, 1.0);
    let (mut out, mut lse) = (vec![0.0; shape.tokens() * heads * size], vec![0.0; batch * heads * context]);
    cpu::attention::forward(&packed, shape, scale, &mut out, &mut lse);
    let mut dpacked = vec![0.0; packed.len()];
    cpu::attention::backward(&packed, &out, &lse, dout, shape, scale, &mut dpacked);
    cpu::rope::rotate(&mut dpacked, shape, &cos, &sin, -1.0);
    (out, dpacked)
}

fn input(shape: Heads, seed: u64) -> (Vec<f32>, Vec<f32>) {
    // Twice as large as normal, so that some probabilities are nearly one and running maxima rise late.
    let x = draw(seed, 1, shape.tokens() * shape.packed_width()).into_iter().map(|x| 2.0 * x).collect();
    (x, draw(seed, 2, shape.tokens() * shape.heads * shape.size))
}

/// Runs the operation on a device and compares both ways with the twin.
fn compare(device: &Device, shape: Heads, seed: u64) -> Result<(), String> {
    let (n, row, width) = (shape.tokens(), shape.packed_width(), shape.heads * shape.size);
    let (x, dout) = input(shape, seed);
    let (want, want_back) = twin(&x, &dout, shape);
    let tables = Tables::new(shape.context, shape, THETA, device);
    let packed = upload(&x, [n, row], device);
    let (out, saved) = op::attention(packed.clone(), shape, &tables);
    close(&format!("{shape:?}"), out, &want, 5e-5)?;
    let dpacked = op::attention_backward(upload(&dout, [n, width], device), saved, shape, &tables);
    close(&format!("{shape:?} backward"), dpacked, &want_back, 5e-4)?;
    same_bits("what was rotated, held by another", &read(packed)?, &x)?;
    // Of f16 the rotated rows are rounded once more, and with them the scores: by some hundredths where they are large.
    let Some((half, rounded)) = upload_half(&x, [n, row], device) else { return Ok(()) };
    let Some((dout, dout_rounded)) = upload_half(&dout, [n, width], device) else { return Ok(()) };
    let (want, want_back) = twin(&rounded, &dout_rounded, shape);
    let (out, saved) = op::attention(half, shape, &tables);
    let dpacked = op::attention_backward(dout, saved, shape, &tables);
    if (out.dtype(), dpacked.dtype()) != (DType::F16, DType::F16) {
        return Err(format!("of f16 it makes {:?} and {:?}", out.dtype(), dpacked.dtype()));
    }
    close(&format!("{shape:?} of f16"), out, &want, 5e-2)?;
    close(&format!("{shape:?} of f16 backward"), dpacked, &want_back, 1e-1)
}

/// The twin against Burn's own operations and the gradients that Burn records of them.
fn twin_against_burn(shape: Heads, seed: u64) -> Result<(), String> {
    let (n, row, width) = (shape.tokens(), shape.packed_width(), shape.heads * shape.size);
    let (x, dout) = input(shape, seed);
    let (want, want_back) = twin(&x, &dout, shape);
    let recording = recording();
    let packed = upload(&x, [n, row], &recording).require_grad();
    let (out, _) = op::attention(packed.clone(), shape, &Tables::new(shape.context, shape, THETA, &recording));
    close(&format!("{shape:?} by Burn"), out.clone(), &want, 5e-5)?;
    let gradients = (out * upload(&dout, [n, width], &recording)).sum().backward();
    let got = packed.grad(&gradients).ok_or("no gradient")?;
    close(&format!("{shape:?} by autodiff"), got, &want_back, 5e-4)
}

/// Heads of 8 to 128, groups of 1, 2 and 4, contexts around the tile's 64.
fn shapes() -> impl Iterator<Item = Heads> {
    [
        (1, 1, 1, 1, 8),
        (2, 65, 4, 2, 16),
        (1, 64, 2, 2, 36),
        (3, 33, 4, 1, 12),
        (1, 130, 2, 2, 64),
        (1, 70, 4, 1, 128),
        (2, 127, 2, 1, 80),
    ]
    .into_iter()
    .map(|(batch, context, heads, kv, size)| Heads { batch, context, heads, kv, size })
}

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    for shape in shapes() {
        compare(device, shape, seed)?;
    }
    sick_rows_stay_apart(device, seed)?;
    empty(device)
}

/// What is not finite shows where it belongs, and not in rows that do not see it.
fn sick_rows_stay_apart(device: &Device, seed: u64) -> Result<(), String> {
    let shape = Heads { batch: 2, context: 70, heads: 2, kv: 1, size: 8 };
    let (n, row, width, context) = (shape.tokens(), shape.packed_width(), 16, shape.context);
    let (x, dout) = input(shape, seed);
    let tables = Tables::new(context, shape, THETA, device);
    let run = |x: &[f32], dout: &[f32]| {
        let (out, saved) = op::attention(upload(x, [n, row], device), shape, &tables);
        let back = op::attention_backward(upload(dout, [n, width], device), saved, shape, &tables);
        Ok::<_, String>((read(out)?, read(back)?))
    };
    let (clean, clean_back) = run(&x, &dout)?;
    // The first token sees itself alone: if that score is -infinity, what comes later must not show through.
    // Of finite values whose product is not, since turning an infinite one makes a NaN.
    let mut sick = x.clone();
    for i in 0..8 {
        (sick[i], sick[16 + i]) = (-1e30, 1e20);
    }
    let (got, _) = run(&sick, &dout)?;
    if got[..8].iter().any(|x| x.is_finite()) {
        return Err(format!("a row that sees nothing but -infinity is {:?}", &got[..8]));
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // The query of token 66 of the first sequence, head 0: only that row of that head.
        let mut sick = x.clone();
        sick[66 * row + 3] = bad;
        let (mut got, _) = run(&sick, &dout)?;
        let place = 66 * width..66 * width + 8;
        if got[place.clone()].iter().all(|x| x.is_finite()) {
            return Err(format!("a query of {bad} gives {:?}", &got[place]));
        }
        got[place.clone()].copy_from_slice(&clean[place]);
        same_bits("rows beside a sick query", &got, &clean)?;
        // A value of token 66: the rows from there on, and nothing of the tile before or the other sequence.
        let mut sick = x.clone();
        sick[66 * row + 24 + 3] = bad;
        let (got, _) = run(&sick, &dout)?;
        if (66..context).any(|t| got[t * width + 3].is_finite()) {
            return Err(format!("a value of {bad} does not reach the rows that see it"));
        }
        same_bits("the tile before a sick value", &got[..64 * width], &clean[..64 * width])?;
        same_bits("the sequence after a sick value", &got[context * width..], &clean[context * width..])?;
        // A gradient that is not finite reaches its query, and no other sequence.
        let mut sick = dout.clone();
        sick[66 * width] = bad;
        let (_, got) = run(&x, &sick)?;
        if got[66 * row..][..8].iter().all(|x| x.is_finite()) {
            return Err(format!("a gradient of {bad} is lost"));
        }
        same_bits("the sequence after a sick gradient", &got[context * row..], &clean_back[context * row..])?;
    }
    Ok(())
}

fn empty(device: &Device) -> Result<(), String> {
    let shape = Heads { batch: 0, context: 5, heads: 2, kv: 1, size: 8 };
    let tables = Tables::new(5, shape, THETA, device);
    let (out, saved) = op::attention(burn::tensor::Tensor::zeros([0, 32], device), shape, &tables);
    let back = op::attention_backward(out.clone(), saved, shape, &tables);
    match (out.dims(), back.dims()) {
        ([0, 16], [0, 32]) => Ok(()),
        dims => Err(format!("nothing gives {dims:?}")),
    }
}

#[test]
fn burns_own_operations_and_blocks_of_queries_agree_with_the_twin() {
    let seed = super::common::seed();
    for shape in shapes().chain([Heads { batch: 2, context: 7, heads: 3, kv: 1, size: 6 }]) {
        twin_against_burn(shape, seed).unwrap();
        compare(&Device::flex(), shape, seed).unwrap();
    }
    // More than one block: of 256 on the processor, of at most 1024 elsewhere.
    for context in [256, 257, 600] {
        compare(&Device::flex(), Heads { batch: 2, context, heads: 4, kv: 2, size: 8 }, seed).unwrap();
    }
    let long = Heads { batch: 1, context: 1100, heads: 2, kv: 1, size: 4 };
    twin_against_burn(long, seed).unwrap();
    compare(&recording(), long, seed).unwrap();
    empty(&Device::flex()).unwrap();
}

/// Heads that the kernels cannot read in quads are attended by blocks on their device too, and reckoned so.
#[test]
fn heads_that_the_kernels_refuse_are_reckoned_by_blocks() {
    let Some(device) = super::common::device() else { return };
    let _choosing = super::common::choosing();
    choice::set(Choices::all());
    for (context, kept, at_once) in [(7, 7, 7), (1030, 0, 1024)] {
        let scores = |size| op::attention_scores(Heads { batch: 1, context, heads: 2, kv: 1, size }, &device);
        assert_eq!([scores(6), scores(8)], [Scores { kept, at_once }, Scores::default()]);
    }
}

pub const MUTANTS: &[(&str, &str, &str)] = &[
    ("attention_forward", "key <= vec4<u32>(query + 2u)", "key <= vec4<u32>(query + 3u)"),
    ("attention_forward", "l = l * fade", "l = l"),
    ("attention_forward", "o.far = scale_rows(o.far, fade)", "o.far = scale_rows(o.far, vec4<f32>(1.0))"),
    ("attention_forward", "s[1] * shape.scale", "s[1]"),
    ("attention_forward", "shape.heads + head / GROUP", "shape.heads"),
    ("attention_forward", "m + log(l)", "m"),
    ("attention_forward", "select(vec4<f32>(), exp(s[0] - m.x), seen_0)", "exp(s[0] - m.x)"),
    ("attention_forward", "read(values, token, 16u + tx)", "read(values, token, tx)"),
    ("attention_forward", "best = max(best, memory[ty * 16u + i])", "best = max(best, memory[ty * 16u] + 90.0)"),
    ("attention_backward_queries", "(dp - mean)", "dp"),
    ("attention_backward_queries", "s * shape.scale - log", "s - log"),
    ("attention_backward_queries", "read(keys, token, tx)", "read(values, token, tx)"),
    ("attention_backward_queries", "query + r] = mean[r]", "query + r] = mean[0]"),
    ("attention_backward_queries", "memory[at + 3u].x", "memory[at + 2u].x"),
    ("attention_backward_keys", "var t = tile;", "var t = tile + 1u;"),
    ("attention_backward_keys", "member < GROUP", "member < 1u"),
    ("attention_backward_keys", "query >= vec4<u32>(key + r)", "query > vec4<u32>(key + r)"),
    ("attention_backward_keys", "(dp[r] - mean)", "dp[r]"),
    ("attention_backward_keys", "vec4<Elem>(dk.far[r])", "vec4<Elem>(dk.near[r])"),
];
