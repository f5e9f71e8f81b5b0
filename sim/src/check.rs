//! After the last kill: do the promises hold?

use crate::{coordinator::Estate, scene::Scene, training, world::Outcome};
use nightjar_coordinator::{engine::record::LeaseOutcome, replay};
use nightjar_shared::{ids::LeaseId, version::Weights};
use std::collections::{BTreeMap, BTreeSet};

/// Examines what the run left behind, and fills in the outcome.
pub fn examine(scene: &Scene, estate: &Estate, acknowledged: &BTreeSet<LeaseId>, outcome: &mut Outcome) {
    let (spec, facts) = (scene.spec(), estate.ledger.facts());
    // Invariants 1, 3 and 6, by the code behind `nightjar-coordinator verify`.
    let report = replay::verify(&spec, &scene.manifest(), &facts, &estate.blobs());
    outcome.faults.extend(report.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)));
    // Invariant 2: what a device was told of is in the ledger.
    let merged: BTreeSet<LeaseId> = facts.deltas.iter().map(|d| d.lease).collect();
    outcome.faults.extend(acknowledged.difference(&merged).map(|lease| format!("lease {lease} was acknowledged and lost")));

    let mut leases: BTreeMap<String, u64> = BTreeMap::new();
    for lease in &facts.leases {
        let outcome = lease.closed.map_or("open", |c| match c.outcome {
            LeaseOutcome::Merged => "merged",
            LeaseOutcome::ScreenedOut => "screened out",
            LeaseOutcome::Returned => "returned",
            LeaseOutcome::Expired => "expired",
            LeaseOutcome::Evaluated => "evaluated",
        });
        *leases.entry(outcome.into()).or_default() += 1;
    }
    outcome.leases = leases;
    outcome.versions = facts.versions.len() as u64;
    outcome.merged = facts.deltas.len() as u64;
    let start = spec.model.draw_all(spec.seed);
    outcome.distance.0 = training::distance(scene.seed, &Weights::start(&spec.model, &start).flat());
    match replay::recover(&spec, &facts, &estate.blobs(), || start) {
        Ok(merger) => {
            outcome.distance.1 = training::distance(scene.seed, &merger.weights().flat());
            outcome.digest = Some(merger.weights().digest());
        }
        Err(error) => outcome.faults.push(error.to_string()),
    }
}
