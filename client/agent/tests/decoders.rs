//! Whatever an agent reads from a coordinator, on its seeds and on whatever the fuzzer has found (fuzz/).

#[path = "../../../fuzz/src/device/mod.rs"]
mod device;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../../fuzz/src/target.rs"]
mod target;

use device::TARGETS;

#[test]
fn an_agent_keeps_its_promises_whatever_a_coordinator_says() {
    replay::all_keep_their_promises(&TARGETS);
}

#[test]
fn the_seeds_are_those_that_are_made() {
    replay::seeds_are_those_that_are_made(&TARGETS);
}
