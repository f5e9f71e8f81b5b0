//! Axes: what they say, where their ticks are, and in which unit a person reads them.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use std::ops::Range;

/// One axis of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Whether equal lengths are equal ratios. Values that are not positive are left out then.
    pub log: bool,
    /// Always shown, whatever the data.
    pub includes: Vec<f64>,
}

impl Axis {
    /// Equal lengths are equal differences.
    pub fn linear(label: impl Into<String>) -> Self {
        Axis { label: label.into(), log: false, includes: vec![] }
    }

    /// Equal lengths are equal ratios.
    pub fn log(label: impl Into<String>) -> Self {
        Axis { label: label.into(), log: true, includes: vec![] }
    }

    /// Always shows this value too.
    pub fn with(mut self, value: f64) -> Self {
        self.includes.push(value);
        self
    }

    /// Where a value is on it; `None` if it has no place.
    pub fn place(&self, value: f64) -> Option<f64> {
        let place = if self.log { value.log10() } else { value };
        place.is_finite().then_some(place)
    }

    /// What it must cover, with some air; places, not values.
    pub fn range(&self, values: impl IntoIterator<Item = f64>) -> Range<f64> {
        let mut places = self.includes.iter().copied().chain(values).filter_map(|v| self.place(v));
        let Some(first) = places.next() else { return 0.0..1.0 };
        let (low, high) = places.fold((first, first), |(low, high), p| (low.min(p), high.max(p)));
        if high - low < 1e-9 * high.abs().max(1e-300) {
            let air = if self.log || low == 0.0 { 0.5 } else { low.abs() * 0.1 };
            return low - air..high + air;
        }
        let air = (high - low) * 0.04;
        // An axis that begins at zero has no air below it.
        let low = if !self.log && low == 0.0 { 0.0 } else { low - air };
        low..high + air
    }

    /// The places of its ticks within a range of places.
    pub fn ticks(&self, range: &Range<f64>, most: usize) -> Vec<f64> {
        if !self.log {
            return steps(range, most);
        }
        for digits in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let (first, last) = (range.start.floor() as i32, range.end.ceil() as i32);
            let ticks: Vec<f64> = (first..=last)
                .flat_map(|decade| digits.iter().map(move |digit| f64::from(decade) + f64::log10(*digit)))
                .filter(|place| range.contains(place))
                .collect();
            if (2..=most).contains(&ticks.len()) {
                return ticks;
            }
        }
        // Less than a decade, or a great many: evenly, at round values where they are few.
        if range.end - range.start < 1.0 {
            let values = 10f64.powf(range.start)..10f64.powf(range.end);
            return steps(&values, most).into_iter().map(f64::log10).collect();
        }
        steps(range, most).into_iter().filter(|place| place.fract() == 0.0).collect()
    }

    /// The words at a place.
    pub fn words(&self, place: f64) -> String {
        short(if self.log { 10f64.powf(place) } else { place })
    }
}

/// A range of places with the ticks that were chosen for it, as plotters wants it.
#[derive(Clone, Debug)]
pub struct Places {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Places {
    /// Of a range with these ticks.
    pub fn new(range: Range<f64>, ticks: Vec<f64>) -> Self {
        Places { range, ticks }
    }
}

impl Ranged for Places {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share.clamp(-1.0, 2.0) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Round values in a range, at most so many of them.
fn steps(range: &Range<f64>, most: usize) -> Vec<f64> {
    let span = range.end - range.start;
    if span.is_nan() || span <= 0.0 || most == 0 {
        return vec![range.start];
    }
    let rough = span / most as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (range.start / step).ceil() as i64;
    let last = (range.end / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A value in few characters: `0.05`, `1.5`, `20`, `3k`, `2.5M`.
pub fn short(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, "T"),
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Four significant digits, without zeros that say nothing.
    let digits = if scaled == 0.0 { 0 } else { (3 - scaled.abs().log10().floor() as i32).clamp(0, 9) as usize };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{}{letter}", if text == "-0" { "0" } else { text })
}

/// A unit that suits a length of time: how many seconds it has, and its name.
pub fn time_unit(longest_s: f64) -> (f64, &'static str) {
    match longest_s {
        s if s > 3.0 * 86_400.0 => (86_400.0, "days"),
        s if s > 3.0 * 3_600.0 => (3_600.0, "hours"),
        s if s > 600.0 => (60.0, "minutes"),
        _ => (1.0, "seconds"),
    }
}

/// A unit that suits a number of bytes: how many it has, and its name.
pub fn byte_unit(most: f64) -> (f64, &'static str) {
    match most {
        b if b > 3e12 => (1e12, "TB"),
        b if b > 3e9 => (1e9, "GB"),
        b if b > 3e6 => (1e6, "MB"),
        b if b > 3e3 => (1e3, "kB"),
        _ => (1.0, "bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let linear = Axis::linear("loss");
        assert_eq!(linear.ticks(&(0.0..10.0), 6), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            linear.ticks(&(1.91..2.14), 5).into_iter().map(|t| linear.words(t)).collect::<Vec<_>>(),
            ["1.95", "2", "2.05", "2.1"]
        );
        assert_eq!(linear.ticks(&(3.0..3.0), 5), [3.0]);
        let log = Axis::log("tokens");
        let words =
            |range: Range<f64>, most| log.ticks(&range, most).into_iter().map(|t| log.words(t)).collect::<Vec<_>>();
        assert_eq!(words(0.0..3.0, 12), ["1", "2", "5", "10", "20", "50", "100", "200", "500"]);
        assert_eq!(words(0.0..3.001, 8), ["1", "3", "10", "30", "100", "300", "1k"]);
        assert_eq!(words(2.9..6.1, 5), ["1k", "10k", "100k", "1M"]);
        // Within half a decade.
        assert_eq!(words(199f64.log10()..301f64.log10(), 6), ["200", "220", "240", "260", "280", "300"]);
        assert!(log.ticks(&(-30.0..300.0), 6).len() <= 6);
    }

    #[test]
    fn words_are_short() {
        let words: Vec<String> =
            [0.0, 0.05, 1.5, 20.0, 999.6, 1000.0, 2_500_000.0, -0.013, 1e13, 1e-7].map(short).into();
        assert_eq!(words, ["0", "0.05", "1.5", "20", "999.6", "1k", "2.5M", "-0.013", "10T", "0.0000001"]);
    }

    #[test]
    fn a_range_covers_its_data() {
        let axis = Axis::linear("x").with(0.0);
        assert_eq!(axis.range([5.0, 10.0]).start, 0.0);
        assert!(axis.range([5.0, 10.0]).end > 10.0);
        let one = Axis::linear("x").range([2.0]);
        assert!(one.start < 2.0 && one.end > 2.0);
        assert_eq!(Axis::linear("x").range([]), 0.0..1.0);
        assert_eq!(Axis::linear("x").range([f64::NAN]), 0.0..1.0);
        // Zero has no place on a log axis.
        let log = Axis::log("x").range([0.0, 1.0, 100.0]);
        assert!(log.start < 0.0 && log.start > -1.0 && log.end > 2.0);
    }

    #[test]
    fn units_suit_what_is_shown() {
        assert_eq!([90.0, 1200.0, 20_000.0, 1e6].map(|s| time_unit(s).1), ["seconds", "minutes", "hours", "days"]);
        assert_eq!([10.0, 9e3, 9e6, 9e9, 9e12].map(|b| byte_unit(b).1), ["bytes", "kB", "MB", "GB", "TB"]);
    }
}
