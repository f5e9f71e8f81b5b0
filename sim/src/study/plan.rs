//! The studies: what is asked, and the variants that answer. This file is the table to edit; a row is run again only if
//! its own configuration changes.

mod attacks;
mod codecs;
mod inner;
mod parts;
mod pooling;

use super::{Against, Bound, Column, Figure, Goal, How, Measure, Study, Target, Variant, Work};
use crate::{
    lab::Method,
    population::{Churn, Dist, Drawn, Hours, Population},
    scale,
};
use nightjar_shared::{
    delta::CodecId,
    run_spec::{
        Average, Correction, DeltaSpec, InnerSpec, InnerState, LeaseSpec, MergeRule, MergeSpec, ResidualSpec, RunSpec,
        StalenessSpec,
    },
};
use parts::*;

/// All studies, in the order of the page.
pub fn studies() -> Vec<Study> {
    vec![
        pooling::pooling(),
        pooling::larger("micro", "Does pooling pay for 361,088 parameters?", &[4, 16, 64], micro),
        pooling::larger("mini", "Does pooling pay for 824,448 parameters?", &[4, 16], mini),
        pooling::reference(),
        uneven(),
        codecs::codecs(),
        churn(),
        data_split(),
        size(),
        attacks::attacks(),
        attacks::on_a_warm_model(),
        inner::inner(),
    ]
}

fn bytes_columns() -> [Column; 2] {
    [Column::mean("MB up", Measure::BytesUp).per(1e6), Column::mean("MB down", Measure::BytesDown).per(1e6)]
}

fn hours() -> Column {
    Column::mean("virtual s", Measure::VirtualS)
}

