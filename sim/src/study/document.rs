//! docs/study.md and its plots, made from the rows of docs/study.json: rendering again costs nothing and changes
//! nothing.

use super::{Bound, Column, Estimate, Goal, How, Row, Rows, Study, figures, rows::Cell};
use crate::plot;
use anyhow::{Context, Result};
use std::{fmt::Write as _, fs, path::Path};

/// Writes study.json, one row a line.
pub fn write_json(docs: &Path, rows: &[Row]) -> Result<()> {
    let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let file = docs.join("study.json");
    fs::write(&file, format!("[\n{}\n]\n", lines.join(",\n")))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Reads study.json; no rows where there is none.
pub fn read_json(docs: &Path) -> Result<Vec<Row>> {
    let file = docs.join("study.json");
    match fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes study.md and its plots under study/; plots that no study has any more go.
pub fn write(docs: &Path, studies: &[Study], rows: &[Row], seeds: u64) -> Result<()> {
    let folder = docs.join("study");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut drawn = vec![];
    let text = page(studies, rows, seeds, &mut |name, svg| {
        drawn.push(name.to_owned());
        plot::save(&folder.join(name), svg)
    })?;
    for entry in fs::read_dir(&folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".svg") && !drawn.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    let file = docs.join("study.md");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

const HEAD: &str = "# The study

Which codec, merge rule, lease size and schedule are the defaults, and why. This page is written by `cargo xtask study`
from [study.json](study.json), which has one object a row; do not edit it.

How to read it: a figure is the mean over seeds ± half of its 95 % confidence interval (Student's t). Comparisons are
paired by seed, since a seed's data and initial weights move both sides the same way; ratios are geometric means with
their interval in brackets, and `> 2 ×` says that what it is compared with never got there: if it had at its end, it
would be 2. Loss is in nats a token (a byte, here). Bytes are all bytes: joins, shards, messages and what
was sent again; only *bit a parameter* is of the deltas or updates themselves, since a message is as long for a model of
99 thousand parameters as for one of 110 million, where messages are a fifth of a percent of what goes up. Time is virtual: what
the devices' speeds and links would have taken.

*Ours* is what a run.toml has that sets nothing, on a small scale: rounds of 0.5 to 6 s instead of 5 to 60 s, since these models
are a thousandth of what volunteers train, and the learning rate that suits `nano` (3e-3, down to a twentieth). Codecs, merge rule,
staleness and training ahead are the defaults as they are.

";

/// The whole page; plots are handed over by name.
fn page(studies: &[Study], rows: &[Row], seeds: u64, keep: &mut dyn FnMut(&str, &str) -> Result<()>) -> Result<String> {
    let mut text = HEAD.to_owned();
    let wanted: u64 = studies.iter().flat_map(|s| s.variants.iter()).map(|v| v.seeds_of(seeds)).sum();
    let hours = rows.iter().map(|row| row.host_s).sum::<f64>() / 3600.0;
    writeln!(text, "{} of {wanted} rows are here; they took {hours:.1} core hours.", rows.len())?;
    writeln!(
        text,
        "Again: `cargo xtask study --seeds {seeds}` runs what is missing (`--budget HOURS` sets the CPU hours it may take, \
         `--only STUDY` chooses, `--fresh` runs even what is known), then renders this page.\n"
    )?;
    for (number, study) in studies.iter().enumerate() {
        section(&mut text, number + 1, study, rows, seeds, keep)?;
    }
    Ok(text)
}

fn section(
    text: &mut String,
    number: usize,
    study: &Study,
    rows: &[Row],
    seeds: u64,
    keep: &mut dyn FnMut(&str, &str) -> Result<()>,
) -> Result<()> {
    let rows = Rows::of(study.key, rows);
    writeln!(text, "## {number}. {}\n\n{}\n", study.title, study.question.trim())?;
    if !study.goals.is_empty() {
        writeln!(text, "| must hold | of | figure | asked | |\n|---|---|---|---|---|")?;
        for goal in &study.goals {
            writeln!(text, "{}", goal_row(goal, &rows))?;
        }
        writeln!(text)?;
    }
    let headings: String = study.columns.iter().map(|c| format!(" {} |", c.heading)).collect();
    writeln!(text, "| variant |{headings} seeds |\n|---|{}---|", "---|".repeat(study.columns.len()))?;
    for variant in &study.variants {
        let ran = rows.variant(&variant.name).count();
        let cells: String = study
            .columns
            .iter()
            .map(|c| format!(" {} |", cell(rows.cell(&variant.name, c), c, &variant.name)))
            .collect();
        let of = variant.seeds_of(seeds);
        let ran = if ran as u64 == of { of.to_string() } else { format!("{ran} of {of}") };
        writeln!(text, "| {} |{cells} {ran} |", variant.name)?;
    }
    writeln!(text)?;
    for figure in &study.figures {
        let title = figure.title();
        let name = format!("{}-{}.svg", study.key, slug(title));
        match figures::svg(study, &rows, figure)? {
            Some(svg) => {
                keep(&name, &svg)?;
                writeln!(text, "![{title}](study/{name})\n")?;
            }
            None => writeln!(text, "*{title}: not run.*\n")?,
        }
    }
    if !study.reading.trim().is_empty() {
        writeln!(text, "{}\n", study.reading.trim())?;
    }
    writeln!(text, "Again: `cargo xtask study --only {} --seeds {seeds}`\n", study.key)?;
    Ok(())
}

impl super::Variant {
    /// How many seeds it is run with, where most have `seeds`.
    pub fn seeds_of(&self, seeds: u64) -> u64 {
        if self.seeds == 0 { seeds } else { self.seeds.min(seeds) }
    }
}

impl super::Figure {
    fn title(&self) -> &str {
        let (super::Figure::Curves { title, .. }
        | super::Figure::Sweep { title, .. }
        | super::Figure::Bars { title, .. }) = self;
        title
    }
}

/// A cell in words.
fn cell(cell: Cell, column: &Column, variant: &str) -> String {
    if column.how.other() == Some(variant) {
        return "–".into();
    }
    match (cell.estimate, cell.rows) {
        (_, 0) => "not run".into(),
        (None, _) if matches!(column.measure, super::Measure::Until(..)) => "not reached".into(),
        (None, _) => "–".into(),
        (Some(estimate), rows) => {
            let more = if cell.is_floor { "> " } else { "" };
            let some = if estimate.n < rows { format!(" ({} of {rows})", estimate.n) } else { String::new() };
            format!("{more}{}{some}", figure(estimate, &column.how))
        }
    }
}

/// An estimate in words.
fn figure(e: Estimate, how: &How) -> String {
    let sign = if matches!(how, How::Minus(_) | How::PercentAbove(_)) && e.mean > 0.0 { "+" } else { "" };
    let percent = if matches!(how, How::PercentAbove(_)) { " %" } else { "" };
    // Two digits of the spread; four of the figure where there is none to speak of.
    let digits = if e.half() > 1e-4 * e.mean.abs() { digits(e.half()) } else { digits(e.mean.abs()) + 2 };
    let (mean, low, high) = (round(e.mean, digits), round(e.low, digits), round(e.high, digits));
    match how {
        _ if e.low.is_nan() => format!("{sign}{mean}{percent}"),
        How::Times(_) | How::TimesLess(_) => format!("{mean} × ({low}–{high})"),
        _ => format!("{sign}{mean} ± {}{percent}", round(e.half(), digits)),
    }
}

/// Decimals so that a spread shows two digits.
fn digits(spread: f64) -> i32 {
    if spread > 0.0 && spread.is_finite() { (1 - spread.log10().floor() as i32).clamp(-9, 5) } else { 3 }
}

fn round(value: f64, digits: i32) -> String {
    let scale = 10f64.powi(-digits.min(0));
    let rounded = (value / scale).round() * scale;
    format!("{:.*}", digits.max(0) as usize, if digits < 0 { rounded } else { value })
}

fn goal_row(goal: &Goal, rows: &Rows<'_>) -> String {
    let found = rows.cell(&goal.variant, &goal.column);
    let asked = match goal.bound {
        Bound::AtMost(bound) => format!("≤ {bound}"),
        Bound::AtLeast(bound) => format!("≥ {bound}"),
    };
    let words = cell(found, &goal.column, "");
    let verdict = match found.estimate {
        Some(estimate) if estimate.n < found.rows => {
            format!("**missed** with {} of {} seeds", found.rows - estimate.n, found.rows)
        }
        Some(estimate) => verdict(estimate, found.is_floor, goal.bound),
        None if found.rows == 0 => "not run".into(),
        None => "**missed**".into(),
    };
    format!("| {} | {} | {}: {words} | {asked} | {verdict} |", goal.words, goal.variant, goal.column.heading)
}

/// Whether a bound is kept, and whether the seeds settle it. The figure itself may be a bound: it is that or more.
fn verdict(e: Estimate, is_floor: bool, bound: Bound) -> String {
    let (kept, surely, by) = match bound {
        Bound::AtMost(most) => (e.mean <= most, e.high <= most || e.low > most, e.mean - most),
        Bound::AtLeast(least) => (e.mean >= least, e.low >= least || e.high < least, least - e.mean),
    };
    let is_open = match bound {
        Bound::AtMost(_) => kept,
        Bound::AtLeast(_) => !kept,
    };
    if is_floor && is_open {
        return "not settled: it may be more".into();
    }
    let doubt = if surely { "" } else { ", not beyond doubt" };
    if kept { format!("met{doubt}") } else { format!("**missed** by {}{doubt}", round(by, digits(by / 5.0))) }
}

/// A title as a file's name.
fn slug(title: &str) -> String {
    let letters: String =
        title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    letters.split_whitespace().collect::<Vec<_>>().join("-")
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
