//! A row: what one variant came to with one seed, as docs/study.json has it.

use crate::results::{Point, RunResult};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Points kept of a curve.
const CURVE_MAX: usize = 36;

/// One variant's result with one seed. All rows of all studies have these fields; some have more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The study's key.
    pub study: String,
    /// The variant's name within it.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// Held-out loss at the end, nats a token; `None` in cost mode.
    pub loss: Option<f64>,
    /// Out-of-domain loss at the end.
    pub loss_ood: Option<f64>,
    /// All bytes that devices sent.
    pub bytes_up: u64,
    /// All bytes that devices received: joins, shards and what was sent again included.
    pub bytes_down: u64,
    /// Virtual seconds from start to end.
    pub virtual_s: f64,
    /// Useful step time / available device time; `None` where devices were never modelled.
    pub utilisation: Option<f64>,
    /// Tokens trained on.
    pub tokens: u64,
    /// Outer rounds: versions published.
    pub rounds: u64,
    /// BLAKE3 of the configuration and the seed, in hex: the name of the cached row.
    pub config: String,
    /// Seconds that this computer took for it.
    pub host_s: f64,
    /// What only some studies measure, by name.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
    /// A few points of the curve: virtual seconds, tokens, bytes up, bytes down, loss, out-of-domain loss (or null).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<CurvePoint>,
}

/// A point of a row's curve, written as an array.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint(pub f64, pub u64, pub u64, pub u64, pub f64, pub Option<f64>);

/// What a curve is drawn or read against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Virtual seconds.
    Time,
    /// Tokens.
    Tokens,
    /// Bytes up and down.
    Bytes,
}

impl CurvePoint {
    /// How far along it is.
    pub fn at(&self, against: Against) -> f64 {
        match against {
            Against::Time => self.0,
            Against::Tokens => self.1 as f64,
            Against::Bytes => (self.2 + self.3) as f64,
        }
    }
}

impl Row {
    /// From a simulation's result; study, variant and configuration are filled in by who knows them.
    pub fn of(result: &RunResult) -> Self {
        let last = result.curve.iter().rev().find(|p| p.loss.is_some());
        Row {
            seed: result.seed,
            loss: last.and_then(|p| p.loss).map(|loss| round(loss, 1e6)),
            loss_ood: last.and_then(|p| p.loss_ood).map(|loss| round(loss, 1e6)),
            bytes_up: result.bytes.up(),
            bytes_down: result.bytes.down(),
            virtual_s: result.virtual_s,
            utilisation: Some(result.utilisation),
            tokens: result.tokens,
            rounds: result.versions,
            curve: thin(&result.curve),
            ..Row::default()
        }
    }

    /// Adds a figure of this study's own.
    pub fn with(mut self, name: &str, value: f64) -> Self {
        if value.is_finite() {
            self.extra.insert(name.into(), value);
        }
        self
    }

    /// The loss at a place of the curve, between its points by their straight line; `None` outside of what was
    /// measured.
    pub fn loss_at(&self, against: Against, place: f64) -> Option<f64> {
        self.read(against, place, |p| Some(p.4))
    }

    /// The out-of-domain loss at a place of the curve.
    pub fn ood_at(&self, against: Against, place: f64) -> Option<f64> {
        self.read(against, place, |p| p.5)
    }

    fn read(&self, against: Against, place: f64, loss: impl Fn(&CurvePoint) -> Option<f64>) -> Option<f64> {
        let last = self.curve.last()?;
        // The last measurement often comes a moment before the end that was asked for.
        if place >= last.at(against) {
            return if place <= last.at(against) * 1.02 { loss(last) } else { None };
        }
        let pair = self.curve.windows(2).find(|w| w[0].at(against) <= place && place < w[1].at(against))?;
        let (from, to) = (pair[0].at(against), pair[1].at(against));
        let (before, after) = (loss(&pair[0])?, loss(&pair[1])?);
        Some(before + (after - before) * (place - from) / (to - from))
    }