/// Study 3: devices of sixteen speeds.
fn uneven() -> Study {
    const TOKENS: u64 = 1_200_000;
    let nesterov = |momentum| MergeRule::Nesterov { momentum };
    let base = MergeSpec {
        rule: nesterov(0.0),
        quorum: Some(4),
        grace_s: Some(0.0),
        average: Some(Average::Mean),
        ..MergeSpec::default()
    };
    let polynomial = |power| StalenessSpec::Polynomial { power };
    let (in_step_name, longer_halos) = ("DiLoCo + DyLU, synchronous", "HALoS, twice the tokens");
    let (winner, soonest) = ("ours", "rounds of 2 s, RDA, three fifths of the tokens");
    let slow = "DiLoCo, synchronous, H 16";
    let merges = [
        ("mean, polynomial 0.5", MergeSpec { rule: MergeRule::Mean, ..base.clone() }),
        ("mean, constant", MergeSpec { rule: MergeRule::Mean, staleness: StalenessSpec::Constant, ..base.clone() }),
        ("mean, polynomial 1", MergeSpec { rule: MergeRule::Mean, staleness: polynomial(1.0), ..base.clone() }),
        (
            "mean, hinge 4, 0.5",
            MergeSpec {
                rule: MergeRule::Mean,
                staleness: StalenessSpec::Hinge { grace: 4.0, slope: 0.5 },
                ..base.clone()
            },
        ),
        (
            "mean of every delta",
            MergeSpec { rule: MergeRule::Mean, quorum: Some(1), learning_rate: 0.25, ..base.clone() },
        ),
        ("mean, RDA", MergeSpec { rule: MergeRule::Mean, average: Some(Average::Rda), ..base.clone() }),
        ("Nesterov 0.5", MergeSpec { rule: nesterov(0.5), ..base.clone() }),
        ("Nesterov 0.9", MergeSpec { rule: nesterov(0.9), learning_rate: 0.35, ..base.clone() }),
        (
            "Delayed Nesterov 0.9",
            MergeSpec {
                rule: MergeRule::DelayedNesterov { momentum: 0.9, interval: 4, c: 0.0 },
                learning_rate: 0.7,
                ..base.clone()
            },
        ),
        ("HeLoCo, Nesterov 0.5", MergeSpec { rule: nesterov(0.5), correction: Correction::Heloco, ..base.clone() }),
    ];
    let warm = |spec| warmed(sim(spec, halos16()));
    let of = |tokens, round_s| ours(nano(tokens, 2), round_s);
    let of_4_s = |tokens| waiting(ours(nano(tokens, 2), 4.0));
    let halos = |tokens| warmed(lab(nano(tokens, 2), Method::Halos { steps: 8, regions: 4 }, &HALOS_SPEEDS));
    let waits = || of_4_s(TOKENS);
    let fixed = in_step(waits(), 16, 16, 22.0);
    let synchronous = MergeSpec { rule: nesterov(0.9), quorum: Some(16), learning_rate: 0.35, ..base };
    let reset = RunSpec { inner: InnerSpec { state: InnerState::Reset, ..waits().inner }, ..waits() };
    let mut variants = vec![
        Variant::new(slow, warm(RunSpec { merge: synchronous.clone(), ..fixed })),
        Variant::new(
            in_step_name,
            warm(RunSpec { merge: MergeSpec { grace_s: Some(20.0), ..synchronous }, ..waits() }),
        ),
        Variant::new("HALoS", halos(TOKENS)),
        Variant::new(longer_halos, halos(2 * TOKENS)),
        Variant::new(winner, warm(usual(nano(TOKENS, 2)))),
        // The learning rate's schedule ends with the tokens: who wants a loss soon asks for as many as it takes.
        Variant::new("ours, three fifths of the tokens", warm(usual(nano(TOKENS * 3 / 5, 2)))),
        Variant::new("rounds of 1.5 s, RDA", warm(of(TOKENS, 1.5))),
        Variant::new("rounds of 1.5 s, RDA, two thirds of the tokens", warm(of(TOKENS * 2 / 3, 1.5))),
        Variant::new(soonest, warm(of(TOKENS * 3 / 5, 2.0))),
        Variant::new("waiting rounds, RDA", warm(waits())),
        Variant::new("waiting rounds, RDA, two thirds of the tokens", warm(of_4_s(TOKENS * 2 / 3))),
        Variant::new("waiting rounds, mean", warm(plain_mean(waits()))),
        Variant::new("waiting rounds, RDA, inner state reset", warm(reset)),
    ];
    for (name, merge) in merges {
        variants.push(Variant::new(name, warm(RunSpec { merge, ..free(waits(), 4) })));
    }
    let soon = Measure::Until(Against::Time, Target::FinalOf(slow.into()));
    let until = Measure::Until(Against::Time, Target::FinalOf(in_step_name.into()));
    Study {
        key: "uneven",
        title: "Sixteen speeds",
        reading: "Staleness does the damage. Rounds, in which nothing is stale, end below every rule that merges whenever deltas come; where \
                   staleness is not weighed down, or momentum is added, the weights swing (2.2 nats and more). Starting every lease with \
                   fresh moments costs more than the choice between mean and RDA. With a fixed H the slowest device sets the pace; \
                   without that barrier all speeds together are 5.2 times as fast, and with norm-preserving averages fewer tokens do. Waiting rounds of 4 s \
                   spend a quarter of the time on messages and on steps that do not fit; training ahead, rounds of 2 s spend a fourteenth. \
                   Agreement asks for shorter ones (ours), which end lower and take longer: a slow device's single step hardly fits. The rules below are compared in \
                   runs that wait. HALoS, with its paper's constants, does not come to \
                   DiLoCo + DyLU's final loss within as many tokens: how much sooner rounds do is counted against twice as many.",
        question: "Sixteen devices of 0.107 to 0.907 of a base speed in four regions, as HALoS has them: how soon does each rule \
                   reach the final loss of synchronous DiLoCo with DyLU?",
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            Column::compared("to synchronous", Measure::Loss, How::PercentAbove(in_step_name.into())),
            Column::mean("s to its final loss", until.clone()),
            Column::mean("s to that of fixed H", soon.clone()),
            Column::mean("staleness", Measure::Extra("staleness_mean".into())),
            Column::mean("utilisation", Measure::Utilisation),
            hours(),
        ],
        figures: vec![
            curves("Loss against time", Against::Time, &[]),
            Figure::Bars {
                title: "Final loss by rule".into(),
                column: Column::mean("held-out loss, nats a token", Measure::Loss),
                dots: true,
            },
        ],
        goals: vec![
            Goal {
                words: "Synchronous DiLoCo's final loss in 1/7.5 of its time".into(),
                variant: soonest.into(),
                column: Column::compared("times sooner", soon, How::TimesLess(slow.into())),
                bound: Bound::AtLeast(7.5),
            },
            Goal {
                words: "Sooner than HALoS at DiLoCo + DyLU's final loss".into(),
                variant: winner.into(),
                column: Column::compared("times sooner", until, How::TimesLess(longer_halos.into())),
                bound: Bound::AtLeast(1.0),
            },
            Goal {
                words: "Better than DiLoCo + DyLU under heterogeneity".into(),
                variant: winner.into(),
                column: Column::compared("to synchronous", Measure::Loss, How::PercentAbove(in_step_name.into())),
                bound: Bound::AtMost(0.0),
            },
        ],
        variants,
    }
}

