//! Bars: values with their intervals, one a row so that names can be read; and shares of a whole.

use super::{
    Axis, CHARACTER, Canvas, INK, MESH, PALETTE, Swatch, WIDTH, axis::Places, draw, fault, legend, legend_width,
};
use anyhow::Result;
use plotters::{prelude::*, style::RGBColor};

/// A chart of bars from zero, or of points with intervals where zero means nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// What it shows.
    pub title: String,
    /// The values' axis.
    pub value: Axis,
    /// From top to bottom.
    pub bars: Vec<Bar>,
    /// A dot instead of a bar: for values, such as losses, whose zero is far away.
    pub dots: bool,
}

/// One bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// Left of it.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// Its confidence interval; NaN where it is not known.
    pub interval: (f64, f64),
    /// Bars of a group have a colour.
    pub group: usize,
}

/// A chart of shares, one whole a row.
#[derive(Clone, Debug, PartialEq)]
pub struct StackChart {
    /// What it shows.
    pub title: String,
    /// The shares' axis.
    pub label: String,
    /// Name and colour of each part.
    pub parts: Vec<(String, RGBColor)>,
    /// From top to bottom.
    pub rows: Vec<Stack>,
}

/// A row of shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stack {
    /// Left of it.
    pub name: String,
    /// One a part; they are drawn in proportion to their sum.
    pub amounts: Vec<f64>,
}

const ROW: u32 = 26;
const AROUND: u32 = 100;

/// The room that names take, left of the rows.
fn name_width<'n>(names: impl Iterator<Item = &'n str>) -> u32 {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    ((longest as f64 * CHARACTER) as u32 + 16).min(WIDTH / 2)
}

/// Writes the names of rows left of a drawing area of places.
fn name_rows<'n>(
    canvas: &Canvas,
    top: i32,
    height: f64,
    width: u32,
    names: impl Iterator<Item = &'n str>,
) -> Result<()> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let style = ("sans-serif", 13).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
    for (row, name) in names.enumerate() {
        let y = top + ((row as f64 + 0.5) * height) as i32;
        canvas.draw_text(name, &style, (width as i32 - 6, y)).map_err(fault)?;
    }
    Ok(())
}

impl BarChart {
    /// Draws it.
    pub fn svg(&self) -> Result<String> {
        draw(&self.title, AROUND + ROW * self.bars.len() as u32, |canvas| self.paint(canvas))
    }

    fn paint(&self, canvas: &Canvas) -> Result<()> {
        let mut axis = self.value.clone();
        if !self.dots && !axis.log {
            axis = axis.with(0.0);
        }
        let ends = self.bars.iter().flat_map(|bar| [bar.interval.0, bar.value, bar.interval.1]);
        let range = axis.range(ends);
        let zero = if axis.log { range.start } else { 0f64.clamp(range.start, range.end) };
        let rows = self.bars.len().max(1) as f64;
        let names = name_width(self.bars.iter().map(|bar| bar.name.as_str()));
        let ticks = axis.ticks(&range, 8);
        let mut chart = ChartBuilder::on(canvas)
            .margin(6)
            .margin_right(70)
            .margin_left(names as i32)
            .x_label_area_size(44)
            .build_cartesian_2d(Places::new(range.clone(), ticks), rows..0.0)
            .map_err(fault)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc(&axis.label)
            .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_label_formatter(&|place| axis.words(*place))
            .bold_line_style(MESH)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(fault)?;
        for (row, bar) in self.bars.iter().enumerate() {
            let (middle, colour) = (row as f64 + 0.5, PALETTE[bar.group % PALETTE.len()]);
            let Some(place) = axis.place(bar.value) else { continue };
            if self.dots {
                chart.draw_series([Circle::new((place, middle), 5, colour.filled())]).map_err(fault)?;
            } else {
                let shape = Rectangle::new([(zero, middle - 0.32), (place, middle + 0.32)], colour.mix(0.75).filled());
                chart.draw_series([shape]).map_err(fault)?;
            }
            let (low, high) = bar.interval;
            let (low, high) = (axis.place(low).unwrap_or(place), axis.place(high).unwrap_or(place));
            if high > low {
                let stroke = INK.stroke_width(2);
                chart.draw_series([PathElement::new([(low, middle), (high, middle)], stroke)]).map_err(fault)?;
                for end in [low, high] {
                    let cap = [(end, middle - 0.16), (end, middle + 0.16)];
                    chart.draw_series([PathElement::new(cap, stroke)]).map_err(fault)?;
                }
            }
            let beside = (high.max(place).max(zero), middle);
            let words = EmptyElement::at(beside)
                + Text::new(super::axis::short(bar.value), (8, -6), ("sans-serif", 13).into_font().color(&INK));
            chart.draw_series([words]).map_err(fault)?;
        }
        if !axis.log && range.contains(&0.0) {
            chart.draw_series([PathElement::new([(0.0, 0.0), (0.0, rows)], INK.stroke_width(1))]).map_err(fault)?;
        }
        let (_, y) = chart.plotting_area().get_pixel_range();
        let top = y.start - canvas.get_base_pixel().1;
        let names = self.bars.iter().map(|bar| bar.name.as_str());
        name_rows(canvas, top, f64::from(y.end - y.start) / rows, name_width(names.clone()), names)
    }
}

impl StackChart {
    /// Draws it.
    pub fn svg(&self) -> Result<String> {
        draw(&self.title, (AROUND + ROW * self.rows.len() as u32).max(210), |canvas| self.paint(canvas))
    }

    fn paint(&self, canvas: &Canvas) -> Result<()> {
        let width = legend_width(self.parts.iter().map(|part| part.0.as_str()));
        let (left, right) = canvas.split_horizontally(WIDTH - width);
        let rows = self.rows.len().max(1) as f64;
        let names = self.rows.iter().map(|row| row.name.as_str());
        let mut chart = ChartBuilder::on(&left)
            .margin(6)
            .margin_right(16)
            .margin_left(name_width(names.clone()) as i32)
            .x_label_area_size(44)
            .build_cartesian_2d(Places::new(0.0..1.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), rows..0.0)
            .map_err(fault)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc(&self.label)
            .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_label_formatter(&|share| format!("{:.0} %", share * 100.0))
            .bold_line_style(MESH)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(fault)?;
        for (row, stack) in self.rows.iter().enumerate() {
            let whole: f64 = stack.amounts.iter().sum();
            if whole.is_nan() || whole <= 0.0 {
                continue;
            }
            let (top, mut from) = (row as f64, 0.0);
            for (amount, (_, colour)) in stack.amounts.iter().zip(&self.parts) {
                let to = from + amount / whole;
                if to > from {
                    let part = Rectangle::new([(from, top + 0.15), (to, top + 0.85)], colour.filled());
                    chart.draw_series([part]).map_err(fault)?;
                }
                from = to;
            }
        }
        let (_, y) = chart.plotting_area().get_pixel_range();
        let top = y.start - canvas.get_base_pixel().1;
        name_rows(canvas, top, f64::from(y.end - y.start) / rows, name_width(names.clone()), names)?;
        let entries: Vec<_> = self.parts.iter().map(|(name, colour)| (name.as_str(), *colour, Swatch::Area)).collect();
        legend(&right, &entries)
    }
}
