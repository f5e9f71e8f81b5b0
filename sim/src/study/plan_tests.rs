//! The plan hangs together: names are used once and mean something, run specs are valid.

use super::*;
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
                Work::Lab(_) | Work::Planned => continue,
            };
            spec.validate().unwrap_or_else(|e| panic!("{} / {}: {e}", study.key, variant.name));
        }
    }
    assert!(nano(1, 1).model.parameters() < 100_000);
}
