//! After the last event: do the promises hold?

use crate::{
    setup::Setup,
    storage::{Storage, Whole, tally},
};
use nightjar_coordinator::{engine::Engine, replay, store::Shards};
use nightjar_shared::ids::LeaseId;
use std::collections::{BTreeMap, BTreeSet};

/// What an examination found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Broken promises.
    pub faults: Vec<String>,
    /// Leases by how they ended.
    pub leases: BTreeMap<String, u64>,
    /// Digest of the last version's weights, in hex.
    pub digest: Option<String>,
}

/// Examines what a run left behind; the engine, where it is still running.
pub fn examine(
    setup: &Setup,
    storage: &mut Storage,
    engine: Option<&Engine>,
    acknowledged: &BTreeSet<LeaseId>,
) -> Checked {
    match storage {
        Storage::Bytes(whole) => examine_whole(setup, whole, engine, acknowledged),
        // Invariant 2 is checked at each acknowledgement; 5 and 6 are about weights, of which there are none.
        Storage::Sizes(tally) => Checked { faults: tally.examine(), leases: tally.leases(), digest: None },
    }
}

fn examine_whole(setup: &Setup, whole: &Whole, engine: Option<&Engine>, acknowledged: &BTreeSet<LeaseId>) -> Checked {
    let (spec, facts) = (&setup.spec, whole.ledger.facts());
    let mut checked = Checked::default();
    // Invariants 1, 3 and 6, by the code behind `nightjar-coordinator verify`.
    let report = if setup.forget_deltas {
        replay::verify_facts(spec, &setup.dataset.manifest, &facts)
    } else {
        replay::verify(spec, &setup.dataset.manifest, &facts, &whole.blobs())
    };
    checked.faults.extend(report.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)));
    // Invariant 3 again: nothing is lost that is neither merged nor leased.
    let snapshot = whole.ledger.snapshot(&Shards::of(&setup.dataset.manifest, spec.inner.batch_samples));
    let disagreement = engine.and_then(|engine| engine.agrees_with(&snapshot).err());
    checked.faults.extend(disagreement.map(|why| format!("invariant 3: {why}")));
    // Invariant 2: what a device was told of is in the ledger.
    let merged: BTreeSet<LeaseId> = facts.lineage.deltas.iter().map(|d| d.lease).collect();
    let lost = acknowledged.difference(&merged);
    checked.faults.extend(lost.map(|lease| format!("lease {lease} was acknowledged and lost")));
    for lease in &facts.leases {
        let outcome = lease.closed.map_or("open", |c| tally::word(c.outcome));
        *checked.leases.entry(outcome.into()).or_default() += 1;
    }
    checked.digest = facts.lineage.versions.last().map(|v| nightjar_shared::ids::BlobHash(v.digest).to_string());
    checked
}
