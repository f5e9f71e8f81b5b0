//! A graphics driver that fails takes a thread of Burn's runtime down with it, and whoever waits for that thread waits for
//! ever; one that hangs answers nobody. A worker whose GPU is gone would seem to train until its owner looks. So a worker is
//! watched, more closely from the first panic on, and ends itself once it does not move any more; the agent starts another,
//! which goes on from the checkpoint. Not every panic is the end: kernels that do not compile are tried and given up that way.

use nightjar_shared::wire::limits;
use nightjar_train::work::Live;
use std::{
    panic::{self, PanicHookInfo},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

/// How often one looks for a sign of life.
const LOOK_EVERY: Duration = Duration::from_secs(8);

/// Who was seen without a sign so many times in a row gives none any more. Once alone may have been the process's nap, which
/// was frozen.
fn patience(has_panicked: bool, in_steps: bool) -> u32 {
    match (has_panicked, in_steps) {
        // A layer takes no longer.
        (true, true) => 2,
        // A job that reads, encodes or writes: a large model on a slow disk takes minutes.
        (true, false) => 40,
        // The first step on a slow device: each kernel that it tries is compiled, a quarter of an hour at the most.
        (false, true) => 112,
        // The disk is no fault of the driver's.
        (false, false) => u32::MAX,
    }
}

/// From now on a worker that stands still is ended by `end`, which is told why.
pub(super) fn watch(live: Arc<Live>, end: fn(&str)) {
    static PANIC: OnceLock<String> = OnceLock::new();
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        PANIC.get_or_init(|| words(info));
    }));
    thread::spawn(move || {
        let mut still = 0u32;
        loop {
            let before = live.signs();
            thread::sleep(LOOK_EVERY);
            still = if before.is_some() && live.signs() == before { still.saturating_add(1) } else { 0 };
            if still >= patience(PANIC.get().is_some(), before.is_some_and(|signs| signs.in_steps)) {
                end(PANIC.get().map_or("it does not answer any more", |words| words));
            }
        }
    });
}

/// What a panic says, in a line.
fn words(info: &PanicHookInfo) -> String {
    let said = info.payload_as_str().unwrap_or("without a word").split_whitespace().collect::<Vec<_>>().join(" ");
    limits::tame(&said)
}
