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
use std::{cell::RefCell, rc::Rc};

/// By how much a patient liar's deltas grow with each lease.
const GROWTH: f64 = 1.1;
/// The noise that makes bytes new, as a share of a delta's own size.
const DISGUISE: f64 = 0.05;

/// What all liars of a world know of each other: the newest delta of the one that trains, and its number.
pub type Loot = Rc<RefCell<Option<(u32, Vec<f32>)>>>;

/// What a liar remembers.
pub struct Liar {
    /// Its place in the population.
    number: u32,
    lie: Byzantine,
    /// Deltas that it sent.
    sent: u32,
    /// What it sent first.
    first: Option<Vec<u8>>,
    loot: Loot,
}

impl Liar {
    /// One that has sent nothing yet.
    pub fn new(number: u32, lie: Byzantine, loot: Loot) -> Self {
        Liar { number, lie, sent: 0, first: None, loot }
    }

    /// Whether it takes fewer steps than it says.
    pub fn skips(&self) -> bool {
        self.lie.sends == Lie::Skipped
    }

    /// The steps that it takes of these.
    pub fn steps(&self, all: u32) -> u32 {
        let share = if self.skips() { self.lie.factor().min(1.0) } else { 1.0 };
        ((f64::from(all) * share) as u32).max(1)
    }

    /// Replaces a trained delta by the lie, and what is said of it; the device's own state stays as it is. `steps` are
    /// those that were to be taken.
    pub fn tamper(&mut self, disk: &SimDisk, spec: &RunSpec, steps: u32, trained: &mut Trained, draws: &mut Draws) {
        let Ok(Some(bytes)) = disk.read(&trained.delta_file) else { return };
        let first = self.first.get_or_insert_with(|| bytes.clone()).clone();
        self.sent += 1;
        let stretch = f64::from(steps) / f64::from(trained.steps.max(1));
        if self.skips() {
            trained.samples = (f64::from(trained.samples) * stretch) as u32;
            trained.steps = steps;
        }
        if self.lie.sends == Lie::Repeated {
            return put(disk, &first, trained);
        }
        let template = if self.lie.sends == Lie::Reworked { &first } else { &bytes };
        let mut values = vec![0f32; spec.model.parameters()];
        let whole = vec![1.0; spec.model.tensors().len()];
        if delta::add_scaled(&spec.model, template, &whole, &mut values).is_ok() {
            self.turn(&mut values, stretch, draws);
            let encoding = DeltaSpec { feedback: 0.0, ..spec.delta.clone() };
            put(disk, &delta::encode(&spec.model, &encoding, &values, &mut vec![0.0; values.len()]), trained);
        }
    }

    /// Turns what was trained into what is sent. `stretch` is how many times the steps taken it says.
    fn turn(&self, values: &mut [f32], stretch: f64, draws: &mut Draws) {
        let factor = self.lie.factor();
        match self.lie.sends {
            Lie::Flipped => scale(values, -factor),
            Lie::Patient => scale(values, -libm::pow(GROWTH, f64::from(self.sent - 1)).min(factor)),
            Lie::Scaled => scale(values, factor),
            Lie::Skipped => scale(values, stretch.sqrt()),
            Lie::Random => {
                let sigma = factor * size(values);
                values.iter_mut().for_each(|v| *v = (sigma * draws.normal(Purpose::Lie)) as f32);
            }
            Lie::Repeated => {}
            Lie::Reworked => disguise(values, draws),
            Lie::Copied => {
                let mut loot = self.loot.borrow_mut();
                match &*loot {
                    Some((owner, theirs)) if *owner != self.number => {
                        values.copy_from_slice(theirs);
                        disguise(values, draws);
                    }
                    _ => *loot = Some((self.number, values.to_vec())),
                }
            }
        }
    }
}

fn put(disk: &SimDisk, bytes: &[u8], trained: &mut Trained) {
    if disk.write(&trained.delta_file, bytes).is_ok() {
        trained.delta_hash = BlobHash::of(bytes).0.to_vec();
        trained.delta_bytes = bytes.len() as u64;
    }
}

fn scale(values: &mut [f32], factor: f64) {
    values.iter_mut().for_each(|v| *v *= factor as f32);
}

/// The root of the mean square.
fn size(values: &[f32]) -> f64 {
    (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

fn disguise(values: &mut [f32], draws: &mut Draws) {
    let sigma = DISGUISE * size(values);
    values.iter_mut().for_each(|v| *v += (sigma * draws.normal(Purpose::Lie)) as f32);
}
