//! The layers of preferences: defaults, file, environment, flags. A later one beats an earlier, and where each value is
//! from stays known.

use super::{PREFERENCES, Preference, Preferences, PreferencesError, VERSION, migrate};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};
use toml_edit::{Document, Item, Value};

/// Where a value is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody has said anything.
    #[default]
    Default,
    /// `prefs.toml`.
    File,
    /// A variable of the environment.
    Environment,
    /// A flag of the running program.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Source::Default => "default",
            Source::File => "file",
            Source::Environment => "environment",
            Source::CommandLine => "command line",
        })
    }
}

/// A key and its value as they stand in a file, and where.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub value: String,
    /// Lines begin with 1.
    pub line: usize,
}

/// A value that stands on the command line or in the environment.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub key: String,
    pub value: String,
    pub place: String,
    pub source: Source,
}

/// Preferences, and where each is from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Laid {
    pub preferences: Preferences,
    /// In the table's order.
    sources: Vec<Source>,
}

impl Laid {
    pub fn source(&self, key: &str) -> Source {
        PREFERENCES.iter().zip(&self.sources).find(|(p, _)| p.key == key).map_or(Source::Default, |(_, source)| *source)
    }

    fn set(&mut self, place: &str, key: &str, value: &str, source: Source) -> Result<(), PreferencesError> {
        self.preferences.set(place, key, value)?;
        if let Some(index) = PREFERENCES.iter().position(|p| p.key == key) {
            self.sources[index] = source;
        }
        Ok(())
    }
}

/// Lays a file's text and what was said elsewhere over the defaults.
pub(super) fn lay(file: &str, text: &str, said: &[Said]) -> Result<Laid, PreferencesError> {
    let mut laid = Laid { preferences: Preferences::default(), sources: vec![Source::Default; PREFERENCES.len()] };
    for entry in migrate::entries(read(file, text)?, file)? {
        laid.set(&at_line(file, entry.line), &entry.key, &entry.value, Source::File)?;
    }
    for said in said {
        laid.set(&said.place, &said.key, &said.value, said.source)?;
    }
    Ok(laid)
}

/// What the variables of the environment say: `NIGHTJAR_KEY`, where there is such a key.
pub(super) fn said_in(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Said> {
    let preference = |variable: &str| PREFERENCES.iter().find(|p| p.variable() == variable);
    let said = |(variable, value): (String, String)| {
        let preference: &Preference = preference(&variable)?;
        let place = format!("{variable} in the environment");
        Some(Said { key: preference.key.into(), value, place, source: Source::Environment })
    };
    environment.into_iter().filter_map(said).collect()
}

/// Reads the keys and values of a file, in the order of their lines.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Entry>, PreferencesError> {
    let document = parse(file, text)?;
    let mut entries = vec![];
    for (key, item) in document.iter() {
        let line = document.get_key_value(key).and_then(|(key, _)| key.span()).map_or(1, |span| line_of(text, span));
        let value = match item {
            Item::Value(value) => as_text(value),
            _ => None,
        };
        let place = || at_line(file, line);
        let value = match (value, Preference::find(key)) {
            (Some(value), _) => value,
            (None, Some(preference)) => {
                return Err(PreferencesError::bad_value(&place(), preference, item.to_string().trim()));
            }
            (None, None) => return Err(PreferencesError::unknown_key(&place(), key)),
        };
        entries.push(Entry { key: key.into(), value, line });
    }
    entries.sort_by_key(|e| e.line);
    Ok(entries)
}

pub(super) fn parse<'a>(file: &str, text: &'a str) -> Result<Document<&'a str>, PreferencesError> {
    Document::parse(text).map_err(|e| {
        let place = at_line(file, e.span().map_or(1, |span| line_of(text, span)));
        PreferencesError::NotToml { place, why: e.message().lines().collect::<Vec<_>>().join(", ") }
    })
}

pub(super) fn at_line(file: &str, line: usize) -> String {
    format!("{file}, line {line}")
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    1 + text.as_bytes().iter().take(span.start).filter(|b| **b == b'\n').count()
}

/// A value as the table reads it; `None` if it is of a sort that no preference has.
fn as_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.value().clone(),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => number.value().to_string(),
        Value::Boolean(is) => is.value().to_string(),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(String::from)).collect::<Option<Vec<_>>>()?.join(", ")
        }
        Value::Datetime(_) | Value::InlineTable(_) => return None,
    })
}

/// The version that a file's entries are written in; the first version had no such key.
pub(super) fn version_of(entries: &[Entry], file: &str) -> Result<i64, PreferencesError> {
    let Some(entry) = entries.iter().find(|e| e.key == "version") else { return Ok(1) };
    let version = entry.value.parse().ok().filter(|v| (1..=VERSION).contains(v));
    version.ok_or_else(|| PreferencesError::Version { place: at_line(file, entry.line), version: entry.value.clone() })
}
