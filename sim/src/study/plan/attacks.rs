//! Study 10: what liars cost a run, whatever it does about them.

use super::parts::*;
use crate::{
    population::{Byzantine, Group, Lie, Population},
    scale,
    study::{Column, Figure, How, Measure, Study, Variant},
};
use nightjar_shared::run_spec::{MergeSpec, Robust, RunSpec};

const TOKENS: u64 = 400_000;
const SPEED: f64 = 1000.0;
/// Devices, and how many of them lie.
const DEVICES: u32 = 16;
const LIARS: u32 = 3;

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

/// Study 10: each attack undefended and with each defence.
pub fn attacks() -> Study {
    let mixed = [(Lie::Patient, None), (Lie::Random, None), (Lie::Skipped, None)];
    let mixed = mixed.map(|(sends, factor)| Byzantine { share: 1.0, sends, factor }).to_vec();
    let attacks: [(&str, Vec<Byzantine>); 13] = [
        ("nobody lies", vec![]),
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
    ];
    let mut attacks = attacks.to_vec();
    attacks.push(("flips, noise and half of the steps", mixed));
    let defences = [("undefended", Robust::None), ("clip", Robust::Clip), ("direction", Robust::Direction)];
    let variants = attacks.iter().flat_map(|(attack, liars)| {
        defences.map(|(defence, robust)| {
            let spec = usual(nano(TOKENS, 4));
            let merge = MergeSpec { robust: Some(robust), ..spec.merge.clone() };
            let work = sim(RunSpec { merge, ..spec }, with(liars));
            Variant { group: defence.into(), ..Variant::new(format!("{attack}, {defence}"), work) }
        })
    });
    let variants = variants.collect();
    let clean = "nobody lies, undefended";
    Study {
        key: "attacks",
        title: "What liars cost",
        question: "Sixteen equal devices begin with drawn weights, and the last three of them lie: 19 %. What a lie costs is how much higher \
                   the held-out loss ends, after as many tokens, than where nobody lies.",
        reading: "",
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            Column::compared("above the clean run", Measure::Loss, How::PercentAbove(clean.into())),
            Column::mean("deltas merged", Measure::Extra("deltas".into())),
            Column::mean("refused", Measure::Extra("deltas_refused".into())),
        ],
        figures: vec![Figure::Bars {
            title: "Final loss by attack".into(),
            column: Column::mean("held-out loss, nats a token", Measure::Loss),
            dots: true,
        }],
        goals: vec![],
        variants,
    }
}
