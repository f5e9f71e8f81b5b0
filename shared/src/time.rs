//! Two kinds of time, never mixed. [`Mono`] only moves forward and measures durations (on devices it counts through
//! suspend); [`Wall`] is the calendar's and may jump. This crate reads neither clock: time is an argument.

use serde::{Deserialize, Serialize};
use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Monotonic time: milliseconds since an origin that only this process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mono {
    /// Milliseconds since the origin.
    pub ms: u64,
}

impl Mono {
    /// The origin plus `duration`.
    pub fn from_origin(duration: Duration) -> Self {
        Mono { ms: duration.as_millis() as u64 }
    }

    /// Time from `earlier` to `self`; zero if `earlier` is in fact later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_millis(self.ms.saturating_sub(earlier.ms))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, duration: Duration) -> Mono {
        Mono { ms: self.ms.saturating_add(duration.as_millis() as u64) }
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, duration: Duration) -> Mono {
        Mono { ms: self.ms.saturating_sub(duration.as_millis() as u64) }
    }
}

/// Civil time: milliseconds since the Unix epoch, as the ledger stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
}

impl Wall {
    /// Time from `earlier` to `self`; zero if the calendar went back.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(self.unix_ms.saturating_sub(earlier.unix_ms))
    }
}
