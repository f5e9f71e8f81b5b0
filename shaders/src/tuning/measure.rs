//! Measuring: each operation by our kernel and the other way, on the device at hand.

use super::{
    remembered::{Key, Remembered, Timing},
    trials::{TOKENS, Trial},
};
use crate::choice::{Choices, Op, current, set};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use nightjar_shared::disk::FolderDisk;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The file's name in the worker's folder.
const FILE: &str = "kernels.json";
/// A measured batch takes this long at least, so that waiting for the device is a small part of it.
const BATCH: Duration = Duration::from_millis(20);
/// Runs of one batch at most.
const RUNS_MAX: usize = 256;
/// One run that takes this long is measure enough.
const LONG: Duration = Duration::from_millis(250);
/// Batches of each way; the best counts, since all that can disturb makes a batch slower.
const BATCHES: usize = 3;

/// The time of a kernel that fails on this device, or gives another result than the other way does.
pub const NEVER_MS: f64 = 1e9;
/// How far the two ways' results may be apart, relative to a value or to its tensor's root mean square. A kernel that
/// is wrong is off by far more.
const TOLERANCE: f32 = 1e-2;
/// The same where both round to half the width on their ways.
const TOLERANCE_HALF: f32 = 5e-2;

/// Times an operation both ways, the two in turns, if both give the same result; what it is made of goes the way that
/// is chosen. Nobody else may compute in this process meanwhile: it switches the process's choices, and leaves them as
/// they were.
pub fn measure(trial: &mut Trial, device: &Device) -> Timing {
    let before = current();
    let [ours, other] = [true, false].map(|ours| before.with(trial.op, ours));
    // What fails is fast; and a driver may compile a kernel to something else than it says.
    set(ours);
    let got = trial.result();
    set(other);
    let tolerance = if trial.products == FloatDType::F32 { TOLERANCE } else { TOLERANCE_HALF };
    let is_right = agree(got, trial.result(), tolerance);
    let mut ways = [ours, other].map(|choices| (choices, 1, f64::INFINITY));
    for (choices, runs, best) in &mut ways {
        set(*choices);
        // The first run compiles and tunes what the result did not; the second says how many make a batch.
        time(trial, device, 1);
        let once = time(trial, device, 1);
        *runs = ((BATCH.as_secs_f64() / once.max(1e-9)) as usize).clamp(1, RUNS_MAX);
        if once >= LONG.as_secs_f64() {
            *best = once;
        }
    }
    for _ in 0..BATCHES {
        for (choices, runs, best) in
            ways.iter_mut().filter(|(.., best)| *best < LONG.as_secs_f64() || best.is_infinite())
        {
            set(*choices);
            *best = best.min(time(trial, device, *runs) / *runs as f64);
        }
    }
    set(before);
    let [ours_ms, other_ms] = ways.map(|(_, _, best)| (best * 1e3).max(1e-6));
    Timing { op: trial.op, ours_ms: if is_right { ours_ms } else { NEVER_MS }, other_ms }
}

/// Whether two results are the same but for rounding; not if there is none.
pub(super) fn agree(got: Option<Vec<Vec<f32>>>, want: Option<Vec<Vec<f32>>>, tolerance: f32) -> bool {
    let (Some(got), Some(want)) = (got, want) else { return false };
    !want.is_empty()
        && got.len() == want.len()
        && got.iter().zip(&want).all(|(got, want)| is_close(got, want, tolerance))
}

fn is_close(got: &[f32], want: &[f32], tolerance: f32) -> bool {
    let squares: f64 = want.iter().map(|x| f64::from(*x).powi(2)).sum();
    let usual = (squares / want.len().max(1) as f64).sqrt() as f32;
    got.len() == want.len()
        && got.iter().zip(want).all(|(got, want)| (got - want).abs() <= tolerance * want.abs().max(usual))
}

