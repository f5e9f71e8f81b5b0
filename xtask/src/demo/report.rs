//! The demo's report: one HTML page with its pictures inside, for somebody who has not seen the demo.

use super::{
    live::Timeline,
    processes::COORDINATOR,
    results::{Lease, Results, RunStats},
};
use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::full_palette::{BLUE_600, GREEN_600, GREY_400, GREY_700, ORANGE_700, RED_600},
};
use std::{
    collections::BTreeSet,
    fmt::{Display, Write as _},
    fs,
    path::{Path, PathBuf},
};

/// The look of the page.
const STYLE: &str = include_str!("report.css");
/// The same mark as on the volunteer's page.
const ICON: &str = include_str!("../../../client/agent/src/page/icon.svg");
/// The paper that pictures are drawn on: a card of the page.
const CARD: RGBColor = RGBColor(0xff, 0xfd, 0xf9);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture, its title, and what a stranger sees in it.
struct Picture {
    title: &'static str,
    shows: String,
    svg: String,
}

/// Writes `report.html` and returns where it is.
pub fn write(out: &Path, results: &Results, stats: &RunStats, timeline: &Timeline) -> Result<PathBuf> {
    let file = out.join("report.html");
    fs::write(&file, page(results, &killed(timeline), &pictures(results, stats, timeline)?)?)?;
    Ok(file)
}

fn pictures(results: &Results, stats: &RunStats, timeline: &Timeline) -> Result<[Picture; 4]> {
    let rows = results.devices.len() as u32;
    Ok([
        Picture {
            title: "It learns",
            shows: "Lower is better: how badly the model guesses the next byte of text that nobody trained on. The straight \
                    lines are what counting pairs or triples of bytes reaches."
                .into(),
            svg: plot(340, |canvas| loss(canvas, results, stats, timeline))?,
        },
        Picture {
            title: "Nobody waits, and a kill costs little",
            shows: "A row for each process. Green is work that was merged, grey is work that was not, red is a kill."
                .into(),
            svg: plot(100 + 40 * rows, |canvas| device_lines(canvas, results, stats, timeline))?,
        },
        Picture {
            title: "Few deltas are stale",
            shows: "How many versions had appeared between a delta's start and its merge. Nought is fresh.".into(),
            svg: plot(240, |canvas| staleness(canvas, results))?,
        },
        Picture {
            title: "What travelled",
            shows: "Megabytes, beside what training with an exchange at every step would have sent.".into(),
            svg: plot(200, |canvas| traffic(canvas, results))?,
        },
    ])
}

/// Who was killed on the way, by name.
fn killed(timeline: &Timeline) -> Vec<&str> {
    let names: BTreeSet<&str> = timeline.interruptions.iter().map(|one| one.who.as_str()).collect();
    names.into_iter().collect()
}

fn page(results: &Results, killed: &[&str], pictures: &[Picture]) -> Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Nightjar demo</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>{ICON} Nightjar</header>\n<main>\n"
    );
    let devices = match results.devices.len() {
        1 => "One computer".to_owned(),
        number => format!("{number} computers"),
    };
    let kills = match killed {
        [] => String::new(),
        [one] => format!("On the way, {} was killed and started again. ", escape(one)),
        names => format!("On the way, {} were killed and started again. ", escape(&names.join(" and "))),
    };
    write!(
        page,
        "<section class=\"sky\">\n<h1>{devices} trained one model</h1>\n\
         <p>A coordinator gave each of them as much work as it could do, and merged what came back without waiting. \
         {kills}The coordinator’s ledger was then replayed: it gives the same model bit for bit, and {}.</p>\n</section>\n<dl class=\"figures\">\n",
        match (results.lost_samples, results.duplicates) {
            (0, 0) => "no work was lost or counted twice".to_owned(),
            (lost, twice) => format!("{lost} samples were lost and {twice} deltas counted twice"),
        },
    )?;
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let figures = [
        (
            "loss on unseen text",
            format!("{:.2} → {:.2}", results.heldout_loss_start, results.heldout_loss_end),
            "nats a byte; less is better".to_owned(),
        ),
        ("bytes trained on", format!("{:.2} million", results.tokens as f64 / 1e6), "one byte is one token".to_owned()),
        ("deltas merged", results.merged.to_string(), format!("{} acknowledged", results.acknowledged)),
        ("sent up", megabytes(results.bytes_up), format!("and {} down", megabytes(results.bytes_down))),
    ];
    for (what, figure, note) in figures {
        writeln!(page, "<div><dt>{what}</dt><dd>{figure}<small>{note}</small></dd></div>")?;
    }
    page.push_str("</dl>\n");
    for Picture { title, shows, svg } in pictures {
        write!(page, "<figure>\n<h2>{title}</h2>\n<figcaption>{shows}</figcaption>\n{svg}\n</figure>\n")?;
    }
    page.push_str(
        "<section class=\"devices\">\n<h2>Who did what</h2>\n<table>\n<tr><th>computer</th><th>bytes trained on</th>\
         <th>leases merged</th><th>a lease takes, median</th><th>time spent training</th></tr>\n",
    );
    for device in &results.devices {
        let wall = device.lease_wall_s_median.map_or("–".to_owned(), |s| format!("{s:.1} s"));
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{wall}</td><td>{:.0} %</td></tr>",
            escape(&device.name),
            device.tokens,
            device.leases,
            100.0 * device.training_share
        )?;
    }
    page.push_str(
        "</table>\n</section>\n</main>\n<footer>Made by <code>cargo xtask demo</code>: every computer here is a process of \
         its own on one machine. The model is in the folder <code>model</code> beside this page.</footer>\n</body>\n</html>\n",
    );
    Ok(page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An SVG of the page's width.
fn plot(height: u32, draw: impl FnOnce(&Canvas) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (800, height)).into_drawing_area();
        canvas.fill(&CARD).map_err(fault)?;
        draw(&canvas)?;
        canvas.present().map_err(fault)?;
    }
    Ok(svg)
}

