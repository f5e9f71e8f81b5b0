//! Study 2: what do fewer bits cost?

use super::{bytes_columns, parts::*};
use crate::study::{Bound, Column, Figure, Goal, How, Measure, Study, Variant};
use nightjar_shared::{
    delta::CodecId,
    run_spec::{DeltaSpec, MergeRule, MergeSpec, RunSpec},
};

/// The study.
pub fn codecs() -> Study {
    let codec = |codec, k, feedback| DeltaSpec { codec, k, feedback, ..DeltaSpec::default() };
    let ladder = [
        ("dense f32", codec(CodecId::F32, 0, 0.0)),
        ("8-bit", codec(CodecId::Blocks8, 0, 0.0)),
        ("4-bit", codec(CodecId::Blocks4, 0, 0.0)),
        ("4-bit, feedback", codec(CodecId::Blocks4, 0, 1.0)),
        ("2-bit", codec(CodecId::Blocks2, 0, 0.0)),
        ("2-bit, feedback", codec(CodecId::Blocks2, 0, 1.0)),
        ("sparse 2-bit, k 64", codec(CodecId::Sparse2, 64, 0.0)),
        ("sparse 2-bit, k 64, feedback", codec(CodecId::Sparse2, 64, 1.0)),
        ("sparse 2-bit, k 128, feedback", codec(CodecId::Sparse2, 128, 1.0)),
        ("sparse 2-bit, k 256, feedback", codec(CodecId::Sparse2, 256, 1.0)),
    ];
    let of = |steps: u32| in_step(nano(rounds_tokens(4, steps, 32), 1), steps, 4, 2.0 + f64::from(steps) / 16.0);
    let four = |spec| warmed(sim(spec, alike(4, 2000.0)));
    let mut variants = vec![];
    for steps in [16u32, 64, 256, 500] {
        for (name, delta) in &ladder {
            let spec = RunSpec { delta: DeltaSpec { k: delta.k.max(1), ..delta.clone() }, ..of(steps) };
            variants.push(Variant::new(format!("{name}, H {steps}"), four(spec)).at(*name, f64::from(steps)));
        }
        // What a run has that sets nothing; and that average with the fewest bits.
        let (ours, sparse) = ("ours", "sparse 2-bit, k 64, feedback, RDA");
        let few = RunSpec { delta: codec(CodecId::Sparse2, 64, 1.0), ..of(steps) };
        for (name, spec) in [(ours, few_bits(of(steps))), (sparse, few)] {
            variants.push(
                Variant::new(format!("{name}, H {steps}"), four(norm_preserving(spec))).at(name, f64::from(steps)),
            );
        }
    }
    // So many that with k = 64 every value has its turn.
    for (name, delta) in &ladder {
        if ["dense f32", "2-bit, feedback", "sparse 2-bit, k 64", "sparse 2-bit, k 64, feedback"].contains(name) {
            let delta = DeltaSpec { k: delta.k.max(1), ..delta.clone() };
            let spec = RunSpec { delta, ..in_step(nano(rounds_tokens(4, 16, 256), 1), 16, 4, 3.0) };
            variants.push(Variant::new(format!("{name}, H 16, 256 rounds"), warmed(sim(spec, alike(4, 2000.0)))));
        }
    }
    // Where few bytes matter most: few bits down too.
    let (least, h) = ("2-bit both ways, feedback, H 500", 500);
    let delta = codec(CodecId::Blocks2, 1, 1.0);
    let spec = with_updates(RunSpec { delta, ..of(h) }, CodecId::Blocks2);
    let rda = norm_preserving(spec.clone());
    variants.push(Variant::new(least, four(spec)));
    variants.push(Variant::new("2-bit both ways, feedback, RDA, H 500", four(rda)));
    // DiLoCo as its paper has it.
    let outer = MergeSpec { rule: MergeRule::Nesterov { momentum: 0.9 }, learning_rate: 0.7, ..of(h).merge };
    let diloco = RunSpec { delta: codec(CodecId::F32, 1, 0.0), merge: outer, ..of(h) };
    let papers = "dense f32, outer 0.7/0.9, H 500";
    variants.push(Variant::new(papers, four(diloco)));
    for (up, down) in [(8, 8), (4, 8), (2, 8), (8, 4), (8, 2)] {
        let blocks = |bits| match bits {
            2 => CodecId::Blocks2,
            4 => CodecId::Blocks4,
            _ => CodecId::Blocks8,
        };
        let spec = with_updates(with_codec(waiting(ours(nano(1_500_000, 4), 1.5)), blocks(up), 64), blocks(down));
        variants.push(Variant::new(format!("random start, {up} bits up, {down} down"), sim(spec, four_speeds(16))));
    }
    let dense = |steps: u32| format!("dense f32, H {steps}");
    let within = |steps: u32| Column::compared("to dense f32", Measure::Loss, How::PercentAbove(dense(steps)));
    let sparse = |steps: u32| format!("sparse 2-bit, k 64, feedback, H {steps}");
    let close = |variant: String, column| Goal {
        words: "Within 1 % of dense f32".into(),
        variant,
        column,
        bound: Bound::AtMost(1.0),
    };
    let mut goals: Vec<Goal> = [16, 64, 256, 500].map(|steps| close(format!("ours, H {steps}"), within(steps))).into();
    goals.extend([16, 64, 256, 500].map(|steps| close(sparse(steps), within(steps))));
    let long = |name: &str| format!("{name}, H 16, 256 rounds");
    let to_long = Column::compared("to dense f32", Measure::Loss, How::PercentAbove(long("dense f32")));
    goals.push(close(long("sparse 2-bit, k 64, feedback"), to_long));
    goals.push(Goal {
        words: "Up ≤ 0.155 bit a parameter, in deltas".into(),
        variant: sparse(64),
        column: Column::mean("bit up", Measure::Extra("bits_up_per_parameter_and_delta".into())),
        bound: Bound::AtMost(0.155),
    });
    let fewer = Column::mean(
        "times fewer bytes than data parallel",
        Measure::FewerThanDataParallel { parameters: 98_624, tokens_per_step: 64 },
    );
    goals.push(Goal {
        words: "≥ 2000 times fewer bytes than data parallel at bf16, H 500".into(),
        variant: least.into(),
        column: fewer.clone(),
        bound: Bound::AtLeast(2000.0),
    });
    let to_papers = Column::compared("to DiLoCo", Measure::Loss, How::PercentAbove(papers.into()));
    for (words, column) in [
        ("With a loss no worse than DiLoCo's at that H", to_papers),
        ("Nor worse than that of f32 deltas and their plain mean", within(500)),
    ] {
        goals.push(Goal { words: words.into(), variant: least.into(), column, bound: Bound::AtMost(0.0) });
    }
    let [up, down] = bytes_columns();
    Study {
        key: "codecs",
        title: "What fewer bits cost",
        reading: "Dense blocks of 4 bits lose nothing against f32 once a model is warm, and those of 2 bits a few thousandths of a nat at H 500. \
                  From a random start, fewer than 8 bits end a little higher, up and down, if not beyond doubt with so few seeds: a run that starts \
                  so may ask for 8. \
                  From a warm start 4 up and 2 down are the default, which with norm-preserving averages (*ours*) costs under a hundredth of \
                  the loss in rounds of 16 steps and nothing in those of 500. DiLoCo with its paper's outer optimizer ends higher than a plain mean at H 500, \
                  and so than 2 bits both ways do. Sparse deltas \
                  lose in so few rounds what they have not sent yet, the larger k, the less. Over 32 rounds feedback does not help them, and from H 64 on it makes \
                  it worse, since what it sends late was right for older weights; over 256 rounds nothing without it catches up. \
                  Norm-preserving averages are not for them. They are for models whose dense delta would not go up in time.",
        question: "Four equal devices in step, 32 rounds of one sample a step, from a warm start; only the codec and H change, and where it says so the average: *ours* and *RDA* preserve norms, *outer 0.7/0.9* is DiLoCo as its paper has \
                   it, all others are plain means. What is \
                   asked of the sparse codec is the sum of its rounds: with k = 64 a value is sent every 64th round on average, so \
                   32 rounds are its hardest case; some rows have 256. The last rows are sixteen uneven devices from a random start, where weights move \
                   furthest, with other bits up and down.",
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            Column::mean("out of domain", Measure::LossOod),
            Column::mean("bit a parameter, up", Measure::Extra("bits_up_per_parameter_and_delta".into())),
            up,
            down,
            fewer,
        ],
        figures: vec![Figure::Sweep {
            title: "Loss by codec and H".into(),
            x: "H, inner steps a round".into(),
            column: Column::mean("held-out loss, nats a token", Measure::Loss),
            log: (true, false),
            level: None,
        }],
        goals,
        variants,
    }
}
