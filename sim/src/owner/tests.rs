//! Owners by the clock: what the policy makes of their days.

use super::*;
use crate::Population;

const HOUR_S: f64 = 3600.0;

/// What is decided from look to look over some hours: the times, in hours, and the allowances. `group` is what a
/// population's file says of the owner.
fn allowances(group: &str, start_hour: f64, hours: f64) -> Vec<(f64, Allowance)> {
    let text = format!("name = \"one\"\nstart_hour = {start_hour}\n[[group]]\ncount = 1\ntokens_per_s = 100\n{group}");
    let population: Population = text.parse().unwrap();
    let traits = Traits::all(&population, 1).remove(0);
    let habits = traits.group.owner.clone().unwrap();
    let mut draws = Draws::of_device(1, 0);
    let mut owner = Owner::new(&habits, &traits, start_hour, &mut draws);
    let (mut allowances, mut now_s) = (vec![], 0.0);
    while now_s < hours * HOUR_S {
        owner.look(Mono { ms: (now_s * 1000.0).round() as u64 }, habits.preferences.preferences(), &mut draws);
        allowances.push((now_s / HOUR_S, owner.allowance.clone()));
        assert!(owner.next_s > now_s, "it looks again in the past");
        now_s = (owner.next_s * 1000.0).ceil() / 1000.0;
    }
    allowances
}

fn is_allowed(allowance: &Allowance) -> bool {
    allowance.permission == Permission::Allowed
}

/// The hours at which training is allowed or forbidden, by turns.
fn turns(allowances: &[(f64, Allowance)]) -> Vec<f64> {
    allowances.chunk_by(|(_, a), (_, b)| is_allowed(a) == is_allowed(b)).map(|same| same[0].0).collect()
}

#[test]
fn hours_are_those_of_the_clock_on_the_wall() {
    let group = "time_zone_h = 2\n[group.owner]\naway_s = 1e9\nthere_s = 1\n[group.owner.preferences]\nschedule = \
        \"22:00-07:30\"";
    let allowances = allowances(group, 12.0, 40.0);
    assert!(!is_allowed(&allowances[0].1), "it is two in the afternoon");
    assert_eq!(turns(&allowances), [0.0, 8.0, 17.5, 32.0]);
    assert!(allowances.iter().all(|(_, allowance)| !allowance.is_frozen), "the end of the hours is in no hurry");

    // From a Monday's midnight on: the weekend is a long way off, and nothing else happens until then.
    let group =
        "[group.owner]\naway_s = 1e9\nthere_s = 1\n[group.owner.preferences]\nschedule = \"mon-fri 00:00-24:00\"";
    assert_eq!(turns(&self::allowances(group, 0.0, 200.0)), [0.0, 120.0, 168.0]);
}

#[test]
fn whoever_comes_is_yielded_to_and_training_goes_on_some_minutes_after_they_have_left() {
    let group = "owner = { away_s = 7200, there_s = 600, preferences = { idle_minutes = 20 } }";
    let allowances = allowances(group, 0.0, 200.0);
    let turns = turns(&allowances);
    assert!(turns.len() > 20, "{}", turns.len());
    for held in turns[1..].chunks_exact(2) {
        assert!(held[1] - held[0] >= 20.0 / 60.0, "held from {} to {} h", held[0], held[1]);
    }
    assert!(
        allowances.iter().all(|(_, allowance)| allowance.is_frozen != is_allowed(allowance)),
        "they are in a hurry"
    );
    // A Poisson process of visits: away 2 h of each 2 h 10 min, less 20 minutes, some of which the next visit shares.
    let allowed: f64 = allowances.windows(2).filter(|w| is_allowed(&w[0].1)).map(|w| w[1].0 - w[0].0).sum();
    assert!((0.6..0.95).contains(&(allowed / 200.0)), "{}", allowed / 200.0);
}

#[test]
fn in_use_it_may_go_on_slowly() {
    let group =
        "owner = { away_s = 7200, there_s = 600, preferences = { in_use_duty_percent = 25, away_duty_percent = 80 } }";
    let allowances = allowances(group, 0.0, 100.0);
    assert!(allowances.iter().all(|(_, allowance)| is_allowed(allowance)));
    let duties: Vec<f64> = allowances.chunk_by(|(_, a), (_, b)| a.duty == b.duty).map(|same| same[0].1.duty).collect();
    assert!(duties.len() > 10 && duties.iter().step_by(2).all(|duty| *duty == 0.8), "{duties:?}");
    assert!(duties.iter().skip(1).step_by(2).all(|duty| *duty == 0.25), "{duties:?}");
}

