//! The run policy: what the owner wants and what the sensors see, in; train or hold with one true sentence, out. Pure:
//! both times are arguments. A sensor that cannot tell counts as forbidding, and the sentence says so.

use crate::preferences::{Hours, Policy, Preferences};
use jiff::Zoned;
use nightjar_shared::time::Mono;
use std::time::Duration;

/// What a sensor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// It knows.
    Known(T),
    /// It does not, for this reason: "… cannot be asked".
    Unknown(String),
}

/// What all sensors say at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Time since somebody used the computer.
    pub idle: Reading<Duration>,
    /// Memory that is free, in bytes.
    pub memory_free: Reading<u64>,
}

/// The owner's "not now".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// There is none.
    No,
    /// Until they say otherwise.
    UntilResumed,
    /// Up to this time.
    Until(Mono),
}

/// Whether to train.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Yes.
    Run,
    /// No.
    Hold {
        /// Why, in one true sentence.
        reason: String,
        /// When that changes by itself, if it is known.
        until: Option<Zoned>,
    },
}

impl Decision {
    fn hold(reason: impl Into<String>) -> Self {
        Decision::Hold { reason: reason.into(), until: None }
    }
}

/// Decides. The first thing that forbids is the reason given.
pub fn decide(preferences: &Preferences, pause: Pause, seen: &Observation, now: &Zoned, mono: Mono) -> Decision {
    paused(pause, now, mono)
        .or_else(|| by_mode(preferences, seen, now))
        .or_else(|| memory_is_short(preferences, &seen.memory_free))
        .unwrap_or(Decision::Run)
}

fn paused(pause: Pause, now: &Zoned, mono: Mono) -> Option<Decision> {
    match pause {
        Pause::UntilResumed => Some(Decision::hold("the owner paused it; `nightjar resume` lets it go on")),
        Pause::Until(end) if end > mono => {
            let until = now.checked_add(end.since(mono)).ok();
            Some(Decision::Hold { reason: "the owner paused it for a while; `nightjar resume` lets it go on".into(), until })
        }
        Pause::Until(_) | Pause::No => None,
    }
}

fn by_mode(preferences: &Preferences, seen: &Observation, now: &Zoned) -> Option<Decision> {
    match preferences.policy {
        Policy::Always => None,
        Policy::Idle => {
            let wanted = Duration::from_secs(60 * preferences.idle_minutes);
            match &seen.idle {
                Reading::Unknown(why) => Some(Decision::hold(format!("it is unknown whether the computer is in use: {why}"))),
                Reading::Known(idle) if *idle < wanted => Some(Decision::hold(format!(
                    "the computer was used {} ago; training starts after {} without input",
                    in_words(*idle),
                    in_words(wanted)
                ))),
                Reading::Known(_) => None,
            }
        }
        Policy::Schedule => {
            let Hours { start, end } = preferences.schedule;
            (!within(preferences.schedule, now.time())).then(|| Decision::Hold {
                reason: format!(
                    "it is outside the hours of the schedule, {} to {}",
                    start.strftime("%H:%M"),
                    end.strftime("%H:%M")
                ),
                until: next(start, now),
            })
        }
    }
}

fn memory_is_short(preferences: &Preferences, free: &Reading<u64>) -> Option<Decision> {
    let wanted = preferences.memory_mib_min;
    match free {
        _ if wanted == 0 => None,
        Reading::Unknown(why) => Some(Decision::hold(format!("it is unknown how much memory is free: {why}"))),
        Reading::Known(bytes) if bytes >> 20 < wanted => {
            Some(Decision::hold(format!("only {} MiB of memory are free; training needs {wanted}", bytes >> 20)))
        }
        Reading::Known(_) => None,
    }
}

/// Whether a time of day, as the clock on the wall shows it, is within the hours. So on the day when the clock goes back
/// an hour shown twice counts twice, and when it goes forward an hour never shown never comes.
fn within(hours: Hours, time: jiff::civil::Time) -> bool {
    if hours.start < hours.end { (hours.start..hours.end).contains(&time) } else { time >= hours.start || time < hours.end }
}

/// The next instant at which the clock shows `time`, or has just jumped over it.
fn next(time: jiff::civil::Time, now: &Zoned) -> Option<Zoned> {
    let on = |date: jiff::civil::Date| date.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
    let today = on(now.date())?;
    if today > *now { Some(today) } else { on(now.date().tomorrow().ok()?) }
}

