//! What holds for every owner, every computer and every moment.

use super::*;
use crate::preferences::{Policy, Sensor, Week};
use proptest::prelude::*;
use std::time::Duration;

fn reading<T: Clone + std::fmt::Debug + 'static>(
    known: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Reading<T>> {
    prop_oneof![6 => known.prop_map(Reading::Known), 1 => Just(Reading::Unknown("it does not say".into()))].boxed()
}

fn an_observation() -> impl Strategy<Value = Observation> {
    let idle = prop_oneof![
        3 => (0u64..4000).prop_map(Duration::from_secs),
        1 => Just(Duration::MAX),
        1 => any::<u64>().prop_map(Duration::from_nanos),
    ];
    let charge = prop_oneof![4 => (0.0..=100.0).prop_map(Some), 1 => Just(None), 1 => Just(Some(f64::NAN))];
    let power =
        (prop::bool::weighted(0.7), charge).prop_map(|(on_mains, charge_percent)| Power { on_mains, charge_percent });
    let heat = prop_oneof![8 => 20.0..110.0f64, 1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -273.0])];
    let programs = prop::sample::subsequence(vec!["steam".to_owned(), "blender".into(), "zoom".into()], 0..=2);
    let bytes = || prop_oneof![3 => 0u64..(4 << 30), 1 => any::<u64>()];
    let share = || prop_oneof![3 => Just(0.0), 2 => 0.0..100.0f64, 1 => Just(f64::NAN)];
    let pressure = (share(), share(), share()).prop_map(|(cpu, memory, io)| Pressure { cpu, memory, io });
    (
        (
            reading(idle),
            reading(power),
            reading(heat),
            reading(prop::bool::weighted(0.2)),
            reading(prop::bool::weighted(0.2)),
        ),
        (
            reading(programs),
            reading(bytes()),
            reading(bytes()),
            0u64..(8 << 30),
            reading(pressure),
            prop::bool::weighted(0.03),
        ),
    )
        .prop_map(|(a, b)| Observation {
            idle: a.0,
            power: a.1,
            temperature_c: a.2,
            metered: a.3,
            full_screen: a.4,
            programs: b.0,
            memory_free: b.1,
            disk_free: b.2,
            data_this_month: b.3,
            pressure: b.4,
            sleeping: b.5,
        })
}

fn some_of(range: std::ops::RangeInclusive<u64>) -> BoxedStrategy<Option<u64>> {
    prop_oneof![3 => range.prop_map(Some), 1 => Just(None)].boxed()
}

fn a_profile() -> impl Strategy<Value = Profile> {
    (some_of(1..=100), 0u64..64, some_of(64..=1 << 20)).prop_map(|(duty, threads, memory_mib_max)| Profile {
        duty_percent: duty.map(|d| d as u8),
        threads,
        memory_mib_max,
    })
}

fn an_owner() -> impl Strategy<Value = Preferences> {
    let weeks =
        ["always", "22:00-07:00", "mon-fri 19:00-07:00, sat,sun 00:00-24:00", "wed 12:00-12:01", "sun 02:00-02:59"];
    let sensors = prop::sample::subsequence(Sensor::ALL.to_vec(), 0..=8);
    let programs = prop::sample::subsequence(vec!["steam".to_owned(), "blender".into()], 0..=2);
    (
        (
            prop::bool::weighted(0.15),
            some_of(1..=60),
            prop::sample::select(weeks.to_vec()),
            any::<bool>(),
            some_of(1..=100),
        ),
        (some_of(40..=110), any::<bool>(), any::<bool>(), programs, some_of(1..=100)),
        (some_of(1..=4096), some_of(1..=4096), some_of(1..=8192), sensors, a_profile(), a_profile()),
    )
        .prop_map(|(a, b, c)| Preferences {
            policy: if a.0 { Policy::Always } else { Policy::Considerate },
            idle_minutes: a.1,
            schedule: Week::parse(a.2).unwrap(),
            on_battery: a.3,
            charge_percent_min: a.4,
            temperature_c_max: b.0,
            hold_on_metered: b.1,
            hold_on_full_screen: b.2,
            programs: b.3,
            pressure_percent_max: b.4,
            memory_mib_min: c.0,
            disk_mib_min: c.1,
            data_mib_month_max: c.2,
            waive: c.3.into_iter().collect(),
            away: c.4,
            in_use: c.5,
            ..Preferences::default()
        })
}

