//! A device, fresh input, and one way to compare.

use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};
use nightjar_shaders::{
    kernel::{self, MatrixUnits},
    tuning,
};
use nightjar_shared::rng;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Held by tests that choose which kernels run: the choice is the whole process's, and a runner may have many tests in
/// one.
pub fn choosing() -> MutexGuard<'static, ()> {
    static CHOOSING: Mutex<()> = Mutex::new(());
    CHOOSING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Any `wgpu` adapter, software included, opened once a process; `None` where there is none outside CI.
pub fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(open).clone()
}

fn open() -> Option<Device> {
    tuning::configure(tuning::Tuning::Minimal, None);
    match Device::wgpu_options().device_kind(DeviceKind::DefaultDevice).init_with_setup() {
        Ok((device, setup)) => {
            MatrixUnits::set(MatrixUnits::of(&setup.adapter));
            Some(device)
        }
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
pub fn seed() -> u64 {
    let fresh = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(fresh);
    println!("SEED={seed}");
    seed
}

/// Normal numbers.
pub fn draw(seed: u64, stream: u64, len: usize) -> Vec<f32> {
    (0..len).map(|i| rng::normal(seed, stream, i as u64) as f32).collect()
}

/// To the device.
pub fn upload<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// To the device as f16, and the values as they are after that; `None` where the device has no such type.
pub fn upload_half<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &Device,
) -> Option<(Tensor<D>, Vec<f32>)> {
    let has_half = kernel::runs_on(device) && device.supports_dtype(DType::F16);
    let half = has_half.then(|| upload(values, shape, device).cast(DType::F16))?;
    let rounded = read(half.clone()).ok()?;
    Some((half, rounded))
}

/// From the device, and widened here: a driver may take f32 -> f16 -> f32 in one fused kernel for nothing at all.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data().map_err(|e| e.to_string())?;
    data.convert::<f32>().try_to_vec::<f32>().map_err(|e| e.to_string())
}

/// Fails if any value is off by more than `tolerance`, relative to its size or to 1.
pub fn close<const D: usize>(what: &str, got: Tensor<D>, want: &[f32], tolerance: f32) -> Result<(), String> {
    let got = read(got)?;
    if got.len() != want.len() {
        return Err(format!("{what}: {} values instead of {}", got.len(), want.len()));
    }
    // A NaN is no small number.
    let is_off = |(got, want): (&f32, &f32)| {
        let error = (got - want).abs() / want.abs().max(1.0);
        error.is_nan() || error > tolerance
    };
    match got.iter().zip(want).position(is_off) {
        Some(at) => Err(format!("{what}: value {at} of {} is {:e} instead of {:e}", want.len(), got[at], want[at])),
        None => Ok(()),
    }
}

/// Fails unless all bits agree.
pub fn same_bits(what: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} values instead of {}", got.len(), want.len()));
    }
    match got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits()) {
        Some(at) => Err(format!("{what}: value {at} of {} is {:e} instead of {:e}", want.len(), got[at], want[at])),
        None => Ok(()),
    }
}

/// Where Burn's own operations run and record what they do: its automatic gradients owe nothing to ours.
pub fn recording() -> Device {
    Device::flex().autodiff()
}
