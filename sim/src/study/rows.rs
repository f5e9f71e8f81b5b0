//! A study's rows, and what its measures are in them.

use super::{
    measure::{Column, How, Measure, Target},
    row::Row,
    statistics::Estimate,
};
use std::collections::BTreeMap;

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
#[path = "rows_tests.rs"]
mod tests;
