//! One simulated run: what it starts from, when it ends, and the call that runs it.

use crate::{
    dataset::Dataset,
    population::Population,
    results::RunResult,
    training::Training,
    world::{self, World},
};
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

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Virtual seconds so far.
    pub virtual_s: f64,
    /// Virtual seconds at which it ends at the latest.
    pub virtual_s_end: f64,
    /// Tokens merged.
    pub tokens: u64,
    /// Tokens at which it ends.
    pub token_budget: u64,
    /// Versions published after version 0.
    pub versions: u64,
    /// The newest measured loss.
    pub loss: Option<f64>,
    /// Happenings simulated.
    pub events: u64,
}

impl Progress {
    /// The share that is done: by tokens or by virtual time, whichever is further.
    pub fn done(&self) -> f64 {
        let by_tokens = self.tokens as f64 / self.token_budget.max(1) as f64;
        by_tokens.max(self.virtual_s / self.virtual_s_end.max(1e-9)).min(1.0)
    }
}

/// Runs a simulation to its end. `watch` hears now and then how far it is. For the same setup and a deterministic
/// training, all of the result but its `host` part is the same, bit for bit.
pub fn run(setup: &Setup, training: Box<dyn Training + '_>, watch: &mut dyn FnMut(&Progress)) -> RunResult {
    let mut world = World::new(setup, training);
    let ended = world.run(watch);
    world::conclude(world, ended)
}
