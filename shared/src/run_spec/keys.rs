//! What a key of a run spec is: what it takes, in which unit, whether it may change, and how it is explained. The keys
//! themselves are in [`SECTIONS`], the one table: what is refused, what `nightjar-coordinator keys` tells and
//! docs/run-spec.md derive from it.

use super::{RunSpec, RunSpecError, table::SECTIONS};
use crate::range::Range;
use serde_json::Value;
use std::collections::BTreeMap;

/// A word to choose, and what it means.
pub type Choice = (&'static str, &'static str);

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number, held in 32 bits.
    Count(Range),
    /// A whole number, held in 64 bits.
    Long(Range),
    /// Any number.
    Number(Range),
    /// `true` or `false`.
    Flag,
    /// A text, of at least and at most so many bytes.
    Text(usize, usize),
    /// One of these.
    Word(&'static [Choice]),
}

/// Beside which choice a key means something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Only {
    /// The key of the same section that chooses.
    pub key: &'static str,
    /// The words that have it.
    pub words: &'static [&'static str],
    /// Whether it is refused beside other words. Else it does nothing there, and that is told.
    pub is_refused: bool,
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// Its name, without its section.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The unit of a number; empty where it has none.
    pub unit: &'static str,
    /// What holds where it is not written, if a spec then holds no value for it; else empty.
    pub unset: &'static str,
    /// What it belongs to, if it is not for every run.
    pub only: Option<Only>,
    /// Whether it must be written, in a run file or where its section is.
    pub is_needed: bool,
    /// Whether it may be changed in a run that has begun.
    pub may_change: bool,
    /// What it does, in a sentence or a few. The first is enough for an overview.
    pub help: &'static str,
}

/// A section of the run file, or the part above all sections.
#[derive(Debug)]
pub struct Section {
    /// As it stands in brackets; empty above all sections.
    pub name: &'static str,
    /// What it is about.
    pub help: &'static str,
    /// Its keys, in the order in which they are shown.
    pub keys: &'static [Key],
}

/// A key beside a choice that does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The choice that there is.
    pub there: String,
    /// Those that have it.
    pub needed: String,
    /// Whether it is refused there. Else it does nothing.
    pub is_refused: bool,
}

impl Kind {
    /// What it takes, in words.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Count(range) | Kind::Long(range) | Kind::Number(range) => range.words(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Text(least, most) => format!("a text of {least} to {most} bytes"),
            Kind::Word(choices) => either(choices.iter().map(|(word, _)| *word)),
        }
    }

    /// Refuses what it does not take.
    fn check(&self, key: &str, value: &Value) -> Result<(), RunSpecError> {
        let key = key.to_owned();
        let error = match (self, value) {
            (Kind::Count(range) | Kind::Long(range) | Kind::Number(range), value) => {
                // JSON has nothing for a number that is not finite.
                let value = value.as_f64().unwrap_or(f64::NAN);
                if range.holds(value) {
                    return Ok(());
                }
                RunSpecError::OutOfRange { key, value, allowed: self.allowed() }
            }
            (&Kind::Text(least, most), Value::String(text)) if !(least..=most).contains(&text.len()) => {
                RunSpecError::TextLength { key, bytes: text.len(), least, most }
            }
            // A description may have several lines.
            (Kind::Text(..), Value::String(text)) if text.chars().any(|c| c.is_control() && c != '\n') => {
                RunSpecError::TextControl { key }
            }
            (Kind::Word(choices), Value::String(word)) if !choices.iter().any(|(known, _)| known == word) => {
                RunSpecError::OtherWord { key, word: word.clone(), allowed: self.allowed() }
            }
            _ => return Ok(()),
        };
        Err(error)
    }
}

