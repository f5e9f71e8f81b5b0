//! Study 1: is a pool of devices sooner than the fastest of them? With models of three sizes, and where the PyTorch
//! reference stands.

use super::{bytes_columns, hours, parts::*};
use crate::{
    lab::Method,
    study::{Against, Bound, Column, Figure, Goal, How, Measure, Study, Target, Variant},
};
use nightjar_shared::{delta::CodecId, run_spec::RunSpec};

/// Study 1: does pooling pay, and from how many devices on?
pub fn pooling() -> Study {
    let alone = "the fastest alone";
    // So many tokens that each reaches the loss of the fastest alone, and goes on a little; the second with rounds of 1
    // s.
    let budgets = [
        (2u32, 600_000, 560_000),
        (4, 600_000, 560_000),
        (8, 740_000, 720_000),
        (16, 940_000, 900_000),
        (32, 1_350_000, 1_300_000),
        (64, 2_250_000, 2_200_000),
        (128, 3_900_000, 3_900_000),
        (256, 7_200_000, 7_200_000),
    ];
    let speeds = |devices: u32| (0..devices as usize).map(|i| REFERENCE_SPEEDS[i % 4]).collect::<Vec<_>>();
    let mut variants = vec![
        Variant::new(alone, warmed(lab(nano(480_000, 8), Method::Alone, &[2000.0]))).at("alone", 1.0),
        Variant::new("the fastest alone, batch 4", warmed(lab(nano(480_000, 4), Method::Alone, &[2000.0]))),
        Variant::new("the fastest alone, batch 16", warmed(lab(nano(480_000, 16), Method::Alone, &[2000.0]))),
        Variant::new("data parallel, bf16, 16", warmed(lab(nano(900_000, 1), Method::DataParallel, &speeds(16)))),
    ];
    for (name, learning_rate, momentum) in [("outer 1", 1.0, 0.0), ("outer 0.7/0.9", 0.7, 0.9)] {
        let method = Method::Diloco { steps: 16, learning_rate, momentum };
        let work = warmed(lab(nano(1_000_000, 2), method, &speeds(16)));
        variants.push(Variant::new(format!("DiLoCo, f32, H 16, {name}, 16"), work));
    }
    let mut curve = |way: &str, devices: u32, spec| {
        let work = warmed(sim(spec, four_speeds(devices)));
        let variant = Variant::new(format!("{way}, {devices}"), work).at(way, f64::from(devices));
        variants.push(Variant { seeds: if devices > 128 { 2 } else { 0 }, ..variant });
    };
    for (devices, tokens, _) in budgets {
        curve("ours", devices, usual(nano(tokens, 4)));
    }
    for (devices, _, tokens) in budgets {
        curve("rounds of 1 s", devices, ours(nano(tokens, 4), 1.0));
    }
    let waits = |tokens, batch_samples, wall_s| waiting(ours(nano(tokens, batch_samples), wall_s));
    let waits_16 = || waits(900_000, 4, 1.5);
    for (name, spec) in [
        ("waiting, 16", waits_16()),
        ("waiting, 16, rounds of 3 s", waits(1_300_000, 4, 3.0)),
        ("waiting, 16, batch 2", waits(900_000, 2, 1.5)),
        ("waiting, 16, 8-bit deltas", with_codec(waits_16(), CodecId::Blocks8, 64)),
        ("waiting, 16, sparse k 64", with_codec(waits_16(), CodecId::Sparse2, 64)),
        ("waiting, 16, 4-bit updates", with_updates(waits_16(), CodecId::Blocks4)),
        ("waiting, 16, 2-bit updates", with_updates(waits_16(), CodecId::Blocks2)),
        ("waiting, 16, plain mean", plain_mean(waits_16())),
        ("waiting, 16, no rounds", free(waits_16(), 16)),
        ("ours, 16, batch 2", usual(nano(940_000, 2))),
        ("ours, 16, batch 8", usual(nano(1_300_000, 8))),
        ("rounds of 3 s, 16", ours(nano(1_300_000, 4), 3.0)),
    ] {
        variants.push(Variant::new(name, warmed(sim(spec, four_speeds(16)))));
    }
    let few_bits = Column::mean("bit down", Measure::Extra("bits_down_per_parameter_and_version".into()));
    let at = |heading, against, place| Column::mean(heading, Measure::LossAt(against, place));
    // All rows last longer than 35 s, if only just.
    let more = [at("loss at 450 k tokens", Against::Tokens, 450_000.0), at("loss at 35 s", Against::Time, 35.0)];
    let few = [alone, "data parallel, bf16, 16", "DiLoCo, f32, H 16, outer 1, 16", "ours, 4", "ours, 16", "ours, 64"];
    Study {
        key: "pooling",
        title: "Does pooling pay?",
        reading: "Pooling pays once a model is warm: the more devices, the sooner, though by less and less. Three things make it so. *Rounds*: \
                  without them, deltas are about one version stale, and a device that undoes what others have undone already makes the \
                  weights swing. *Norm-preserving averages* (RDA): deltas of small batches are mostly noise to each other (the measured \
                  agreement is about a tenth), so their plain mean is a third as long as each, and the run moves a third as far. *Short \
                  rounds*: of 3 s, each device strays further on noise of its own. *Training ahead*: waiting, 16 devices spend a quarter of \
                  their time on messages and on each other; training on meanwhile, next to none, and rounds may be as short as 1 s. A sparse \
                  delta of k = 64 needs more rounds than these 50 to say all it has to say. Rounds as long as the agreement of deltas \
                  asks (the default) are 4 s of two to four devices and half a second of 64: where devices are few they send a \
                  seventh of the bytes that rounds of 1 s do, and end 0.003 to 0.009 nats higher, so that most seeds of 2, 4 and 8 just miss the loss of the \
                  fastest alone; from 16 on they reach losses that rounds of 1 s do not. Of batches, 4 samples a device and step suit 16 devices best, 2 \
                  hardly less, 8 take fewer steps than they should. A larger model gains more: of 361 thousand parameters (the next study) four devices are \
                  sooner than the fastest of them on every seed. Per-step data parallel ends lower at equal tokens, and is hardly sooner \
                  than the fastest alone.",
        question: "Devices of 2000, 1000, 500 and 250 tokens a second, as many of each, on 20 Mbit/s up and 100 down, 15 ms away, \
                   against the fastest of them alone, which trains for 240 s with 8 samples a step (twice as many end no lower): how \
                   much sooner do they reach the loss that it ends with? The plot of that has what all seeds reach. All start from weights that one device trained for 1.9 M tokens, as \
                   anchors do before volunteers come: from a random start, what counts is sequential steps, and no pool helps. \
                   `nano`, 98,624 parameters, the large corpus; everybody has the same learning rate and a schedule that ends \
                   with its own tokens. Data parallel has one sample a device and step.",
        columns: race(alone, more),
        figures: vec![
            speed_up(faster(alone)),
            curves("Loss against time", Against::Time, &few),
            curves("Loss against tokens", Against::Tokens, &few),
            curves("Loss against bytes", Against::Bytes, &few[1..]),
        ],
        goals: vec![
            Goal {
                words: "Pooling pays".into(),
                variant: "ours, 16".into(),
                column: faster(alone),
                bound: Bound::AtLeast(1.0),
            },
            half_of_ideal(alone),
            Goal {
                words: "Down ≤ 2.5 bit a parameter and version, keyframes included".into(),
                variant: "waiting, 16, 2-bit updates".into(),
                column: few_bits,
                bound: Bound::AtMost(2.5),
            },
        ],
        variants,
    }
}

