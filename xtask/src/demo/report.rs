//! The demo's report: one HTML page with its plots inside.

use super::{
    cast::COORDINATOR,
    live::Story,
    results::{Course, Lease, Results},
};
use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::full_palette::{BLUE_600, GREEN_600, GREY_400, GREY_700, ORANGE_700, RED_600},
};
use std::{
    fmt::{Display, Write as _},
    fs,
    path::{Path, PathBuf},
};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes `report.html` and returns where it is.
pub fn write(out: &Path, results: &Results, course: &Course, story: &Story) -> Result<PathBuf> {
    let plots = [
        ("Held-out loss, nats a byte", plot(340, |canvas| loss(canvas, results, course, story))?),
        (
            "Who trained when",
            plot(100 + 40 * results.devices.len() as u32, |canvas| timeline(canvas, results, course, story))?,
        ),
        ("Staleness of merged deltas, in versions", plot(240, |canvas| staleness(canvas, results))?),
        ("Megabytes moved, beside data parallel training at bf16", plot(200, |canvas| traffic(canvas, results))?),
    ];
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Nightjar demo</title>\n\
         <style>body { font: 16px/1.5 sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }\n\
         h2 { font-size: 1.1rem; margin: 2rem 0 0 } svg { width: 100%; height: auto } pre { overflow-x: auto }</style>\n\
         <h1>Nightjar demo</h1>\n",
    );
    writeln!(page, "<pre>{}</pre>", escape(results.table().trim_matches('\n')))?;
    for (title, svg) in plots {
        write!(page, "<h2>{title}</h2>\n{svg}\n")?;
    }
    page.push_str("</html>\n");
    let file = out.join("report.html");
    fs::write(&file, page)?;
    Ok(file)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An SVG of the page's width.
fn plot(height: u32, draw: impl FnOnce(&Canvas) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (800, height)).into_drawing_area();
        canvas.fill(&WHITE).map_err(fault)?;
        draw(&canvas)?;
        canvas.present().map_err(fault)?;
    }
    Ok(svg)
}

/// Plotters' errors borrow from the drawing; the page needs only their words.
fn fault(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw the report: {error}")
}

fn loss(canvas: &Canvas, results: &Results, course: &Course, story: &Story) -> Result<()> {
    let points: Vec<(f64, f64)> = course.loss_curve.iter().map(|at| (story.at_s(at.wall), at.loss)).collect();
    let end_s = end_s(course, story);
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
    chart.configure_series_labels().background_style(WHITE).border_style(GREY_400).draw().map_err(fault)
}

/// A row a process: a device's leases, green where a delta came of it, and when the coordinator served; white
/// while it was away after it was killed.
fn timeline(canvas: &Canvas, results: &Results, course: &Course, story: &Story) -> Result<()> {
    let end_s = end_s(course, story);
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
            if *name == COORDINATOR { vec![(0.0, end_s, BLUE_600)] } else { leased(course, story, name, end_s) };
        chart.draw_series(spans.into_iter().map(bar)).map_err(fault)?;
        let marks: Vec<f64> = story.marks.iter().filter(|mark| mark.who == *name).map(|mark| mark.at_s).collect();
        for away in marks.chunks(2) {
            let (killed, back) = (away[0], away.get(1).copied().unwrap_or(end_s));
            chart.draw_series(std::iter::once(bar((killed, back, WHITE)))).map_err(fault)?;
            let line = PathElement::new([(killed, top), (killed, top + 1.0)], RED_600.stroke_width(2));
            chart.draw_series(std::iter::once(line)).map_err(fault)?;
            let words = Text::new(" killed", (killed, top), ("sans-serif", 11).into_font().color(&RED_600));
            chart.draw_series(std::iter::once(words)).map_err(fault)?;
        }
    }
    Ok(())
}

/// When a device held leases to train.
fn leased(course: &Course, story: &Story, name: &str, end_s: f64) -> Vec<(f64, f64, RGBColor)> {
    let leases = course.lease_timeline.iter().filter(|lease| lease.device == name && lease.kind == "train");
    let span = |lease: &Lease| {
        let to = lease.end.map_or(end_s, |end| story.at_s(end));
        (story.at_s(lease.start), to, if lease.outcome == "merged" { GREEN_600 } else { GREY_400 })
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
fn end_s(course: &Course, story: &Story) -> f64 {
    course.loss_curve.iter().map(|at| story.at_s(at.wall)).fold(story.seconds, f64::max)
}