impl Key {
    pub(super) const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Key { name, kind, unit: "", unset: "", only: None, is_needed: false, may_change: false, help }
    }

    pub(super) const fn unit(self, unit: &'static str) -> Self {
        Key { unit, ..self }
    }

    pub(super) const fn unset(self, unset: &'static str) -> Self {
        Key { unset, ..self }
    }

    /// A setting that other words do not have.
    pub(super) const fn of(self, key: &'static str, words: &'static [&'static str]) -> Self {
        Key { only: Some(Only { key, words, is_refused: true }), ..self }
    }

    /// A setting that does nothing beside other words, and was never refused there.
    pub(super) const fn with(self, key: &'static str, words: &'static [&'static str]) -> Self {
        Key { only: Some(Only { key, words, is_refused: false }), ..self }
    }

    pub(super) const fn needed(self) -> Self {
        Key { is_needed: true, ..self }
    }

    pub(super) const fn may_change(self) -> Self {
        Key { may_change: true, ..self }
    }
}

impl Section {
    /// The part above all sections.
    pub fn top() -> &'static Section {
        &SECTIONS[0]
    }

    /// The section of this name.
    pub fn find(name: &str) -> Option<&'static Section> {
        SECTIONS.iter().find(|section| section.name == name)
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Section and key as they are told: `lease.wall_s`.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// What a key needs beside it, in words of the file, and what there is in its place; `None` where it means
    /// something.
    pub fn misplaced(&self, key: &Key, values: &BTreeMap<String, Value>) -> Option<Misplaced> {
        let only = key.only?;
        let chooses = self.path(only.key);
        // A word that is not written down is its default.
        let unset = || serde_json::from_str(self.key(only.key)?.unset).ok();
        let there = values.get(&chooses).cloned().or_else(unset)?;
        let needed = format!("{chooses} = {}", either(only.words.iter().copied()));
        let is_there = only.words.iter().any(|word| there == **word);
        (!is_there).then(|| Misplaced { there: format!("{chooses} = {there}"), needed, is_refused: only.is_refused })
    }

    /// The names of the keys that must be there.
    pub fn needed(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(|key| key.is_needed).map(|key| key.name)
    }
}

/// All keys, each with its section.
pub fn all() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

/// What there is to choose from, in words.
pub fn either<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

/// All that a spec holds, by section and key. What is left to a default that follows from other keys is not in it.
pub fn values(spec: &RunSpec) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    // It cannot fail: a spec is plain data.
    add(&mut all, "", serde_json::to_value(spec).unwrap_or_default());
    all
}

fn add(all: &mut BTreeMap<String, Value>, at: &str, value: Value) {
    match value {
        Value::Object(map) => {
            map.into_iter()
                .for_each(|(key, value)| add(all, &if at.is_empty() { key } else { format!("{at}.{key}") }, value));
        }
        value => {
            all.insert(at.to_owned(), value);
        }
    }
}

/// What a spec holds that sets nothing but what it must.
pub fn defaults() -> BTreeMap<String, Value> {
    let mut values = values(&RunSpec::new("", 0));
    for (section, key) in all().filter(|(_, key)| key.is_needed) {
        values.remove(&section.path(key.name));
    }
    values
}

