//! The run policy: what the owner wants and what the sensors see, in; train or hold with one true sentence, out. Pure:
//! both times are arguments, and what must be remembered goes in and comes out. A sensor that cannot tell counts as
//! forbidding, unless the owner has waived it, and the sentence says so.
//!
//! Of several reasons the one is given that waits for the owner or outlasts the others: the order of [`ReasonKind`].

mod conditions;
mod memory;
mod observation;
mod reason;
mod schedule;
mod words;

pub use conditions::{CHARGE_MARGIN_PERCENT, FLOOR_MARGIN, TEMPERATURE_MARGIN_C};
pub use memory::{Memory, STEP_DOWN_EVERY, STEP_UP_EVERY, STEPS};
pub use observation::{Observation, Power, Pressure, Reading};
pub use reason::{Cause, Hurry, Reason, ReasonKind, Row};
pub use schedule::next_end;
pub use words::moment;

use crate::{
    preferences::{Preferences, Profile, threads_on},
    session::Permission,
};
use conditions::{Finding, Look, Presence};
use jiff::Zoned;
use nightjar_shared::time::Mono;
use serde::{Deserialize, Serialize};

/// The owner's word for now. It wins over everything but safety: heat, memory, disk, sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Override {
    /// They have said nothing: the preferences decide.
    #[default]
    No,
    /// Not now: up to this time, or until they say otherwise.
    Pause(Option<Mono>),
    /// Train now, as if nobody were there: up to this time, or until they say otherwise.
    RunNow(Option<Mono>),
}

/// Which of the owner's two sets of limits is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileName {
    /// Somebody uses the computer.
    InUse,
    /// Nobody does.
    Away,
}

/// What training may take of the computer. These beat whatever the run asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of the time that it may compute, above 0 and at most 1; of the GPU and of the CPU.
    pub duty: f64,
    /// Threads on the CPU; 0: half of the cores.
    pub threads: usize,
    /// Memory that the worker may take, in bytes; `u64::MAX`: as much as it likes.
    pub memory_bytes: u64,
    /// Most tokens a second; 0: as many as it can.
    pub tokens_per_s_max: f64,
}

/// Whether to train.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Yes.
    Run {
        /// Within these limits.
        limits: Limits,
        /// Which are those of this profile.
        profile: ProfileName,
    },
    /// No.
    Hold {
        /// Why.
        reason: Reason,
        /// When training may go on, if that is known: when this reason and all others there are have ended by
        /// themselves, within the owner's hours. Always in the future.
        until: Option<Zoned>,
    },
}

/// What comes of a look at the computer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether to train.
    pub decision: Decision,
    /// Whether the network may be used, to deliver what is done say. Decided apart, since the reason that is told may
    /// be another.
    pub network: bool,
    /// How soon to stop. Apart for the same reason: whoever types while the battery is low wants the computer at once.
    pub hurry: Hurry,
    /// What to remember for the next time.
    pub memory: Memory,
}

impl Outcome {
    /// What the session is to make of it; `frees_memory`: whether whoever wants the computer at once wants the worker's
    /// memory too.
    pub fn permission(&self, frees_memory: bool) -> Permission {
        let Decision::Hold { reason, .. } = &self.decision else { return Permission::Allowed };
        let reason = reason.sentence.clone();
        match self.hurry {
            Hurry::None => Permission::Held(reason),
            Hurry::Now => Permission::Yield { reason, free_memory: frees_memory },
            Hurry::NowWithMemory => Permission::Yield { reason, free_memory: true },
            Hurry::Sleep => Permission::Yield { reason, free_memory: false },
        }
    }
}

impl Decision {
    /// The same on a computer of so many cores: the threads are a number that is meant.
    pub fn on(mut self, cores: usize) -> Self {
        if let Decision::Run { limits, .. } = &mut self {
            limits.threads = threads_on(limits.threads, cores);
        }
        self
    }

    /// What stands until the first look at the computer.
    pub fn starting() -> Self {
        Decision::Hold { reason: Reason::new(ReasonKind::Starting, "it is just starting"), until: None }
    }

    /// What stands while there is no run to train in, for this reason: the policy is not asked.
    pub fn not_joined(why: &str) -> Self {
        Decision::Hold { reason: Reason::new(ReasonKind::NotJoined, why), until: None }
    }
}

