//! Decides which effects do not happen any more.

use super::Kills;
use crate::{
    draws::{Draws, Purpose},
    run::Setup,
};

/// The kills that are still to come, and those that were.
pub(super) struct Lot {
    draws: Draws,
    pub kills: Kills,
    pub left: u32,
    probability: f64,
}

impl Lot {
    pub fn new(setup: &Setup) -> Self {
        let probability = f64::from(setup.chaos.kills_per_mille) / 1000.0;
        Lot { draws: Draws::of_world(setup.seed), kills: Kills::new(), left: setup.chaos.kills, probability }
    }

    /// Whether the process is killed before this effect.
    pub fn falls(&mut self, point: &'static str) -> bool {
        let falls = self.left > 0 && self.draws.falls(Purpose::Kill, self.probability);
        if falls {
            self.left -= 1;
            *self.kills.entry(point).or_default() += 1;
        }
        falls
    }
}
