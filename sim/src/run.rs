//! One simulated run, from its setup to its result.

use crate::{
    progress::Progress,
    results::RunResult,
    setup::Setup,
    training::Training,
    world::{self, World},
};

/// Runs a simulation to its end. `watch` hears now and then how far it is. For the same setup and a deterministic
/// training, all of the result but its `host` part is the same, bit for bit.
pub fn run(setup: &Setup, training: Box<dyn Training + '_>, watch: &mut dyn FnMut(&Progress)) -> RunResult {
    let mut world = World::new(setup, training);
    let ended = world.run(watch);
    world::conclude(world, ended)
}
