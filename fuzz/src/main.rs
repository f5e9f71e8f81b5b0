//! libFuzzer around one target, named in `NIGHTJAR_FUZZ`. One program for all: it is linked once.

#![no_main]

mod device;
mod target;
mod targets;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use std::{alloc::System, panic, sync::LazyLock};
use target::Target;

/// Memory beyond what the bytes are worth ends the program, and with it the search.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    // A panic that is caught is none. One that is not ends the program all the same.
    drop(panic::take_hook());
    let name = std::env::var("NIGHTJAR_FUZZ").unwrap_or_default();
    let all = || targets::TARGETS.iter().chain(&device::TARGETS);
    let names: Vec<&str> = all().map(|target| target.name).collect();
    all()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("set NIGHTJAR_FUZZ to one of: {}", names.join(", ")))
});

fuzz_target!(|bytes: &[u8]| {
    let target = *TARGET;
    if bytes.len() > target.bytes_max {
        return;
    }
    // It cannot be refused: so much is free.
    let _ = MEMORY.set_limit(MEMORY.allocated().saturating_add(target.memory(bytes.len())));
    (target.run)(bytes);
});