/// The owner's word; times are relative to the beginning.
fn a_word() -> impl Strategy<Value = Override> {
    let end = || prop_oneof![Just(None), (0u64..4_000_000).prop_map(|ms| Some(Mono { ms: ORIGIN.ms + ms }))];
    prop_oneof![4 => Just(Override::No), 1 => end().prop_map(Override::Pause), 2 => end().prop_map(Override::RunNow)]
}

const ORIGIN: Mono = Mono { ms: 1 << 33 };

fn a_moment() -> impl Strategy<Value = Zoned> {
    let zones = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Africa/Casablanca",
        "Asia/Kathmandu",
    ];
    // From 2011, when Apia skipped a day, and near Berlin's and New York's changes of 2026 rather often.
    let seconds = prop_oneof![
        2 => 1_300_000_000i64..2_500_000_000,
        1 => 1_774_745_000i64..1_774_753_000,
        1 => 1_792_886_000i64..1_792_894_000,
        1 => 1_325_200_000i64..1_325_300_000,
    ];
    (seconds, prop::sample::select(zones.to_vec()))
        .prop_map(|(s, zone)| jiff::Timestamp::from_second(s).unwrap().in_tz(zone).unwrap())
}

/// What forbids by itself, said a second time and in another way: from the preferences and the readings, with no
/// memory.
fn forbids(p: &Preferences, seen: &Observation, now: &Zoned) -> Vec<ReasonKind> {
    use ReasonKind as K;
    let considerate = p.policy == Policy::Considerate;
    let mut kinds = vec![];
    let mut check = |wanted: bool, verdict: Option<bool>, kind: K, sensor: Sensor, unknown: K| match verdict {
        _ if !wanted => {}
        Some(true) => kinds.push(kind),
        Some(false) => {}
        None if considerate && !p.waive.contains(&sensor) => kinds.push(unknown),
        None => {}
    };
    let most_c = p.temperature_c_max.unwrap_or(0) as f64;
    let heat = seen.temperature_c.known().filter(|c| c.is_finite()).map(|c| *c > most_c);
    check(p.temperature_c_max.is_some(), heat, K::Temperature, Sensor::Temperature, K::UnknownTemperature);
    let below =
        |free: &Reading<u64>, floor: Option<u64>| free.known().map(|free| *free < floor.unwrap_or(0) * 1024 * 1024);
    check(
        p.memory_mib_min.is_some(),
        below(&seen.memory_free, p.memory_mib_min),
        K::Memory,
        Sensor::Memory,
        K::UnknownMemory,
    );
    check(p.disk_mib_min.is_some(), below(&seen.disk_free, p.disk_mib_min), K::Disk, Sensor::Disk, K::UnknownDisk);
    check(
        considerate && p.hold_on_metered,
        seen.metered.known().copied(),
        K::Metered,
        Sensor::Metered,
        K::UnknownMetered,
    );
    let full = seen.full_screen.known().copied();
    check(considerate && p.hold_on_full_screen, full, K::FullScreen, Sensor::FullScreen, K::UnknownFullScreen);
    let running = seen.programs.known().map(|running| running.iter().any(|r| p.programs.contains(r)));
    check(considerate && !p.programs.is_empty(), running, K::Program, Sensor::Programs, K::UnknownPrograms);
    let plugged = seen.power.known().map(|power| power.on_mains);
    check(considerate && !p.on_battery, plugged.map(|on| !on), K::Battery, Sensor::Power, K::UnknownPower);
    let low = match seen.power.known() {
        Some(Power { on_mains: true, .. }) => Some(false),
        Some(Power { charge_percent: Some(c), .. }) if c.is_finite() => {
            Some(*c < p.charge_percent_min.unwrap_or(0) as f64)
        }
        _ => None,
    };
    check(
        considerate && p.on_battery && p.charge_percent_min.is_some(),
        low,
        K::Charge,
        Sensor::Power,
        K::UnknownPower,
    );
    if considerate && p.data_mib_month_max.is_some_and(|cap| seen.data_this_month / 1024 / 1024 >= cap) {
        kinds.push(K::DataCap);
    }
    if considerate && !p.schedule.contains(now.datetime()) {
        kinds.push(K::Schedule);
    }
    let away = match (p.idle_minutes, &seen.idle) {
        (Some(minutes), Reading::Known(idle)) if considerate => *idle >= Duration::from_secs(minutes * 60),
        (Some(_), Reading::Unknown(_)) if considerate => p.waive.contains(&Sensor::Idle),
        _ => true,
    };
    match (away, p.away.duty_percent, p.in_use.duty_percent) {
        (_, None, None) | (true, None, _) => kinds.push(K::Off),
        (false, _, None) if seen.idle.known().is_some() => kinds.push(K::InUse),
        (false, _, None) => kinds.push(K::UnknownIdle),
        _ => {}
    }
    if seen.sleeping {
        kinds.push(K::Asleep);
    }
    kinds
}

