//! Every reader of bytes from outside that coordinator and shared code have, on its seeds and on whatever the fuzzer has
//! found (fuzz/).

#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../fuzz/src/target.rs"]
mod target;
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

use targets::TARGETS;

#[test]
fn every_reader_keeps_its_promises_on_all_that_was_found() {
    replay::all_keep_their_promises(&TARGETS);
}

#[test]
fn the_seeds_are_those_that_are_made() {
    replay::seeds_are_those_that_are_made(&TARGETS);
}
