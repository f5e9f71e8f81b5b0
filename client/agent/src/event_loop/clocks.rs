//! What the two clocks say together: whether the computer slept, or somebody set the calendar's clock.

use nightjar_shared::time::{Mono, Wall};
use std::time::Duration;

/// A loop that was not run for this long was asleep, with the computer or by itself.
const NAP_MIN: Duration = Duration::from_secs(20);
/// Clocks drift by less than this between two looks; a leap second and a time server's small corrections fit in.
const JUMP_MIN_MS: u64 = 5_000;

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Since {
    /// Nothing ran for this long.
    pub slept: Option<Duration>,
    /// The calendar's clock was set by so many seconds: forward, or back if negative.
    pub jumped_s: Option<i64>,
}

/// What both clocks said last.
pub(super) struct Clocks {
    mono: Mono,
    wall: Wall,
}

impl Clocks {
    pub fn new(mono: Mono, wall: Wall) -> Self {
        Clocks { mono, wall }
    }

    /// Looks at both.
    pub fn look(&mut self, mono: Mono, wall: Wall) -> Since {
        let passed = mono.since(self.mono);
        let expected = self.wall.unix_ms.saturating_add(passed.as_millis() as u64);
        let jumped = wall.unix_ms.abs_diff(expected) >= JUMP_MIN_MS;
        let by_s = (i128::from(wall.unix_ms) - i128::from(expected)) / 1000;
        (self.mono, self.wall) = (mono, wall);
        Since {
            slept: (passed >= NAP_MIN).then_some(passed),
            jumped_s: jumped.then(|| i64::try_from(by_s).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_and_a_clock_that_is_set_are_told_apart() {
        let (mono, wall) = (|s: u64| Mono { ms: s * 1000 }, |s: u64| Wall { unix_ms: s * 1000 });
        let mut clocks = Clocks::new(mono(10), wall(1000));
        assert_eq!(clocks.look(mono(12), wall(1002)), Since::default());
        assert_eq!(
            clocks.look(mono(3612), wall(4602)),
            Since { slept: Some(Duration::from_secs(3600)), jumped_s: None }
        );
        assert_eq!(clocks.look(mono(3614), wall(8204)), Since { slept: None, jumped_s: Some(3600) });
        assert_eq!(clocks.look(mono(3616), wall(0)), Since { slept: None, jumped_s: Some(-8206) });
        assert_eq!(clocks.look(mono(3618), wall(5)), Since::default(), "a few seconds are no jump");
    }
}
