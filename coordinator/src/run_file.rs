//! `run.toml`: read, and refused with the place, the key, what is there and what may be there, in words of the file.

pub mod explain;
mod known;
mod meant;
mod notes;
mod syntax;
mod template;

pub use known::Known;
pub use notes::on_dataset;
pub use template::{comment, commented};

use nightjar_shared::{
    model_spec::ModelSpecError,
    run_spec::{
        RunSpec, RunSpecError,
        keys::{Key, Kind, Section},
    },
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, ops::Range};
use toml::de::{DeTable, DeValue};

/// Longest sentence about a fault, in characters.
const WHY_CHARS_MAX: usize = 600;

/// A run file, read.
#[derive(Debug)]
pub struct RunFile {
    /// What it says.
    pub spec: RunSpec,
    /// Settings that can be used, but hardly as they were meant.
    pub notes: Vec<String>,
}

/// A run file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub struct RunFileError {
    /// Line and column, both from 1; `None` where the fault has no place.
    pub place: Option<(usize, usize)>,
    /// The key, what is there, and what may be there.
    pub why: String,
}

impl std::fmt::Display for RunFileError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some((line, column)) => write!(out, "{line}:{column}: {}", self.why),
            None => out.write_str(&self.why),
        }
    }
}

/// Something wrong, and where its text is.
struct Fault {
    at: Option<Range<usize>>,
    why: String,
}

impl Fault {
    fn at(span: Range<usize>, why: String) -> Self {
        Fault { at: Some(span), why }
    }

    /// With the place as a person counts it. What the file holds is shown as plain text, on one line.
    fn placed(self, text: &str) -> RunFileError {
        let mut why: String =
            self.why.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).take(WHY_CHARS_MAX).collect();
        if self.why.chars().nth(WHY_CHARS_MAX).is_some() {
            why.push('…');
        }
        RunFileError { place: self.at.map(|span| place(text, span.start)), why }
    }
}

/// What is wrong with another file of TOML, in its place.
pub fn of_toml(text: &str, error: &toml::de::Error) -> RunFileError {
    let said = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
    let why = said.replace("unknown field", "there is no key").replace("missing field", "there must be a key");
    Fault { at: error.span(), why }.placed(text)
}

/// Line and column, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Reads a run file's bytes; its first fault if it has any.
pub fn parse(bytes: &[u8]) -> Result<RunFile, RunFileError> {
    parse_knowing(bytes, &Known::default())
}

/// The same, where something is known of the model: what the file leaves out is taken from there.
pub fn parse_knowing(bytes: &[u8], known: &Known) -> Result<RunFile, RunFileError> {
    parse_whole(bytes, known).map_err(|(first, _)| first)
}

/// Reads a run file's bytes; all faults that can be told apart, the first by itself. A file that is no TOML has one.
pub fn parse_whole(bytes: &[u8], known: &Known) -> Result<RunFile, (RunFileError, Vec<RunFileError>)> {
    let text = syntax::text_of(bytes).map_err(|fault| (fault, vec![]))?;
    read(text, known)
        .map_err(|(first, others)| (first.placed(text), others.into_iter().map(|fault| fault.placed(text)).collect()))
}

fn read(text: &str, known: &Known) -> Result<RunFile, (Fault, Vec<Fault>)> {
    let alone = |fault| (fault, vec![]);
    let document = DeTable::parse(text).map_err(|error| alone(syntax::explain(text, &error)))?;
    let mut reading = Reading { text, known, spans: BTreeMap::new(), faults: vec![] };
    let mut value = reading.table(Section::top(), document.get_ref());
    known.add_model(&mut value);
    let mut faults = std::mem::take(&mut reading.faults).into_iter();
    if let Some(first) = faults.next() {
        return Err((first, faults.collect()));
    }
    reading.spec(value).map_err(alone)
}

/// Goes through a file, and notes where each value is.
struct Reading<'a> {
    text: &'a str,
    known: &'a Known,
    /// Of each value, by section and key.
    spans: BTreeMap<String, Range<usize>>,
    /// What is wrong, in the order in which it was found.
    faults: Vec<Fault>,
}

