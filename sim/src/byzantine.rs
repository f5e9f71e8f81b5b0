//! Devices that send what they did not train: their delta is decoded, turned into a lie, and encoded again.

use crate::{
    disk::SimDisk,
    draws::{Draws, Purpose},
    population::{Byzantine, Lie},
};
use nightjar_shared::{
    delta,
    disk::Disk,
    ids::BlobHash,
    run_spec::{DeltaSpec, RunSpec},
    wire::worker::Trained,
};

/// Replaces a trained delta by a lie; the device's own state stays as it is.
pub fn tamper(disk: &SimDisk, spec: &RunSpec, lie: Byzantine, trained: &mut Trained, draws: &mut Draws) {
    let Ok(Some(bytes)) = disk.read(&trained.delta_file) else { return };
    let mut values = vec![0f32; spec.model.parameters()];
    let whole = vec![1.0; spec.model.tensors().len()];
    if delta::add_scaled(&spec.model, &bytes, &whole, &mut values).is_err() {
        return;
    }
    match lie.sends {
        Lie::Flipped => values.iter_mut().for_each(|v| *v *= -lie.factor() as f32),
        Lie::Scaled => values.iter_mut().for_each(|v| *v *= lie.factor() as f32),
        Lie::Random => {
            let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            let sigma = (squares / values.len() as f64).sqrt();
            values.iter_mut().for_each(|v| *v = (sigma * draws.normal(Purpose::Lie)) as f32);
        }
    }
    let encoding = DeltaSpec { feedback: 0.0, ..spec.delta.clone() };
    let bytes = delta::encode(&spec.model, &encoding, &values, &mut vec![0.0; values.len()]);
    if disk.write(&trained.delta_file, &bytes).is_ok() {
        trained.delta_hash = BlobHash::of(&bytes).0.to_vec();
        trained.delta_bytes = bytes.len() as u64;
    }
}
