//! Twenty real SIGKILLs at volunteers, their workers and the coordinator, then the ledger must hold all that was
//! acknowledged, once.

use nightjar_shared::rng;
use nightjar_tests::{
    Place, Running, Size,
    process::{descendants, kill, run},
    until,
};
use std::{
    collections::BTreeSet,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const KILLS: u64 = 20;

/// Chosen anew each time, and printed; `NIGHTJAR_TEST_SEED` repeats one.
fn seed() -> u64 {
    let given = std::env::var("NIGHTJAR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs()))
}

#[test]
fn twenty_kills_lose_nothing_that_was_acknowledged() {
    let seed = seed();
    println!("seed {seed}; repeat with NIGHTJAR_TEST_SEED={seed}");
    let mut draws = 0;
    let mut draw = |below: u64| {
        draws += 1;
        rng::below(seed, rng::stream::SIM, draws, below)
    };

    let place = Place::new(Size { text_bytes: 300_000, token_budget: 1_000_000_000 });
    let mut coordinator = place.start_coordinator();
    place.join("anchor", "anchor");
    let anchor = place.start_anchor("anchor");
    let names = ["first", "second"];
    let mut volunteers: Vec<Running> = Vec::new();
    for name in names {
        place.join(name, "volunteer");
        volunteers.push(place.start_volunteer(name));
    }
    until("a first version", || place.figure("version").filter(|version| *version >= 1));

    for number in 1..=KILLS {
        sleep(Duration::from_millis(200 + draw(1800)));
        let before = place.status();
        let pause = Duration::from_millis(draw(800));
        let whose = draw(2) as usize;
        // Each kind comes three times at least.
        match if number <= 9 { number % 3 } else { draw(3) } {
            0 => {
                println!("kill {number}: {}", names[whose]);
                volunteers[whose].kill();
                sleep(pause);
                volunteers[whose] = place.start_volunteer(names[whose]);
            }
            1 => {
                println!("kill {number}: the worker of {}", names[whose]);
                let worker = until("a worker", || descendants(volunteers[whose].id()).first().copied());
                kill(worker);
            }
            _ => {
                println!("kill {number}: the coordinator");
                coordinator.kill();
                sleep(pause);
                coordinator = place.start_coordinator();
                let (before, after) =
                    (before.expect("it answered before the kill"), place.status().expect("it answers again"));
                for key in ["version", "merged", "tokens"] {
                    assert!(after[key].as_u64() >= before[key].as_u64(), "{key} went back: {before} then {after}");
                }
            }
        }
    }
    let version = place.figure("version").expect("the coordinator answers");
    until("progress after the last kill", || place.figure("version").filter(|now| *now > version));

    for volunteer in volunteers {
        volunteer.stop().good();
    }
    anchor.stop().good();
    coordinator.stop().good();

    let verified = run(place.coordinator(&["verify"])).good();
    println!("{}", verified.stdout);
    let stats = place.stats();
    println!("{stats:#}");
    assert_eq!(stats["duplicates"], 0, "a delta was merged twice");
    assert_eq!(stats["lost_samples"], 0, "samples are unaccounted for");
    assert_eq!(stats["acknowledged"], stats["merged"], "an acknowledged delta is not in the ledger");
    // What the devices were told, against what the ledger holds.
    let told: BTreeSet<String> = names.iter().flat_map(|name| merged_leases(&place, name)).collect();
    assert!(!told.is_empty(), "no device was told that a delta of its was merged");
    assert!(Some(told.len() as u64) <= stats["merged"].as_u64(), "devices were told of {} merged deltas", told.len());
}

/// The leases of which the coordinator told a device that their delta counts.
fn merged_leases(place: &Place, name: &str) -> Vec<String> {
    let log = std::fs::read_to_string(place.path(&format!("{name}.log"))).expect("a device writes a log");
    let told = log.lines().filter(|line| line.starts_with("lease ") && line.ends_with("merged"));
    told.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
}