/// Plotters' errors borrow from the drawing; the page needs only their words.
fn fault(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw the report: {error}")
}

fn loss(canvas: &Canvas, results: &Results, stats: &RunStats, timeline: &Timeline) -> Result<()> {
    let points: Vec<(f64, f64)> = stats.loss_curve.iter().map(|at| (timeline.at_s(at.wall), at.loss)).collect();
    let end_s = end_s(stats, timeline);
    let highest = points.iter().map(|(_, loss)| *loss).fold(results.order1_loss, f64::max);
    let lowest = points.iter().map(|(_, loss)| *loss).fold(results.order2_loss, f64::min);
    let mut chart = ChartBuilder::on(canvas)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end_s, (lowest - 0.2).max(0.0)..highest + 0.2)
        .map_err(fault)?;
    chart.configure_mesh().x_desc("seconds").light_line_style(TRANSPARENT).draw().map_err(fault)?;
    for (words, level, colour) in
        [("counting pairs", results.order1_loss, ORANGE_700), ("counting triples", results.order2_loss, GREY_700)]
    {
        let line = LineSeries::new([(0.0, level), (end_s, level)], colour);
        chart
            .draw_series(line)
            .map_err(fault)?
            .label(words)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart
        .draw_series(LineSeries::new(points, BLUE_600.stroke_width(2)))
        .map_err(fault)?
        .label("the model")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE_600.stroke_width(2)));
    chart.configure_series_labels().background_style(CARD).border_style(GREY_400).draw().map_err(fault)
}

/// A row a process: a device's leases, green where a delta came of it, and when the coordinator served; empty
/// while it was away after it was killed.
fn device_lines(canvas: &Canvas, results: &Results, stats: &RunStats, timeline: &Timeline) -> Result<()> {
    let end_s = end_s(stats, timeline);
    let devices = results.devices.iter().map(|device| device.name.as_str());
    let names: Vec<&str> = devices.chain(std::iter::once(COORDINATOR)).collect();
    let mut chart = ChartBuilder::on(canvas)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..end_s, names.len() as f64..0.0)
        .map_err(fault)?;
    let name =
        |y: &f64| names.get(*y as usize).filter(|_| y.fract() == 0.5).map_or(String::new(), |name| (*name).to_owned());
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("seconds")
        .y_labels(2 * names.len() + 1)
        .y_label_formatter(&name)
        .draw()
        .map_err(fault)?;
    for (row, name) in names.iter().enumerate() {
        let top = row as f64;
        let bar = |(from, to, colour): (f64, f64, RGBColor)| {
            Rectangle::new([(from, top + 0.3), (to, top + 0.8)], colour.filled())
        };
        let spans =
            if *name == COORDINATOR { vec![(0.0, end_s, BLUE_600)] } else { leased(stats, timeline, name, end_s) };
        chart.draw_series(spans.into_iter().map(bar)).map_err(fault)?;
        let turns: Vec<f64> =
            timeline.interruptions.iter().filter(|one| one.who == *name).map(|one| one.at_s).collect();
        for away in turns.chunks(2) {
            let (killed, back) = (away[0], away.get(1).copied().unwrap_or(end_s));
            chart.draw_series(std::iter::once(bar((killed, back, CARD)))).map_err(fault)?;
            let line = PathElement::new([(killed, top), (killed, top + 1.0)], RED_600.stroke_width(2));
            chart.draw_series(std::iter::once(line)).map_err(fault)?;
            let words = Text::new(" killed", (killed, top), ("sans-serif", 11).into_font().color(&RED_600));
            chart.draw_series(std::iter::once(words)).map_err(fault)?;
        }
    }
    Ok(())
}