/// Study 4: devices that come, go, and lose what they did.
fn churn() -> Study {
    const TOKENS: u64 = 1_200_000;
    let quiet = thirty();
    let with = |change: &dyn Fn(&mut crate::population::Group)| {
        let mut population: Population = quiet.clone();
        population.group.iter_mut().for_each(change);
        population
    };
    let always = "30 devices, always on";
    let warm = |spec, population| warmed(sim(spec, population));
    let usually = || usual(nano(TOKENS, 2));
    let spec = || waiting(ours(nano(TOKENS, 2), 1.5));
    let lossy = with(&|group| group.deltas_lost = 0.5);
    let sparse = || with_codec(spec(), CodecId::Sparse2, 256);
    let residual = |residual| RunSpec { delta: DeltaSpec { residual, ..sparse().delta }, ..sparse() };
    let night = with(&|group| {
        group.online = Some(Hours { from: 22.5, hours: [6.0, 8.0] });
        group.time_zone_h = Dist::List(vec![-8.0, -5.0, 0.0, 1.0, 3.0, 5.5, 8.0, 9.0]);
        group.tokens_per_s = Dist::Drawn(Drawn::LogUniform([0.25, 2.0]));
        (group.up_mbit, group.down_mbit) = (Dist::Fixed(0.02), Dist::Fixed(0.1));
    });
    let mut slow = waiting(ours(nano(TOKENS, 2), 1500.0));
    slow.lease.deadline_s_min = 5000.0;
    let variants = vec![
        Variant::new(always, warm(spec(), quiet.clone())),
        Variant::new(
            "14 of 30 on at a time",
            warm(spec(), with(&|g| g.churn = Some(Churn { on_s: 30.0, off_s: 34.0 }))),
        ),
        Variant::new("half of all deltas lost", warm(spec(), lossy.clone())),
        Variant::new("ours, always on", warm(usually(), quiet.clone())),
        Variant::new("ours, half of all deltas lost", warm(usually(), lossy.clone())),
        Variant::new("sparse, always on", warm(sparse(), quiet.clone())),
        Variant::new("sparse, half lost, residual kept", warm(sparse(), lossy.clone())),
        Variant::new("sparse, half lost, residual decays", warm(residual(ResidualSpec::Decay), lossy.clone())),
        Variant::new("sparse, half lost, residual dropped", warm(residual(ResidualSpec::Drop), lossy)),
        Variant::new("nights around the world", warm(slow, night)),
    ];
    let above_of = |variant: &str| Column::compared("to always on", Measure::Loss, How::PercentAbove(variant.into()));
    let above = above_of(always);
    let costs_little = |variant: &str, column: &Column| Goal {
        words: "Half of the deltas lost costs ≤ 1 %".into(),
        variant: variant.into(),
        column: column.clone(),
        bound: Bound::AtMost(1.0),
    };
    let goals = vec![
        costs_little("half of all deltas lost", &above),
        costs_little("ours, half of all deltas lost", &above_of("ours, always on")),
    ];
    Study {
        key: "churn",
        title: "Devices that come and go",
        reading: "Devices that come and go cost time, not loss: at equal tokens, a run that loses half of its deltas ends no higher than one \
                   that loses none. Of a residual whose delta was lost, or that has grown old, keeping it as it is ended lowest \
                   and dropping it highest, on each of five seeds: it is kept.",
        question: "Thirty devices: always on; fourteen of them on at a time; half of all deltas lost; nights by time zone. \
                   For the nights all is a thousand times slower, devices, links and rounds, so that a run of as many tokens takes \
                   days: at the others' speed it would be over before the first night is.",
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            above.clone(),
            Column::mean("deltas merged", Measure::Extra("deltas".into())),
            Column::mean("utilisation", Measure::Utilisation),
            hours(),
        ],
        figures: vec![curves("Loss against tokens", Against::Tokens, &[])],
        goals,
        variants,
    }
}