/// When a row reaches the loss that `alone` ends with.
fn until(alone: &str) -> Measure {
    Measure::Until(Against::Time, Target::FinalOf(alone.into()))
}

/// How much sooner that is.
fn faster(alone: &str) -> Column {
    Column::compared("times sooner", until(alone), How::TimesLess(alone.into()))
}

/// The columns of a pool's race against `alone`, with `more` behind the losses.
fn race<const N: usize>(alone: &str, more: [Column; N]) -> Vec<Column> {
    let losses = [Column::mean("held-out loss", Measure::Loss), Column::mean("out of domain", Measure::LossOod)];
    let race = [
        Column::mean("s to the loss of the fastest alone", until(alone)),
        faster(alone),
        Column::mean("utilisation", Measure::Utilisation),
    ];
    losses.into_iter().chain(more).chain(race).chain(bytes_columns()).chain([hours()]).collect()
}

fn half_of_ideal(alone: &str) -> Goal {
    Goal {
        words: "At least half of the ideal speed-up of 7.5".into(),
        variant: "ours, 16".into(),
        column: faster(alone),
        bound: Bound::AtLeast(3.75),
    }
}

/// The headline: how much sooner so many devices are.
fn speed_up(faster: Column) -> Figure {
    Figure::Sweep {
        title: "Speed-up in time to loss".into(),
        x: "devices".into(),
        column: faster,
        log: (true, true),
        level: Some(("the fastest alone".into(), 1.0)),
    }
}

