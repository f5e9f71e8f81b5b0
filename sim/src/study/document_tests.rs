//! The page of a study made up by hand.

use super::*;
use crate::{
    scale,
    study::{Against, CurvePoint, Figure, Measure, Target, Variant, Work, work::CostWork},
};

/// Never run here.
fn work() -> Work {
    Work::Cost(CostWork { spec: scale::spec(1), population: scale::homes(1), virtual_s: 1.0 })
}

fn study() -> Study {
    let loss = Column::mean("loss", Measure::Loss);
    let until = Measure::Until(Against::Time, Target::FinalOf("alone".into()));
    Study {
        key: "pooling",
        title: "Does pooling pay?",
        question: "Does it?",
        variants: vec![
            Variant::new("alone", work()).at("alone", 1.0),
            Variant::new("pool of 4", work()).at("pool", 4.0),
            Variant::new("pool of 16", work()).at("pool", 16.0),
        ],
        columns: vec![
            loss.clone(),
            Column::compared("to alone", Measure::Loss, How::Minus("alone".into())),
            Column::mean("seconds to alone's loss", until.clone()),
            Column::mean("MB up", Measure::BytesUp).per(1e6),
        ],
        figures: vec![
            Figure::Curves { title: "Loss against time".into(), against: Against::Time, log: false, variants: vec![] },
            Figure::Sweep {
                title: "Speed-up".into(),
                x: "devices".into(),
                column: Column::compared("times faster", until.clone(), How::TimesLess("alone".into())),
                log: (true, true),
                level: Some(("alone".into(), 1.0)),
            },
            Figure::Bars {
                title: "Utilisation".into(),
                column: Column::mean("share", Measure::Utilisation),
                dots: false,
            },
        ],
        goals: vec![
            Goal {
                words: "Pooling pays".into(),
                variant: "pool of 4".into(),
                column: Column::compared("times faster", until.clone(), How::TimesLess("alone".into())),
                bound: Bound::AtLeast(1.0),
            },
            Goal {
                words: "It pays more".into(),
                variant: "pool of 16".into(),
                column: Column::compared("times faster", until, How::TimesLess("alone".into())),
                bound: Bound::AtLeast(3.75),
            },
        ],
        ..Study::default()
    }
}

fn row(variant: &str, seed: u64, slope: f64) -> Row {
    let at = |s: f64| CurvePoint(s, 0, 0, 0, (4000.0 - (slope * 1000.0 + seed as f64).round() * s) / 1000.0, None);
    let curve = vec![at(0.0), at(5.0), at(10.0)];
    Row {
        study: "pooling".into(),
        variant: variant.into(),
        seed,
        loss: Some(curve[2].4),
        bytes_up: 2_500_000,
        curve,
        ..Row::default()
    }
}

#[test]
fn the_page_says_what_was_run_and_what_was_not() {
    let rows: Vec<Row> = (1..=5).flat_map(|seed| [row("alone", seed, 0.1), row("pool of 4", seed, 0.2)]).collect();
    let mut plots = vec![];
    let text = page(&[study()], &rows, 5, &mut |name, svg| {
        plots.push((name.to_owned(), svg.len()));
        Ok(())
    });
    let text = text.unwrap();
    assert!(text.contains("10 of 15 rows are here"), "{text}");
    assert!(text.contains("| pool of 16 | not run | not run | not run | not run | 0 of 5 |"), "{text}");
    assert!(
        text.contains("| alone | 2.970 ± 0.020 | – | 10 | 2.50 ± 0 | 5 |")
            || text.contains("| alone | 2.970 ± 0.020 | – |"),
        "{text}"
    );
    assert!(text.contains("| -1.000 ± 0.000 | 5.074 ± 0.048 |"), "{text}");
    assert!(text.contains("Pooling pays | pool of 4 | times faster: 1.9"), "{text}");
    assert!(text.contains("| ≥ 1 | met |"), "{text}");
    assert!(text.contains("It pays more | pool of 16 | times faster: not run | ≥ 3.75 | not run |"), "{text}");
    assert!(text.contains("![Speed-up](study/pooling-speed-up.svg)"), "{text}");
    assert!(text.contains("*Utilisation: not run.*"), "{text}");
    let names: Vec<&str> = plots.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["pooling-loss-against-time.svg", "pooling-speed-up.svg"]);
    assert!(text.contains("`cargo xtask study --only pooling --seeds 5`"));
}

