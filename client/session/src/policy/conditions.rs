//! What can make training hold besides the owner's word: each condition judges its sensor's reading. A margin lies
//! between what stops training and what lets it start again.

use super::{
    Power, Reading, Reason, ReasonKind,
    memory::{Memory, Pull, Verdict},
    schedule, words,
};
use crate::{
    policy::Observation,
    preferences::{Policy, Preferences, Sensor},
};
use jiff::{ToSpan, Zoned};
use nightjar_shared::{time::Mono, wire::limits};
use std::time::Duration;

/// After a hold the battery must be so much fuller, in percent.
pub const CHARGE_MARGIN_PERCENT: f64 = 5.0;
/// After a hold the computer must be so much cooler, in °C; and from so much below the limit on the duty is stepped
/// down.
pub const TEMPERATURE_MARGIN_C: f64 = 5.0;
/// A floor of memory or disk must be exceeded by this share of itself after a hold.
pub const FLOOR_MARGIN: f64 = 0.25;

/// A reason, and when it ends by itself.
pub(super) struct Finding {
    pub reason: Reason,
    pub until: Option<Zoned>,
}

/// All that a decision rests on.
pub(super) struct Look<'a> {
    pub preferences: &'a Preferences,
    pub seen: &'a Observation,
    pub now: &'a Zoned,
    pub mono: Mono,
}

/// Whether somebody uses the computer.
pub(super) enum Presence {
    /// Nobody.
    Away,
    /// Somebody, or nobody knows; this is why training would wait.
    InUse(Finding),
}