/// Seconds of so many runs.
fn time(trial: &mut Trial, device: &Device, runs: usize) -> f64 {
    // A device that fails here fails again where somebody minds.
    let _ = device.sync();
    let start = Instant::now();
    for _ in 0..runs {
        let made = trial.run();
        // Handed over one by one: fused across runs, they would measure what nobody computes.
        let _ = device.flush();
        drop(made);
    }
    let _ = device.sync();
    start.elapsed().as_secs_f64()
}

/// Bytes a second that the device reads and writes when it copies 64 MiB, the best of several times: what a kernel that
/// only moves memory can reach.
pub fn copy_speed(device: &Device) -> f64 {
    const VALUES: usize = 1 << 24;
    let from = Tensor::<1>::ones([VALUES], device);
    let mut to = from.clone();
    let mut copy = |runs: usize| {
        let _ = device.sync();
        let start = Instant::now();
        for _ in 0..runs {
            to = from.clone().mul_scalar(0.5);
            let _ = device.flush();
        }
        let _ = device.sync();
        start.elapsed().as_secs_f64() / runs as f64
    };
    copy(1);
    let runs = ((BATCH.as_secs_f64() / copy(1).max(1e-9)) as usize).clamp(1, RUNS_MAX);
    let best = (0..BATCHES).map(|_| copy(runs)).fold(f64::INFINITY, f64::min);
    (8 * VALUES) as f64 / best.max(1e-9)
}

/// What was not measured on a device. The type of products comes first, after the product in
/// it: the others are measured in it, as training will use them. What is known of a device was so all measured in one
/// type.
fn unknown(remembered: &Remembered, key: &Key) -> Vec<Op> {
    let is_unknown = |op: &Op| op.has_two_ways() && remembered.timing(key, *op).is_none();
    let mut all: Vec<Op> = Op::ALL.iter().copied().filter(is_unknown).collect();
    all.sort_by_key(|op| match op {
        Op::Product => 0,
        Op::HalfProducts => 1,
        _ => 2,
    });
    all
}

/// Decides for this process by what was measured on this device, and measures what was not yet: at most until `budget`
/// has passed, the operation at hand finished; the rest is measured at the next start and is Burn's until then.
/// `folder` keeps what was found. To be called before the first training step; where all is known it returns at once.
///
/// A file that cannot be written only means measuring again.
pub fn settle(device: &Device, key: &Key, folder: &Path, budget: Duration) -> Choices {
    let start = Instant::now();
    let Ok(disk) = FolderDisk::open(folder) else { return current() };
    let mut remembered = Remembered::read(&disk, FILE);
    let unknown = unknown(&remembered, key);
    for op in &unknown {
        if start.elapsed() >= budget {
            break;
        }
        // Written down before it is tried: what takes the driver down is not tried at every start.
        let may = remembered.begin(key, *op);
        let _ = remembered.write(&disk, FILE);
        if may {
            set(remembered.choices(key));
            let half = remembered.choices(key).has(Op::HalfProducts) && device.supports_dtype(DType::F16);
            let products = if half { FloatDType::F16 } else { FloatDType::F32 };
            remembered.remember(key, &[measure(&mut Trial::of(*op, device, TOKENS, products), device)]);
            let _ = remembered.write(&disk, FILE);
        }
    }
    if !unknown.is_empty() {
        // What trials were made of is the model's to use.
        device.memory_cleanup();
    }
    set(remembered.choices(key));
    current()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_products_is_measured_before_what_depends_on_it() {
        let key = Key { adapter: "a".into(), driver: "1".into() };
        let mut remembered = Remembered::default();
        let first = unknown(&remembered, &key);
        assert_eq!(first[0], Op::HalfProducts);
        assert_eq!(first.len(), Op::ALL.len() - 1, "what a device has no units for is not measured");
        let known = [Op::HalfProducts, Op::Swiglu].map(|op| Timing { op, ours_ms: 1.0, other_ms: 2.0 });
        remembered.remember(&key, &known);
        let rest = unknown(&remembered, &key);
        assert!(rest.len() == first.len() - 2 && known.iter().all(|t| !rest.contains(&t.op)));
    }
}