impl Reading<'_> {
    /// What the values of a file mean, each of which is what its key may be by itself.
    fn spec(&self, value: Value) -> Result<RunFile, Fault> {
        // Nothing is left that the table of keys lets through and the types do not.
        let spec: RunSpec =
            serde_json::from_value(value).map_err(|error| Fault { at: None, why: error.to_string() })?;
        let about = |key: &str, why: String| Fault { at: self.span_near(key), why };
        if spec.name.trim().is_empty() {
            return Err(about("name", "name is empty; give the run a name that volunteers will see".into()));
        }
        spec.validate().map_err(|error| {
            let key = error.key().unwrap_or_default();
            // As it is written: a large number would lose its last digits.
            let written = self.spans.get(&key).map(|span| self.found(span));
            let why = match (&error, written) {
                (
                    RunSpecError::OutOfRange { allowed, .. }
                    | RunSpecError::Model(ModelSpecError::NumberOutOfRange { allowed, .. }),
                    Some(written),
                ) => format!("{key} is {written}; allowed is {allowed}"),
                _ => error.to_string(),
            };
            about(&key, why)
        })?;
        let notes = notes::on_itself(&spec, &|key| self.spans.contains_key(key));
        Ok(RunFile { spec, notes })
    }

    /// The values of a section, or of the part above all sections. What is wrong is noted, and left out.
    fn table(&mut self, section: &'static Section, table: &DeTable<'_>) -> Value {
        let mut unknown: Vec<(Range<usize>, &str, bool)> = table
            .iter()
            .map(|(key, value)| (key.span(), &**key.get_ref(), value.get_ref().is_table()))
            .filter(|(_, name, _)| section.key(name).is_none() && meant::within(section, name).is_none())
            .collect();
        unknown.sort_by_key(|(span, ..)| span.start);
        if let Some((span, _, is_table)) = unknown.first().cloned() {
            let names: Vec<&str> = unknown.iter().map(|(_, name, _)| *name).collect();
            self.faults.push(Fault::at(span, meant::unknown(section, &names, is_table)));
        }
        let mut values = Map::new();
        // In the order of the file, so that the first fault is told.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let (name, span) = (&**key.get_ref(), value.span());
            self.spans.insert(section.path(name), if span.is_empty() { key.span() } else { span.clone() });
            let value = match (meant::within(section, name), section.key(name), value.get_ref()) {
                (Some(inside), _, value) if inside.name == "merge.staleness" => self.staleness(inside, value, &span),
                (Some(inside), _, DeValue::Table(table)) => Ok(self.table(inside, table)),
                (Some(_), ..) => {
                    let found = self.found(&span);
                    let why = format!("{name} is {found}; it is a section: a line [{name}], and its keys below it");
                    Err(Fault::at(key.span(), why))
                }
                (None, Some(known), value) => self.value(section, known, &span, value),
                (None, None, _) => continue,
            };
            match value {
                Ok(value) => drop(values.insert(name.to_owned(), value)),
                Err(fault) => self.faults.push(fault),
            }
        }
        // What is written and wrong is told as that.
        let is_written = |name: &str| table.iter().any(|(key, _)| key.get_ref() == name);
        let known = self.known.of(section).filter(|(name, _)| !is_written(name));
        values.extend(known.map(|(name, value)| (name.clone(), value.clone())));
        let is_there = |name: &str| is_written(name) || values.contains_key(name);
        let missing: Vec<String> =
            section.needed().filter(|name| !is_there(name)).map(|name| section.path(name)).collect();
        if let Some((first, others)) = missing.split_first() {
            let others = if others.is_empty() { String::new() } else { format!(", {} too", others.join(", ")) };
            let needed: Vec<&str> = section.needed().collect();
            let of =
                if section.name.is_empty() { "a run file".into() } else { format!("the section [{}]", section.name) };
            let why = format!("{first} is missing{others}; {of} needs {}", needed.join(", "));
            self.faults.push(Fault { at: self.spans.get(section.name).cloned(), why });
        }
        Value::Object(values)
    }

    fn value(&self, section: &Section, key: &Key, span: &Range<usize>, value: &DeValue<'_>) -> Result<Value, Fault> {
        let allowed = key.kind.allowed();
        let wrong = |needed: String| {
            Fault::at(span.clone(), format!("{} is {}; {needed}", section.path(key.name), self.found(span)))
        };
        match (key.kind, value) {
            (Kind::Count(_) | Kind::Long(_), value) => {
                let most = if matches!(key.kind, Kind::Count(_)) { u64::from(u32::MAX) } else { u64::MAX };
                match whole(value) {
                    Some(number) if number > i128::from(most) => {
                        Err(wrong(format!("that is too large; allowed is {allowed}")))
                    }
                    Some(number) => match u64::try_from(number) {
                        Ok(number) => Ok(number.into()),
                        Err(_) => Err(wrong(format!("allowed is {allowed}"))),
                    },
                    None => Err(wrong(format!("a whole number is needed: {allowed}"))),
                }
            }
            (Kind::Number(_), value) => match number(value) {
                Some(number) if number.is_finite() => Ok(number.into()),
                Some(_) => Err(wrong(format!("a finite number is needed: {allowed}"))),
                None => Err(wrong(format!("a number is needed: {allowed}"))),
            },
            (Kind::Flag, DeValue::Boolean(flag)) => Ok((*flag).into()),
            (Kind::Flag, _) => Err(wrong("true or false is needed, without quotes".into())),
            (Kind::Text(..), DeValue::String(text)) => Ok((&**text).into()),
            (Kind::Text(..), _) => Err(wrong(format!("a text is needed, in quotes: {} = \"…\"", key.name))),
            (Kind::Word(choices), value) => {
                let words = || choices.iter().map(|(word, _)| *word);
                match value.as_str() {
                    Some(word) if words().any(|known| known == word) => Ok(word.into()),
                    word => {
                        let near = word.and_then(|word| meant::nearest(word, words()));
                        let hint = near.map_or_else(String::new, |word| format!("; did you mean \"{word}\"?"));
                        Err(wrong(format!("allowed is {allowed}{hint}")))
                    }
                }
            }
        }
    }

    /// `merge.staleness`: a rule, and the numbers that the rule has.
    fn staleness(&mut self, section: &Section, value: &DeValue<'_>, span: &Range<usize>) -> Result<Value, Fault> {
        let DeValue::Table(table) = value else {
            let why = format!("{} is {}; {}", section.name, self.found(span), meant::STALENESS);
            return Err(Fault::at(span.clone(), why));
        };
        let wrong = |why: &str| Fault::at(span.clone(), format!("{} {why}; {}", section.name, meant::STALENESS));
        let Some((_, rule)) = table.iter().find(|(key, _)| key.get_ref() == "rule") else {
            return Err(wrong("has no rule"));
        };
        let has = |key: &Key, word: &str| key.only.is_some_and(|only| only.words.contains(&word));
        let numbers: Vec<&str> = match (rule.get_ref().as_str(), section.key("rule").map(|key| key.kind)) {
            (Some(word), Some(Kind::Word(choices))) if choices.iter().any(|(known, _)| *known == word) => {
                section.keys.iter().filter(|key| has(key, word)).map(|key| key.name).collect()
            }
            _ => return Err(wrong(&format!("has the rule {}", self.found(&rule.span())))),
        };
        let mut values = Map::new();
        for (key, value) in table {
            let name = &**key.get_ref();
            let path = section.path(name);
            let found = match (name, number(value.get_ref())) {
                ("rule", _) => Value::from(rule.get_ref().as_str()),
                (name, _) if !numbers.contains(&name) => {
                    return Err(wrong(&format!("has {name}, which its rule does not")));
                }
                (_, Some(number)) if number.is_finite() => number.into(),
                _ => {
                    let why = format!("{path} is {}; a finite number is needed", self.found(&value.span()));
                    return Err(Fault::at(value.span(), why));
                }
            };
            self.spans.insert(path, value.span());
            values.insert(name.to_owned(), found);
        }
        match numbers.iter().find(|name| !values.contains_key(**name)) {
            Some(name) => Err(wrong(&format!("has no {name}"))),
            None => Ok(Value::Object(values)),
        }
    }

    /// A value as it is written, cut to what a sentence can hold.
    fn found(&self, span: &Range<usize>) -> String {
        let text = self.text.get(span.clone()).unwrap_or_default();
        let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
        if line.len() < text.trim_end().len() { format!("{line}…") } else { line }
    }

    /// Where a key is, or else its section.
    fn span_near(&self, key: &str) -> Option<Range<usize>> {
        let section = || self.spans.get(key.split('.').next()?);
        self.spans.get(key).or_else(section).cloned()
    }
}

/// A whole number, also one that is written like `2e6`.
fn whole(value: &DeValue<'_>) -> Option<i128> {
    match value {
        // Larger than any that is allowed, and so told as too large.
        DeValue::Integer(number) => Some(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX)),
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().ok()?;
            (number.is_finite() && number.trunc() == number).then_some(number as i128)
        }
        _ => None,
    }
}

/// Any number.
fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        DeValue::Integer(_) => whole(value).map(|number| number as f64),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
