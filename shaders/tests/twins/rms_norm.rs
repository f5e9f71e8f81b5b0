//! RMSNorm.

use super::common::{close, draw, read, recording, same_bits, upload, upload_half};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use nightjar_shaders::{
    cpu,
    op::{self, RmsNormBackward},
};

/// Around the workgroup's size, and more rows than workgroups stand in a row. A large epsilon, so that leaving it
/// out shows.
const EPS: f32 = 0.3;
const SIZES: [(usize, usize); 8] = [(1, 1), (3, 2), (5, 63), (4, 64), (7, 65), (2, 129), (33, 344), (2_050, 3)];

pub fn forward(device: &Device, seed: u64) -> Result<(), String> {
    for (n, d) in SIZES {
        let (x, gain) = (draw(seed, 1, n * d), draw(seed, 2, d));
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(&x, &gain, EPS, &mut y, &mut inverse);
        let run = |x: &[f32], device: &Device| {
            op::rms_norm(&upload(x, [n, d], device), &upload(&gain, [1, d], device), f64::from(EPS), FloatDType::F32)
        };
        let (got, got_inverse) = run(&x, device);
        close(&format!("y {n}x{d}"), got.clone(), &y, 1e-5)?;
        close(&format!("inverse {n}x{d}"), got_inverse, &inverse, 1e-5)?;
        // On a recording device the operation is Burn's own.
        close(&format!("y {n}x{d} against Burn"), got, &read(run(&x, &recording()).0)?, 1e-5)?;
    }
    if device.supports_dtype(DType::F16) {
        let (n, d) = (7, 65);
        let (x, gain) = (draw(seed, 5, n * d), draw(seed, 6, d));
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(&x, &gain, EPS, &mut y, &mut inverse);
        let (on_x, on_gain) = (upload(&x, [n, d], device), upload(&gain, [1, d], device));
        let (got, got_inverse) = op::rms_norm(&on_x, &on_gain, f64::from(EPS), FloatDType::F16);
        if got.dtype() != DType::F16 {
            return Err(format!("into f16 it is {:?}", got.dtype()));
        }
        close("y into f16", got, &y, 1e-3)?;
        close("inverse beside f16", got_inverse, &inverse, 1e-5)?;
    }
    let (nothing, inverse) =
        op::rms_norm(&upload(&[], [0, 6], device), &upload(&[1.0; 6], [1, 6], device), 1e-5, FloatDType::F32);
    if (nothing.dims(), inverse.dims()) != ([0, 6], [0, 1]) {
        return Err("nothing does not stay nothing".into());
    }
    // What is no number stays in its row.
    let (n, d) = (5, 70);
    let (mut x, gain) = (draw(seed, 3, n * d), vec![1.0; d]);
    let run = |x: &[f32]| {
        read(op::rms_norm(&upload(x, [n, d], device), &upload(&gain, [1, d], device), 1e-5, FloatDType::F32).0)
    };
    let clean = run(&x)?;
    (x[d + 7], x[3 * d]) = (f32::NAN, f32::INFINITY);
    let got = run(&x)?;
    if !got[d + 7].is_nan() || got[3 * d].is_finite() {
        return Err(format!("NaN and infinity become {} and {}", got[d + 7], got[3 * d]));
    }
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
        let mut again = dy.clone();
        let want_gain = cpu::rms_norm::backward(&mut again, &x, &gain, &inverse, &mut want);
        same_bits("the twin's y once more", &again, &y)?;
        let [on_dy, on_x, on_past] = [&dy, &x, &past].map(|values| upload(values, [n, d], device));
        let (on_gain, on_inverse) = (upload(&gain, [1, d], device), upload(&inverse, [n, 1], device));
        let RmsNormBackward { dx, dgain, y: y_again } =
            op::rms_norm_backward(on_dy.clone(), &on_x, &on_gain, &on_inverse, on_past.clone());
        close(&format!("y once more, {n}x{d}"), y_again, &y, 2e-5)?;
        close(&format!("dx {n}x{d}"), dx.clone(), &want, 2e-5)?;
        // Sums over the rows, of which each order of adding has errors of its own.
        let of_sums = 2e-5 * (n as f32 / 64.0).sqrt().max(1.0);
        close(&format!("dgain {n}x{d}"), dgain.clone(), &want_gain, of_sums)?;
        // In place, but not in a place that someone else still looks at.
        same_bits("what flows past", &read(on_past)?, &past)?;
        same_bits("the gradient of y", &read(on_dy)?, &dy)?;

        let recording = recording();
        let (x, gain) =
            (upload(&x, [n, d], &recording).require_grad(), upload(&gain, [1, d], &recording).require_grad());
        let loss = (op::rms_norm(&x, &gain, f64::from(EPS), FloatDType::F32).0 * upload(&dy, [n, d], &recording)).sum();
        let gradients = loss.backward();
        let (Some(by_x), Some(by_gain)) = (x.grad(&gradients), gain.grad(&gradients)) else {
            return Err("no gradient".into());
        };
        let want: Vec<f32> = read(by_x)?.iter().zip(&past).map(|(g, past)| g + past).collect();
        close(&format!("dx {n}x{d} against autodiff"), dx, &want, 2e-5)?;
        close(&format!("dgain {n}x{d} against autodiff"), dgain, &read(by_gain)?, of_sums)?;
    }
    half_and_sick(device, seed)
}