/// One look after another, each some time after the one before.
fn looks() -> impl Strategy<Value = Vec<(u64, Observation, Override)>> {
    let gap_ms = prop_oneof![3 => 1u64..3000, 2 => 3000u64..90_000, 1 => 90_000u64..900_000];
    // Most looks see what the one before saw, and the owner says little.
    prop::collection::vec((gap_ms, an_observation(), prop::option::weighted(0.3, any::<()>()), a_word()), 1..40)
        .prop_map(|looks| {
            let mut kept: Option<(Observation, Override)> = None;
            looks
                .into_iter()
                .map(|(gap_ms, seen, changes, word)| {
                    let now = match (kept.take(), changes) {
                        (Some(kept), None) => kept,
                        (Some((_, owner)), Some(())) => (seen, owner),
                        (None, _) => (seen, word),
                    };
                    kept = Some(now.clone());
                    (gap_ms, now.0, now.1)
                })
                .collect()
        })
}

struct Step {
    /// With the time since any input that was seen so far.
    seen: Observation,
    owner: Override,
    now: Zoned,
    mono: Mono,
    decision: Decision,
    network: bool,
    /// Steps that the duty is down.
    level: u8,
}

/// Follows an owner through looks; each step with what was decided.
fn follow(p: &Preferences, start: &Zoned, looks: &[(u64, Observation, Override)]) -> Vec<Step> {
    let (mut mono, mut memory, mut input) = (ORIGIN, Memory::default(), None);
    looks
        .iter()
        .map(|(gap_ms, seen, owner)| {
            mono = mono + Duration::from_millis(*gap_ms);
            let now = start.checked_add(mono.since(ORIGIN)).unwrap();
            let Outcome { decision, network, memory: next, .. } = decide(p, *owner, seen, &memory, &now, mono);
            // What is kept on the disk in between is the same.
            memory = serde_json::from_slice(&serde_json::to_vec(&next).unwrap()).unwrap();
            assert_eq!(memory, next);
            let mut seen = seen.clone();
            if let Reading::Known(idle) = &mut seen.idle {
                let last = input.max(Some(i128::from(mono.ms) - idle.as_millis() as i128));
                input = last;
                *idle = Duration::from_millis((i128::from(mono.ms) - last.unwrap()).min(i128::from(u64::MAX)) as u64);
            }
            if let (true, Some(last)) =
                (matches!(seen.idle, Reading::Unknown(_)) && p.waive.contains(&Sensor::Idle), input)
            {
                // Input that was seen counts on when its sensor falls silent.
                seen.idle = Reading::Known(Duration::from_millis(
                    (i128::from(mono.ms) - last).min(i128::from(u64::MAX)) as u64,
                ));
            }
            Step { seen, owner: owner.at(mono), now, mono, decision, network, level: memory.throttle.level }
        })
        .collect()
}

