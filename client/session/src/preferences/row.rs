//! The table as pages and scripts read it.

use super::{Choice, Kind, PREFERENCES, Preferences, Source};
use serde::Serialize;

/// One preference with its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its key.
    pub key: &'static str,
    /// The heading that it stands under.
    pub group: &'static str,
    /// Its name, in a few words.
    pub label: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// What it may be, in words.
    pub allowed: &'static str,
    /// Which widget suits it: `switch`, `number`, `choice`, `choices`, `hours`, `programs` or `text`.
    pub kind: &'static str,
    /// The unit of a number.
    pub unit: Option<&'static str>,
    /// The least number.
    pub min: Option<f64>,
    /// The greatest number.
    pub max: Option<f64>,
    /// Whether a number may be `off`.
    pub off: bool,
    /// What there is to choose.
    pub choices: Option<Vec<Labelled>>,
    /// Its value, as text.
    pub value: String,
    /// What it is if nobody says anything.
    pub default: String,
    /// Where its value is from.
    pub source: Source,
}

/// A value to choose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Labelled {
    /// The value.
    pub value: &'static str,
    /// What it means.
    pub label: &'static str,
}

/// All preferences, in the table's order.
pub(super) fn rows(preferences: &Preferences, source: impl Fn(&str) -> Source) -> Vec<Row> {
    let defaults = Preferences::default();
    let row = |p: &super::Preference| {
        let mut row = Row {
            key: p.key,
            group: p.group.title(),
            label: p.label,
            help: p.help,
            allowed: p.allowed,
            kind: "text",
            unit: None,
            min: None,
            max: None,
            off: false,
            choices: None,
            value: (p.get)(preferences),
            default: (p.get)(&defaults),
            source: source(p.key),
        };
        let labelled =
            |choices: &[Choice]| Some(choices.iter().map(|&(value, label)| Labelled { value, label }).collect());
        row.kind = match p.kind {
            Kind::Switch => "switch",
            Kind::Number { unit, min, max, off } => {
                (row.unit, row.min, row.max, row.off) = (Some(unit), Some(min), Some(max), off);
                "number"
            }
            Kind::Choice(choices) => {
                row.choices = labelled(choices);
                "choice"
            }
            Kind::Choices(choices) => {
                row.choices = labelled(choices);
                "choices"
            }
            Kind::Hours => "hours",
            Kind::Programs => "programs",
            Kind::Name | Kind::Text => "text",
        };
        row
    };
    PREFERENCES.iter().map(row).collect()
}
