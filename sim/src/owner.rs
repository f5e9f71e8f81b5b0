//! A device's owner: when they sit at their computer, whether it is plugged in, what its network costs; and what the
//! policy that ships makes of it.

use crate::{
    draws::{Draws, Purpose},
    population::{self, Spell, Traits},
};
use jiff::{
    Timestamp, ToSpan, Zoned,
    tz::{Offset, TimeZone},
};
use nightjar_session::{
    policy::{self, Decision, Hurry, Memory, Observation, Override, Power, Pressure, ProfileName, Reading, ReasonKind},
    preferences::Preferences,
    session::Permission,
};
use nightjar_shared::time::Mono;
use std::time::Duration;

/// Monday, 5 January 2026, 0:00 UTC: midnight before virtual time 0.
const MIDNIGHT_S: i64 = 1_767_571_200;
/// A full battery lasts so long, in seconds, whatever the computer does; an empty one is full after half of that.
const BATTERY_S: f64 = 5.0 * 3600.0;

/// Something that is the case now and then. Times are virtual seconds.
#[derive(Clone, Copy, Debug)]
struct Fact {
    spell: Option<Spell>,
    purpose: Purpose,
    is_so: bool,
    looked_s: f64,
    changes_s: f64,
}

impl Fact {
    /// At the start of time, as at any other moment.
    fn new(spell: Option<Spell>, purpose: Purpose, draws: &mut Draws) -> Self {
        let mut fact = Fact { spell, purpose, is_so: false, looked_s: 0.0, changes_s: f64::INFINITY };
        if let Some(Spell { every_s, for_s }) = spell {
            fact.is_so = draws.falls(purpose, for_s / (every_s + for_s));
            fact.changes_s = draws.exponential(purpose, if fact.is_so { for_s } else { every_s });
        }
        fact
    }

    /// Moves on to now, and tells of each stretch of time whether it was so, and where it ends.
    fn advance(&mut self, now_s: f64, draws: &mut Draws, mut passed: impl FnMut(bool, f64, f64)) {
        while let Some(Spell { every_s, for_s }) = self.spell
            && self.changes_s <= now_s
        {
            passed(self.is_so, self.changes_s - self.looked_s, self.changes_s);
            self.looked_s = self.changes_s;
            self.is_so = !self.is_so;
            self.changes_s += draws.exponential(self.purpose, if self.is_so { for_s } else { every_s });
        }
        passed(self.is_so, now_s - self.looked_s, now_s);
        self.looked_s = now_s;
    }
}

/// An owner and their computer, as far as the policy asks. Times are virtual seconds.
pub struct Owner {
    /// The date and time of virtual time 0.
    start: Timestamp,
    zone: TimeZone,
    there: Fact,
    unplugged: Fact,
    metered: Fact,
    full_screen: Fact,
    /// Before the start nobody was there.
    last_input_s: f64,
    /// Of a full battery.
    charge: f64,
    memory: Memory,
    /// When to look again.
    pub next_s: f64,
    /// What was decided last.
    pub allowance: Allowance,
}

/// What an owner's computer lets its agent do.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// Whether it may train.
    pub permission: Permission,
    /// Whether the worker is frozen.
    pub is_frozen: bool,
    /// Share of the time that it may compute, or might when it was last allowed.
    pub duty: f64,
    /// Whether it may use the network.
    pub network: bool,
}

/// Of nobody: a computer of its own.
pub static FREE: Allowance = Allowance { permission: Permission::Allowed, is_frozen: false, duty: 1.0, network: true };

impl Owner {
    /// Before the first look. Its facts are as at any other moment, but that the battery is full.
    pub fn new(owner: &population::Owner, traits: &Traits, start_hour: f64, draws: &mut Draws) -> Self {
        let offset = Offset::from_seconds((traits.time_zone_h * 3600.0) as i32).unwrap_or(Offset::UTC);
        let there = Some(Spell { every_s: owner.away_s, for_s: owner.there_s });
        Owner {
            start: Timestamp::from_second(MIDNIGHT_S + (start_hour * 3600.0) as i64).unwrap_or(Timestamp::UNIX_EPOCH),
            zone: TimeZone::fixed(offset),
            there: Fact::new(there, Purpose::Owner, draws),
            unplugged: Fact::new(owner.unplugged, Purpose::Unplugged, draws),
            metered: Fact::new(owner.metered, Purpose::Metered, draws),
            full_screen: Fact::new(owner.full_screen, Purpose::FullScreen, draws),
            last_input_s: f64::NEG_INFINITY,
            charge: 1.0,
            memory: Memory::default(),
            next_s: 0.0,
            allowance: Allowance { permission: Permission::Held("it is just starting".into()), ..FREE.clone() },
        }
    }

