//! The kill swarm: one small run, killed between any two effects, then left to settle and examined.

use crate::{
    results::RunResult,
    scene::Scene,
    storage::Storage,
    training::synthetic::{self, Synthetic},
    world::{World, aftermath},
};
use nightjar_coordinator::replay;
use nightjar_shared::version::Weights;
use std::collections::BTreeMap;

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The scene's seed.
    pub seed: u64,
    /// Kills by the effect that did not happen any more.
    pub kills: BTreeMap<&'static str, u32>,
    /// Virtual seconds.
    pub virtual_s: u64,
    /// Versions published.
    pub versions: u64,
    /// Deltas merged.
    pub merged: u64,
    /// Deltas whose merge a device was told of.
    pub acknowledged: u64,
    /// Leases by how they ended.
    pub leases: BTreeMap<String, u64>,
    /// Distance to the target at the start and at the end.
    pub distance: (f64, f64),
    /// Digest of the last version, in hex.
    pub digest: Option<String>,
    /// Bytes that devices sent and received.
    pub bytes: (u64, u64),
    /// Broken promises; none if all is well.
    pub faults: Vec<String>,
}

/// Runs one simulation to its end: so many kills, then peace, then the checks.
pub fn simulate(scene: &Scene) -> Outcome {
    let setup = scene.setup();
    let mut world = World::new(&setup, Box::new(Synthetic::new(setup.spec.seed)));
    let ended = world.run(&mut |_| {});
    let mut faults = vec![];
    let start = synthetic::distance(setup.spec.seed, &Weights::start(&setup.spec.model, &setup.start_weights()).flat());
    let mut distance = (start, f64::NAN);
    if let Storage::Bytes(whole) = world.storage() {
        // As a coordinator would start now: from its newest checkpoint.
        match replay::recover(&setup.spec, &whole.ledger.facts().lineage, &whole.blobs(), || setup.start_weights()) {
            Ok(merger) => distance.1 = synthetic::distance(setup.spec.seed, &merger.weights().flat()),
            Err(error) => faults.push(error.to_string()),
        }
    }
    let aftermath = aftermath(world, ended);
    let RunResult { seed, virtual_s, versions, merged, leases, digest, bytes, faults: broken, .. } = aftermath.result;
    faults.splice(0..0, broken);
    Outcome {
        seed,
        kills: aftermath.kills,
        virtual_s: virtual_s as u64,
        versions,
        merged,
        acknowledged: aftermath.acknowledged,
        leases,
        distance,
        digest,
        bytes: (bytes.up(), bytes.down()),
        faults,
    }
}