/// When a device held leases to train.
fn leased(stats: &RunStats, timeline: &Timeline, name: &str, end_s: f64) -> Vec<(f64, f64, RGBColor)> {
    let leases = stats.lease_timeline.iter().filter(|lease| lease.device == name && lease.kind.trains());
    let span = |lease: &Lease| {
        let to = lease.end.map_or(end_s, |end| timeline.at_s(end));
        (timeline.at_s(lease.start), to, if lease.outcome == "merged" { GREEN_600 } else { GREY_400 })
    };
    // A gap between two leases, so that each can be seen.
    leases.map(span).map(|(from, to, colour)| (from, (to - end_s / 400.0).max(from), colour)).collect()
}

fn staleness(canvas: &Canvas, results: &Results) -> Result<()> {
    let highest = results.staleness.keys().max().copied().unwrap_or(0) as u32;
    let most = results.staleness.values().max().copied().unwrap_or(1);
    let mut chart = ChartBuilder::on(canvas)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((0..highest).into_segmented(), 0..most + 1)
        .map_err(fault)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("versions")
        .y_desc("deltas")
        .draw()
        .map_err(fault)?;
    let data = results.staleness.iter().map(|(tau, count)| (*tau as u32, *count));
    chart.draw_series(Histogram::vertical(&chart).style(BLUE_600.filled()).margin(8).data(data)).map_err(fault)?;
    Ok(())
}

fn traffic(canvas: &Canvas, results: &Results) -> Result<()> {
    let bars = [
        ("up", results.bytes_up, BLUE_600),
        ("down", results.bytes_down, GREEN_600),
        ("data parallel", results.bytes_data_parallel_bf16, GREY_400),
    ];
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let most = bars.iter().map(|(_, bytes, _)| megabytes(*bytes)).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(canvas)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..most * 1.15, 3.0..0.0)
        .map_err(fault)?;
    let name =
        |y: &f64| bars.get(*y as usize).filter(|_| y.fract() == 0.5).map_or(String::new(), |bar| bar.0.to_owned());
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("MB")
        .y_labels(7)
        .y_label_formatter(&name)
        .draw()
        .map_err(fault)?;
    for ((_, bytes, colour), top) in bars.into_iter().zip([0.0, 1.0, 2.0]) {
        let length = megabytes(bytes);
        let bar = Rectangle::new([(0.0, top + 0.2), (length, top + 0.8)], colour.filled());
        chart.draw_series(std::iter::once(bar)).map_err(fault)?;
        let words = Text::new(format!("{length:.1}"), (length + most * 0.01, top + 0.4), ("sans-serif", 13));
        chart.draw_series(std::iter::once(words)).map_err(fault)?;
    }
    Ok(())
}

/// Where the time axis ends: with the last measurement, which may come after the training.
fn end_s(stats: &RunStats, timeline: &Timeline) -> f64 {
    stats.loss_curve.iter().map(|at| timeline.at_s(at.wall)).fold(timeline.seconds, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_what_happened_and_nothing_else() {
        let device =
            r#"{"name": "<den>", "tokens": 1, "leases": 1, "lease_wall_s_median": null, "training_share": 0.5}"#;
        let told = |lost: u64, killed: &[&str]| {
            let json = format!(
                r#"{{"heldout_loss_start": 5.0, "heldout_loss_end": 1.5, "order1_loss": 2.6, "order2_loss": 2.1, "tokens": 1,
                "bytes_up": 1, "bytes_down": 1, "bytes_data_parallel_bf16": 1, "merged": 1, "acknowledged": 1,
                "duplicates": 0, "lost_samples": {lost}, "staleness": {{}}, "devices": [{device}]}}"#
            );
            page(&serde_json::from_str(&json).unwrap(), killed, &[]).unwrap()
        };
        let calm = told(0, &[]);
        assert!(calm.contains("no work was lost or counted twice") && !calm.contains("killed"), "{calm}");
        assert!(calm.contains("&lt;den&gt;") && !calm.contains("<den>"), "a name is no markup: {calm}");
        assert!(told(3, &[]).contains("3 samples were lost"));
        assert!(told(0, &["coordinator"]).contains("coordinator was killed and started again"));
        assert!(told(0, &["coordinator", "volunteer-2"]).contains("coordinator and volunteer-2 were killed"));
    }
}
