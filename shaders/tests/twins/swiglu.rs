//! SwiGLU.

use super::common::{close, draw, read, recording, same_bits, upload, upload_half};
use burn::tensor::{DType, Device};
use nightjar_shaders::{cpu, op};

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    for (n, width) in [(1, 1), (3, 2), (5, 63), (1, 256), (7, 257), (33, 344), (1030, 256)] {
        let (mut x, dy) = (draw(seed, 1, 2 * n * width), draw(seed, 2, n * width));
        // Where the exponential would leave the range of f32, either way.
        x[0] = if n % 2 == 0 { 200.0 } else { -200.0 };
        let mut want = vec![0.0; n * width];
        cpu::swiglu::forward(&x, width, &mut want);
        let (mut want_back, mut again) = (x.clone(), dy.clone());
        cpu::swiglu::backward(&mut want_back, &mut again, width);
        let (on_x, on_dy) = (upload(&x, [n, 2 * width], device), upload(&dy, [n, width], device));
        let y = op::swiglu(&on_x);
        close(&format!("y {n}x{width}"), y.clone(), &want, 1e-5)?;
        let back = op::swiglu_backward(on_x.clone(), on_dy.clone());
        close(&format!("gradient {n}x{width}"), back.dgate_up.clone(), &want_back, 1e-5)?;
        close(&format!("y once more, {n}x{width}"), back.y.clone(), &again, 1e-5)?;
        close(&format!("y once more, {n}x{width}, against y"), back.y, &want, 1e-5)?;
        same_bits("what was replaced, held by another", &read(on_x)?, &x)?;
        same_bits("the gradient of y, held by another", &read(on_dy)?, &dy)?;
        let recording = recording();
        let packed = upload(&x, [n, 2 * width], &recording).require_grad();
        let result = op::swiglu(&packed);
        close(&format!("y {n}x{width} against Burn"), y, &read(result.clone())?, 1e-5)?;
        let gradients = (result * upload(&dy, [n, width], &recording)).sum().backward();
        let want = read(packed.grad(&gradients).ok_or("no gradient")?)?;
        close(&format!("gradient {n}x{width} against autodiff"), back.dgate_up, &want, 1e-5)?;
    }
    half(device, seed)?;
    let nothing = op::swiglu(&upload(&[], [0, 8], device));
    let back = op::swiglu_backward(upload(&[], [0, 8], device), nothing.clone());
    if (nothing.dims(), back.dgate_up.dims(), back.y.dims()) != ([0, 4], [0, 8], [0, 4]) {
        return Err("nothing does not stay nothing".into());
    }
    // What is no number stays in its place.
    let (n, width) = (3, 90);
    let mut x = draw(seed, 3, 2 * n * width);
    let clean = read(op::swiglu(&upload(&x, [n, 2 * width], device)))?;
    (x[2], x[2 * width + 5]) = (f32::NAN, f32::NEG_INFINITY);
    let mut got = read(op::swiglu(&upload(&x, [n, 2 * width], device)))?;
    if !got[2].is_nan() || got[width + 5].is_finite() {
        return Err(format!("NaN and minus infinity become {} and {}", got[2], got[width + 5]));
    }
    (got[2], got[width + 5]) = (clean[2], clean[width + 5]);
    same_bits("values beside those that are not finite", &got, &clean)?;
    // Backward each pair by itself, whether it is sick itself or its gradient is.
    let dy = draw(seed, 6, n * width);
    let run = |x: &[f32], dy: &[f32]| {
        read(op::swiglu_backward(upload(x, [n, 2 * width], device), upload(dy, [n, width], device)).dgate_up)
    };
    let mut sick_dy = dy.clone();
    (sick_dy[7], sick_dy[width + 9]) = (f32::NAN, f32::INFINITY);
    let mut got = run(&x, &sick_dy)?;
    let mut sick = vec![];
    // The pair of value `at` of row `row` has its gate and, a width behind, what the gate is for.
    for (row, at) in [(0, 2), (0, 7), (1, 5), (1, 9)] {
        sick.extend([row * 2 * width + at, (row * 2 + 1) * width + at]);
    }
    (x[2], x[2 * width + 5]) = (0.5, 0.5);
    let clean = run(&x, &dy)?;
    if [2, 7, width + 7].iter().any(|at| got[*at].is_finite()) {
        return Err("a gradient of what is not finite is finite".into());
    }
    sick.into_iter().for_each(|at| got[at] = clean[at]);
    same_bits("gradients beside those that are not finite", &got, &clean)
}

/// Rows of f16: computed in f32, rounded once.
fn half(device: &Device, seed: u64) -> Result<(), String> {
    let (n, width) = (5, 63);
    let Some((x, rounded)) = upload_half(&draw(seed, 4, 2 * n * width), [n, 2 * width], device) else { return Ok(()) };
    let Some((dy, mut dy_rounded)) = upload_half(&draw(seed, 5, n * width), [n, width], device) else { return Ok(()) };
    let mut want = vec![0.0; n * width];
    cpu::swiglu::forward(&rounded, width, &mut want);
    close("y of f16", op::swiglu(&x), &want, 1e-3)?;
    let mut want = rounded;
    cpu::swiglu::backward(&mut want, &mut dy_rounded, width);
    let back = op::swiglu_backward(x, dy);
    if [back.dgate_up.dtype(), back.y.dtype()] != [DType::F16; 2] {
        return Err(format!("of f16 there came {:?} and {:?}", back.dgate_up.dtype(), back.y.dtype()));
    }
    close("y of f16 once more", back.y, &dy_rounded, 1e-3)?;
    close("gradient of f16", back.dgate_up, &want, 1e-3)
}

pub const MUTANTS: &[(&str, &str, &str)] = &[
    ("swiglu", "exp(min(-gate", "exp(min(gate"),
    ("swiglu", " * up);", ");"),
    ("swiglu", "group.y * groups.x + group.x", "group.x"),
    ("swiglu", "row * shape.width + at])", "at])"),
    ("swiglu", "80.0", "1.0"),
    ("swiglu_backward", "(1.0 - s)", "s"),
    ("swiglu_backward", "(g * silu)", "(g * s)"),
    ("swiglu_backward", "Elem(silu * up)", "Elem(s * up)"),
    ("swiglu_backward", "at >= shape.results", "at + 1u >= shape.results"),
    ("swiglu_backward", "group.y * groups.x + group.x", "group.x"),
];
