//! Line charts: curves with confidence bands, markers where points are few, levels to compare with.

use super::{Axis, Canvas, INK, MESH, PALETTE, Swatch, axis::Places, draw, fault, legend, legend_width};
use anyhow::Result;
use plotters::{prelude::*, style::RGBColor};

/// Points up to which each is marked.
const MARKED_MAX: usize = 24;

/// A chart of lines.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// What it shows.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The data.
    pub lines: Vec<Line>,
    /// Levels to compare with, by name.
    pub levels: Vec<(String, f64)>,
}

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Shown beside the chart.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// A confidence band: x, low, high. Empty for none.
    pub band: Vec<(f64, f64, f64)>,
    /// Drawn in dashes, as what is only there for comparison.
    pub dashed: bool,
}

impl Line {
    /// Of these points.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Line { name: name.into(), points, ..Line::default() }
    }

    /// Of points with intervals: x, value, low, high. An interval that is not known leaves the band out there.
    pub fn with_intervals(name: impl Into<String>, points: &[(f64, f64, f64, f64)]) -> Self {
        let known = points.iter().filter(|p| p.2.is_finite() && p.3.is_finite());
        Line {
            name: name.into(),
            points: points.iter().map(|p| (p.0, p.1)).collect(),
            band: known.map(|p| (p.0, p.2, p.3)).collect(),
            dashed: false,
        }
    }
}

impl LineChart {
    /// Of lines, with no levels.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis, lines: Vec<Line>) -> Self {
        LineChart { title: title.into(), x, y, lines, levels: vec![] }
    }

    /// Adds a level to compare with.
    pub fn level(mut self, name: impl Into<String>, y: f64) -> Self {
        self.levels.push((name.into(), y));
        self
    }

    /// Draws it.
    pub fn svg(&self) -> Result<String> {
        let entries = self.lines.len() + self.levels.len();
        draw(&self.title, 360.max(90 + 20 * entries as u32), |canvas| self.paint(canvas))
    }

    /// A line's colour: the palette, and dashes once it has been used up.
    fn style(&self, i: usize) -> (RGBColor, bool) {
        (PALETTE[i % PALETTE.len()], self.lines[i].dashed || i >= PALETTE.len())
    }

    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x.place(x)?, self.y.place(y)?))
    }

    fn paint(&self, canvas: &Canvas) -> Result<()> {
        let names = self.lines.iter().map(|line| line.name.as_str()).chain(self.levels.iter().map(|l| l.0.as_str()));
        let width = super::WIDTH.saturating_sub(legend_width(names)).max(super::WIDTH / 2);
        let (left, right) = canvas.split_horizontally(width);
        let shown = |line: &Line| line.points.iter().copied().filter(|p| self.place(*p).is_some()).collect::<Vec<_>>();
        let points: Vec<(f64, f64)> = self.lines.iter().flat_map(shown).collect();
        let bands = self.lines.iter().flat_map(|line| line.band.iter());
        let x_range = self.x.range(points.iter().map(|p| p.0));
        let ys = points.iter().map(|p| p.1).chain(bands.flat_map(|(_, low, high)| [*low, *high]));
        let y_range = self.y.range(ys.chain(self.levels.iter().map(|l| l.1)));
        let (x_ticks, y_ticks) = (self.x.ticks(&x_range, 9), self.y.ticks(&y_range, 8));
        let mut chart = ChartBuilder::on(&left)
            .margin(10)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(62)
            .build_cartesian_2d(Places::new(x_range.clone(), x_ticks), Places::new(y_range.clone(), y_ticks))
            .map_err(fault)?;
        chart
            .configure_mesh()
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_label_formatter(&|place| self.x.words(*place))
            .y_label_formatter(&|place| self.y.words(*place))
            .bold_line_style(MESH)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(fault)?;
        for (_, level) in &self.levels {
            let Some(y) = self.y.place(*level) else { continue };
            let line = [(x_range.start, y), (x_range.end, y)];
            chart.draw_series(DashedLineSeries::new(line, 5, 4, INK.mix(0.7).stroke_width(1))).map_err(fault)?;
        }
        for (i, line) in self.lines.iter().enumerate() {
            let colour = self.style(i).0;
            let low = line.band.iter().filter_map(|(x, low, _)| self.place((*x, *low)));
            let high = line.band.iter().rev().filter_map(|(x, _, high)| self.place((*x, *high)));
            let around: Vec<_> = low.chain(high).collect();
            if around.len() > 3 {
                chart.draw_series([Polygon::new(around, colour.mix(0.16))]).map_err(fault)?;
            }
        }
        for (i, line) in self.lines.iter().enumerate() {
            let (colour, dashed) = self.style(i);
            let points: Vec<_> = line.points.iter().filter_map(|p| self.place(*p)).collect();
            if points.len() <= MARKED_MAX {
                let dots = points.iter().map(|p| Circle::new(*p, 3, colour.filled()));
                chart.draw_series(dots).map_err(fault)?;
            }
            if dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, colour.stroke_width(2))).map_err(fault)?;
            } else {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).map_err(fault)?;
            }
        }
        let lines = self.lines.iter().enumerate().map(|(i, line)| {
            let (colour, dashed) = self.style(i);
            (line.name.as_str(), colour, Swatch::Line { dashed })
        });
        let levels = self.levels.iter().map(|(name, _)| (name.as_str(), INK, Swatch::Line { dashed: true }));
        legend(&right, &lines.chain(levels).collect::<Vec<_>>())
    }
}