#[test]
fn the_same_rows_make_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let rows = vec![row("alone", 1, 0.1), row("pool of 4", 1, 0.2)];
    write_json(folder.path(), &rows).unwrap();
    let read = read_json(folder.path()).unwrap();
    assert_eq!(read, rows);
    write(folder.path(), &[study()], &rows, 2).unwrap();
    let first = fs::read_to_string(folder.path().join("study.md")).unwrap();
    fs::write(folder.path().join("study/old.svg"), "").unwrap();
    write(folder.path(), &[study()], &read, 2).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("study.md")).unwrap(), first);
    assert!(!folder.path().join("study/old.svg").exists(), "a plot that nothing shows goes");
    assert_eq!(fs::read_to_string(folder.path().join("study.json")).unwrap().lines().count(), 4);
    assert_eq!(read_json(&folder.path().join("nowhere")).unwrap(), []);
}

#[test]
fn figures_have_as_many_digits_as_their_interval_allows() {
    let e = |mean, half| Estimate { mean, low: mean - half, high: mean + half, n: 5 };
    assert_eq!(figure(e(2.013_44, 0.012_3), &How::Mean), "2.013 ± 0.012");
    assert_eq!(figure(e(0.013_44, 0.012_3), &How::Minus("a".into())), "+0.013 ± 0.012");
    assert_eq!(figure(e(-1.23, 0.5), &How::PercentAbove("a".into())), "-1.23 ± 0.50 %");
    assert_eq!(figure(e(123_456.0, 2345.0), &How::Mean), "123500 ± 2300");
    assert_eq!(figure(e(3.217, 0.41), &How::TimesLess("a".into())), "3.22 × (2.81–3.63)");
    assert_eq!(figure(Estimate { mean: 2.5, low: f64::NAN, high: f64::NAN, n: 1 }, &How::Mean), "2.500");
}

#[test]
fn a_verdict_says_by_how_much_and_whether_the_seeds_settle_it() {
    let e = |mean, half| Estimate { mean, low: mean - half, high: mean + half, n: 5 };
    assert_eq!(verdict(e(0.5, 0.1), false, Bound::AtMost(1.0)), "met");
    assert_eq!(verdict(e(0.5, 0.6), false, Bound::AtMost(1.0)), "met, not beyond doubt");
    assert_eq!(verdict(e(1.5, 0.1), false, Bound::AtMost(1.0)), "**missed** by 0.50");
    assert_eq!(verdict(e(0.9, 0.2), false, Bound::AtLeast(1.0)), "**missed** by 0.100, not beyond doubt");
    // More than 1.5 is more than 1; more than 0.9 may be more or less than it.
    assert_eq!(verdict(e(1.5, 0.1), true, Bound::AtLeast(1.0)), "met");
    assert_eq!(verdict(e(0.9, 0.2), true, Bound::AtLeast(1.0)), "not settled: it may be more");
    assert_eq!(verdict(e(0.5, 0.1), true, Bound::AtMost(1.0)), "not settled: it may be more");
    assert_eq!(verdict(e(1.5, 0.1), true, Bound::AtMost(1.0)), "**missed** by 0.50");
}

/// A goal is not met by those seeds alone that got there, and no plot shows them as if they were all.
#[test]
fn what_only_some_seeds_reach_is_missed() {
    let study = study();
    let (slow, fast) = (row("alone", 2, 0.1), row("pool of 16", 2, 0.01));
    let rows = [row("alone", 1, 0.1), row("pool of 16", 1, 0.2), slow, fast];
    let until = Measure::Until(Against::Time, Target::FinalOf("alone".into()));
    let column = Column::compared("times faster", until, How::TimesLess("alone".into()));
    let goal = Goal {
        words: "Pooling pays".into(),
        variant: "pool of 16".into(),
        column: column.clone(),
        bound: Bound::AtLeast(0.1),
    };
    let found = Rows::of(study.key, &rows);
    assert!(goal_row(&goal, &found).ends_with("**missed** with 1 of 2 seeds |"), "{}", goal_row(&goal, &found));
    assert_eq!(found.cell("pool of 16", &column).exact(), None);
}

/// The pool of 16 comes to the loss that the pool of 4 ends with, and one alone never does.
#[test]
fn a_goal_is_met_where_only_the_other_side_never_gets_there() {
    let mut study = study();
    let until = Measure::Until(Against::Time, Target::FinalOf("pool of 4".into()));
    for goal in &mut study.goals {
        goal.column = Column::compared("times faster", until.clone(), How::TimesLess("alone".into()));
    }
    let rows: Vec<Row> = [row("alone", 1, 0.1), row("pool of 4", 1, 0.2), row("pool of 16", 1, 0.4)].into();
    let text = page(&[study], &rows, 1, &mut |_, _| Ok(())).unwrap();
    assert!(text.contains("Pooling pays | pool of 4 | times faster: > 1.000 | ≥ 1 | met"), "{text}");
    assert!(
        text.contains("It pays more | pool of 16 | times faster: > 1.995 | ≥ 3.75 | not settled: it may be more |"),
        "{text}"
    );
}
