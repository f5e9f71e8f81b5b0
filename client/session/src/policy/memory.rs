//! What the policy remembers from one decision to the next, so that it does not flap: what forbids must be gone for a
//! while, and by a margin, before training goes on; and the duty moves a step at a time.

use super::{Reason, ReasonKind, words};
use nightjar_shared::time::Mono;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Share of the profile's duty at each step down.
pub const STEPS: [f64; 4] = [1.0, 0.75, 0.5, 0.25];
/// The duty goes down by at most a step in this time.
pub const STEP_DOWN_EVERY: Duration = Duration::from_secs(15);
/// The duty goes up by at most a step in this time.
pub const STEP_UP_EVERY: Duration = Duration::from_secs(60);

/// What the policy remembers. A fresh one is right at a first start, and where the owner has changed their preferences:
/// then their word takes effect at once. Times are monotonic milliseconds; those in the future are from before a
/// reboot, and count as forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub(super) idle: Guard,
    pub(super) power: Guard,
    pub(super) metered: Guard,
    pub(super) memory: Guard,
    pub(super) disk: Guard,
    pub(super) temperature: Guard,
    pub(super) full_screen: Guard,
    pub(super) programs: Guard,
    pub(super) throttle: Throttle,
    /// When the owner last used the computer, in monotonic milliseconds; before the origin it is negative.
    pub(super) input_ms: Option<i64>,
}

impl Memory {
    /// Why training takes less than its profile allows, if it does.
    pub fn slowed(&self) -> Option<&'static str> {
        match &self.throttle {
            Throttle { level: 0, .. } => None,
            Throttle { is_heat: true, .. } => Some("the computer is warm"),
            Throttle { is_heat: false, .. } => Some("other programs have to wait"),
        }
    }

    /// What is not the preferences': how far the duty is down, and when the owner was there. The rest begins anew with
    /// others.
    pub fn of_the_computer(&self) -> Memory {
        Memory { throttle: self.throttle, input_ms: self.input_ms, ..Memory::default() }
    }

    /// Forgets what lies in the future.
    pub(super) fn as_of(&self, mono: Mono) -> Memory {
        let mut memory = self.clone();
        let Memory { idle, power, metered, memory: free, disk, temperature, full_screen, programs, throttle, input_ms } =
            &mut memory;
        for guard in [idle, power, metered, free, disk, temperature, full_screen, programs] {
            guard.clear_ms = guard.clear_ms.filter(|ms| *ms <= mono.ms);
        }
        throttle.moved_ms = throttle.moved_ms.filter(|ms| *ms <= mono.ms);
        throttle.level = throttle.level.min(STEPS.len() as u8 - 1);
        *input_ms = input_ms.filter(|ms| *ms <= signed(mono));
        memory
    }

    /// How long nobody has used the computer, given what a sensor says now, if it says anything. A sensor that has seen
    /// input is believed until that input is long past, even if it falls silent or another takes its place that has
    /// seen none.
    pub(super) fn idle_for(&mut self, said: Option<Duration>, mono: Mono) -> Option<Duration> {
        let last = said.map(|idle| signed(mono).saturating_sub(i64::try_from(idle.as_millis()).unwrap_or(i64::MAX)));
        self.input_ms = self.input_ms.max(last);
        self.input_ms.map(|last| Duration::from_millis(signed(mono).saturating_sub(last).unsigned_abs()))
    }
}

fn signed(mono: Mono) -> i64 {
    i64::try_from(mono.ms).unwrap_or(i64::MAX)
}

/// What one condition says now, before memory.
pub(super) enum Verdict {
    /// It forbids: this.
    No(Reason),
    /// It lets what runs run on, but lets nothing start again: this.
    NotYet(Reason),
    /// It allows.
    Yes,
    /// The owner has switched it off.
    Off,
}

/// One condition's memory: what it forbade last, until it has allowed for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Guard {
    forbade: Option<ReasonKind>,
    clear_ms: Option<u64>,
}

/// A hold, and how long it lasts at least, if that is known.
#[derive(Debug)]
pub(super) struct Hold {
    pub reason: Reason,
    pub left: Option<Duration>,
}

impl Guard {
    /// What the condition says with what is remembered of it.
    pub fn judge(&mut self, verdict: Verdict, mono: Mono) -> Option<Hold> {
        let (reason, left) = match (verdict, self.forbade) {
            (Verdict::No(reason), _) => {
                *self = Guard { forbade: Some(reason.kind), clear_ms: None };
                (reason, None)
            }
            (Verdict::NotYet(reason), Some(kind)) => {
                // What it was that forbade stays what will be told of it.
                *self = Guard { forbade: Some(kind), clear_ms: None };
                (reason, None)
            }
            (Verdict::Yes, Some(kind)) => {
                let clear_ms = *self.clear_ms.get_or_insert(mono.ms);
                let (clear, settle) = (mono.since(Mono { ms: clear_ms }), kind.settle());
                if clear >= settle {
                    *self = Guard::default();
                    return None;
                }
                // Since when, nobody can say who was not running all the time.
                let over =
                    if clear.as_secs() == 0 { String::new() } else { format!(", {} so far", words::duration(clear)) };
                let (was, settled) = (kind.row().was, words::duration(settle));
                let sentence = format!("{was} before; training goes on after {settled} without that{over}");
                (Reason::new(kind, sentence), Some(settle - clear))
            }
            (Verdict::NotYet(_) | Verdict::Yes, None) => return None,
            (Verdict::Off, _) => {
                *self = Guard::default();
                return None;
            }
        };
        Some(Hold { reason, left })
    }
}

/// How far the duty is stepped down, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Throttle {
    pub level: u8,
    is_heat: bool,
    moved_ms: Option<u64>,
}

/// Which way the duty should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pull {
    /// All the way down: it is too hot to train at all.
    Bottom,
    /// Down, for heat.
    Heat,
    /// Down, for other programs.
    Pressure,
    /// Neither way.
    Stay,
    /// Up.
    Up,
}

impl Throttle {
    /// Moves by at most a step; gives back the share of the profile's duty.
    pub fn pull(&mut self, pull: Pull, mono: Mono) -> f64 {
        let bottom = STEPS.len() as u8 - 1;
        let rested = |least: Duration| self.moved_ms.is_none_or(|ms| mono.since(Mono { ms }) >= least);
        let (level, is_heat) = match pull {
            Pull::Bottom => (bottom, true),
            Pull::Heat if self.level < bottom && rested(STEP_DOWN_EVERY) => (self.level + 1, true),
            Pull::Pressure if self.level < bottom && rested(STEP_DOWN_EVERY) => (self.level + 1, false),
            Pull::Up if self.level > 0 && rested(STEP_UP_EVERY) => (self.level - 1, self.is_heat),
            _ => (self.level, self.is_heat),
        };
        if level != self.level {
            *self = Throttle { level, is_heat, moved_ms: Some(mono.ms) };
        }
        STEPS[usize::from(level)]
    }
}
