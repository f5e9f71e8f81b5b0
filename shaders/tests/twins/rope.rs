//! Rotary embedding.

use super::common::{close, draw, read, recording, same_bits, upload, upload_half};
use burn::tensor::Device;
use nightjar_shaders::{cpu, op, op::Heads};

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    for (batch, context, heads, kv, size) in [(1, 1, 1, 1, 2), (2, 5, 3, 1, 6), (3, 17, 4, 2, 10), (1, 33, 8, 8, 64)] {
        let shape = Heads { batch, context, heads, kv, size };
        let (n, row, half) = (shape.tokens(), shape.packed_width(), size / 2);
        let x = draw(seed, 1, n * row);
        let angles = draw(seed, 2, context * half);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        for direction in [1.0, -1.0] {
            let mut want = x.clone();
            cpu::rope::rotate(&mut want, shape, &cos, &sin, direction);
            let run = |device: &Device| {
                let (cos, sin) = (upload(&cos, [context, half], device), upload(&sin, [context, half], device));
                op::rope(upload(&x, [n, row], device), shape, &cos, &sin, direction)
            };
            let what = format!("{shape:?} by {direction}");
            close(&what, run(device), &want, 1e-6)?;
            close(&format!("{what} against Burn"), run(&recording()), &want, 1e-6)?;
        }
        // The gradient is the way back.
        let (recording, dy) = (recording(), draw(seed, 3, n * row));
        let (packed, weights) = (upload(&x, [n, row], &recording).require_grad(), upload(&dy, [n, row], &recording));
        let [on_cos, on_sin] = [&cos, &sin].map(|table| upload(table, [context, half], &recording));
        let gradients = (op::rope(packed.clone(), shape, &on_cos, &on_sin, 1.0) * weights).sum().backward();
        let want = read(packed.grad(&gradients).ok_or("no gradient")?)?;
        let [on_cos, on_sin] = [&cos, &sin].map(|table| upload(table, [context, half], device));
        let held = upload(&dy, [n, row], device);
        close(&format!("{shape:?} backward"), op::rope(held.clone(), shape, &on_cos, &on_sin, -1.0), &want, 1e-6)?;
        same_bits("what was rotated, held by another", &read(held)?, &dy)?;
        if let Some((half, mut want)) = upload_half(&x, [n, row], device) {
            cpu::rope::rotate(&mut want, shape, &cos, &sin, 1.0);
            close(&format!("{shape:?} of f16"), op::rope(half, shape, &on_cos, &on_sin, 1.0), &want, 1e-3)?;
        }
    }
    sick_pairs_stay_apart(device, seed)
}

/// What is not finite stays in its pair, and nothing stays nothing. More pairs than one row of workgroups takes.
fn sick_pairs_stay_apart(device: &Device, seed: u64) -> Result<(), String> {
    let shape = Heads { batch: 1, context: 1025, heads: 8, kv: 4, size: 64 };
    let (n, row, half) = (shape.tokens(), shape.packed_width(), shape.size / 2);
    let (cos, sin): (Vec<f32>, Vec<f32>) = draw(seed, 4, n * half).iter().map(|a| (a.cos(), a.sin())).unzip();
    let run = |x: &[f32]| {
        let [cos, sin] = [&cos, &sin].map(|table| upload(table, [n, half], device));
        read(op::rope(upload(x, [n, row], device), shape, &cos, &sin, 1.0))
    };
    let mut x = draw(seed, 5, n * row);
    let clean = run(&x)?;
    let mut want = x.clone();
    cpu::rope::rotate(&mut want, shape, &cos, &sin, 1.0);
    close("more pairs than a row of workgroups", upload(&clean, [n * row], device), &want, 1e-6)?;
    let at = 700 * row + 3 * shape.size + 5;
    // In one pair one of them, in the next the other, which need not be NaN afterwards.
    (x[at], x[at + half + 1]) = (f32::NAN, f32::NEG_INFINITY);
    let mut got = run(&x)?;
    for at in [at, at + half, at + 1, at + half + 1] {
        if got[at].is_finite() {
            return Err(format!("of what is not finite comes {}", got[at]));
        }
        got[at] = clean[at];
    }
    same_bits("beside a pair that is not finite", &got, &clean)?;
    let (nothing, tables) = (Heads { batch: 0, ..shape }, upload(&cos, [n, half], device));
    let left = op::rope(upload(&[], [0, row], device), nothing, &tables, &tables, 1.0);
    if left.dims() == [0, row] { Ok(()) } else { Err(format!("nothing becomes {:?}", left.dims())) }
}

pub const MUTANTS: &[(&str, &str, &str)] = &[
    ("rope", "a * c - b * s", "a * c + b * s"),
    ("rope", "b * c + a * s", "b * c"),
    ("rope", "* shape.direction", ""),
    ("rope", "token % shape.context", "token % 1u"),
    ("rope", "head * 2u * shape.half", "head * shape.half"),
    ("rope", "pair >= shape.pairs", "pair + 1u >= shape.pairs"),
    ("rope", "group.y * groups.x + group.x", "group.x"),
];
