//! A graphics driver that fails takes a thread of Burn's runtime down with it, and whoever waits for that thread waits for
//! ever: a worker whose GPU is gone would seem to train until its owner looks. So from the first panic on it is watched, and
//! ends itself once it does not move any more; the agent starts another, which goes on from the checkpoint. Not every panic
//! is the end: kernels that do not compile are tried and given up that way.

use nightjar_shared::wire::limits;
use nightjar_train::work::Live;
use std::{
    panic::{self, PanicHookInfo},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often one looks for a sign of life after a panic.
const LOOK_EVERY: Duration = Duration::from_secs(8);
/// Steps that were seen without one so many times in a row give none any more. Once alone may have been the process's nap,
/// which was frozen.
const STILL_IN_STEPS: u32 = 2;
/// The same where a job reads, encodes or writes: a large model on a slow disk takes minutes.
const STILL_AROUND_STEPS: u32 = 40;

/// From now on a worker that stands still after a panic is ended by `end`, which is told what the panic said.
pub(super) fn watch(live: Arc<Live>, end: fn(&str)) {
    let (usual, watched) = (panic::take_hook(), AtomicBool::new(false));
    panic::set_hook(Box::new(move |info| {
        usual(info);
        if watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let (live, words) = (live.clone(), words(info));
        thread::spawn(move || {
            let mut still = 0;
            loop {
                let before = live.signs();
                thread::sleep(LOOK_EVERY);
                still = if before.is_some() && live.signs() == before { still + 1 } else { 0 };
                let patience = if before.is_some_and(|signs| signs.in_steps) { STILL_IN_STEPS } else { STILL_AROUND_STEPS };
                if still >= patience {
                    end(&words);
                }
            }
        });
    }));
}

/// What a panic says, in a line.
fn words(info: &PanicHookInfo) -> String {
    let said = info.payload_as_str().unwrap_or("without a word").split_whitespace().collect::<Vec<_>>().join(" ");
    limits::tame(&said)
}
