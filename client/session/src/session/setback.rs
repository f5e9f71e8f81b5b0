//! Leases that come to nothing, one after another. The next is asked for ever more slowly, and after a few of them the
//! device holds for a while and says why: neither the coordinator nor the owner is to pay for work that nobody takes.

use super::{Session, Stage, Timer};
use nightjar_shared::{time::Mono, wire::limits};
use std::time::Duration;

/// After so many in a row it holds.
const HOLD_AFTER: u32 = 5;
/// It holds so long, and twice as long each time that it has tried since.
const HOLD_FIRST: Duration = Duration::from_secs(60);
/// It never holds longer.
const HOLD_MAX: Duration = Duration::from_secs(3600);
/// The least time from one lease to the next after two in a row; each further one doubles it.
const APART: Duration = Duration::from_secs(1);

/// Leases that came to nothing.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    /// So many in a row.
    count: u32,
    /// What the last of them failed for.
    why: String,
    /// When the last lease was granted, if that was in this process.
    granted: Option<Mono>,
}

/// Why no lease is asked for at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// So many leases in a row came to nothing.
    pub count: u32,
    /// What the last of them failed for.
    pub why: String,
    /// When the next is asked for.
    pub until: Mono,
    /// Whether they are so many that it counts as holding.
    pub holds: bool,
}

impl Session {
    /// What leases failed for, while the next has to wait for that.
    pub fn setback(&self) -> Option<Setback> {
        let until = self.timers.at(Timer::Again)?;
        let Setbacks { count, why, .. } = &self.setbacks;
        Some(Setback { count: *count, why: why.clone(), until, holds: *count >= HOLD_AFTER })
    }

    /// What the last leases came to nothing for, if they did.
    pub(super) fn last_setback(&self) -> Option<String> {
        let Setbacks { count, why, .. } = &self.setbacks;
        let what = match count {
            0 => return None,
            1 => "the last lease".into(),
            _ => format!("the last {count} leases"),
        };
        Some(format!("{what} came to nothing ({why})"))
    }

    pub(super) fn lease_began(&mut self, now: Mono) {
        self.setbacks.granted = Some(now);
    }

    /// The lease at hand came to nothing, and the next may for the same reason.
    pub fn set_back(&mut self, why: &str, now: Mono) {
        self.setbacks.count = self.setbacks.count.saturating_add(1);
        limits::tame(why).trim_end_matches('.').clone_into(&mut self.setbacks.why);
        let count = self.setbacks.count;
        if let Some(again) = count.checked_sub(HOLD_AFTER) {
            let hold = HOLD_FIRST.saturating_mul(1 << again.min(10)).min(HOLD_MAX);
            self.timers.wait(Timer::Again, now, hold);
        } else if count > 1 {
            // A lease that took longer by itself need not wait.
            let at = self.setbacks.granted.unwrap_or(now) + APART * (1 << (count - 2));
            if at > now {
                self.timers.set(Timer::Again, at);
            }
        }
    }

    /// The lease at hand is given back for a fault.
    pub(super) fn give_back(&mut self, why: String, now: Mono) {
        self.set_back(&why, now);
        if self.unfinished() {
            self.stage = Stage::Returning { why };
        }
    }

    /// A lease was of use, or the owner has changed something.
    pub(super) fn set_right(&mut self) {
        self.setbacks.count = 0;
        self.timers.clear(Timer::Again);
    }
}