    /// Moves on to now, and lets the policy decide.
    pub fn look(&mut self, now: Mono, wanted: &Preferences, draws: &mut Draws) {
        let now_s = now.ms as f64 / 1000.0;
        self.advance(now_s, draws);
        let civil = self.civil(now);
        let seen = self.observation(now_s);
        let outcome = policy::decide(wanted, Override::No, &seen, &self.memory, &civil, now);
        let (duty, is_frozen) = match &outcome.decision {
            Decision::Run { limits, .. } => (limits.duty, false),
            Decision::Hold { .. } => (self.allowance.duty, outcome.hurry != Hurry::None || self.allowance.is_frozen),
        };
        let permission = outcome.permission(wanted.free_memory_on_yield);
        self.allowance = Allowance { permission, is_frozen, duty, network: outcome.network };
        self.next_s = self.next_look_s(now_s, wanted, &outcome.decision, &civil);
        self.memory = outcome.memory;
    }

    fn advance(&mut self, now_s: f64, draws: &mut Draws) {
        let Owner { there, unplugged, metered, full_screen, last_input_s, charge, .. } = self;
        there.advance(now_s, draws, |is_there, _, until_s| {
            if is_there {
                *last_input_s = until_s;
            }
        });
        unplugged.advance(now_s, draws, |is_unplugged, seconds, _| {
            let gained_s = if is_unplugged { -seconds } else { 2.0 * seconds };
            *charge = (*charge + gained_s / BATTERY_S).clamp(0.0, 1.0);
        });
        metered.advance(now_s, draws, |_, _, _| {});
        full_screen.advance(now_s, draws, |_, _, _| {});
    }

    fn civil(&self, now: Mono) -> Zoned {
        let since = i64::try_from(now.ms).unwrap_or(i64::MAX).milliseconds();
        self.start.checked_add(since).unwrap_or(self.start).to_zoned(self.zone.clone())
    }

    /// What the sensors of a computer in good health would say.
    fn observation(&self, now_s: f64) -> Observation {
        let idle = Duration::try_from_secs_f64(now_s - self.last_input_s).unwrap_or(Duration::MAX);
        let charge_percent = self.unplugged.spell.map(|_| 100.0 * self.charge);
        Observation {
            idle: Reading::Known(idle),
            power: Reading::Known(Power { on_mains: !self.unplugged.is_so, charge_percent }),
            temperature_c: Reading::Known(50.0),
            metered: Reading::Known(self.metered.is_so),
            full_screen: Reading::Known(self.full_screen.is_so),
            programs: Reading::Known(vec![]),
            memory_free: Reading::Known(u64::MAX),
            disk_free: Reading::Known(u64::MAX),
            data_this_month: 0,
            pressure: Reading::Known(Pressure::default()),
            sleeping: false,
        }
    }

    /// When the policy may decide otherwise: at the next change of a fact, or once what it waits for has passed.
    fn next_look_s(&self, now_s: f64, wanted: &Preferences, decision: &Decision, civil: &Zoned) -> f64 {
        let facts = [self.there, self.unplugged, self.metered, self.full_screen].map(|fact| fact.changes_s);
        let mut next_s = facts.into_iter().fold(f64::INFINITY, f64::min);
        // What is due now already is due in a moment: times are whole milliseconds.
        let mut at_latest = |s: f64| next_s = next_s.min(s.max(now_s + 0.001));
        match decision {
            Decision::Hold { until: Some(until), .. } => at_latest(now_s + until.duration_since(civil).as_secs_f64()),
            Decision::Hold { until: None, .. } => {}
            Decision::Run { profile, .. } => {
                if *profile == ProfileName::InUse && !self.there.is_so {
                    at_latest(self.last_input_s + 60.0 * wanted.idle_minutes.unwrap_or(0) as f64);
                }
                if let Some(least) = wanted.charge_percent_min.filter(|_| self.unplugged.is_so) {
                    // A little later: then it is below.
                    at_latest(now_s + (self.charge - least as f64 / 100.0) * BATTERY_S + 1.0);
                }
                if let Some(end) = policy::next_end(&wanted.schedule, civil).filter(|_| !wanted.schedule.is_always()) {
                    at_latest(now_s + end.duration_since(civil).as_secs_f64());
                }
            }
        }
        if !self.allowance.network && !self.metered.is_so {
            // It may be used again before training is allowed.
            at_latest(now_s + ReasonKind::Metered.settle().as_secs_f64());
        }
        next_s
    }
}

#[cfg(test)]
mod tests;