/// Study 5: data that is not the same everywhere.
fn data_split() -> Study {
    const TOKENS: u64 = 1_500_000;
    let population = || alike(16, 1000.0);
    let small_disk = || {
        let mut population = population();
        population.group.iter_mut().for_each(|g| g.disk_gib = Dist::Fixed(6.67e6 / (1u64 << 30) as f64));
        population
    };
    let spec = || waiting(ours(nano(TOKENS, 4), 3.0));
    let on = |by_domain, shard_samples, population| match warmed(sim(spec(), population)) {
        Work::Sim(mut work) => {
            work.data = super::work::Data { by_domain, shard_samples, ..work.data };
            Work::Sim(work)
        }
        other => other,
    };
    let iid = "windows mixed over shards";
    let [up, down] = bytes_columns();
    Study {
        key: "data",
        title: "Data that differs from device to device",
        reading: "With shards of one kind of text the loss is far higher at equal tokens: a short run draws on few shards, and so on few \
                  kinds. Shards of a thirty-second, of which a device uses nine one after the other, halve that. `dataset prepare` mixes all \
                  texts into every shard. Small disks cost nothing, not a bit nor a byte: a device draws on a shard until nobody has left \
                  anything of it, and never comes back to one.",
        question: "Sixteen equal devices on the large corpus, 27.6 MB of four kinds of text: shards that mix all kinds; shards of 4096 \
                   windows of one kind each, and of 128; and of those on disks of 6.7 MB, which training takes all but 70 kB of.",
        variants: vec![
            Variant::new(iid, on(false, 4096, population())),
            Variant::new("a shard has one kind of text", on(true, 4096, population())),
            Variant::new("one kind, small shards", on(true, 128, population())),
            // Training keeps 6.4 MB at its worst, weights come as 0.2 MB, and a shard is 8 kB: there is room for a few.
            Variant::new("one kind, small shards, disks for few", on(true, 128, small_disk())),
        ],
        columns: vec![
            Column::mean("held-out loss", Measure::Loss),
            Column::compared("to mixed", Measure::Loss, How::PercentAbove(iid.into())),
            Column::mean("out of domain", Measure::LossOod),
            Column::mean("MB of shards", Measure::Extra("bytes_shards".into())).per(1e6),
            up,
            down,
        ],
        figures: vec![curves("Loss against tokens", Against::Tokens, &[])],
        ..Study::default()
    }
}

