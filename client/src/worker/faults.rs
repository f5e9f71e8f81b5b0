//! A graphics driver that fails takes a thread of Burn's runtime down with it, and whoever waits for that thread waits
//! for ever; one that hangs answers nobody. A worker whose GPU is gone would seem to train until its owner looks. So a
//! worker is watched, more closely from the first panic on, and ends itself once it does not move any more; the agent
//! starts another, which goes on from the checkpoint. Not every panic is the end: kernels that do not compile are tried
//! and given up that way.

use nightjar_shared::wire::limits;
use nightjar_train::work::{Live, Signs};
use std::{
    panic::{self, PanicHookInfo},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

/// How often one looks for a sign of life.
const LOOK_EVERY: Duration = Duration::from_secs(8);

/// Who was seen without a sign so many times in a row gives none any more. Once alone may have been the process's nap,
/// which was frozen.
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

/// What has been seen of a worker, look by look.
#[derive(Default)]
struct Watch {
    last: Option<Signs>,
    /// Looks in a row without a sign.
    still: u32,
}

impl Watch {
    /// Whether one look more shows that it does not move any more.
    fn is_over(&mut self, signs: Option<Signs>, has_panicked: bool) -> bool {
        self.still = if signs.is_some() && signs == self.last { self.still.saturating_add(1) } else { 0 };
        self.last = signs;
        self.still >= patience(has_panicked, signs.is_some_and(|signs| signs.in_steps))
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
        let mut watch = Watch::default();
        loop {
            if watch.is_over(live.signs(), PANIC.get().is_some()) {
                end(PANIC.get().map_or("it does not answer any more", |words| words));
            }
            thread::sleep(LOOK_EVERY);
        }
    });
}

/// What a panic says, in a line.
fn words(info: &PanicHookInfo) -> String {
    let said = info.payload_as_str().unwrap_or("without a word").split_whitespace().collect::<Vec<_>>().join(" ");
    limits::tame(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks after the first until a worker is given up which gives this sign and no other; `None`: not within a day.
    fn looks(signs: Option<Signs>, has_panicked: bool) -> Option<u32> {
        let mut watch = Watch::default();
        (0..24 * 3600 / LOOK_EVERY.as_secs() as u32).find(|_| watch.is_over(signs, has_panicked))
    }

    #[test]
    fn who_does_not_move_is_given_up_and_nobody_else() {
        let signs = |count, in_steps| Some(Signs { count, in_steps });
        assert_eq!(looks(signs(7, true), true), Some(2));
        assert_eq!(looks(signs(7, false), true), Some(40), "a job that reads or writes");
        assert_eq!(looks(signs(7, true), false), Some(112), "the first step of all, a quarter of an hour");
        assert_eq!(looks(signs(7, false), false), None, "a slow disk");
        assert_eq!(looks(None, true), None, "no job, nothing to be late with");
        // One sign, and all patience is there again; a nap between two looks is one look.
        let mut watch = Watch::default();
        let moves = (0..1000).map(|look| watch.is_over(signs(look / 2, true), true));
        assert!(moves.into_iter().all(|over| !over));
        // From steps to what is around them: not still.
        let mut watch = Watch::default();
        let turns = (0..1000).map(|look| watch.is_over(signs(1, look % 2 == 0), true));
        assert!(turns.into_iter().all(|over| !over));
    }
}
