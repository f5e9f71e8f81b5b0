//! Studies 10 and 11: what liars cost a run, whatever it does about them.

use super::parts::*;
use crate::{
    population::{Byzantine, Group, Lie, Population},
    scale,
    study::{Bound, Column, Figure, Goal, How, Measure, Study, Variant, Work},
};
use nightjar_shared::run_spec::{MergeSpec, Robust, RunSpec};

const TOKENS: u64 = 400_000;
const SPEED: f64 = 1000.0;
/// Devices, and how many of them lie.
const DEVICES: u32 = 16;
const LIARS: u32 = 3;
const NOBODY: &str = "nobody lies";
const DEFENCES: [(&str, Robust); 3] =
    [("undefended", Robust::None), ("direction", Robust::Direction), ("clip", Robust::Clip)];
/// Attacks that are tried on a warm model, too.
const WARM: [&str; 5] = [
    NOBODY,
    "noise of the right norm",
    "flips, 1.9 times as long",
    "copies of one delta, disguised",
    "flips, noise and half of the steps",
];

fn lies(sends: Lie, factor: Option<f64>) -> Vec<Byzantine> {
    vec![Byzantine { share: 1.0, sends, factor }; LIARS as usize]
}

/// Sixteen equal devices, the last of which lie.
fn with(liars: &[Byzantine]) -> Population {
    let honest = Group { count: DEVICES - liars.len() as u32, ..device() };
    let liars = liars.iter().map(|lie| Group { name: "liar".into(), byzantine: Some(*lie), ..device() });
    Population { group: std::iter::once(honest).chain(liars).collect(), ..scale::always(device()) }
}

fn device() -> Group {
    alike(1, SPEED).group.remove(0)
}

/// What the liars do, by its name.
fn attacks_by_name() -> Vec<(&'static str, Vec<Byzantine>)> {
    let mixed = [(Lie::Patient, None), (Lie::Random, None), (Lie::Skipped, None)];
    let mixed = mixed.map(|(sends, factor)| Byzantine { share: 1.0, sends, factor }).to_vec();
    vec![
        (NOBODY, vec![]),
        ("noise of the right norm", lies(Lie::Random, None)),
        ("flips", lies(Lie::Flipped, None)),
        ("flips, 1.9 times as long", lies(Lie::Flipped, Some(1.9))),
        ("flips, 8 times as long", lies(Lie::Flipped, Some(8.0))),
        ("flips that grow to 1.9 times", lies(Lie::Patient, None)),
        ("10 times as long", lies(Lie::Scaled, Some(10.0))),
        ("100 times as long", lies(Lie::Scaled, Some(100.0))),
        ("their first delta again", lies(Lie::Repeated, None)),
        ("their first delta, disguised", lies(Lie::Reworked, None)),
        ("copies of one delta, disguised", lies(Lie::Copied, None)),
        ("half of the steps", lies(Lie::Skipped, None)),
        ("one step", lies(Lie::Skipped, Some(0.0))),
        ("flips, noise and half of the steps", mixed),
    ]
}

/// Study 10: each attack undefended and with each defence, from drawn weights.
pub fn attacks() -> Study {
    let reading = "";
    Study { reading, ..study("attacks", "What liars cost", &attacks_by_name(), &|work| work) }
}

/// Study 11: some of them on a model that has learnt something: it has more to lose, and its deltas agree less.
pub fn on_a_warm_model() -> Study {
    let chosen = attacks_by_name().into_iter().filter(|(attack, _)| WARM.contains(attack)).collect::<Vec<_>>();
    study("attacks-warm", "What liars cost a warm model", &chosen, &warmed)
}

fn study(
    key: &'static str,
    title: &'static str,
    attacks: &[(&'static str, Vec<Byzantine>)],
    started: &dyn Fn(Work) -> Work,
) -> Study {
    let spec = |robust| {
        let spec = usual(nano(TOKENS, 4));
        RunSpec { merge: MergeSpec { robust: Some(robust), ..spec.merge.clone() }, ..spec }
    };
    let variants = DEFENCES.iter().flat_map(|(defence, robust)| {
        attacks.iter().map(move |(attack, liars)| {
            let work = started(sim(spec(*robust), with(liars)));
            Variant { group: (*defence).into(), ..Variant::new(format!("{attack}, {defence}"), work) }
        })
    });
    let [(undefended, _), (defended, _), _] = DEFENCES;
    let above = || {
        let how = How::PercentAbove(format!("{NOBODY}, {undefended}"));
        Column::compared("above the clean run", Measure::Loss, how)
    };
    let goal = |attack: &str| Goal {
        words: if attack == NOBODY { "Costs honest devices ≤ 0.3 %" } else { "Ends within 1 %" }.into(),
        variant: format!("{attack}, {defended}"),
        column: above(),
        bound: Bound::AtMost(if attack == NOBODY { 0.3 } else { 1.0 }),
    };
    Study {
        key,
        title,
        question: "Sixteen equal devices, of which the last three lie: 19 %. What a lie costs is how much higher the held-out loss ends, after \
                   as many tokens, than where nobody lies. The screen is on everywhere; *direction* and *clip* are `merge.robust`.",
        reading: "",
        goals: attacks.iter().map(|(attack, _)| goal(attack)).collect(),
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            above(),
            Column::mean("deltas merged", Measure::Extra("deltas".into())),
            Column::mean("refused", Measure::Extra("deltas_refused".into())),
        ],
        figures: vec![Figure::Bars {
            title: "Final loss by attack".into(),
            column: Column::mean("held-out loss, nats a token", Measure::Loss),
            dots: true,
        }],
        variants: variants.collect(),
    }
}
