//! What a simulated run starts from, and when it ends.

use crate::{dataset::Dataset, population::Population};
use nightjar_shared::{ids::RunId, run_spec::RunSpec};
use std::sync::Arc;

/// What a run starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The result's name.
    pub name: String,
    /// Everything random outside of the run itself comes from here: speeds, losses, comings and goings.
    pub seed: u64,
    /// The run; its own seed draws the first weights.
    pub spec: RunSpec,
    /// Its data.
    pub dataset: Dataset,
    /// Who takes part.
    pub population: Population,
    /// When it ends, besides at its token budget.
    pub until: Until,
    /// Kills of processes on the way.
    pub chaos: Chaos,
    /// Weights to start from, instead of drawn ones.
    pub start: Option<Arc<[f32]>>,
    /// Devices start within so many seconds.
    pub start_spread_s: f64,
    /// Whether deltas are forgotten once they are published: a long run then fits into memory, but it can no longer be
    /// proved by replaying it.
    pub forget_deltas: bool,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Until {
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Held-out loss reached, nats a token.
    pub loss: Option<f64>,
}

/// Kills of processes before any of their effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chaos {
    /// How many in all.
    pub kills: u32,
    /// Of a thousand effects, before how many the process that has them is killed.
    pub kills_per_mille: u32,
    /// Once all kills are done, the run goes on until so many more deltas are merged, and ends; 0: it does not end so.
    pub settling_deltas: u64,
}

impl Setup {
    /// A run to its token budget, or for thirty virtual days.
    pub fn new(name: &str, seed: u64, spec: RunSpec, dataset: Dataset, population: Population) -> Self {
        Setup {
            name: name.into(),
            seed,
            spec,
            dataset,
            population,
            until: Until { virtual_s: 30.0 * 86_400.0, loss: None },
            chaos: Chaos::default(),
            start: None,
            start_spread_s: 5.0,
            forget_deltas: false,
        }
    }

    /// The weights of version 0, before they are rounded to bf16.
    pub fn start_weights(&self) -> Vec<f32> {
        match &self.start {
            Some(weights) => weights.to_vec(),
            None => self.spec.model.draw_all(self.spec.seed),
        }
    }

    /// The run's id.
    pub fn run_id(&self) -> RunId {
        RunId([self.seed as u8; 32])
    }
}
