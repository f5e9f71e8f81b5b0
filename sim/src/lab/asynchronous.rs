//! HALoS: devices report to their region whenever they are done, regions to a global server after so many arrivals.

use super::{
    Lab, LabResult, Spent, Watch,
    halos::{Global, Region},
};
use nightjar_train::{Trainer, work::WorkError};
use std::{cmp::Ordering, collections::BinaryHeap};

/// Something that comes due, the earliest first.
struct Due {
    at_s: f64,
    what: What,
}

enum What {
    /// A device is done with its steps.
    Device(usize),
    /// A region's report arrives at the global server.
    Report(usize, Vec<f32>),
    /// The global weights arrive at a region.
    Answer(usize, Vec<f32>),
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at_s.total_cmp(&self.at_s)
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}

/// A device at work.
struct Working {
    trainer: Trainer,
    start: Vec<f32>,
    steps: u64,
    taken: u64,
    rounds: u64,
    tokens_at_start: u64,
}

impl Lab {
    pub(super) fn halos(&self, steps: u32, regions: usize) -> Result<LabResult, WorkError> {
        let (devices, per_step) = (self.speeds.len(), self.tokens_per_step());
        let bytes = 4 * self.model.parameters() as u64;
        let fastest = self.speeds.iter().copied().fold(0.0, f64::max);
        let mut global = Global::new(self.start.0.to_vec());
        let mut local: Vec<Region> = (0..regions).map(|_| Region::new(self.start.0.to_vec())).collect();
        let (mut queue, mut spent, mut watch, mut busy_s) =
            (BinaryHeap::new(), Spent::default(), Watch::new(self), 0.0);
        let mut working = vec![];
        for device in 0..devices {
            let steps = (f64::from(steps) * self.speeds[device] / fastest).round().max(1.0) as u64;
            working.push(Working {
                trainer: self.trainer()?,
                start: self.start.0.to_vec(),
                steps,
                taken: 0,
                rounds: 0,
                tokens_at_start: 0,
            });
            queue.push(Due { at_s: self.step_s(device, steps * per_step, 0), what: What::Device(device) });
        }
        watch.look(spent, global.weights())?;
        while spent.tokens < self.token_budget {
            let Some(Due { at_s, what }) = queue.pop() else { break };
            spent.virtual_s = at_s;
            match what {
                What::Device(device) => {
                    let own = &mut working[device];
                    own.trainer.load_weights(&own.start)?;
                    for h in 0..own.steps {
                        // All devices together move on while this one takes a step.
                        let all = self.speeds.iter().sum::<f64>() / self.speeds[device];
                        let tokens = own.tokens_at_start as f64 + (h * per_step) as f64 * all;
                        self.step(&mut own.trainer, device, own.taken + h, self.inner.batch_samples as usize, tokens)?;
                    }
                    own.taken += own.steps;
                    let end = own.trainer.weights()?;
                    let g: Vec<f32> = own.start.iter().zip(&end).map(|(from, to)| from - to).collect();
                    let tokens = own.steps * per_step;
                    spent.tokens += tokens;
                    spent.bytes_up += bytes;
                    spent.bytes_down += bytes;
                    busy_s += tokens as f64 / self.speeds[device];
                    let region = device % regions;
                    if let Some(report) = local[region].arrive(&g) {
                        spent.bytes_up += bytes;
                        queue.push(Due { at_s: at_s + self.link.up_s(bytes), what: What::Report(region, report) });
                    }
                    let own = &mut working[device];
                    own.start.copy_from_slice(local[region].weights());
                    own.rounds += 1;
                    own.tokens_at_start = spent.tokens;
                    let again = at_s + self.step_s(device, tokens, own.rounds);
                    queue.push(Due { at_s: again, what: What::Device(device) });
                }
                What::Report(region, report) => {
                    global.arrive(&report);
                    spent.rounds += 1;
                    spent.bytes_down += bytes;
                    let answer = What::Answer(region, global.weights().to_vec());
                    queue.push(Due { at_s: at_s + self.link.down_s(bytes), what: answer });
                }
                What::Answer(region, weights) => local[region].mix(&weights),
            }
            watch.look(spent, global.weights())?;
        }
        let utilisation = (busy_s / (spent.virtual_s * devices as f64)).min(1.0);
        Ok(LabResult { curve: watch.curve, rounds: spent.rounds, utilisation })
    }
}
