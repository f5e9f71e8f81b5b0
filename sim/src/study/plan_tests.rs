//! The plan hangs together: names are used once and mean something, run specs are valid.

use super::*;
use crate::{
    results::{Activity, DeviceLine, Segment},
    run::run,
    training::cost::Cost,
};
use std::collections::BTreeSet;

#[test]
fn names_are_used_once_and_all_that_are_referred_to_exist() {
    let mut keys = BTreeSet::new();
    for study in studies() {
        assert!(keys.insert(study.key), "{} twice", study.key);
        let names: BTreeSet<&str> = study.variants.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names.len(), study.variants.len(), "a name is used twice in {}", study.key);
        let column = |column: &Column| {
            let target = match &column.measure {
                Measure::Until(_, Target::FinalOf(name) | Target::Of(name, ..)) => Some(name.as_str()),
                _ => None,
            };
            for name in target.into_iter().chain(column.how.other()) {
                assert!(names.contains(name), "{} has no variant {name:?}", study.key);
            }
        };
        study.columns.iter().for_each(column);
        for goal in &study.goals {
            column(&goal.column);
            assert!(names.contains(goal.variant.as_str()), "{} has no variant {:?}", study.key, goal.variant);
        }
        let mut titles = BTreeSet::new();
        for figure in &study.figures {
            let title = match figure {
                Figure::Curves { title, variants, .. } => {
                    assert!(variants.iter().all(|name| names.contains(name.as_str())), "{variants:?}");
                    title
                }
                Figure::Sweep { title, column: c, .. } | Figure::Bars { title, column: c, .. } => {
                    column(c);
                    title
                }
            };
            assert!(titles.insert(title.clone()), "{title} twice in {}", study.key);
        }
    }
}

#[test]
fn run_specs_are_valid() {
    for study in studies() {
        for variant in &study.variants {
            let spec = match &variant.work {
                Work::Sim(work) => &work.spec,
                Work::Cost(work) => &work.spec,
                Work::Lab(_) => continue,
            };
            spec.validate().unwrap_or_else(|e| panic!("{} / {}: {e}", study.key, variant.name));
        }
    }
    assert!(nano(1, 1).model.parameters() < 100_000);
}

/// Without tensors: when devices are on, and for how long all takes, are the same.
#[test]
fn the_nights_around_the_world_begin_and_end() {
    let study = churn();
    let nights = study.variants.iter().find(|v| v.name == "nights around the world").unwrap();
    let Work::Sim(work) = &nights.work else { panic!("it trains") };
    let setup = scale::setup("nights", work.spec.clone(), work.population.clone(), work.virtual_s, 1);
    let result = run(&setup, Box::new(Cost::new(&setup.spec)), &mut |_| {});
    assert_eq!(result.faults, Vec::<String>::new());
    assert!(result.tokens >= work.spec.token_budget, "{} tokens", result.tokens);
    assert!(result.virtual_s > 24.0 * 3600.0, "{} s", result.virtual_s);
    let is_night = |s: &&Segment| s.what != Activity::Offline;
    let nights = |line: &DeviceLine| {
        line.segments.chunk_by(|a, b| is_night(&a) == is_night(&b)).filter(|s| is_night(&&s[0])).count()
    };
    assert!(result.devices.iter().all(|line| nights(line) >= 2), "each device has two nights at least");
}
