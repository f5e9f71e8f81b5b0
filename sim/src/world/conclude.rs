//! The end of a run: the checks, and the result.

use super::{Unfinished, World, kills::KillCounts};
use crate::{
    check,
    results::{HostCost, RunResult},
};

/// What a kill run tells beyond a result.
pub struct Aftermath {
    /// The result.
    pub result: RunResult,
    /// Kills by the effect that did not happen any more.
    pub kills: KillCounts,
    /// Deltas whose merge a device was told of.
    pub acknowledged: u64,
}

/// Examines what the run left behind, and sums up.
pub fn conclude(world: World<'_>, ended: Result<(), Unfinished>) -> RunResult {
    aftermath(world, ended).result
}

/// As [`conclude`], with what only the kill swarm wants to know.
pub fn aftermath(mut world: World<'_>, ended: Result<(), Unfinished>) -> Aftermath {
    world.faults.splice(0..0, ended.err().map(|why| why.to_string()));
    world.collect_measurements(0);
    let engine = world.coordinator.as_ref().map(|c| &c.engine);
    let checked = check::examine(world.setup, &mut world.storage, engine, &world.acknowledged);
    world.faults.extend(checked.faults);
    let overfull = world.devices.iter().filter(|d| d.disk_overfull).count();
    if overfull > 0 {
        world.faults.push(format!("{overfull} devices used more of their disk than they have"));
    }
    let virtual_s = world.now_s();
    let (devices, time) = std::mem::take(&mut world.account.timelines).finish(virtual_s);
    let (wall_s, memory_bytes) = world.meter.read();
    let account = world.account;
    // What leases at work at the end will come to, nobody knows.
    let undecided_s: f64 = world.devices.iter().map(|d| d.at_work_s(world.now)).sum();
    let available_s = time.available() - undecided_s;
    let result = RunResult {
        name: world.setup.name.clone(),
        seed: world.setup.seed,
        virtual_s,
        tokens: account.tokens,
        versions: account.versions,
        merged: account.merged,
        curve: account.points.into_values().collect(),
        devices,
        time,
        utilisation: if available_s > 0.0 { account.useful_ms as f64 / 1000.0 / available_s } else { 0.0 },
        staleness: account.staleness,
        bytes: account.bytes,
        leases: checked.leases,
        agreement: account.agreement,
        digest: checked.digest,
        faults: world.faults,
        host: Some(HostCost { wall_s, coordinator_cpu_s: world.coordinator_cpu_s, memory_bytes, events: world.events }),
        ..RunResult::default()
    };
    Aftermath { result, kills: world.kills.counts, acknowledged: world.acknowledged.len() as u64 }
}