/// Decides.
pub fn decide(
    preferences: &Preferences,
    owner: Override,
    seen: &Observation,
    memory: &Memory,
    now: &Zoned,
    mono: Mono,
) -> Outcome {
    let mut memory = memory.as_of(mono);
    let look = Look { preferences, seen, now, mono };
    let owner = owner.at(mono);
    let runs_now = matches!(owner, Override::RunNow(_));
    // All conditions are judged every time, so that what is remembered of them does not depend on the owner's word.
    let mut findings = look.findings(&mut memory);
    let presence = look.presence(&mut memory);
    let share = memory.throttle.pull(look.pull(!runs_now), mono);
    findings.extend(asleep(seen));
    findings.extend(paused(owner, &look));
    if runs_now {
        findings.retain(|f| f.reason.kind.row().is_safety);
    }
    let chosen =
        if runs_now { Ok((as_if_away(preferences), ProfileName::Away)) } else { profile(preferences, presence) };
    let (profile, name) = match chosen {
        Ok(chosen) => chosen,
        Err(finding) => {
            findings.push(finding);
            (preferences.away, ProfileName::Away)
        }
    };
    let network = !findings.iter().any(|f| f.reason.kind.row().spares_network);
    let hurry = findings.iter().map(|f| f.reason.kind.row().hurry).max().unwrap_or(Hurry::None);
    let ends: Option<Vec<&Zoned>> = findings.iter().map(|f| f.until.as_ref()).collect();
    let last = ends.and_then(|ends| ends.into_iter().max()).filter(|last| *last > now);
    let until = last.and_then(|last| if runs_now { Some(last.clone()) } else { look.within_hours(last) });
    let decision = match findings.into_iter().map(|f| f.reason).min_by_key(|reason| reason.kind) {
        Some(Reason { kind, sentence }) if runs_now => {
            let sentence = format!("you asked it to train now, but it is not safe: {sentence}");
            Decision::Hold { reason: Reason { kind, sentence }, until }
        }
        Some(reason) => Decision::Hold { reason, until },
        None => Decision::Run { limits: limits(preferences, profile, share), profile: name },
    };
    Outcome { decision, network, hurry, memory }
}

impl Override {
    /// What is left of it: nothing once its time is over.
    fn at(self, mono: Mono) -> Self {
        match self {
            Override::Pause(Some(end)) | Override::RunNow(Some(end)) if end <= mono => Override::No,
            other => other,
        }
    }
}

fn asleep(seen: &Observation) -> Option<Finding> {
    let sentence = "the computer is going to sleep; training goes on after it wakes";
    seen.sleeping.then(|| Finding { reason: Reason::new(ReasonKind::Asleep, sentence), until: None })
}

fn paused(owner: Override, look: &Look) -> Option<Finding> {
    let Override::Pause(end) = owner else { return None };
    let until = end.and_then(|end| look.later(end.since(look.mono)));
    // When it ends is told apart, by whoever tells when it may go on: two times would be one too many.
    let sentence = "you paused it; `nightjar resume` lets it go on";
    Some(Finding { reason: Reason::new(ReasonKind::Paused, sentence), until })
}

/// The profile that is in force, or why there is none.
fn profile(preferences: &Preferences, presence: Presence) -> Result<(Profile, ProfileName), Finding> {
    let Preferences { away, in_use, .. } = *preferences;
    let off = |sentence: &str| Finding { reason: Reason::new(ReasonKind::Off, sentence), until: None };
    match presence {
        _ if away.duty_percent.or(in_use.duty_percent).is_none() => {
            Err(off("training is switched off; `nightjar prefs set away_duty_percent 100` switches it on"))
        }
        Presence::Away if away.duty_percent.is_none() => {
            Err(off("training is switched off while nobody uses the computer; \
             `nightjar prefs set away_duty_percent 100` switches it on"))
        }
        Presence::Away => Ok((away, ProfileName::Away)),
        Presence::InUse(finding) if in_use.duty_percent.is_none() => Err(finding),
        Presence::InUse(_) => Ok((in_use, ProfileName::InUse)),
    }
}

/// The profile for "run now": as if nobody were there, and where that is switched off, with the caps of it.
fn as_if_away(preferences: &Preferences) -> Profile {
    let Preferences { away, in_use, .. } = *preferences;
    if away.duty_percent.is_none() && in_use.duty_percent.is_some() { in_use } else { away }
}

fn limits(preferences: &Preferences, profile: Profile, share: f64) -> Limits {
    Limits {
        duty: f64::from(profile.duty_percent.unwrap_or(100)) / 100.0 * share,
        threads: profile.threads as usize,
        memory_bytes: profile.memory_mib_max.map_or(u64::MAX, |mib| mib << 20),
        tokens_per_s_max: preferences.tokens_per_s_max,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
