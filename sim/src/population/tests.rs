//! Populations from text: what is read, what is refused and how, and what is drawn.

use super::*;
use crate::draws::Draws;

const TWO: &str = r#"
name = "two groups"
start_hour = 20.0

[[group]]
name = "fast"
count = 3
tokens_per_s = [2000, 1000]

[[group]]
name = "home"
count = 200
tokens_per_s = { log_normal = { median = 500.0, sigma = 0.8 } }
up_mbit = { log_uniform = [2.0, 200.0] }
time_zone_h = [-8, 0, 8]
online = { from = 22.0, hours = [6.0, 8.0] }
byzantine = { share = 0.1, sends = "flipped" }
"#;

fn read(text: &str) -> Result<Population, PopulationError> {
    text.parse()
}

#[test]
fn the_examples_are_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/populations");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let population = read(&std::fs::read_to_string(&path).unwrap());
        assert!(population.is_ok(), "{}: {population:?}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn devices_are_drawn_as_their_group_says() {
    let population = read(TWO).unwrap();
    let traits = Traits::all(&population, 7);
    assert_eq!(traits.len(), 203);
    let speeds: Vec<f64> = traits[..3].iter().map(|t| t.tokens_per_s).collect();
    assert_eq!(speeds, [2000.0, 1000.0, 2000.0]);
    assert_eq!(traits[3].name(), "home 1");
    let homes = &traits[3..];
    let mut speeds: Vec<f64> = homes.iter().map(|t| t.tokens_per_s).collect();
    speeds.sort_by(f64::total_cmp);
    assert!((350.0..700.0).contains(&speeds[100]), "median {}", speeds[100]);
    assert!(homes.iter().all(|t| (2.0 * 125e3 * 0.999..=200.0 * 125e3 * 1.001).contains(&t.up)));
    assert_eq!(homes.iter().filter(|t| t.byzantine().is_some()).count(), 20);
    // The same again, and another seed is another draw.
    assert_eq!(Traits::all(&population, 7)[50].tokens_per_s, traits[50].tokens_per_s);
    assert_ne!(Traits::all(&population, 8)[50].tokens_per_s, traits[50].tokens_per_s);
}

#[test]
fn a_bad_file_is_told_in_one_line() {
    let told = |text: &str| read(text).unwrap_err().to_string();
    let typo = TWO.replace("up_mbit", "upmbit");
    assert!(told(&typo).starts_with("line 14: unknown field `upmbit`, expected one of"), "{}", told(&typo));
    let range = TWO.replace("log_uniform = [2.0, 200.0]", "log_uniform = [0.0, 200.0]");
    assert_eq!(told(&range), "line 14: group \"home\": up_mbit is 0; allowed is 0.0001 to 1000000");
    let hours = TWO.replace("[6.0, 8.0]", "[8.0, 6.0]");
    assert_eq!(
        told(&hours),
        "line 16: group \"home\": online.hours is 6; allowed is two numbers from 0.1 to 22, the smaller first"
    );
    let kind = TWO.replace("[2000, 1000]", "\"fast\"");
    let said = told(&kind);
    assert!(
        said.starts_with("line 8: tokens_per_s: ") && said.contains("expected a number, a list of numbers"),
        "{said}"
    );
    let missing = TWO.replace("count = 3\n", "");
    assert!(told(&missing).contains("missing field `count`"), "{}", told(&missing));
    assert!(!told(&typo).contains('\n'));
    let word = TWO.replace("\"flipped\"", "\"upside\"");
    assert!(told(&word).contains("expected one of `flipped`, `scaled`, `random`"), "{}", told(&word));
    assert_eq!(told("name = \"none\"\ngroup = []"), "line 2: there are 0 devices in all; allowed is 1 to 2000000");
}

#[test]
fn what_is_written_is_read_again() {
    let population = read(TWO).unwrap();
    assert_eq!(toml::from_str::<Population>(&toml::to_string(&population).unwrap()).unwrap(), population);
    let json = serde_json::to_string(&population).unwrap();
    assert_eq!(serde_json::from_str::<Population>(&json).unwrap(), population);
}

/// Share of an hour of the local day, over many days, in which a device is on.
fn share_on(traits: &Traits, hour: f64) -> f64 {
    let mut draws = Draws::of_device(1, 0);
    let mut presence = Presence::new(traits, 0.0, &mut draws);
    let at = |day: f64| (24.0 * day + hour - traits.time_zone_h) * 3600.0;
    let days = 400;
    (1..=days).filter(|day| presence.advance(at(f64::from(*day)), traits, &mut draws).0).count() as f64
        / f64::from(days)
}

#[test]
fn a_night_is_six_to_eight_hours_by_the_zone() {
    let traits = Traits::all(&read(TWO).unwrap(), 1);
    for t in &traits[3..6] {
        assert_eq!(share_on(t, 23.0), 1.0, "zone {}", t.time_zone_h);
        assert_eq!(share_on(t, 3.0), 1.0);
        assert_eq!(share_on(t, 12.0), 0.0);
        assert_eq!(share_on(t, 21.0), 0.0);
        let morning = share_on(t, 5.0);
        assert!((0.3..0.7).contains(&morning), "{morning}");
    }
    assert_eq!(share_on(&traits[0], 12.0), 1.0, "without hours it is always on");
}

#[test]
fn churn_keeps_its_share() {
    let churn = Some(Churn { on_s: 600.0, off_s: 1200.0 });
    let group = Group { churn, ..Group::new("x", 1, 100.0) };
    let population = Population {
        name: "x".into(),
        start_hour: 0.0,
        coordinator_up_mbit: 0.0,
        coordinator_down_mbit: 0.0,
        group: vec![group],
    };
    let traits = &Traits::all(&population, 1)[0];
    let mut draws = Draws::of_device(1, 0);
    let mut presence = Presence::new(traits, 0.0, &mut draws);
    let (mut now, mut on_s) = (0.0, 0.0);
    for _ in 0..4000 {
        let (_, next) = presence.advance(now, traits, &mut draws);
        let next = next.unwrap();
        if presence.is_on() {
            on_s += next - now;
        }
        now = next;
    }
    assert!((on_s / now - 1.0 / 3.0).abs() < 0.03, "{}", on_s / now);
    presence.vanish(now, 1e7);
    assert!(!presence.advance(now + 5e6, traits, &mut draws).0);
}
