//! Who did what when: a row a device, coloured by what it did.

use super::{
    CHARACTER, Canvas, INK, Swatch, WIDTH, axis::short, axis::time_unit, colour_of, draw, fault, legend, legend_width,
};
use crate::results::{Activity, DeviceLine, Segment};
use anyhow::Result;
use plotters::prelude::*;

/// Rows drawn; of more devices, some evenly chosen ones.
const ROWS_MAX: usize = 48;
/// Columns of a row: what is shorter than a column is shown by what fills most of it, so that a drawing is bounded.
const COLUMNS: usize = 1200;

/// Draws the timelines up to `end_s`.
pub fn svg(title: &str, devices: &[DeviceLine], end_s: f64) -> Result<String> {
    let chosen = choose(devices.len());
    let devices: Vec<&DeviceLine> = chosen.into_iter().filter_map(|i| devices.get(i)).collect();
    let height = if devices.len() > 24 { 14 } else { 22 };
    draw(title, (90 + height * devices.len() as u32).max(220), |canvas| paint(canvas, &devices, end_s))
}

/// Which of so many devices are drawn.
fn choose(devices: usize) -> Vec<usize> {
    let rows = devices.min(ROWS_MAX);
    (0..rows).map(|row| row * devices / rows).collect()
}

fn paint(canvas: &Canvas, devices: &[&DeviceLine], end_s: f64) -> Result<()> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let end_s = if end_s > 0.0 { end_s } else { 1.0 };
    let (unit_s, unit) = time_unit(end_s);
    let names: Vec<String> = devices.iter().map(|d| format!("{} · {} tok/s", d.name, short(d.tokens_per_s))).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let names_width = ((longest as f64 * CHARACTER) as i32 + 12).min(WIDTH as i32 / 3);
    let (left, right) = canvas.split_horizontally(WIDTH - legend_width(Activity::ALL.iter().map(|what| what.name())));
    let rows = devices.len().max(1) as f64;
    let mut chart = ChartBuilder::on(&left)
        .margin(6)
        .margin_right(16)
        .margin_left(names_width)
        .x_label_area_size(40)
        .build_cartesian_2d(0.0..end_s / unit_s, rows..0.0)
        .map_err(fault)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc(format!("virtual {unit}"))
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .x_label_formatter(&|x| short(*x))
        .draw()
        .map_err(fault)?;
    let (_, y) = chart.plotting_area().get_pixel_range();
    let (top, height) = (y.start - canvas.get_base_pixel().1, f64::from(y.end - y.start) / rows);
    let font = if height < 16.0 { 10 } else { 12 };
    let style = ("sans-serif", font).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
    for (row, (device, name)) in devices.iter().zip(&names).enumerate() {
        canvas.draw_text(name, &style, (names_width - 4, top + ((row as f64 + 0.5) * height) as i32)).map_err(fault)?;
        let bars = columns(&device.segments, end_s).into_iter().map(|s| {
            let corners = [(s.from_s / unit_s, row as f64 + 0.1), (s.to_s / unit_s, row as f64 + 0.9)];
            Rectangle::new(corners, colour_of(s.what).filled())
        });
        chart.draw_series(bars).map_err(fault)?;
    }
    let entries: Vec<_> = Activity::ALL.iter().map(|what| (what.name(), colour_of(*what), Swatch::Area)).collect();
    legend(&right, &entries)
}

/// A timeline at the drawing's resolution: each column by what fills most of it, equal neighbours joined.
fn columns(segments: &[Segment], end_s: f64) -> Vec<Segment> {
    let width = end_s / COLUMNS as f64;
    let mut joined: Vec<Segment> = vec![];
    let mut next = 0;
    for column in 0..COLUMNS {
        let (from_s, to_s) = (column as f64 * width, (column + 1) as f64 * width);
        while segments.get(next).is_some_and(|s| s.to_s <= from_s) {
            next += 1;
        }
        let mut most = (0.0, None);
        let mut share = [0.0; Activity::ALL.len()];
        for segment in segments[next..].iter().take_while(|s| s.from_s < to_s) {
            let Some(place) = Activity::ALL.iter().position(|what| *what == segment.what) else { continue };
            share[place] += segment.to_s.min(to_s) - segment.from_s.max(from_s);
            if share[place] > most.0 {
                most = (share[place], Some(segment.what));
            }
        }
        let Some(what) = most.1 else { continue };
        match joined.last_mut() {
            Some(last) if last.what == what && last.to_s >= from_s => last.to_s = to_s,
            _ => joined.push(Segment { from_s, to_s, what }),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_bounded_and_shows_what_fills_most_of_a_column() {
        let segment = |from_s, to_s, what| Segment { from_s, to_s, what };
        let coarse = [segment(0.0, 600.0, Activity::Fetching), segment(600.0, 1200.0, Activity::Training)];
        assert_eq!(columns(&coarse, 1200.0), coarse);
        // A hundred thousand flickers, three quarters of them training: one bar.
        let fine: Vec<Segment> = (0..100_000)
            .map(|i| f64::from(i) / 100.0)
            .flat_map(|t| {
                [segment(t, t + 0.0075, Activity::Training), segment(t + 0.0075, t + 0.01, Activity::Waiting)]
            })
            .collect();
        assert_eq!(columns(&fine, 1000.0).len(), 1);
        // What is not known stays white.
        assert_eq!(columns(&[], 10.0), []);
        assert_eq!(columns(&[segment(0.0, 5.0, Activity::Held)], 10.0).last().map(|s| s.to_s), Some(5.0));
    }

    #[test]
    fn of_many_devices_some_are_drawn_from_all_over() {
        assert_eq!(choose(3), [0, 1, 2]);
        assert_eq!(choose(0), [0; 0]);
        let many = choose(200);
        assert_eq!((many.len(), many[0], many[24]), (ROWS_MAX, 0, 100));
    }
}