/// A gradient that comes in as f16, and one that is not finite: it stays in its row, but for the gain's gradient.
fn half_and_sick(device: &Device, seed: u64) -> Result<(), String> {
    let (n, d) = (9, 70);
    let (x, gain, inverse) = (draw(seed, 5, n * d), draw(seed, 6, d), vec![0.5; n]);
    let run = |dy: Tensor<2>| {
        let (x, gain, inverse) =
            (upload(&x, [n, d], device), upload(&gain, [1, d], device), upload(&inverse, [n, 1], device));
        op::rms_norm_backward(dy, &x, &gain, &inverse, Tensor::zeros([n, d], device))
    };
    if let Some((dy, mut rounded)) = upload_half(&draw(seed, 7, n * d), [n, d], device) {
        let mut want = vec![0.0; n * d];
        let want_gain = cpu::rms_norm::backward(&mut rounded, &x, &gain, &inverse, &mut want);
        let made = run(dy);
        if made.y.dtype() != DType::F16 {
            return Err(format!("what f16 is the gradient of is {:?}", made.y.dtype()));
        }
        close("dx of f16", made.dx, &want, 2e-5)?;
        close("dgain of f16", made.dgain, &want_gain, 2e-5)?;
        close("y of f16 once more", made.y, &rounded, 1e-3)?;
    }
    // Of a sick row of x.
    let mut sick = x.clone();
    (sick[2 * d + 1], sick[6 * d]) = (f32::NAN, f32::INFINITY);
    let dy = draw(seed, 8, n * d);
    let of = |x: &[f32]| {
        let (gain, inverse) = (upload(&gain, [1, d], device), upload(&inverse, [n, 1], device));
        let [dy, x] = [&dy, x].map(|values| upload(values, [n, d], device));
        op::rms_norm_backward(dy, &x, &gain, &inverse, Tensor::zeros([n, d], device))
    };
    let (clean, made) = (read(of(&x).dx)?, of(&sick));
    let (mut dx, dgain) = (read(made.dx)?, read(made.dgain)?);
    for row in [2, 6] {
        let of_row = row * d..(row + 1) * d;
        if dx[of_row.clone()].iter().any(|x| x.is_finite()) {
            return Err(format!("row {row} of what is not finite has a finite gradient"));
        }
        dx[of_row.clone()].copy_from_slice(&clean[of_row]);
    }
    if dgain[1].is_finite() || dgain[0].is_finite() || !dgain[2].is_finite() {
        return Err("a row that is not finite is lost to the gain's gradient, or goes astray".into());
    }
    same_bits("rows beside sick ones", &dx, &clean)?;
    let mut dy = dy.clone();
    let clean = read(run(upload(&dy, [n, d], device)).dx)?;
    dy[4 * d + 3] = f32::NAN;
    let made = run(upload(&dy, [n, d], device));
    let (mut dx, dgain) = (read(made.dx)?, read(made.dgain)?);
    if dx[4 * d..][..d].iter().any(|x| x.is_finite()) || !dgain[3].is_nan() || dgain[4].is_nan() {
        return Err("a gradient that is not finite is lost, or goes astray".into());
    }
    dx[4 * d..][..d].copy_from_slice(&clean[4 * d..][..d]);
    same_bits("rows beside a sick one", &dx, &clean)?;
    let nothing = || upload(&[], [0, d], device);
    let (gain, inverse) = (upload(&gain, [1, d], device), upload(&[], [0, 1], device));
    let made = op::rms_norm_backward(nothing(), &nothing(), &gain, &inverse, nothing());
    if made.dx.dims() != [0, d] || made.y.dims() != [0, d] || read(made.dgain)? != vec![0.0; d] {
        return Err("nothing has a gradient".into());
    }
    Ok(())
}

pub const BACKWARD_MUTANTS: &[(&str, &str, &str)] = &[
    ("rms_norm_backward", "* r * r * r /", "* r * r /"),
    ("rms_norm_backward", "gain[i] - x[first + i] * slope", "gain[i] + x[first + i] * slope"),
    ("rms_norm_backward", "dx[first + i] += g", "dx[first + i] = g"),
    ("rms_norm_backward", "+= g * x[first + i]", "= g * x[first + i]"),
    ("rms_norm_backward", "dgain[part * width + i] = 0.0", "dgain[part * width + i] = 1.0"),
    ("rms_norm_backward", "Elem(x[first + i] * r", "Elem(x[first + i]"),
    ("rms_norm_backward", "turn < ROWS", "turn + 1u < ROWS"),
    ("rms_norm_backward", "half = SIZE / 2u", "half = SIZE / 4u"),
];
