//! Measures: what is read from a row, alone or beside the row of another variant with the same seed, and the columns
//! that show them.

use super::row::Against;

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

/// A column of a table: a measure, and how it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The heading, with its unit.
    pub heading: String,
    /// What is shown.
    pub measure: Measure,
    /// Alone or compared.
    pub how: How,
    /// Values are divided by this, as the unit asks.
    pub scale: f64,
}

impl Column {
    /// The mean over seeds.
    pub fn mean(heading: impl Into<String>, measure: Measure) -> Self {
        Column { heading: heading.into(), measure, how: How::Mean, scale: 1.0 }
    }

    /// Compared with another variant.
    pub fn compared(heading: impl Into<String>, measure: Measure, how: How) -> Self {
        Column { heading: heading.into(), measure, how, scale: 1.0 }
    }

    /// In another unit.
    pub fn per(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }
}

/// How a measure is shown. Comparisons are paired by seed.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// The mean over seeds.
    Mean,
    /// Minus the other variant's.
    Minus(String),
    /// In percent above the other variant's.
    PercentAbove(String),
    /// As a multiple of the other variant's.
    Times(String),
    /// How many times less than the other variant's it is: a speed-up, where it is a time.
    TimesLess(String),
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
