//! A thousand kills of agents and workers between any two effects, and as many of the coordinator as come with them;
//! and the promises hold. A failure names its seed.

use nightjar_sim::{Scene, simulate};
use std::collections::BTreeMap;

#[test]
fn a_thousand_kills_of_agents_and_workers_break_no_promise() {
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    let of_devices = |kills: &BTreeMap<&str, u32>| -> u32 {
        kills.iter().filter(|(point, _)| !point.starts_with("coordinator.")).map(|(_, n)| n).sum()
    };
    for seed in 1..=200 {
        if of_devices(&kills) >= 1000 {
            break;
        }
        let outcome = simulate(&Scene { seed, ..Scene::default() });
        assert!(outcome.faults.is_empty(), "nightjar-sim replay {seed}: {:#?}", outcome.faults);
        let (start, end) = outcome.distance;
        assert!(end < start, "seed {seed}: merging must lead towards the target, not from {start} to {end}");
        for (point, n) in outcome.kills {
            *kills.entry(point).or_default() += n;
        }
    }
    assert!(of_devices(&kills) >= 1000, "{kills:?}");
    // Not only the frequent effects: each of these was at least once the one that did not happen.
    for point in [
        "coordinator.commit",
        "coordinator.merge",
        "coordinator.publish",
        "coordinator.published",
        "agent.journal",
        "agent.upload",
        "agent.offer",
        "worker.report",
    ] {
        assert!(kills.contains_key(point), "never killed at {point}: {kills:?}");
    }
}

#[test]
fn a_seed_replays_bit_for_bit() {
    let scene = Scene { seed: 77, kills: 10, ..Scene::default() };
    assert_eq!(simulate(&scene), simulate(&scene));
}