#[test]
fn a_battery_is_spared_below_the_charge_that_they_want() {
    // Unplugged from the start.
    let habits = "away_s = 1e9\nthere_s = 1\nunplugged = { every_s = 1, for_s = 1e9 }";
    let of = |preferences| {
        turns(&allowances(&format!("[group.owner]\n{habits}\n[group.owner.preferences]\n{preferences}"), 0.0, 500.0))
    };
    let never = of("on_battery = false");
    let down_to_80 = of("on_battery = true\ncharge_percent_min = 80");
    assert_eq!((never.len(), down_to_80.len()), (1, 2));
    // A fifth of five hours.
    assert!((down_to_80[1] - 1.0).abs() < 0.001, "{down_to_80:?}");
}

#[test]
fn a_metered_network_is_not_used() {
    let group = "owner = { away_s = 1e9, there_s = 1, metered = { every_s = 7200, for_s = 3600 } }";
    let allowances = allowances(group, 0.0, 50.0);
    assert!(
        allowances.iter().any(|(_, allowance)| !allowance.network)
            && allowances.iter().any(|(_, allowance)| allowance.network)
    );
    assert!(allowances.iter().all(|(_, allowance)| is_allowed(allowance) == allowance.network));
}

/// Metered and outside of the hours at once: what the hours hold back does not keep the network from being used again.
#[test]
fn the_network_is_used_again_half_a_minute_after_it_was_metered() {
    let habits = "away_s = 1e9\nthere_s = 1\nmetered = { every_s = 3000, for_s = 3000 }";
    let group = format!("[group.owner]\n{habits}\n[group.owner.preferences]\nschedule = \"22:00-23:00\"");
    let allowances = allowances(&group, 0.0, 20.0);
    assert!(
        allowances.len() > 10 && allowances.iter().all(|(_, allowance)| !is_allowed(allowance)),
        "it is outside the hours"
    );
    let spells: Vec<_> = allowances.chunk_by(|(_, a), (_, b)| a.network == b.network).collect();
    assert!(spells.len() > 5);
    for spell in spells[..spells.len() - 1].iter().filter(|spell| !spell[0].1.network) {
        let (last, before) = (spell[spell.len() - 1].0, spell[0].0);
        assert!(spell.len() >= 2 && last > before, "the end of metering was looked at: {before} h");
    }
}

/// A visit between two looks is remembered: the first look may come late.
#[test]
fn whoever_has_just_left_was_there() {
    let text = "name = \"one\"\n[[group]]\ncount = 200\ntokens_per_s = 1\nowner = { away_s = 100, there_s = 20 }";
    let population: Population = text.parse().unwrap();
    let habits = population.group[0].owner.clone().unwrap();
    let allowed = Traits::all(&population, 1).into_iter().zip(0..).filter(|(traits, number)| {
        let mut draws = Draws::of_device(1, *number);
        let mut owner = Owner::new(&habits, traits, 0.0, &mut draws);
        owner.look(Mono { ms: 900_000 }, habits.preferences.preferences(), &mut draws);
        is_allowed(&owner.allowance)
    });
    // Ten minutes alone, of a Poisson process of visits every two: one in a few hundred.
    assert!(allowed.count() < 10);
}

#[test]
fn facts_do_not_move_each_other() {
    let owner = "away_s = 7200, there_s = 600";
    let [alone, beside] =
        ["", ", full_screen = { every_s = 1000, for_s = 100 }, preferences = { hold_on_full_screen = false }"]
            .map(|more| turns(&allowances(&format!("owner = {{ {owner}{more} }}"), 0.0, 100.0)));
    assert!(alone.len() > 10 && alone.len() == beside.len(), "{} turns, {}", alone.len(), beside.len());
    // To a few milliseconds: it is looked at other moments.
    assert!(alone.iter().zip(&beside).all(|(a, b)| (a - b).abs() < 1e-5), "{alone:?} {beside:?}");
}

#[test]
fn what_an_owner_cannot_want_is_refused_in_one_sentence() {
    let text = "name = \"x\"\n[[group]]\ncount = 1\ntokens_per_s = 1\n[group.owner]\naway_s = 1\nthere_s = \
        1\n[group.owner.preferences]\n";
    let told = |line: &str| format!("{text}{line}").parse::<Population>().unwrap_err().to_string();
    assert!(told("idle_minutes = -1").contains("idle_minutes"), "{}", told("idle_minutes = -1"));
    assert!(told("idle_minute = 5").contains("idle_minute"), "{}", told("idle_minute = 5"));
    assert!(told("memory_mib_min = 100").contains("memory_mib_min changes nothing in a simulation"));
    let spell = text.replace("[group.owner.preferences]", "metered = { every_s = 5, for_s = 0 }");
    assert_eq!(
        spell.parse::<Population>().unwrap_err().message,
        "group \"device\": owner.metered.for_s is 0; allowed is 1 to 1e9"
    );
}