/// Study 1 with another model: how does its size change what pooling is worth?
pub fn larger(key: &'static str, title: &'static str, devices: &[u32], spec: fn(u64, u32) -> RunSpec) -> Study {
    let alone = "the fastest alone";
    let mut variants =
        vec![Variant::new(alone, warmed(lab(spec(480_000, 8), Method::Alone, &[2000.0]))).at("alone", 1.0)];
    for (devices, tokens) in
        [(4u32, 700_000), (16, 1_100_000), (64, 2_600_000)].into_iter().filter(|(n, _)| devices.contains(n))
    {
        let work = warmed(sim(usual(spec(tokens, 4)), four_speeds(devices)));
        variants.push(Variant::new(format!("ours, {devices}"), work).at("ours", f64::from(devices)));
    }
    Study {
        key,
        title,
        question: "The same devices and text, with another model: its weights are as warm, its messages longer.",
        columns: race(alone, []),
        figures: vec![speed_up(faster(alone)), curves("Loss against time", Against::Time, &[])],
        goals: vec![half_of_ideal(alone)],
        variants,
        ..Study::default()
    }
}

/// Study 1, where the reference stands: size `s` from a random start.
pub fn reference() -> Study {
    const TOKENS: u64 = 524_288;
    let speeds = REFERENCE_SPEEDS;
    let alone = "the fastest alone";
    let diloco = |learning_rate, momentum| Method::Diloco { steps: 16, learning_rate, momentum };
    let variants = vec![
        Variant::new(alone, lab(small(TOKENS), Method::Alone, &speeds)),
        Variant::new("data parallel, bf16, 4", lab(small(TOKENS), Method::DataParallel, &speeds)),
        Variant::new("DiLoCo, f32, H 16, outer 1, 4", lab(small(TOKENS), diloco(1.0, 0.0), &speeds)),
        Variant::new("DiLoCo, f32, H 16, outer 0.7/0.9, 4", lab(small(TOKENS), diloco(0.7, 0.9), &speeds)),
        Variant::new("ours, 4", sim(usual(small(TOKENS)), four_speeds(4))),
        Variant::new("waiting, 4", sim(waiting(ours(small(TOKENS), 3.0)), four_speeds(4))),
    ];
    let [up, down] = bytes_columns();
    Study {
        key: "reference",
        title: "Beside the PyTorch reference",
        question: "Size `s`, 824,448 parameters, from a random start on the small corpus, 524,288 tokens, 2 × 128 a step, four devices: \
                   what the independent PyTorch implementation reaches is 1.938 alone, 2.042 data parallel, 2.221 and 2.515 DiLoCo \
                   with outer 1 and 0.7/0.9 (it measures on other windows, and sends gradients in f32).",
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            Column::mean("out of domain", Measure::LossOod),
            Column::mean("s to 2.6", Measure::Until(Against::Time, Target::Loss(2.6))),
            Column::mean("utilisation", Measure::Utilisation),
            up,
            down,
            hours(),
        ],
        figures: vec![curves("Loss against time from a random start", Against::Time, &[])],
        variants,
        ..Study::default()
    }
}
