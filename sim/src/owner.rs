//! A device's owner: when they sit at their computer, whether it is plugged in, what its network costs; and what the policy
//! that ships makes of it.

use crate::{
    draws::{Draws, Purpose},
    population::{self, Spell, Traits},
};
use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};
use nightjar_agent::{
    policy::{self, Decision, Hurry, Memory, Observation, Override, Power, Pressure, ProfileName, Reading},
    preferences::Preferences,
    session::Permission,
};
use nightjar_shared::time::Mono;
use std::time::Duration;

/// Monday, 5 January 2026, 0:00 UTC: midnight before virtual time 0.
const MIDNIGHT_S: i64 = 1_767_571_200;
/// A full battery lasts so long, in seconds; an empty one is full after half of that.
const BATTERY_S: f64 = 5.0 * 3600.0;
/// Looks farther ahead for a change of the owner's hours are not worth it: something else comes first.
const HOURS_AHEAD_MIN: i64 = 24 * 60;

/// Something that is the case now and then.
#[derive(Clone, Copy, Debug)]
struct Fact {
    spell: Option<Spell>,
    is_so: bool,
    changes_s: f64,
}

impl Fact {
    fn new(spell: Option<Spell>, draws: &mut Draws) -> Self {
        let first = spell.map_or(f64::INFINITY, |spell| draws.exponential(Purpose::Owner, spell.every_s));
        Fact { spell, is_so: false, changes_s: first }
    }

    fn advance(&mut self, now_s: f64, draws: &mut Draws) {
        while let Some(spell) = self.spell
            && self.changes_s <= now_s
        {
            self.is_so = !self.is_so;
            self.changes_s += draws.exponential(Purpose::Owner, if self.is_so { spell.for_s } else { spell.every_s });
        }
    }
}

/// An owner and their computer, as far as the policy asks. Times are virtual seconds.
pub struct Owner {
    midnight: Timestamp,
    zone: TimeZone,
    there: Fact,
    unplugged: Fact,
    metered: Fact,
    full_screen: Fact,
    /// Before the start they were long gone.
    last_input_s: f64,
    /// Of a full battery.
    charge: f64,
    looked_s: f64,
    memory: Memory,
    /// When to look again.
    pub next_s: f64,
    /// What was decided last.
    pub word: Word,
}

/// What an owner's computer lets its agent do.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// Whether it may train.
    pub permission: Permission,
    /// Whether the worker is frozen.
    pub is_frozen: bool,
    /// Share of the time that it may compute.
    pub duty: f64,
    /// Whether it may use the network.
    pub network: bool,
}

/// Of nobody: a computer of its own.
pub static FREE: Word = Word { permission: Permission::Allowed, is_frozen: false, duty: 1.0, network: true };

impl Owner {
    /// Away, on mains, before the first look.
    pub fn new(owner: &population::Owner, traits: &Traits, start_hour: f64, draws: &mut Draws) -> Self {
        let offset = jiff::tz::Offset::from_seconds((traits.time_zone_h * 3600.0) as i32).unwrap_or(jiff::tz::Offset::UTC);
        Owner {
            midnight: Timestamp::from_second(MIDNIGHT_S + (start_hour * 3600.0) as i64).unwrap_or(Timestamp::UNIX_EPOCH),
            zone: TimeZone::fixed(offset),
            there: Fact::new(Some(Spell { every_s: owner.away_s, for_s: owner.there_s }), draws),
            unplugged: Fact::new(owner.unplugged, draws),
            metered: Fact::new(owner.metered, draws),
            full_screen: Fact::new(owner.full_screen, draws),
            last_input_s: f64::NEG_INFINITY,
            charge: 1.0,
            looked_s: 0.0,
            memory: Memory::default(),
            next_s: 0.0,
            word: Word { permission: Permission::Held("it is just starting".into()), ..FREE.clone() },
        }
    }

    /// Moves on to now, and lets the policy decide.
    pub fn look(&mut self, now_s: f64, wanted: &Preferences, draws: &mut Draws) {
        self.advance(now_s, draws);
        let civil = self.civil(now_s);
        let mono = Mono { ms: (now_s * 1000.0) as u64 };
        let seen = self.observation(now_s);
        let outcome = policy::decide(wanted, Override::No, &seen, &self.memory, &civil, mono);
        let (duty, is_frozen) = match &outcome.decision {
            Decision::Run { limits, .. } => (limits.duty, false),
            Decision::Hold { .. } => (self.word.duty, outcome.hurry != Hurry::None || self.word.is_frozen),
        };
        let permission = outcome.permission(wanted.free_memory_on_yield);
        self.word = Word { permission, is_frozen, duty, network: outcome.network };
        self.next_s = self.next_look_s(now_s, wanted, &outcome.decision, &civil);
        self.memory = outcome.memory;
    }

    fn advance(&mut self, now_s: f64, draws: &mut Draws) {
        let was_there = self.there.is_so;
        let left_s = self.there.changes_s;
        for fact in [&mut self.there, &mut self.metered, &mut self.full_screen] {
            fact.advance(now_s, draws);
        }
        if self.there.is_so {
            self.last_input_s = now_s;
        } else if was_there {
            self.last_input_s = left_s.min(now_s);
        }
        let passed_s = now_s - self.looked_s;
        let gained_s = if self.unplugged.is_so { -passed_s } else { 2.0 * passed_s };
        self.charge = (self.charge + gained_s / BATTERY_S).clamp(0.0, 1.0);
        self.unplugged.advance(now_s, draws);
        self.looked_s = now_s;
    }

    fn civil(&self, now_s: f64) -> Zoned {
        let since = ((now_s * 1000.0) as i64).milliseconds();
        self.midnight.checked_add(since).unwrap_or(self.midnight).to_zoned(self.zone.clone())
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
        let mut at_latest = |s: f64| next_s = if s > now_s { next_s.min(s) } else { next_s };
        match decision {
            Decision::Hold { until: Some(until), .. } => at_latest(now_s + until.duration_since(civil).as_secs_f64()),
            Decision::Run { profile: ProfileName::InUse, .. } if !self.there.is_so => {
                at_latest(self.last_input_s + 60.0 * wanted.idle_minutes.unwrap_or(0) as f64);
            }
            _ => {}
        }
        if let Decision::Run { .. } = decision
            && let Some(least) = wanted.charge_percent_min.filter(|_| self.unplugged.is_so)
        {
            // A little later: then it is below.
            at_latest(now_s + (self.charge - least as f64 / 100.0) * BATTERY_S + 1.0);
        }
        let week = &wanted.schedule;
        if !week.is_always() {
            let minute = |m: &i64| civil.checked_add(m.minutes()).is_ok_and(|at| !week.contains(at.datetime()));
            let second_s = f64::from(civil.second()) + f64::from(civil.subsec_nanosecond()) * 1e-9;
            let ends = matches!(decision, Decision::Run { .. }).then(|| (1..=HOURS_AHEAD_MIN).find(minute)).flatten();
            at_latest(ends.map_or(f64::INFINITY, |m| now_s + 60.0 * m as f64 - second_s));
        }
        next_s
    }
}

#[cfg(test)]
mod tests;