fn in_words(duration: Duration) -> String {
    let (count, unit) = match duration.as_secs() {
        s @ 0..=119 => (s, "second"),
        s @ 120..=7199 => (s / 60, "minute"),
        s => (s / 3600, "hour"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: &str = "[Europe/Berlin]";

    fn at(local: &str) -> Zoned {
        format!("{local}{BERLIN}").parse().unwrap()
    }

    fn seen(idle_s: u64) -> Observation {
        Observation { idle: Reading::Known(Duration::from_secs(idle_s)), memory_free: Reading::Known(8 << 30) }
    }

    fn preferences(policy: Policy, schedule: &str) -> Preferences {
        let mut p = Preferences { policy, ..Preferences::default() };
        p.set("test", "schedule", schedule).unwrap();
        p
    }

    fn scheduled(hours: &str, now: &str) -> Decision {
        decide(&preferences(Policy::Schedule, hours), Pause::No, &seen(0), &at(now), Mono::default())
    }

    fn until(decision: Decision) -> String {
        match decision {
            Decision::Hold { until: Some(until), .. } => until.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn reason(decision: Decision) -> String {
        match decision {
            Decision::Hold { reason, .. } => reason,
            Decision::Run => panic!("it runs"),
        }
    }

    #[test]
    fn always_runs_unless_paused_or_out_of_memory() {
        let p = preferences(Policy::Always, "22:00-07:00");
        let now = at("2026-03-01T12:00");
        let mono = Mono { ms: 5000 };
        assert_eq!(decide(&p, Pause::No, &seen(0), &now, mono), Decision::Run);
        assert_eq!(decide(&p, Pause::Until(mono), &seen(0), &now, mono), Decision::Run);
        let paused = decide(&p, Pause::Until(Mono { ms: 65_000 }), &seen(0), &now, mono);
        assert_eq!(until(paused), "2026-03-01T12:01:00+01:00[Europe/Berlin]");
        assert!(reason(decide(&p, Pause::UntilResumed, &seen(0), &now, mono)).contains("paused"));
        let tight = Observation { memory_free: Reading::Known(100 << 20), ..seen(0) };
        let told = reason(decide(&p, Pause::No, &tight, &now, mono));
        assert_eq!(told, "only 100 MiB of memory are free; training needs 256");
    }

    #[test]
    fn idle_waits_for_the_minutes_asked_for() {
        let p = preferences(Policy::Idle, "22:00-07:00");
        let (now, mono) = (at("2026-03-01T12:00"), Mono::default());
        assert_eq!(decide(&p, Pause::No, &seen(600), &now, mono), Decision::Run);
        let told = reason(decide(&p, Pause::No, &seen(599), &now, mono));
        assert_eq!(told, "the computer was used 9 minutes ago; training starts after 10 minutes without input");
    }

    #[test]
    fn unknown_forbids_and_says_so() {
        let p = preferences(Policy::Idle, "22:00-07:00");
        let (now, mono) = (at("2026-03-01T12:00"), Mono::default());
        let blind = Observation { idle: Reading::Unknown("nobody answers".into()), ..seen(0) };
        let told = reason(decide(&p, Pause::No, &blind, &now, mono));
        assert_eq!(told, "it is unknown whether the computer is in use: nobody answers");
        let blind = Observation { memory_free: Reading::Unknown("no".into()), ..seen(9999) };
        assert!(reason(decide(&p, Pause::No, &blind, &now, mono)).contains("unknown how much memory"));
    }

    #[test]
    fn a_schedule_may_cross_midnight() {
        assert_eq!(scheduled("22:00-07:00", "2026-06-10T23:59"), Decision::Run);
        assert_eq!(scheduled("22:00-07:00", "2026-06-10T06:59:59"), Decision::Run);
        assert_eq!(until(scheduled("22:00-07:00", "2026-06-10T07:00")), "2026-06-10T22:00:00+02:00[Europe/Berlin]");
        assert_eq!(scheduled("09:00-17:00", "2026-06-10T09:00"), Decision::Run);
        assert_eq!(until(scheduled("09:00-17:00", "2026-06-10T17:00")), "2026-06-11T09:00:00+02:00[Europe/Berlin]");
    }

    /// 29 March 2026: at 02:00 the clock jumps to 03:00. A schedule from 02:30 starts with the jump.
    #[test]
    fn a_start_that_the_clock_jumps_over() {
        assert_eq!(until(scheduled("02:30-04:00", "2026-03-29T01:59")), "2026-03-29T03:30:00+02:00[Europe/Berlin]");
        assert_eq!(scheduled("02:30-04:00", "2026-03-29T03:00"), Decision::Run);
    }

    /// 25 October 2026: 02:00 to 03:00 is shown twice, and counts twice.
    #[test]
    fn an_hour_that_comes_twice() {
        for offset in ["+02:00", "+01:00"] {
            assert_eq!(scheduled("02:00-03:00", &format!("2026-10-25T02:30{offset}")), Decision::Run);
        }
        assert_eq!(until(scheduled("02:00-02:10", "2026-10-25T01:30")), "2026-10-25T02:00:00+02:00[Europe/Berlin]");
        let between = scheduled("02:00-02:10", "2026-10-25T02:20+02:00");
        assert!(matches!(between, Decision::Hold { .. }));
    }
}
