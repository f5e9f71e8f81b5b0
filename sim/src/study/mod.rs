//! The study: which variants are compared on what, run with several seeds each, and what is said of them. A study is
//! data ([`plan`]); its rows are cached by the hash of their configuration; docs/study.md is made from docs/study.json.

pub mod cache;
pub mod document;
pub mod figures;
pub mod measure;
pub mod plan;
pub mod row;
pub mod rows;
pub mod runner;
pub mod statistics;
pub mod texts;
pub mod warm;
pub mod work;

pub use measure::{Column, How, Measure, Target};
pub use row::{Against, CurvePoint, Row};
pub use rows::{Cell, Rows};
pub use statistics::Estimate;
pub use work::Work;

/// One study: a question, variants, and how the answer is shown.
#[derive(Clone, Debug, Default)]
pub struct Study {
    /// Its name on the command line and in the rows.
    pub key: &'static str,
    /// The heading.
    pub title: &'static str,
    /// What it asks, and how the answer was sought: a paragraph or two of Markdown.
    pub question: &'static str,
    /// What was learnt: Markdown, written after looking. Empty at first.
    pub reading: &'static str,
    /// What is compared.
    pub variants: Vec<Variant>,
    /// The table's columns after the variant's name.
    pub columns: Vec<Column>,
    /// The plots, in order.
    pub figures: Vec<Figure>,
    /// What must hold.
    pub goals: Vec<Goal>,
}

/// One way to do it.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its name within the study.
    pub name: String,
    /// Variants of a group make one line of a sweep, or have one colour.
    pub group: String,
    /// Where it stands in a sweep, such as the number of devices or H.
    pub x: Option<f64>,
    /// What is run.
    pub work: Work,
    /// Seeds, if not as many as all: 0 for all.
    pub seeds: u64,
}

impl Variant {
    /// A variant of no group.
    pub fn new(name: impl Into<String>, work: Work) -> Self {
        Variant { name: name.into(), group: String::new(), x: None, work, seeds: 0 }
    }

    /// Puts it at a place of a sweep's line.
    pub fn at(mut self, group: impl Into<String>, x: f64) -> Self {
        (self.group, self.x) = (group.into(), Some(x));
        self
    }
}

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// Curves of loss, one a variant, averaged over seeds.
    Curves {
        /// The title, also of the file.
        title: String,
        /// From left to right.
        against: Against,
        /// Whether equal lengths are equal ratios.
        log: bool,
        /// Names of variants; empty for all.
        variants: Vec<String>,
    },
    /// A column against the variants' `x`, a line a group.
    Sweep {
        /// The title.
        title: String,
        /// What `x` is.
        x: String,
        /// What is shown.
        column: Column,
        /// Whether equal lengths are equal ratios, from left to right and upwards.
        log: (bool, bool),
        /// A level to compare with, by name.
        level: Option<(String, f64)>,
    },
    /// A column of all variants, a bar or dot each.
    Bars {
        /// The title.
        title: String,
        /// What is shown.
        column: Column,
        /// Dots, for what has no zero nearby.
        dots: bool,
    },
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// What, in a sentence.
    pub words: String,
    /// The variant it is asked of.
    pub variant: String,
    /// The figure; its heading is the figure's name.
    pub column: Column,
    /// The bound.
    pub bound: Bound,
}

/// A goal's bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}