    /// Where on the curve a loss is reached for the first time; `None` if it never is.
    pub fn reaches(&self, against: Against, loss: f64) -> Option<f64> {
        let first = self.curve.iter().position(|p| p.4 <= loss)?;
        let after = &self.curve[first];
        let Some(before) = first.checked_sub(1).map(|i| &self.curve[i]) else { return Some(after.at(against)) };
        let share = (before.4 - loss) / (before.4 - after.4);
        Some(before.at(against) + share * (after.at(against) - before.at(against)))
    }
}

/// A curve in few points: closer together at the start, where it falls fast, and always with the last.
pub fn thin(curve: &[Point]) -> Vec<CurvePoint> {
    let measured: Vec<CurvePoint> = curve.iter().filter_map(point).collect();
    let n = measured.len();
    if n <= CURVE_MAX {
        return measured;
    }
    let mut kept: Vec<usize> = vec![];
    for i in 0..CURVE_MAX {
        let share = i as f64 / (CURVE_MAX - 1) as f64;
        let index = (share.powf(1.6) * (n - 1) as f64).round() as usize;
        kept.push(index.max(kept.last().map_or(0, |last| last + 1)).min(n - 1));
    }
    kept.dedup();
    kept.into_iter().map(|i| measured[i]).collect()
}

fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

fn point(p: &Point) -> Option<CurvePoint> {
    let loss = p.loss.filter(|loss| loss.is_finite())?;
    let ood = p.loss_ood.filter(|loss| loss.is_finite()).map(|loss| round(loss, 1e5));
    Some(CurvePoint(round(p.virtual_s, 1e2), p.tokens, p.bytes_up, p.bytes_down, round(loss, 1e5), ood))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(losses: &[f64]) -> Row {
        let point =
            |(i, loss): (usize, &f64)| CurvePoint(10.0 * i as f64, 100 * i as u64, i as u64, i as u64, *loss, None);
        Row { curve: losses.iter().enumerate().map(point).collect(), ..Row::default() }
    }

    #[test]
    fn a_curve_is_read_between_its_points() {
        let row = row(&[5.0, 3.0, 2.0]);
        assert_eq!(row.loss_at(Against::Time, 0.0), Some(5.0));
        assert_eq!(row.loss_at(Against::Time, 5.0), Some(4.0));
        assert_eq!(row.loss_at(Against::Tokens, 150.0), Some(2.5));
        assert_eq!(row.loss_at(Against::Time, 20.3), Some(2.0));
        assert_eq!(row.loss_at(Against::Time, 25.0), None, "what was not measured is not known");
        assert_eq!(row.ood_at(Against::Time, 5.0), None);
    }

    #[test]
    fn a_loss_is_reached_once_and_for_the_first_time() {
        let row = row(&[5.0, 3.0, 3.5, 2.0]);
        assert_eq!(row.reaches(Against::Time, 4.0), Some(5.0));
        assert_eq!(row.reaches(Against::Time, 3.0), Some(10.0));
        assert_eq!(row.reaches(Against::Tokens, 2.75), Some(250.0));
        assert_eq!(row.reaches(Against::Time, 6.0), Some(0.0));
        assert_eq!(row.reaches(Against::Time, 1.9), None);
    }

    #[test]
    fn a_long_curve_keeps_its_ends_and_more_of_its_start() {
        let curve: Vec<Point> =
            (0..1000).map(|i| Point { virtual_s: f64::from(i), loss: Some(2.0), ..Point::default() }).collect();
        let thin = thin(&curve);
        assert_eq!((thin.len(), thin[0].0, thin[CURVE_MAX - 1].0), (CURVE_MAX, 0.0, 999.0));
        assert!(thin.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(thin[CURVE_MAX / 2].0 < 400.0);
        assert_eq!(super::thin(&curve[..7]).len(), 7);
        assert_eq!(super::thin(&[Point::default()]), []);
    }

    #[test]
    fn a_row_is_one_flat_object() {
        let row = Row { study: "codecs".into(), loss: Some(2.0), ..row(&[2.0]) }
            .with("bits_up", 0.15)
            .with("nothing", f64::NAN);
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains("\"bits_up\":0.15") && text.contains("[0.0,0,0,0,2.0,null]"), "{text}");
        assert!(!text.contains("nothing"));
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
