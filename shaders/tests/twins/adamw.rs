//! The optimizer's update and the gradient's norm.

use super::common::{close, draw, read, recording, same_bits, upload};
use burn::tensor::Device;
use nightjar_shaders::{cpu, op, op::Update};

pub fn update(device: &Device, seed: u64) -> Result<(), String> {
    // Numbers that all matter: each beta, correction and epsilon changes the result in its leading digits.
    let u = Update {
        gradient_scale: 0.7,
        decay: 0.9,
        beta1: 0.8,
        beta2: 0.6,
        step_size: 0.5,
        second_correction: 1.5,
        epsilon: 0.2,
    };
    for (n, d) in [(1, 1), (3, 85), (1, 256), (1, 257), (65, 130), (1030, 256)] {
        let values = |stream: u64| draw(seed, stream, n * d);
        let (w, m, g) = (values(1), values(2), values(4));
        let v: Vec<f32> = values(3).iter().map(|x| x * x).collect();
        let (mut want_w, mut want_m, mut want_v) = (w.clone(), m.clone(), v.clone());
        cpu::adamw::update(&mut want_w, &mut want_m, &mut want_v, &g, u);
        let run = |device: &Device| {
            let [w, m, v, g] = [&w, &m, &v, &g].map(|values| upload(values, [n, d], device));
            op::adamw(w, m, v, &g, u)
        };
        let (ours, burns) = (run(device), run(&recording()));
        for ((got, burns), (what, want)) in
            ours.into_iter().zip(burns).zip([("w", &want_w), ("m", &want_m), ("v", &want_v)])
        {
            close(&format!("{what} {n}x{d}"), got, want, 1e-5)?;
            close(&format!("{what} {n}x{d}, Burn's"), burns, want, 1e-5)?;
        }
        let held = upload(&w, [n, d], device);
        let [m, v, g] = [&m, &v, &g].map(|values| upload(values, [n, d], device));
        let [updated, ..] = op::adamw(held.clone(), m, v, &g, u);
        close("w", updated, &want_w, 1e-5)?;
        same_bits("weights held by another", &read(held)?, &w)?;
    }
    sick_values_stay_alone(device, seed, u)
}

/// A gradient that is not finite spoils its own weight and no other; and nothing stays nothing.
fn sick_values_stay_alone(device: &Device, seed: u64, u: Update) -> Result<(), String> {
    let (n, d) = (5, 130);
    let run = |g: &[f32]| {
        let tensor = |values: &[f32]| upload(values, [g.len() / d, d], device);
        let all = [1, 2, 3].map(|stream| draw(seed, stream, g.len()).iter().map(|x| x.abs()).collect::<Vec<_>>());
        let [w, m, v] = op::adamw(tensor(&all[0]), tensor(&all[1]), tensor(&all[2]), &tensor(g), u);
        Ok::<_, String>([read(w)?, read(m)?, read(v)?])
    };
    let mut g = draw(seed, 4, n * d);
    let clean = run(&g)?;
    let sick = [(0, f32::NAN), (256, f32::INFINITY), (n * d - 1, f32::NEG_INFINITY)];
    sick.iter().for_each(|(at, bad)| g[*at] = *bad);
    for (mut got, clean) in run(&g)?.into_iter().zip(clean) {
        for (at, bad) in sick {
            if got[at].is_finite() {
                return Err(format!("a gradient of {bad} gives {}", got[at]));
            }
            got[at] = clean[at];
        }
        same_bits("beside a gradient that is not finite", &got, &clean)?;
    }
    let nothing = run(&[])?;
    if nothing.iter().all(Vec::is_empty) { Ok(()) } else { Err("nothing does not stay nothing".into()) }
}

pub const UPDATE_MUTANTS: &[(&str, &str, &str)] = &[
    ("adamw", "gradient[at] * u.gradient_scale", "gradient[at]"),
    ("adamw", "(1.0 - u.beta1)", "(1.0 - u.beta2)"),
    ("adamw", "g * g * (1.0", "g * (1.0"),
    ("adamw", " * u.decay -", " -"),
    ("adamw", " + u.epsilon", ""),
    ("adamw", "v * u.second_correction", "v"),
    ("adamw", "first[at] = m;", ""),
    ("adamw", "second[at] = v;", ""),
    ("adamw", "group.y * groups.x + group.x", "group.x"),
];

pub fn sum_of_squares(device: &Device, seed: u64) -> Result<(), String> {
    for (n, d) in [(1, 1), (1, 255), (3, 257), (127, 129), (1, 16_384), (5, 16_385)] {
        let g = draw(seed, 1, n * d);
        let want = cpu::adamw::sum_of_squares(&g);
        let run = |g: &[f32]| read(op::sum_of_squares(&upload(g, [n, d], device)));
        let got = run(&g)?;
        if got.len() != 1 || (f64::from(got[0]) - want).abs() > 1e-5 * want {
            return Err(format!("{n}x{d}: {got:?} instead of {want}"));
        }
        same_bits("the same again", &run(&g)?, &got)?;
        let burns = read(op::sum_of_squares(&upload(&g, [n, d], &recording())))?;
        if (f64::from(burns[0]) - want).abs() > 1e-5 * want {
            return Err(format!("{n}x{d}: Burn's is {burns:?} instead of {want}"));
        }
        // Wherever it is, what is no number is not lost.
        let at = (seed % (n * d) as u64) as usize;
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let mut g = g.clone();
            g[at] = bad;
            let got = run(&g)?;
            // By its bits: the arithmetic alone would make an infinity of most.
            if got[0].to_bits() != 0x7fc0_0000 {
                return Err(format!("{n}x{d}: {bad} at {at} is lost"));
            }
        }
    }
    // More spans than workgroups stand in a row, and something in the last of them.
    let (n, d) = (1030, 16_384);
    let mut g = vec![0.0; n * d];
    (g[1], g[n * d - 1]) = (2.0, 3.0);
    let got = read(op::sum_of_squares(&upload(&g, [n, d], device)))?;
    same_bits("more spans than a row of workgroups", &got, &[13.0])?;
    same_bits("of nothing", &read(op::sum_of_squares(&upload(&[], [0, 8], device)))?, &[0.0])
}

pub const SQUARES_MUTANTS: &[(&str, &str, &str)] = &[
    ("grad_norm", "v * v, SQUARE", "abs(v), SQUARE"),
    ("grad_norm", "SQUARE == 1u", "SQUARE <= 1u"),
    ("grad_norm", "(bits & EXPONENT) == EXPONENT", "bits == EXPONENT"),
    ("grad_norm", "half = SIZE / 2u", "half = SIZE / 4u"),
    ("grad_norm", "is_bad[lane] |= is_bad[lane + half]", "is_bad[lane] &= is_bad[lane + half]"),
    ("grad_norm", "index * shape.span", "index * shape.span + 1u"),
    ("grad_norm", "group.y * groups.x + group.x", "group.x"),
];