impl Look<'_> {
    /// Whether the owner's comfort counts.
    pub fn is_considerate(&self) -> bool {
        self.preferences.policy == Policy::Considerate
    }

    pub fn later(&self, left: Duration) -> Option<Zoned> {
        self.now.checked_add(left).ok()
    }

    /// What a sensor knows; else why training holds: unless the owner has waived it, then nothing.
    fn known<'r, T>(&self, reading: &'r Reading<T>, sensor: Sensor) -> Result<&'r T, Verdict> {
        match reading {
            Reading::Known(value) => Ok(value),
            Reading::Unknown(why) => Err(self.silent(why, sensor)),
        }
    }

    fn silent(&self, why: &str, sensor: Sensor) -> Verdict {
        let waived = &self.preferences.waive;
        if !self.is_considerate() || waived.contains(&sensor) {
            return Verdict::Yes;
        }
        let kind = ReasonKind::of_silent(sensor);
        let open = kind.row().open;
        let all = Sensor::ALL.iter().filter(|s| **s == sensor || waived.contains(s)).map(|s| s.name());
        let (why, all) = (limits::tame(why), all.collect::<Vec<_>>().join(","));
        Verdict::No(Reason::new(
            kind,
            format!(
                "it is unknown {open}: {}; `nightjar prefs set waive {all}` lets it train all the same",
                why.trim_end_matches('.')
            ),
        ))
    }

    /// All findings of the conditions, in no order. Those of comfort are switched off where comfort does not count.
    pub fn findings(&self, memory: &mut Memory) -> Vec<Finding> {
        let comfort = |verdict: Verdict| if self.is_considerate() { verdict } else { Verdict::Off };
        let holds = [
            memory.power.judge(comfort(self.power()), self.mono),
            memory.metered.judge(comfort(self.metered()), self.mono),
            memory.full_screen.judge(comfort(self.full_screen()), self.mono),
            memory.programs.judge(comfort(self.programs()), self.mono),
            memory.memory.judge(self.free_memory(), self.mono),
            memory.disk.judge(self.free_disk(), self.mono),
            memory.temperature.judge(self.temperature(), self.mono),
        ];
        let holds = holds
            .into_iter()
            .flatten()
            .map(|h| Finding { reason: h.reason, until: h.left.and_then(|l| self.later(l)) });
        let by_calendar = if self.is_considerate() { [self.data_cap(), self.schedule()] } else { [None, None] };
        holds.chain(by_calendar.into_iter().flatten()).collect()
    }

    /// Whether somebody uses the computer. Unknown counts as somebody.
    pub fn presence(&self, memory: &mut Memory) -> Presence {
        let Some(minutes) = self.preferences.idle_minutes.filter(|_| self.is_considerate()) else {
            memory.idle = Default::default();
            return Presence::Away;
        };
        let known = self.known(&self.seen.idle, Sensor::Idle);
        let wanted = Duration::from_secs(60 * minutes);
        let idle = memory.idle_for(known.as_ref().ok().map(|said| **said), self.mono);
        let verdict = known.map_or_else(|silent| silent, |_| Verdict::Yes);
        if let Some(hold) = memory.idle.judge(verdict, self.mono) {
            // Then the owner must have been away for long enough as well.
            let absent = idle.map_or(Duration::ZERO, |idle| wanted.saturating_sub(idle));
            let until = hold.left.and_then(|left| self.later(left.max(absent)));
            return Presence::InUse(Finding { reason: hold.reason, until });
        }
        match idle {
            Some(idle) if idle < wanted => {
                let (ago, wanted_words) = (words::duration(idle), words::duration(wanted));
                let sentence =
                    format!("the computer was used {ago} ago; training starts after {wanted_words} without input");
                let until = self.later(wanted - idle);
                Presence::InUse(Finding { reason: Reason::new(ReasonKind::InUse, sentence), until })
            }
            _ => Presence::Away,
        }
    }

    fn power(&self) -> Verdict {
        let (allowed, wanted) = (self.preferences.on_battery, self.preferences.charge_percent_min);
        if allowed && wanted.is_none() {
            return Verdict::Off;
        }
        let Power { on_mains, charge_percent } = match self.known(&self.seen.power, Sensor::Power) {
            Ok(power) => *power,
            Err(silent) => return silent,
        };
        let hold = |kind, sentence: String| Reason::new(kind, sentence);
        let Some(wanted) = wanted.filter(|_| allowed && !on_mains).map(|w| w as f64) else {
            return if on_mains {
                Verdict::Yes
            } else {
                Verdict::No(hold(
                    ReasonKind::Battery,
                    "the computer runs on battery; training goes on when it is plugged in".into(),
                ))
            };
        };
        let enough = (wanted + CHARGE_MARGIN_PERCENT).min(100.0);
        match charge_percent.filter(|c| c.is_finite()) {
            None => self.silent("nothing tells how full its battery is", Sensor::Power),
            Some(charge) if charge < wanted => Verdict::No(hold(
                ReasonKind::Charge,
                format!("the battery is at {charge:.0} %; training goes on at {enough:.0} %, or when it is plugged in"),
            )),
            Some(charge) if charge < enough => Verdict::NotYet(hold(
                ReasonKind::Charge,
                format!(
                    "the battery is at {charge:.0} %; after a hold training goes on at {enough:.0} %, or when it is \
                    plugged in"
                ),
            )),
            Some(_) => Verdict::Yes,
        }
    }

    fn metered(&self) -> Verdict {
        let sentence =
            "the network is metered; training goes on with another, or with `nightjar prefs set hold_on_metered false`";
        self.sight(self.preferences.hold_on_metered, &self.seen.metered, Sensor::Metered, ReasonKind::Metered, sentence)
    }

    fn full_screen(&self) -> Verdict {
        let sentence =
            "a window covers a whole screen, or a program keeps the screen on; training goes on when that is over";
        let (wanted, reading) = (self.preferences.hold_on_full_screen, &self.seen.full_screen);
        self.sight(wanted, reading, Sensor::FullScreen, ReasonKind::FullScreen, sentence)
    }

    fn sight(
        &self,
        wanted: bool,
        reading: &Reading<bool>,
        sensor: Sensor,
        kind: ReasonKind,
        sentence: &str,
    ) -> Verdict {
        if !wanted {
            return Verdict::Off;
        }
        match self.known(reading, sensor) {
            Ok(true) => Verdict::No(Reason::new(kind, sentence)),
            Ok(false) => Verdict::Yes,
            Err(silent) => silent,
        }
    }

    fn programs(&self) -> Verdict {
        if self.preferences.programs.is_empty() {
            return Verdict::Off;
        }
        let running = match self.known(&self.seen.programs, Sensor::Programs) {
            Ok(running) => running,
            Err(silent) => return silent,
        };
        // The sensor may still look for names that the owner has taken off the list.
        match self.preferences.programs.iter().find(|named| running.contains(named)) {
            Some(name) => Verdict::No(Reason::new(
                ReasonKind::Program,
                format!("{} is running; training goes on when it is closed", limits::tame(name)),
            )),
            None => Verdict::Yes,
        }
    }

    fn free_memory(&self) -> Verdict {
        let Some(floor) = self.preferences.memory_mib_min else { return Verdict::Off };
        match self.known(&self.seen.memory_free, Sensor::Memory) {
            Ok(free) => floored(ReasonKind::Memory, "memory", *free, floor << 20),
            Err(silent) => silent,
        }
    }

    fn free_disk(&self) -> Verdict {
        let Some(floor) = self.preferences.disk_mib_min else { return Verdict::Off };
        match self.known(&self.seen.disk_free, Sensor::Disk) {
            Ok(free) => floored(ReasonKind::Disk, "disk space", *free, floor << 20),
            Err(silent) => silent,
        }
    }

    fn temperature(&self) -> Verdict {
        let Some(most) = self.preferences.temperature_c_max.map(|c| c as f64) else { return Verdict::Off };
        let enough = most - TEMPERATURE_MARGIN_C;
        match self.known(&self.seen.temperature_c, Sensor::Temperature) {
            Err(silent) => silent,
            Ok(c) if !c.is_finite() => self.silent("its sensor gives no number", Sensor::Temperature),
            Ok(c) if *c > most => Verdict::No(Reason::new(
                ReasonKind::Temperature,
                format!("the computer is at {c:.1} °C, above {most:.0} °C; training goes on at {enough:.0} °C"),
            )),
            Ok(c) if *c > enough => Verdict::NotYet(Reason::new(
                ReasonKind::Temperature,
                format!("the computer is at {c:.1} °C; after a hold training goes on at {enough:.0} °C"),
            )),
            Ok(_) => Verdict::Yes,
        }
    }

    fn data_cap(&self) -> Option<Finding> {
        let cap = self.preferences.data_mib_month_max? << 20;
        if cap == 0 {
            let sentence = "it may use no data at all; `nightjar prefs set data_mib_month_max off`, or a number of \
                MiB, lets it train";
            return Some(Finding { reason: Reason::new(ReasonKind::DataCap, sentence), until: None });
        }
        (self.seen.data_this_month >= cap).then(|| {
            let next_month = self.now.date().last_of_month().checked_add(1.day()).ok();
            let until = next_month.and_then(|d| d.to_zoned(self.now.time_zone().clone()).ok());
            let when = until.as_ref().map_or("in the next month".into(), |u| words::moment(u, self.now));
            let sentence = format!(
                "this month's {} of data are used up; they are counted anew {when}, and a higher data_mib_month_max \
                helps at once",
                words::bytes(cap)
            );
            Finding { reason: Reason::new(ReasonKind::DataCap, sentence), until }
        })
    }

    /// The first instant from this one on that is within the owner's hours; `None` if none comes soon.
    pub fn within_hours(&self, at: &Zoned) -> Option<Zoned> {
        let week = &self.preferences.schedule;
        if !self.is_considerate() || week.contains(at.datetime()) {
            Some(at.clone())
        } else {
            schedule::next_start(week, at)
        }
    }

    fn schedule(&self) -> Option<Finding> {
        let week = &self.preferences.schedule;
        (!week.contains(self.now.datetime())).then(|| {
            let until = schedule::next_start(week, self.now);
            let sentence = match &until {
                Some(start) => {
                    format!("it is outside your hours ({week}); the next begin {}", words::moment(start, self.now))
                }
                None => format!(
                    "it is outside your hours ({week}), and none come soon; `nightjar prefs set schedule always` lifts \
                    them"
                ),
            };
            Finding { reason: Reason::new(ReasonKind::Schedule, sentence), until }
        })
    }

    /// Which way the duty should go. Pressure counts for comfort only.
    pub fn pull(&self, comfort: bool) -> Pull {
        let most_c = self.preferences.temperature_c_max.map(|c| c as f64);
        let below = match (most_c, self.seen.temperature_c.known().filter(|c| c.is_finite())) {
            (Some(most), Some(c)) => most - c,
            _ => f64::INFINITY,
        };
        let pressure = self.seen.pressure.known().filter(|_| comfort && self.is_considerate());
        let pressed = match (self.preferences.pressure_percent_max, pressure) {
            (Some(most), Some(pressure)) => pressure.worst() / most as f64,
            _ => 0.0,
        };
        if below < 0.0 {
            Pull::Bottom
        } else if below < TEMPERATURE_MARGIN_C {
            Pull::Heat
        } else if pressed > 1.0 {
            Pull::Pressure
        } else if below >= 2.0 * TEMPERATURE_MARGIN_C && pressed < 0.5 {
            Pull::Up
        } else {
            Pull::Stay
        }
    }
}

/// Whether more than a floor of bytes is free.
fn floored(kind: ReasonKind, what: &str, free: u64, floor: u64) -> Verdict {
    let enough = floor.saturating_add((floor as f64 * FLOOR_MARGIN) as u64);
    let (only, least, again) = (words::bytes(free), words::bytes(floor), words::bytes(enough));
    if free < floor {
        Verdict::No(Reason::new(
            kind,
            format!("only {only} of {what} are free, and {least} must stay so; training goes on with {again}"),
        ))
    } else if free < enough {
        Verdict::NotYet(Reason::new(
            kind,
            format!("{only} of {what} are free; after a hold training goes on with {again}"),
        ))
    } else {
        Verdict::Yes
    }
}
