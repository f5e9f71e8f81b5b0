//! Decides which effects do not happen any more.

use crate::{
    draws::{Draws, Purpose},
    setup::Setup,
};
use std::collections::BTreeMap;

/// Kills by the effect that did not happen any more.
pub type KillCounts = BTreeMap<&'static str, u32>;

/// The kills that are still to come, and those that were.
pub(super) struct Kills {
    draws: Draws,
    pub counts: KillCounts,
    pub left: u32,
    probability: f64,
}

impl Kills {
    pub fn new(setup: &Setup) -> Self {
        let probability = f64::from(setup.chaos.kills_per_mille) / 1000.0;
        Kills { draws: Draws::of_world(setup.seed), counts: KillCounts::new(), left: setup.chaos.kills, probability }
    }

    /// Whether the process is killed before this effect.
    pub fn strikes(&mut self, point: &'static str) -> bool {
        let strikes = self.left > 0 && self.draws.falls(Purpose::Kill, self.probability);
        if strikes {
            self.left -= 1;
            *self.counts.entry(point).or_default() += 1;
        }
        strikes
    }
}
