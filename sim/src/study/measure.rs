//! Measures: what is read from a row, alone or beside the row of another variant with the same seed.

use super::{Against, Column, Estimate, How, Row};
use std::collections::BTreeMap;

/// What can be read from a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Held-out loss at the end.
    Loss,
    /// Out-of-domain loss at the end.
    LossOod,
    /// Held-out loss at a place of the curve: equal tokens, equal time.
    LossAt(Against, f64),
    /// Out-of-domain loss there.
    OodAt(Against, f64),
    /// Virtual time, tokens or bytes until a loss is reached.
    Until(Against, Target),
    /// Bytes up.
    BytesUp,
    /// Bytes down.
    BytesDown,
    /// Both.
    Bytes,
    /// How many times fewer bytes than devices that send a bf16 gradient up and take one down at every step.
    FewerThanDataParallel {
        /// Of the model.
        parameters: u64,
        /// Of one device's step.
        tokens_per_step: u64,
    },
    /// Virtual seconds.
    VirtualS,
    /// Useful step time / available time.
    Utilisation,
    /// Tokens.
    Tokens,
    /// Versions published.
    Rounds,
    /// A figure of the study's own, by name.
    Extra(String),
}

/// A loss to reach.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// This one.
    Loss(f64),
    /// The final loss of a variant, with the same seed.
    FinalOf(String),
    /// The loss that a variant has at a place of its curve, with the same seed.
    Of(String, Against, f64),
}

/// A study's rows by variant and seed.
#[derive(Clone, Debug, Default)]
pub struct Rows<'r>(BTreeMap<(&'r str, u64), &'r Row>);

impl<'r> Rows<'r> {
    /// Those of one study.
    pub fn of(study: &str, rows: &'r [Row]) -> Self {
        Rows(rows.iter().filter(|row| row.study == study).map(|row| ((row.variant.as_str(), row.seed), row)).collect())
    }

    /// A variant's rows by seed.
    pub fn variant(&self, name: &str) -> impl Iterator<Item = &'r Row> {
        self.0.iter().filter(move |((variant, _), _)| *variant == name).map(|(_, row)| *row)
    }

    fn row(&self, variant: &str, seed: u64) -> Option<&'r Row> {
        self.0.iter().find(|((v, s), _)| *v == variant && *s == seed).map(|(_, row)| *row)
    }

    /// A measure of one row; `None` where it was not reached or not measured.
    pub fn value(&self, row: &Row, measure: &Measure) -> Option<f64> {
        match measure {
            Measure::Loss => row.loss,
            Measure::LossOod => row.loss_ood,
            Measure::LossAt(against, place) => row.loss_at(*against, *place),
            Measure::OodAt(against, place) => row.ood_at(*against, *place),
            Measure::Until(against, target) => {
                let loss = match target {
                    Target::Loss(loss) => *loss,
                    // As its own curve has it: that is rounded, and ends there.
                    Target::FinalOf(variant) => self.row(variant, row.seed)?.curve.last()?.4,
                    Target::Of(variant, against, place) => self.row(variant, row.seed)?.loss_at(*against, *place)?,
                };
                row.reaches(*against, loss)
            }
            Measure::BytesUp => Some(row.bytes_up as f64),
            Measure::BytesDown => Some(row.bytes_down as f64),
            Measure::Bytes => Some((row.bytes_up + row.bytes_down) as f64),
            Measure::FewerThanDataParallel { parameters, tokens_per_step } => {
                let gradients = 2 * row.tokens / tokens_per_step;
                Some((gradients * parameters * 2) as f64 / (row.bytes_up + row.bytes_down) as f64)
            }
            Measure::VirtualS => Some(row.virtual_s),
            Measure::Utilisation => row.utilisation,
            Measure::Tokens => Some(row.tokens as f64),
            Measure::Rounds => Some(row.rounds as f64),
            Measure::Extra(name) => row.extra.get(name).copied(),
        }
    }

    /// A column's cell.
    pub fn cell(&self, variant: &str, column: &Column) -> Cell {
        let rows: Vec<&Row> = self.variant(variant).collect();
        let mut is_floor = false;
        let mut beside = |other: &str, seed: u64| {
            let row = self.row(other, seed)?;
            self.value(row, &column.measure).or_else(|| {
                // How many times sooner than one that never gets there: more than if it did at its end.
                let Measure::Until(against, _) = column.measure else { return None };
                let end = row.curve.last().filter(|_| matches!(column.how, How::TimesLess(_)))?.at(against);
                is_floor = true;
                Some(end)
            })
        };
        let pair = |row: &&Row| {
            let own = self.value(row, &column.measure)?;
            Some((own, column.how.other().map_or(Some(1.0), |other| beside(other, row.seed))?))
        };
        let pairs: Vec<(f64, f64)> = rows.iter().filter_map(pair).collect();
        let each = |of: fn(f64, f64) -> f64| pairs.iter().map(|(own, other)| of(*own, *other)).collect::<Vec<_>>();
        let estimate = match column.how {
            How::Mean => Estimate::of(&each(|own, _| own)),
            How::Minus(_) => Estimate::of(&each(|own, other| own - other)),
            How::PercentAbove(_) => Estimate::of(&each(|own, other| 100.0 * (own / other - 1.0))),
            How::Times(_) => Estimate::of_ratios(&each(|own, other| own / other)),
            How::TimesLess(_) => Estimate::of_ratios(&each(|own, other| other / own)),
        };
        Cell { estimate: estimate.map(|e| e.map(|v| v / column.scale)), is_floor, rows: rows.len() }
    }
}

impl How {
    /// The variant compared with.
    pub fn other(&self) -> Option<&str> {
        match self {
            How::Mean => None,
            How::Minus(other) | How::PercentAbove(other) | How::Times(other) | How::TimesLess(other) => Some(other),
        }
    }
}

/// What a table has at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The figure; `None` if no row has it.
    pub estimate: Option<Estimate>,
    /// Whether it is more than that: what it is compared with never got there, at least with one seed.
    pub is_floor: bool,
    /// Rows that were run.
    pub rows: usize,
}

impl Cell {
    /// The figure, where it is one and not only a bound, and all rows have it: those that get there are not all that
    /// set out.
    pub fn exact(self) -> Option<Estimate> {
        self.estimate.filter(|e| !self.is_floor && e.n == self.rows)
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