/// Refuses a spec that holds what a key does not take.
pub(super) fn check(spec: &RunSpec) -> Result<(), RunSpecError> {
    let (values, defaults) = (values(spec), defaults());
    for (section, key) in all() {
        let path = section.path(key.name);
        let Some(value) = values.get(&path) else { continue };
        key.kind.check(&path, value)?;
        match section.misplaced(key, &values) {
            // Beside a rule that does not have it, a spec holds what is held where nothing is said.
            Some(Misplaced { there, needed, is_refused: true }) if defaults.get(&path) != Some(value) => {
                return Err(RunSpecError::Misplaced { key: path, value: value.to_string(), there, needed });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::update;
    use std::collections::BTreeSet;

    /// A spec in which a key holds this, beside the choice that has it; `None` where the types do not take it.
    fn with(section: &Section, key: &Key, value: &Value) -> Option<RunSpec> {
        let mut json = serde_json::to_value(RunSpec::new("x", 1000)).unwrap();
        json["operator"] = serde_json::json!({"name": "x"});
        let at = section.name.split('.').filter(|name| !name.is_empty()).fold(&mut json, |json, name| &mut json[name]);
        let chosen = key.only.map_or(value.clone(), |only| only.words[0].into());
        if section.name == "merge.staleness" {
            let of_rule = |key: &Key| key.only.is_some_and(|only| only.words.iter().any(|word| chosen == *word));
            let numbers = section.keys.iter().filter(|key| of_rule(key)).map(|key| (key.name.to_owned(), 1.into()));
            *at = Value::Object(numbers.collect());
        }
        at[key.name] = value.clone();
        if let Some(only) = key.only {
            at[only.key] = chosen;
        }
        serde_json::from_value(json).ok()
    }

    fn takes(section: &Section, key: &Key, value: impl Into<Value>) -> bool {
        with(section, key, &value.into()).is_some_and(|spec| spec.validate().is_ok())
    }

    #[test]
    fn the_table_has_what_the_types_have() {
        let paths: Vec<String> = all().map(|(section, key)| section.path(key.name)).collect();
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "a key is there twice");
        assert_eq!(Section::top().name, "");
        for ((section, key), path) in all().zip(&paths) {
            let value = match key.kind {
                Kind::Count(range) | Kind::Long(range) => (range.most.min(1e15) as u64).into(),
                Kind::Number(range) => range.most.into(),
                Kind::Flag => true.into(),
                Kind::Text(..) => "x".into(),
                // What is the default may not be written.
                Kind::Word(choices) => choices[choices.len() - 1].0.into(),
            };
            let held = values(&with(section, key, &value).unwrap_or_else(|| panic!("no type has {path}")));
            assert_eq!(held.get(path), Some(&value));
            assert!(held.keys().all(|path| paths.contains(path)), "{path}: {held:?}");
            let is_default_told = key.is_needed || !key.unset.is_empty() || defaults().contains_key(path);
            assert!(is_default_told, "{path}");
            assert!(key.help.ends_with('.') && !key.help.contains("  "), "{path}: {}", key.help);
        }
    }

    #[test]
    fn what_the_table_lists_is_taken_and_no_more() {
        for (section, key) in all() {
            let path = section.path(key.name);
            let takes = |value: Value| takes(section, key, value);
            match key.kind {
                Kind::Word(choices) => {
                    let is_read = |word: &str| with(section, key, &word.into()).is_some();
                    assert!(choices.iter().all(|(word, means)| is_read(word) && means.len() > 9), "{path}");
                    // The model's words must fit its sizes, and its sizes each other.
                    let is_taken = |word: &str| section.name == "model" || takes(word.into());
                    assert!(choices.iter().all(|(word, _)| is_taken(word)), "{path}");
                    assert!(!takes("else".into()), "{path}");
                }
                Kind::Text(least, most) => {
                    assert!(takes("x".repeat(most).into()) && !takes("x".repeat(most + 1).into()), "{path}");
                    assert_eq!(takes("".into()), least == 0, "{path}");
                    assert!(!takes("see \u{1b}[2J".into()), "{path}");
                }
                Kind::Count(range) | Kind::Long(range) => {
                    assert!(range.least.fract() == 0.0 && !takes("1".into()) && !takes(1.5.into()), "{path}");
                    assert!(!takes((-1).into()) && !takes(1e19.into()), "{path}");
                    assert!(section.name == "model" || takes((range.least as u64).into()), "{path}");
                }
                Kind::Number(range) => {
                    assert!(takes(range.most.into()) && takes(range.least.into()), "{path}");
                    assert!(!takes((range.most * 2.0).into()) && !takes((-1).into()), "{path}");
                }
                Kind::Flag => assert!(takes(false.into()) && !takes(1.into()), "{path}"),
            }
        }
    }

    #[test]
    fn updates_may_have_the_codecs_that_are_listed() {
        let Some(Kind::Word(choices)) = Section::find("publish").and_then(|s| s.key("codec")).map(|key| key.kind)
        else {
            panic!("publish.codec is a word")
        };
        let is_listed = |codec| choices.iter().any(|(word, _)| serde_json::to_value(codec).unwrap() == **word);
        for codec in crate::delta::CodecId::ALL {
            assert_eq!(is_listed(*codec), update::is_known(*codec), "{codec:?}");
        }
    }
}
