//! What one preference is.

use super::{PREFERENCES, Preferences};
use serde::Serialize;

/// What a preference is about: the headings of help, page and file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// When it trains.
    When,
    /// What makes it hold.
    Conditions,
    /// How much it takes while nobody uses the computer.
    Away,
    /// How much it takes while somebody does.
    InUse,
    /// How it works.
    Work,
    /// What others see of it.
    Others,
}

impl Group {
    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::When => "When it trains",
            Group::Conditions => "What makes it hold",
            Group::Away => "While nobody uses the computer",
            Group::InUse => "While somebody uses the computer",
            Group::Work => "How it works",
            Group::Others => "What others see",
        }
    }
}

/// A value to choose, and what it means.
pub type Choice = (&'static str, &'static str);

/// What a value is like: which widget the page shows for it, and how the file writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A number.
    Number {
        /// In this unit.
        unit: &'static str,
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
        /// Whether it may also be `off`.
        off: bool,
    },
    /// One of these.
    Choice(&'static [Choice]),
    /// Any of these.
    Choices(&'static [Choice]),
    /// Hours of the week.
    Hours,
    /// Names of programs.
    Programs,
    /// What people are to read, in its own capitals; or `off`.
    Name,
    /// Anything else.
    Text,
}

/// One preference.
pub struct Preference {
    /// Its key in the file.
    pub key: &'static str,
    /// Its flag: the key with hyphens.
    pub flag: &'static str,
    /// What it is about.
    pub group: Group,
    /// Its name on the page, in a few words.
    pub label: &'static str,
    /// The placeholder for its value.
    pub value_name: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// What it may be.
    pub allowed: &'static str,
    /// What its value is like.
    pub kind: Kind,
    /// Takes a value; `None` if it is not allowed.
    pub(super) set: fn(&mut Preferences, &str) -> Option<()>,
    /// Its value as text.
    pub get: fn(&Preferences) -> String,
}

impl Preference {
    /// The preference of this key.
    pub fn find(key: &str) -> Option<&'static Preference> {
        PREFERENCES.iter().find(|p| p.key == key)
    }

    /// The variable of the environment that sets it.
    pub fn variable(&self) -> String {
        format!("NIGHTJAR_{}", self.key.to_uppercase())
    }
}
