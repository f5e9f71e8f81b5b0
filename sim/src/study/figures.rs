//! The study's plots: curves averaged over seeds, sweeps and bars, all with 95 % intervals.

use super::{Against, Column, Estimate, Figure, How, Row, Rows, Study};
use crate::plot::{
    Axis, Bar, BarChart, Line, LineChart,
    axis::{byte_unit, time_unit},
};
use anyhow::Result;
use std::collections::BTreeMap;

/// Places at which curves are averaged.
const GRID: usize = 48;

/// Draws a figure; `None` where nothing was run that it shows.
pub fn svg(study: &Study, rows: &Rows<'_>, figure: &Figure) -> Result<Option<String>> {
    match figure {
        Figure::Curves { title, against, log, variants } => {
            let chosen = study.variants.iter().map(|v| v.name.as_str());
            let chosen: Vec<&str> =
                chosen.filter(|v| variants.is_empty() || variants.iter().any(|name| name == v)).collect();
            curves(title, *against, *log, &chosen, rows)
        }
        Figure::Sweep { title, x, column, log, level } => {
            let mut lines: BTreeMap<&str, Vec<(f64, f64, f64, f64)>> = BTreeMap::new();
            for variant in &study.variants {
                if let (Some(x), Some(e)) = (variant.x, rows.cell(&variant.name, column).exact()) {
                    lines.entry(&variant.group).or_default().push((x, e.mean, e.low, e.high));
                }
            }
            if lines.is_empty() {
                return Ok(None);
            }
            let line = |(group, mut points): (&str, Vec<(f64, f64, f64, f64)>)| {
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Line::with_intervals(if group.is_empty() { "all" } else { group }, &points)
            };
            let axis = |log, label: &str| if log { Axis::log(label) } else { Axis::linear(label) };
            let lines = lines.into_iter().map(line).collect();
            let chart = LineChart::new(title, axis(log.0, x), axis(log.1, &column.heading), lines);
            let chart = level.iter().fold(chart, |chart, (name, y)| chart.level(name, *y));
            Ok(Some(chart.svg()?))
        }
        Figure::Bars { title, column, dots } => bars(title, column, *dots, study, rows),
    }
}

fn bars(title: &str, column: &Column, dots: bool, study: &Study, rows: &Rows<'_>) -> Result<Option<String>> {
    let mut groups: Vec<&str> = vec![];
    let mut bars = vec![];
    for variant in &study.variants {
        let Some(e) = rows.cell(&variant.name, column).exact() else { continue };
        let group = groups.iter().position(|g| *g == variant.group).unwrap_or_else(|| {
            groups.push(&variant.group);
            groups.len() - 1
        });
        bars.push(Bar { name: variant.name.clone(), value: e.mean, interval: (e.low, e.high), group });
    }
    if bars.is_empty() {
        return Ok(None);
    }
    let ratio = matches!(column.how, How::Times(_) | How::TimesLess(_));
    let value = if ratio { Axis::linear(&column.heading).with(1.0) } else { Axis::linear(&column.heading) };
    Ok(Some(BarChart { title: title.into(), value, bars, dots }.svg()?))
}

fn curves(title: &str, against: Against, log: bool, variants: &[&str], rows: &Rows<'_>) -> Result<Option<String>> {
    let all: Vec<(&str, Vec<&Row>)> = variants.iter().map(|v| (*v, rows.variant(v).collect())).collect();
    let ends = all.iter().flat_map(|(_, rows)| rows).filter_map(|row| row.curve.last());
    let most = ends.map(|end| end.at(against)).fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(None);
    }
    let (unit, words) = match against {
        Against::Time => time_unit(most),
        Against::Tokens => (1.0, "tokens"),
        Against::Bytes => byte_unit(most),
    };
    let label = match against {
        Against::Time => format!("virtual {words}"),
        Against::Tokens => words.to_owned(),
        Against::Bytes => format!("{words} moved, up and down"),
    };
    let lines = all.iter().filter_map(|(name, rows)| {
        let points: Vec<_> =
            mean_curve(rows, against, log).into_iter().map(|(x, e)| (x / unit, e.mean, e.low, e.high)).collect();
        (!points.is_empty()).then(|| Line::with_intervals(*name, &points))
    });
    let x = if log { Axis::log(label) } else { Axis::linear(label) };
    Ok(Some(LineChart::new(title, x, Axis::linear("held-out loss, nats a token"), lines.collect()).svg()?))
}

/// The mean of several seeds' curves where all of them were measured.
fn mean_curve(rows: &[&Row], against: Against, log: bool) -> Vec<(f64, Estimate)> {
    let firsts = rows.iter().filter_map(|row| row.curve.iter().map(|p| p.at(against)).find(|x| !log || *x > 0.0));
    let from = firsts.fold(0.0, f64::max);
    let to = rows.iter().filter_map(|row| row.curve.last()).map(|p| p.at(against)).fold(f64::INFINITY, f64::min);
    if !to.is_finite() || to <= from {
        return vec![];
    }
    let place = |i: usize| {
        let share = i as f64 / (GRID - 1) as f64;
        if log { from * (to / from).powf(share) } else { from + (to - from) * share }
    };
    let at = |x: f64| {
        let losses: Vec<f64> = rows.iter().filter_map(|row| row.loss_at(against, x)).collect();
        Estimate::of(&losses).map(|e| (x, e))
    };
    (0..GRID).filter_map(|i| at(place(i).min(to))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::CurvePoint;

    #[test]
    fn curves_are_averaged_where_all_seeds_were_measured() {
        let row = |slope: f64, end: f64| {
            let at = |x: f64| CurvePoint(x, x as u64, 0, 0, 4.0 - slope * x, None);
            Row { curve: vec![at(0.0), at(end)], ..Row::default() }
        };
        let (a, b) = (row(0.1, 10.0), row(0.3, 8.0));
        let mean = mean_curve(&[&a, &b], Against::Time, false);
        assert_eq!((mean.len(), mean[0].0, mean[GRID - 1].0), (GRID, 0.0, 8.0));
        assert!((mean[GRID - 1].1.mean - (4.0 - 0.2 * 8.0)).abs() < 1e-9);
        assert!(mean.iter().all(|(_, e)| e.n == 2));
        assert_eq!(mean_curve(&[], Against::Time, false), []);
        assert!(
            mean_curve(&[&a], Against::Time, true).is_empty(),
            "zero and one more point have no stretch on a log axis"
        );
    }
}
