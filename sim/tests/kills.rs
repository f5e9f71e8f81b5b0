//! A thousand kills between any two effects, and the promises hold. A failure names its seed.

use nightjar_sim::{Scene, simulate};
use std::collections::BTreeMap;

#[test]
fn a_thousand_kills_break_no_promise() {
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 1..=40 {
        let outcome = simulate(&Scene { seed, ..Scene::default() });
        assert!(outcome.faults.is_empty(), "nightjar-sim replay {seed}: {:#?}", outcome.faults);
        let (start, end) = outcome.distance;
        assert!(end < start, "seed {seed}: merging must lead towards the target, not from {start} to {end}");
        for (point, n) in outcome.kills {
            *kills.entry(point).or_default() += n;
        }
    }
    assert!(kills.values().sum::<u32>() >= 1000, "{kills:?}");
    // Not only the frequent effects: each of these was at least once the one that did not happen.
    for point in [
        "coordinator.commit",
        "coordinator.merge",
        "coordinator.publish",
        "coordinator.published",
        "agent.journal",
        "agent.upload",
        "agent.offer",
    ] {
        assert!(kills.contains_key(point), "never killed at {point}: {kills:?}");
    }
}

#[test]
fn a_seed_replays_bit_for_bit() {
    let scene = Scene { seed: 77, kills: 10, ..Scene::default() };
    assert_eq!(simulate(&scene), simulate(&scene));
}
