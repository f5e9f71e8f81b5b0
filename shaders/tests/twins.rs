//! Kernels against their CPU twins, on fresh random input and odd sizes; and mutants of each kernel, which the same
//! comparison must tell apart.

use burn::tensor::{Device, DeviceKind, Tensor, TensorData};
use nightjar_shaders::{cpu, kernel, tuning};
use nightjar_shared::rng;

/// Any `wgpu` adapter, software included; `None` where there is none outside CI.
fn device() -> Option<Device> {
    tuning::configure(tuning::Tuning::Minimal, None);
    match Device::wgpu_options().device_kind(DeviceKind::DefaultDevice).init() {
        Ok(device) => Some(device),
        Err(e) => {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "no wgpu adapter: install mesa-vulkan-drivers and libvulkan1 ({e})"
            );
            eprintln!("skipped: this machine has no wgpu adapter");
            None
        }
    }
}

/// Fresh input on every run; the seed is printed, and replays it as `SEED`.
fn seed() -> u64 {
    let fresh = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(fresh);
    println!("SEED={seed}");
    seed
}

/// The largest difference between kernel and twin over sizes around the workgroup's, relative to the result's size.
fn rms_norm_error(device: &Device, source: &str, seed: u64) -> f32 {
    let mut worst = 0.0f32;
    for (n, d) in [(1, 1), (3, 2), (5, 63), (4, 64), (7, 65), (2, 129), (33, 344), (70_001, 3)] {
        let draw =
            |stream: u64, len: usize| -> Vec<f32> { (0..len).map(|i| rng::normal(seed, stream, i as u64) as f32).collect() };
        // A large epsilon, so that leaving it out shows.
        let (x, gain, eps) = (draw(1, n * d), draw(2, d), 0.3);
        let (mut y, mut inverse) = (vec![0.0; n * d], vec![0.0; n]);
        cpu::rms_norm::forward(&x, &gain, eps, &mut y, &mut inverse);
        let upload = |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), device);
        let (got_y, got_inverse) =
            kernel::rms_norm(&upload(x, [n, d]), &upload(gain, [1, d]), eps, source).expect("a wgpu device");
        for (got, want) in [(got_y, y), (got_inverse, inverse)] {
            let got = got.into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                let error = (got - want).abs() / want.abs().max(1.0);
                worst = if error.is_nan() { f32::INFINITY } else { worst.max(error) };
            }
        }
    }
    worst
}

#[test]
fn rms_norm_and_its_mutants() {
    let Some(device) = device() else { return };
    let seed = seed();
    let error = rms_norm_error(&device, kernel::RMS_NORM, seed);
    assert!(error < 1e-5, "kernel and twin differ by {error:e}");
    for (from, to) in [
        ("+ bitcast<f32>(shape.eps)", ""),
        ("/ f32(width)", "/ f32(SIZE)"),
        ("half = SIZE / 2u", "half = SIZE / 4u"),
        ("* r * gain[i]", "* r * gain[0]"),
        ("group.y * shape.across + group.x", "group.x"),
        ("row < shape.rows", "row + 1u < shape.rows"),
        ("i += SIZE) {\n            squares", "i += SIZE * 2u) {\n            squares"),
    ] {
        assert_eq!(kernel::RMS_NORM.matches(from).count(), 1, "no longer in the kernel: {from}");
        let mutant = kernel::RMS_NORM.replace(from, to);
        let error = rms_norm_error(&device, &mutant, seed);
        assert!(error > 1e-3, "the comparison does not see the mutant '{from}' -> '{to}' ({error:e})");
    }
}
