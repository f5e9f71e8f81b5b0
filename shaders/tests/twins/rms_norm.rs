//! RMSNorm.

use super::common::{close, draw, read, recording, same_bits, upload};
use burn::tensor::Device;
use nightjar_shaders::{cpu, op};

/// Around the workgroup's size, and more rows than workgroups stand in a row. A large epsilon, so that leaving it
/// out shows.
const EPS: f32 = 0.3;
const SIZES: [(usize, usize); 8] = [(1, 1), (3, 2), (5, 63), (4, 64), (7, 65), (2, 129), (33, 344), (2_050, 3)];

pub fn forward(device: &Device, seed: u64) -> Result<(), String> {
    for (n, d) in SIZES {
        let (x, gain) = (draw(seed, 1, n * d), draw(seed, 2, d));
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(&x, &gain, EPS, &mut y, &mut inverse);
        let run =
            |x: &[f32], device: &Device| op::rms_norm(&upload(x, [n, d], device), &upload(&gain, [1, d], device), f64::from(EPS));
        let (got, got_inverse) = run(&x, device);
        close(&format!("y {n}x{d}"), got.clone(), &y, 1e-5)?;
        close(&format!("inverse {n}x{d}"), got_inverse, &inverse, 1e-5)?;
        // On a recording device the operation is Burn's own.
        close(&format!("y {n}x{d} against Burn"), got, &read(run(&x, &recording()).0)?, 1e-5)?;
    }
    // What is no number stays in its row.
    let (n, d) = (5, 70);
    let (mut x, gain) = (draw(seed, 3, n * d), vec![1.0; d]);
    let run = |x: &[f32]| read(op::rms_norm(&upload(x, [n, d], device), &upload(&gain, [1, d], device), 1e-5).0);
    let clean = run(&x)?;
    (x[d + 7], x[3 * d]) = (f32::NAN, f32::INFINITY);
    let got = run(&x)?;
    for row in [0, 2, 4] {
        same_bits("a row beside one that is not finite", &got[row * d..][..d], &clean[row * d..][..d])?;
    }
    Ok(())
}

pub const FORWARD_MUTANTS: &[(&str, &str, &str)] = &[
    ("rms_norm", " + shape.eps", ""),
    ("rms_norm", "/ f32(width)", "/ f32(SIZE)"),
    ("rms_norm", "half = SIZE / 2u", "half = SIZE / 4u"),
    ("rms_norm", "* r * gain[i]", "* r * gain[0]"),
    ("rms_norm", "group.y * groups.x + group.x", "group.x"),
    ("rms_norm", "row < shape.rows", "row + 1u < shape.rows"),
    ("rms_norm", "i += SIZE) {\n            squares", "i += SIZE * 2u) {\n            squares"),
];

pub fn backward(device: &Device, seed: u64) -> Result<(), String> {
    for (n, d) in [(1, 1), (3, 2), (5, 63), (4, 64), (7, 65), (2, 129), (33, 344), (1025, 5)] {
        let (dy, x, gain, past) = (draw(seed, 1, n * d), draw(seed, 2, n * d), draw(seed, 3, d), draw(seed, 4, n * d));
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(&x, &gain, EPS, &mut y, &mut inverse);
        let mut want = past.clone();
        let want_gain = cpu::rms_norm::backward(&dy, &x, &gain, &inverse, &mut want);
        let [on_dy, on_x, on_past] = [&dy, &x, &past].map(|values| upload(values, [n, d], device));
        let (on_gain, on_inverse) = (upload(&gain, [1, d], device), upload(&inverse, [n, 1], device));
        let (dx, dgain) = op::rms_norm_backward(&on_dy, &on_x, &on_gain, &on_inverse, on_past.clone());
        close(&format!("dx {n}x{d}"), dx.clone(), &want, 2e-5)?;
        close(&format!("dgain {n}x{d}"), dgain.clone(), &want_gain, 2e-5)?;
        // In place, but not in a place that someone else still looks at.
        same_bits("what flows past", &read(on_past)?, &past)?;

        let recording = recording();
        let (x, gain) = (upload(&x, [n, d], &recording).require_grad(), upload(&gain, [1, d], &recording).require_grad());
        let loss = (op::rms_norm(&x, &gain, f64::from(EPS)).0 * upload(&dy, [n, d], &recording)).sum();
        let gradients = loss.backward();
        let (Some(by_x), Some(by_gain)) = (x.grad(&gradients), gain.grad(&gradients)) else { return Err("no gradient".into()) };
        let want: Vec<f32> = read(by_x)?.iter().zip(&past).map(|(g, past)| g + past).collect();
        close(&format!("dx {n}x{d} against autodiff"), dx, &want, 2e-5)?;
        close(&format!("dgain {n}x{d} against autodiff"), dgain, &read(by_gain)?, 2e-5)?;
    }
    Ok(())
}

pub const BACKWARD_MUTANTS: &[(&str, &str, &str)] = &[
    ("rms_norm_backward", "* r * r * r /", "* r * r /"),
    ("rms_norm_backward", "gain[i] - x[first + i] * slope", "gain[i] + x[first + i] * slope"),
    ("rms_norm_backward", "dx[first + i] += g", "dx[first + i] = g"),
    ("rms_norm_backward", "+= g * x[first + i]", "= g * x[first + i]"),
    ("rms_norm_backward", "dgain[part * width + i] = 0.0", "dgain[part * width + i] = 1.0"),
    ("rms_norm_backward", "turn < ROWS", "turn + 1u < ROWS"),
    ("rms_norm_backward", "half = SIZE / 2u", "half = SIZE / 4u"),
];