/// Study 6: many devices, no tensors.
fn size() -> Study {
    let extra = |heading: &str, name: &str, scale: f64| Column::mean(heading, Measure::Extra(name.into())).per(scale);
    let mut variants = vec![];
    for (devices, hours) in [(1_000u32, 12.0), (10_000, 12.0), (100_000, 6.0), (1_000_000, 2.0)] {
        let work = cost(waiting(scale::spec(devices)), scale::homes(devices), hours);
        let variant = Variant::new(format!("{devices} homes"), work).at("homes", f64::from(devices));
        variants.push(Variant { seeds: if devices > 10_000 { 1 } else { 0 }, ..variant });
    }
    for (name, up) in [("110 Mbit/s up", 110.0), ("15 Mbit/s up", 15.0)] {
        variants.push(Variant::new(format!("100 devices, {name}"), cost(scale::spec(100), lines(100, up), 24.0)));
        let waits = cost(waiting(scale::spec(100)), lines(100, up), 24.0);
        variants.push(Variant::new(format!("100 waiting devices, {name}"), waits));
    }
    for (name, up) in [("110 Mbit/s up", 110.0), ("15 Mbit/s up", 15.0)] {
        let work = cost(scale::in_rounds(scale::spec(100), 1800.0), lines(100, up), 24.0);
        variants.push(Variant::new(format!("100 devices in rounds, {name}"), work));
        let waits = cost(waiting(scale::in_rounds(scale::spec(100), 1800.0)), lines(100, up), 24.0);
        variants.push(Variant::new(format!("100 waiting devices in rounds, {name}"), waits));
        let unset = RunSpec { lease: LeaseSpec::default(), merge: MergeSpec::default(), ..few_bits(scale::spec(100)) };
        variants.push(Variant::new(
            format!("100 devices, all by default, {name}"),
            cost(unset.clone(), lines(100, up), 24.0),
        ));
        let longer = RunSpec { lease: LeaseSpec { wall_s: 600.0, wall_s_min: None, ..unset.lease.clone() }, ..unset };
        variants
            .push(Variant::new(format!("100 devices, rounds of 600 s, {name}"), cost(longer, lines(100, up), 24.0)));
    }
    let used = Column::mean("utilisation", Measure::Utilisation);
    let goal = |way: &str, line: &str, least| Goal {
        words: format!("Utilisation with {line}"),
        variant: format!("100 devices, {way}{line}"),
        column: used.clone(),
        bound: Bound::AtLeast(least),
    };
    let of = |way| [goal(way, "110 Mbit/s up", 0.97), goal(way, "15 Mbit/s up", 0.9)];
    let goals = ["", "rounds of 600 s, ", "all by default, "].into_iter().flat_map(of).collect();
    let cpu = extra("coordinator CPU s a virtual hour", "coordinator_cpu_s_per_virtual_hour", 1.0);
    Study {
        key: "scale",
        title: "How large it can get",
        question: "A model of 110 M parameters without its tensors: engine, sessions, ledger and links of up to a million homes. \
                   Leases end each by itself after a quarter of an hour, with sparse deltas; where it says so, in rounds, with 2 bits a \
                   parameter both ways in those of half an hour, and with the default's bits in those of ten minutes and of a minute at most, which is \
                   the default and a little longer over a thin line. A row's memory is told from a hundred thousand devices on.",
        columns: vec![
            cpu.clone(),
            extra("MB of memory, devices and all", "memory_bytes", 1e6),
            extra("kB up a device-hour", "bytes_up_per_device_hour", 1e3),
            extra("kB down a device-hour", "bytes_down_per_device_hour", 1e3),
            used.clone(),
            extra("events a second", "events_per_s", 1.0),
        ],
        figures: vec![Figure::Sweep {
            title: "What a coordinator needs".into(),
            x: "devices".into(),
            column: cpu,
            log: (true, true),
            level: None,
        }],
        goals,
        variants,
        ..Study::default()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
