//! Two clocks: the calendar, and one that only moves forward.

use nightjar_shared::time::{Mono, Wall};
use std::cell::Cell;

thread_local! {
    static STATE: Cell<Clock> = const { Cell::new(Clock { running_ms: 0, wall_ms: 0, mono_ms: 0 }) };
}

/// What was read last. A browser's monotonic clock may stand still while the computer sleeps, and its calendar may be
/// set: time has passed by whichever says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    running_ms: u64,
    wall_ms: u64,
    mono_ms: u64,
}

impl Clock {
    fn read(self, running_ms: u64, wall_ms: u64) -> Clock {
        let is_first = self.wall_ms == 0;
        let passed = running_ms.saturating_sub(self.running_ms).max(wall_ms.saturating_sub(self.wall_ms));
        Clock { running_ms, wall_ms, mono_ms: if is_first { 0 } else { self.mono_ms + passed } }
    }
}

/// The calendar.
pub fn wall_now() -> Wall {
    Wall { unix_ms: js_sys::Date::now() as u64 }
}

/// Time since the page's worker first asked.
pub fn mono_now() -> Mono {
    let running_ms = super::scope().performance().map_or(0.0, |performance| performance.now()) as u64;
    let clock = STATE.get().read(running_ms, wall_now().unix_ms);
    STATE.set(clock);
    Mono { ms: clock.mono_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_in_sleep_and_never_goes_back() {
        let clock = Clock { running_ms: 0, wall_ms: 0, mono_ms: 0 }.read(5, 1_000_000);
        assert_eq!(clock.mono_ms, 0);
        let clock = clock.read(1005, 1_001_000);
        assert_eq!(clock.mono_ms, 1000);
        let slept = clock.read(1010, 4_601_000);
        assert_eq!(slept.mono_ms, 3_601_000, "the other stood still");
        let set_back = slept.read(2010, 1000);
        assert_eq!(set_back.mono_ms, 3_602_000);
    }
}
