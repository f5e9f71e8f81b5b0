//! Measures on rows made up by hand.

use super::*;
use crate::study::{Against, CurvePoint};

/// A row whose loss falls from 4 in a straight line, by `slope` a second, for ten seconds.
fn row(variant: &str, seed: u64, slope: f64) -> Row {
    let at = |s: f64| CurvePoint(s, (s * 100.0) as u64, 10, 20, 4.0 - slope * s, Some(5.0 - slope * s));
    Row {
        study: "one".into(),
        variant: variant.into(),
        seed,
        loss: Some(4.0 - slope * 10.0),
        bytes_up: 10,
        bytes_down: 20,
        curve: vec![at(0.0), at(10.0)],
        ..Row::default()
    }
}

fn close(cell: Cell, mean: f64) {
    let estimate = cell.estimate.expect("it was measured");
    assert!((estimate.mean - mean).abs() < 1e-9, "{} is not {mean}", estimate.mean);
}

#[test]
fn comparisons_are_paired_by_seed() {
    let all = [row("slow", 1, 0.1), row("slow", 2, 0.2), row("fast", 1, 0.2), row("fast", 2, 0.3), row("fast", 3, 0.4)];
    let rows = Rows::of("one", &all);
    let minus = Column::compared("", Measure::Loss, How::Minus("slow".into()));
    let cell = rows.cell("fast", &minus);
    close(cell, -1.0);
    // Seed 3 has no partner; the two that have one differ by the same amount, so that nothing is left to doubt.
    assert_eq!((cell.estimate.unwrap().n, cell.rows), (2, 3));
    assert!(cell.estimate.unwrap().half() < 1e-9);
    close(rows.cell("fast", &Column::mean("", Measure::Loss)), (2.0 + 1.0 + 0.0) / 3.0);
    close(rows.cell("fast", &Column::mean("", Measure::Bytes).per(10.0)), 3.0);
}

#[test]
fn a_speed_up_is_how_much_sooner_the_others_loss_is_reached() {
    let all = [row("slow", 1, 0.1), row("fast", 1, 0.4)];
    let rows = Rows::of("one", &all);
    let until = Measure::Until(Against::Time, Target::FinalOf("slow".into()));
    close(rows.cell("slow", &Column::mean("", until.clone())), 10.0);
    close(rows.cell("fast", &Column::compared("", until, How::TimesLess("slow".into()))), 4.0);
    let sooner = Measure::Until(Against::Tokens, Target::Of("slow".into(), Against::Time, 5.0));
    close(rows.cell("fast", &Column::mean("", sooner)), 125.0);
    close(
        rows.cell("fast", &Column::compared("", Measure::LossAt(Against::Time, 5.0), How::Times("slow".into()))),
        2.0 / 3.5,
    );
    close(rows.cell("fast", &Column::mean("", Measure::OodAt(Against::Time, 5.0))), 3.0);
    // What is never reached is no number.
    let never = Column::mean("", Measure::Until(Against::Time, Target::Loss(1.0)));
    assert_eq!(rows.cell("slow", &never), Cell { estimate: None, is_floor: false, rows: 1 });
    assert_eq!(rows.cell("nobody", &never), Cell { estimate: None, is_floor: false, rows: 0 });
}

#[test]
fn what_the_other_never_reaches_is_reached_sooner_by_more_than_its_end_says() {
    let all = [row("fast", 1, 0.4), row("slow", 1, 0.1), row("fast", 2, 0.4), row("slow", 2, 0.3)];
    let rows = Rows::of("one", &all);
    let times =
        |loss| Column::compared("", Measure::Until(Against::Time, Target::Loss(loss)), How::TimesLess("slow".into()));
    // The loss of 2 comes after 5 s; the slow one ends after 10 s, with the one seed above it.
    let cell = rows.cell("fast", &times(2.0));
    close(cell, (10.0 / 5.0 * (2.0 / 0.3) / 5.0f64).sqrt());
    assert!(cell.is_floor);
    assert!(!rows.cell("fast", &times(3.5)).is_floor);
    assert_eq!(rows.cell("slow", &times(0.5)), Cell { estimate: None, is_floor: false, rows: 2 });
}

#[test]
fn other_studies_rows_are_not_ours() {
    let mut other = row("slow", 1, 0.1);
    other.study = "two".into();
    assert_eq!(Rows::of("one", &[other]).cell("slow", &Column::mean("", Measure::Loss)).rows, 0);
}

#[test]
fn data_parallel_sends_every_gradient_both_ways() {
    let row = Row { tokens: 6400, ..row("ours", 1, 0.1) };
    let fewer = Measure::FewerThanDataParallel { parameters: 300, tokens_per_step: 64 };
    // 100 steps, each 2 bytes a parameter up and down: 120 kB, against 30 bytes.
    assert_eq!(Rows::of("one", &[]).value(&row, &fewer), Some(4000.0));
}
