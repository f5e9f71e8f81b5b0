//! Study 12: AdamW or Muon in the inner steps, alone and in pools, each at its best learning rate.

use super::parts::*;
use crate::{
    lab::Method,
    study::{Against, Column, Figure, How, Measure, Study, Variant, Work},
};
use nightjar_shared::run_spec::{InnerOptimizer, InnerSpec, RunSpec};

/// What is compared, and at which learning rates.
const OPTIMIZERS: [(&str, InnerOptimizer); 2] = [("AdamW", InnerOptimizer::AdamW), ("Muon", InnerOptimizer::Muon)];
const LEARNING_RATES: [f64; 3] = [1.5e-3, 3e-3, 6e-3];

/// Study 12.
pub fn inner() -> Study {
    let alone = "alone";
    let of = |devices: Option<u32>| match devices {
        None => warmed(lab(nano(480_000, 8), Method::Alone, &[2000.0])),
        Some(devices) => warmed(sim(usual(nano(if devices > 4 { 940_000 } else { 600_000 }, 4)), four_speeds(devices))),
    };
    let pools = [(alone, None), ("4 devices", Some(4)), ("16 devices", Some(16))];
    let variants = pools.into_iter().flat_map(|(pool, devices)| {
        OPTIMIZERS.into_iter().flat_map(move |(name, optimizer)| {
            LEARNING_RATES.into_iter().map(move |rate| {
                let work = stepped(of(devices), optimizer, rate);
                let variant = Variant::new(title(pool, name, rate), work).at(format!("{name}, {pool}"), rate);
                Variant { group: pool.into(), ..variant }
            })
        })
    });
    let above = |pool: &str| {
        let how = How::PercentAbove(title(pool, "AdamW", 3e-3));
        Column::compared(format!("above AdamW at 0.003, {pool}"), Measure::Loss, how)
    };
    Study {
        key: "inner",
        title: "AdamW or Muon",
        question: "`nano`, 98,624 parameters, from the same weights (trained by AdamW for 1.9 M tokens), with fresh optimizer state, \
                   at three learning rates: alone with 8 samples a step, and in pools of 4 and 16 devices with 4. At equal tokens: what \
                   a step costs is not in it.",
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            above(alone),
            above("4 devices"),
            above("16 devices"),
        ],
        figures: vec![
            Figure::Sweep {
                title: "Final loss by learning rate".into(),
                x: "learning rate".into(),
                column: Column::mean("held-out loss, nats a token", Measure::Loss),
                log: (true, false),
                level: None,
            },
            curves("Loss against tokens", Against::Tokens, &[]),
        ],
        variants: variants.collect(),
        ..Study::default()
    }
}

fn title(pool: &str, optimizer: &str, rate: f64) -> String {
    format!("{pool}, {optimizer}, {rate}")
}

/// With another optimizer and learning rate, from the same start.
fn stepped(work: Work, optimizer: InnerOptimizer, learning_rate: f64) -> Work {
    let of = |inner: InnerSpec| InnerSpec { optimizer, learning_rate, ..inner };
    match work {
        Work::Lab(mut work) => {
            work.inner = of(work.inner);
            Work::Lab(work)
        }
        Work::Sim(mut work) => {
            work.spec = RunSpec { inner: of(work.spec.inner.clone()), ..work.spec };
            Work::Sim(work)
        }
        other => other,
    }
}
