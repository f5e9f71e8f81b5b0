//! Plots as SVG. Colours are Okabe and Ito's, which people tell apart whatever their sight; legends stand beside the
//! data, never on it; every axis says its unit.

pub mod axis;
pub mod bars;
pub mod lines;
pub mod run;
pub mod timeline;

pub use axis::Axis;
pub use bars::{Bar, BarChart, Stack, StackChart};
pub use lines::{Line, LineChart};

use crate::results::Activity;
use anyhow::{Context, Result, anyhow};
use plotters::{coord::Shift, prelude::*};
use std::{fmt::Display, path::Path};

/// Width of every plot, in pixels.
pub const WIDTH: u32 = 860;
/// A character's width at the size of a legend, generously, in pixels: SVG leaves fonts to the reader.
const CHARACTER: f64 = 6.9;
/// Ink of words and frames.
const INK: RGBColor = RGBColor(40, 40, 40);
/// Lines behind the data.
const MESH: RGBColor = RGBColor(225, 225, 225);

/// A drawing into a string.
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Okabe and Ito's palette, without the yellow that vanishes on white: blue, vermillion, green, purple, orange, sky
/// blue, black, grey.
pub const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 140),
];

/// The colour of what a device does.
pub const fn colour_of(what: Activity) -> RGBColor {
    match what {
        Activity::Training => PALETTE[2],
        Activity::Fetching => PALETTE[5],
        Activity::Uploading => PALETTE[4],
        Activity::Waiting => PALETTE[1],
        Activity::Held => RGBColor(190, 190, 190),
        Activity::Offline => RGBColor(238, 238, 238),
    }
}

/// Draws an SVG of a height under a title.
fn draw(title: &str, height: u32, paint: impl FnOnce(&Canvas) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        canvas.fill(&WHITE).map_err(fault)?;
        let below = if title.is_empty() {
            canvas.clone()
        } else {
            let title_style = ("sans-serif", 17).into_font().color(&INK);
            canvas.draw_text(title, &title_style, (14, 10)).map_err(fault)?;
            canvas.split_vertically(32).1
        };
        paint(&below)?;
        canvas.present().map_err(fault)?;
    }
    Ok(svg)
}

/// Plotters' errors borrow from the drawing; people need only their words.
fn fault(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

/// Writes a plot to a file.
pub fn save(file: &Path, svg: &str) -> Result<()> {
    std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))
}

/// How an entry of a legend looks.
enum Swatch {
    Line { dashed: bool },
    Area,
}

/// The width that a legend of these names takes.
fn legend_width<'n>(names: impl Iterator<Item = &'n str>) -> u32 {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    (longest as f64 * CHARACTER) as u32 + 46
}

/// Draws names beside the data, from the top.
fn legend(area: &Canvas, entries: &[(&str, RGBColor, Swatch)]) -> Result<()> {
    let style = ("sans-serif", 13).into_font().color(&INK);
    for (row, (name, colour, swatch)) in entries.iter().enumerate() {
        let y = 18 + 20 * row as i32;
        match swatch {
            Swatch::Line { dashed: false } => {
                let line = PathElement::new([(8, y), (30, y)], colour.stroke_width(2));
                area.draw(&line).map_err(fault)?;
            }
            Swatch::Line { dashed: true } => {
                for x in [8, 17, 26] {
                    area.draw(&PathElement::new([(x, y), (x + 5, y)], colour.stroke_width(2))).map_err(fault)?;
                }
            }
            Swatch::Area => area.draw(&Rectangle::new([(12, y - 6), (26, y + 6)], colour.filled())).map_err(fault)?,
        }
        area.draw_text(name, &style, (37, y - 6)).map_err(fault)?;
    }
    Ok(())
}
