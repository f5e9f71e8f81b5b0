//! The plots of one run: loss against tokens, time and bytes; what the time was spent on; staleness; the timeline.

use super::{
    Axis, Line, LineChart, Stack, StackChart,
    axis::{byte_unit, time_unit},
    bars::{Bar, BarChart},
    colour_of, save, timeline,
};
use crate::results::{Activity, DeviceLine, Point, RunResult, TimeByActivity};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Devices with a row of their own in the plot of utilisation.
const ROWS_MAX: usize = 24;
/// Bars of the staleness histogram; the last holds all that is staler.
const STALENESS_MAX: u64 = 24;

/// Writes all plots that a result has data for into a folder; returns them.
pub fn write(result: &RunResult, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut plots = vec![
        ("utilisation", utilisation(result).svg()?),
        ("staleness", staleness(result).svg()?),
        ("timeline", timeline::svg("What each device did", &result.devices, result.virtual_s)?),
    ];
    if result.curve.iter().any(|p| p.loss.is_some()) {
        plots.push(("loss-tokens", by_tokens(result).svg()?));
        plots.push(("loss-time", by_time(result).svg()?));
        plots.push(("loss-bytes", by_bytes(result).svg()?));
    }
    if !result.agreement.is_empty() {
        plots.push(("agreement", agreement(result).svg()?));
    }
    let mut files = vec![];
    for (name, svg) in plots {
        let file = folder.join(format!("{name}.svg"));
        save(&file, &svg)?;
        files.push(file);
    }
    Ok(files)
}

/// Held-out loss, and out of domain where it was measured, against something.
fn losses(result: &RunResult, x: impl Fn(&Point) -> f64) -> Vec<Line> {
    let of = |loss: fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        result.curve.iter().filter_map(|p| Some((x(p), loss(p)?))).collect()
    };
    let mut lines = vec![Line::new("held out", of(|p| p.loss))];
    let elsewhere = of(|p| p.loss_ood);
    if !elsewhere.is_empty() {
        lines.push(Line { dashed: true, ..Line::new("out of domain", elsewhere) });
    }
    lines
}

const LOSS: &str = "loss, nats a token";

fn by_tokens(result: &RunResult) -> LineChart {
    let lines = losses(result, |p| p.tokens as f64);
    LineChart::new("Loss against tokens", Axis::linear("tokens merged"), Axis::linear(LOSS), lines)
}

fn by_time(result: &RunResult) -> LineChart {
    let (unit_s, unit) = time_unit(result.curve.last().map_or(0.0, |p| p.virtual_s));
    let lines = losses(result, |p| p.virtual_s / unit_s);
    LineChart::new("Loss against time", Axis::log(format!("virtual {unit}")), Axis::linear(LOSS), lines)
}

fn by_bytes(result: &RunResult) -> LineChart {
    let moved = |p: &Point| (p.bytes_up + p.bytes_down) as f64;
    let (size, unit) = byte_unit(result.curve.last().map_or(0.0, moved));
    let lines = losses(result, |p| moved(p) / size);
    LineChart::new("Loss against bytes", Axis::log(format!("{unit} moved, up and down")), Axis::linear(LOSS), lines)
}

fn agreement(result: &RunResult) -> LineChart {
    let line = result.agreement.iter().map(|a| (a.version as f64, a.share)).collect();
    let y = Axis::linear("share of signal").with(0.0);
    LineChart::new("How far the deltas of a version agree", Axis::linear("version"), y, vec![Line::new("signal", line)])
}

fn staleness(result: &RunResult) -> BarChart {
    let merged: u64 = result.staleness.values().sum();
    let mut counts = vec![0u64; result.staleness.keys().max().map_or(0, |tau| tau.min(&STALENESS_MAX) + 1) as usize];
    for (tau, count) in &result.staleness {
        counts[(*tau).min(STALENESS_MAX) as usize] += count;
    }
    let bar = |(tau, count): (usize, u64)| Bar {
        name: if tau as u64 == STALENESS_MAX { format!("≥ {tau}") } else { tau.to_string() },
        value: 100.0 * count as f64 / merged.max(1) as f64,
        interval: (f64::NAN, f64::NAN),
        group: 0,
    };
    BarChart {
        title: format!("Staleness of {merged} merged deltas, in versions"),
        value: Axis::linear("% of merged deltas"),
        bars: counts.into_iter().enumerate().map(bar).collect(),
        dots: false,
    }
}

fn utilisation(result: &RunResult) -> StackChart {
    let amounts = |time: &TimeByActivity| Activity::ALL.iter().map(|what| time.of(*what)).collect();
    let of_line = |line: &DeviceLine| {
        let mut time = TimeByActivity::default();
        for segment in &line.segments {
            time.add(segment.what, segment.to_s - segment.from_s);
        }
        Stack { name: line.name.clone(), amounts: amounts(&time) }
    };
    let whole = Stack { name: "all devices".into(), amounts: amounts(&result.time) };
    StackChart {
        title: format!(
            "Use of the devices' time; useful training is {:.1} % of what was available",
            100.0 * result.utilisation
        ),
        label: "share of the time".into(),
        parts: Activity::ALL.iter().map(|what| (what.name().to_owned(), colour_of(*what))).collect(),
        rows: std::iter::once(whole).chain(result.devices.iter().take(ROWS_MAX).map(of_line)).collect(),
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