/// What holds where the sensor for this is silent, if there is a margin between holding and running.
fn twin(kind: ReasonKind) -> Option<ReasonKind> {
    Some(match kind {
        ReasonKind::Temperature => ReasonKind::UnknownTemperature,
        ReasonKind::Memory => ReasonKind::UnknownMemory,
        ReasonKind::Disk => ReasonKind::UnknownDisk,
        ReasonKind::Charge => ReasonKind::UnknownPower,
        _ => return None,
    })
}

/// Whether this kind is remembered for a while after it is gone.
fn lingers(kind: ReasonKind) -> bool {
    use ReasonKind as K;
    !matches!(kind, K::Starting | K::Asleep | K::Paused | K::Off | K::DataCap | K::Schedule | K::InUse)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// `Hold` whenever an enabled condition forbids; "run now" never overrides safety, and always overrides the rest; a
    /// reason is true now, or was a moment ago; `until` is in the future; and no limit is above the owner's.
    #[test]
    fn every_decision_is_allowed_and_every_reason_true(p in an_owner(), start in a_moment(), looks in looks()) {
        let steps = follow(&p, &start, &looks);
        for (i, Step { seen, owner, now, mono, decision, .. }) in steps.iter().enumerate() {
            let mut wanted = forbids(&p, seen, now);
            let asks = p.policy == Policy::Considerate && p.idle_minutes.is_some() && !p.waive.contains(&Sensor::Idle);
            let known_since = steps[..i].iter().rposition(|s| s.seen.idle.known().is_none()).map(|silent| steps[silent + 1].mono);
            let is_settling = known_since.is_some_and(|at| mono.since(at) < ReasonKind::UnknownIdle.settle());
            if asks && p.in_use.duty_percent.is_some() && is_settling {
                // Until it is sure that nobody is there, the profile is the other.
                wanted.retain(|kind| *kind != ReasonKind::Off);
            }
            match owner {
                Override::RunNow(_) => wanted.retain(|kind| kind.row().is_safety),
                Override::Pause(_) => wanted.push(ReasonKind::Paused),
                Override::No => {}
            }
            match decision {
                Decision::Run { limits, profile } => {
                    prop_assert!(wanted.is_empty(), "runs against {wanted:?}");
                    let own = match (owner, profile) {
                        (Override::RunNow(_), _) if p.away.duty_percent.is_some() || p.in_use.duty_percent.is_none() => p.away,
                        (Override::RunNow(_), _) | (_, ProfileName::InUse) => p.in_use,
                        (_, ProfileName::Away) => p.away,
                    };
                    let duty = f64::from(own.duty_percent.unwrap_or(100)) / 100.0;
                    prop_assert!(limits.duty > 0.0 && limits.duty <= duty, "{limits:?}");
                    prop_assert_eq!(limits.threads as u64, own.threads);
                    prop_assert_eq!(limits.memory_bytes, own.memory_mib_max.map_or(u64::MAX, |mib| mib * 1024 * 1024));
                }
                Decision::Hold { reason, until } => {
                    prop_assert!(until.as_ref().is_none_or(|u| u > now), "{until:?} is past {now}");
                    prop_assert!(!reason.sentence.is_empty() && !reason.sentence.contains('\n') && !reason.sentence.ends_with('.'));
                    prop_assert!(!matches!(owner, Override::RunNow(_)) || reason.kind.row().is_safety, "{}", reason);
                    let earlier = || steps[..i].iter().rev().map(|s| (mono.since(s.mono), forbids(&p, &s.seen, &s.now)));
                    let was = || earlier().any(|(_, kinds)| kinds.contains(&reason.kind));
                    let is_true = wanted.contains(&reason.kind)
                        || lingers(reason.kind) && was()
                        // Of a sensor that was silent, and now tells something between.
                        || twin(reason.kind).is_some_and(|kind| earlier().any(|(_, kinds)| kinds.contains(&kind)));
                    prop_assert!(is_true, "{} {:?} of {wanted:?}", reason, reason.kind);
                    // The first in order of usefulness of those that are true by themselves.
                    prop_assert!(wanted.iter().all(|kind| reason.kind <= *kind), "{} before {wanted:?}", reason);
                    if wanted.is_empty() {
                        prop_assert!(lingers(reason.kind));
                    }
                }
            }
        }
    }

    /// A network that costs is not used, whatever reason is told, unless the owner asked for it; and what is free is
    /// not spared.
    #[test]
    fn a_network_that_costs_is_never_used(p in an_owner(), start in a_moment(), looks in looks()) {
        use ReasonKind::{DataCap, Metered, UnknownMetered};
        let mut cost_last = None;
        for Step { seen, owner, now, mono, decision, network, .. } in follow(&p, &start, &looks) {
            let kinds = forbids(&p, &seen, &now);
            let link_costs = kinds.contains(&Metered) || kinds.contains(&UnknownMetered);
            if link_costs {
                cost_last = Some(mono);
            }
            let costs = link_costs || kinds.contains(&DataCap);
            let cost_lately = cost_last.is_some_and(|at| mono.since(at) < Metered.settle());
            match owner {
                Override::RunNow(_) => prop_assert!(network, "the owner asked for it"),
                _ if costs || cost_lately => prop_assert!(!network, "{kinds:?} and {decision:?}"),
                // A hold lasts for its whole time from when it is first seen to be over.
                _ if cost_last.is_none() => prop_assert!(network, "{kinds:?} and {decision:?}"),
                _ => {}
            }
            prop_assert!(network || matches!(decision, Decision::Hold { .. }), "it trains without a network");
        }
    }

    /// No flapping: after something forbade, it must have been gone for its whole time before training goes on; and the
    /// duty moves a step at a time.
    #[test]
    fn nothing_flaps_faster_than_its_hysteresis(p in an_owner(), start in a_moment(), looks in looks()) {
        let mut forbade: Vec<(ReasonKind, Mono)> = vec![];
        let mut input: Option<i128> = None;
        let (mut level_before, mut moved) = (0, None);
        for Step { seen, owner, now, mono, decision, level, .. } in follow(&p, &start, &looks) {
            let kinds = forbids(&p, &seen, &now);
            forbade.extend(kinds.iter().filter(|k| lingers(**k) && **k != ReasonKind::UnknownIdle).map(|k| (*k, mono)));
            if let Some(idle) = seen.idle.known().filter(|_| p.idle_minutes.is_some() && p.policy == Policy::Considerate) {
                input = input.max(Some(i128::from(mono.ms) - idle.as_millis() as i128));
            }
            let is_too_hot = kinds.contains(&ReasonKind::Temperature);
            if level != level_before && !is_too_hot {
                let least = if level < level_before { STEP_UP_EVERY } else { STEP_DOWN_EVERY };
                prop_assert_eq!(level.abs_diff(level_before), 1);
                prop_assert!(moved.is_none_or(|at| mono.since(at) >= least), "from step {level_before} to {level} too soon");
            }
            if level != level_before {
                (level_before, moved) = (level, Some(mono));
            }
            let Decision::Run { limits, profile } = decision else { continue };
            for (kind, last) in &forbade {
                let counts = kind.row().is_safety || !matches!(owner, Override::RunNow(_));
                prop_assert!(!counts || mono.since(*last) >= kind.settle(), "{kind:?} {:?} ago", mono.since(*last));
            }
            if let (Some(input), Some(minutes), Override::No) = (input, p.idle_minutes, owner) {
                let away = i128::from(mono.ms) - input >= i128::from(minutes) * 60_000;
                prop_assert!(away || profile == ProfileName::InUse, "used {} ms ago", i128::from(mono.ms) - input);
            }
            let own = if profile == ProfileName::InUse { p.in_use } else if p.away.duty_percent.is_some() { p.away } else { p.in_use };
            prop_assert_eq!(limits.duty, f64::from(own.duty_percent.unwrap_or(100)) / 100.0 * STEPS[usize::from(level)]);
        }
    }

    /// When training is said to go on, it does, unless something new comes up.
    #[test]
    fn it_goes_on_when_it_says(p in an_owner(), start in a_moment(), looks in looks()) {
        let (mut mono, mut memory) = (ORIGIN, Memory::default());
        for (gap_ms, seen, owner) in looks {
            mono = mono + Duration::from_millis(gap_ms);
            let now = start.checked_add(mono.since(ORIGIN)).unwrap();
            let outcome = decide(&p, owner, &seen, &memory, &now, mono);
            memory = outcome.memory;
            let Decision::Hold { reason, until: Some(until) } = outcome.decision else { continue };
            let gap_ms = Duration::try_from(until.duration_since(&now)).unwrap().as_millis() as u64 + 1;
            let (then, after) = (until.checked_add(Duration::from_millis(1)).unwrap(), mono + Duration::from_millis(gap_ms));
            // Two things that do come up: the end of the owner's "now", and their absence where that switches training
            // off.
            if matches!(owner, Override::RunNow(Some(end)) if end <= after) || p.away.duty_percent.is_none() {
                continue;
            }
            let mut seen = seen;
            if let Reading::Known(idle) = &mut seen.idle {
                *idle = idle.saturating_add(Duration::from_millis(gap_ms));
            }
            if (then.year(), then.month()) != (now.year(), now.month()) {
                seen.data_this_month = 0;
            }
            let decision = decide(&p, owner, &seen, &memory, &then, after).decision;
            prop_assert!(matches!(decision, Decision::Run { .. }), "{reason}, until {until}; then {decision:?}");
        }
    }

    /// A sensor's noise that is smaller than the margin starts and stops nothing.
    #[test]
    fn noise_within_the_margin_changes_nothing(limit in 40u64..=110, noise in prop::collection::vec((0.0..TEMPERATURE_MARGIN_C, 1u64..600), 1..60)) {
        let p = Preferences { temperature_c_max: Some(limit), policy: Policy::Always, ..Preferences::default() };
        let (mut memory, mut mono, mut switches, mut ran) = (Memory::default(), ORIGIN, 0, true);
        let now: Zoned = "2026-06-10T12:00[UTC]".parse().unwrap();
        for (above, s) in noise {
            mono = mono + Duration::from_secs(s);
            // Around the limit, from just above the lower end of the margin to just above the limit.
            let c = limit as f64 - TEMPERATURE_MARGIN_C + 0.01 + above * 1.2;
            let seen = Observation { temperature_c: Reading::Known(c), ..Observation::unknown("no") };
            let outcome = decide(&p, Override::No, &seen, &memory, &now, mono);
            memory = outcome.memory;
            let runs = matches!(outcome.decision, Decision::Run { .. });
            switches += u32::from(runs != ran);
            ran = runs;
        }
        prop_assert!(switches <= 1);
    }

    /// Whatever was kept on the disk, a decision is made.
    #[test]
    fn any_memory_is_survived(text in "\\PC{0,60}", level in any::<u8>(), clear_ms in any::<u64>(), input_ms in any::<i64>(), seen in an_observation(), p in an_owner(), ms in any::<u64>()) {
        let _ = serde_json::from_str::<Memory>(&text);
        let json = format!(r#"{{"throttle":{{"level":{level},"moved_ms":{clear_ms}}},"input_ms":{input_ms},"disk":{{"forbade":"disk","clear_ms":{clear_ms}}}}}"#);
        let memory = serde_json::from_str(&json).unwrap();
        let now: Zoned = "2026-06-10T12:00[UTC]".parse().unwrap();
        let _ = decide(&p, Override::Pause(Some(Mono { ms: u64::MAX })), &seen, &memory, &now, Mono { ms });
        let _ = decide(&p, Override::No, &seen, &memory, &now, Mono { ms });
    }
}
