//! The keys of a run file as they are explained: in the terminal by `nightjar-coordinator keys`, and in
//! docs/run-spec.md. Both are made of the one table (`shared/src/run_spec/table.rs`).

use super::meant;
use nightjar_shared::run_spec::{
    SECTIONS,
    keys::{self, Key, Kind, Section},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write};

/// Columns of a terminal.
const WIDTH: usize = 100;
/// Where an overview's explanations begin.
const COLUMN: usize = 34;

/// There is no such key or section.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no key and no section {asked}{}", hint(.near))]
pub struct UnknownKey {
    /// What was asked for.
    pub asked: String,
    /// What was probably meant.
    pub near: Option<String>,
}

fn hint(near: &Option<String>) -> String {
    near.as_ref().map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// All keys, a line or two each.
pub fn overview() -> String {
    let defaults = keys::defaults();
    let mut text = String::new();
    let needed: Vec<&str> = Section::top().needed().collect();
    let first = format!(
        "A run file is TOML: lines `key = value`, in sections. {} must be there; each other key has the default that is \
         shown. `nightjar-coordinator keys lease` explains a section, `nightjar-coordinator keys wall_s` a key.",
        needed.join(" and ")
    );
    wrapped(&mut text, &first, 0, 0);
    for section in SECTIONS {
        text.push('\n');
        wrapped(&mut text, &format!("{}{}", heading(section), section.help), 0, 0);
        for key in section.keys {
            let line = format!("  {}", written(section, key, &defaults));
            let at = line.chars().count();
            text.push_str(&line);
            if at >= COLUMN {
                text.push('\n');
            }
            let first = key.help.split_inclusive(". ").next().unwrap_or_default().trim_end();
            wrapped(&mut text, first, if at >= COLUMN { 0 } else { at }, COLUMN);
        }
    }
    text
}

/// What is asked for, in full: a section (`lease`, `[lease]`), a key (`lease.wall_s`), or all keys of a name (`wall_s`).
pub fn explained(asked: &str) -> Result<String, UnknownKey> {
    let defaults = keys::defaults();
    let name = asked.trim().trim_start_matches('[').trim_end_matches(']');
    let mut text = String::new();
    if let Some(section) = Section::find(name) {
        wrapped(&mut text, &format!("{}{}", heading(section), section.help), 0, 0);
        for key in section.keys {
            text.push('\n');
            in_full(&mut text, section, key, &defaults);
        }
        return Ok(text);
    }
    for (section, key) in keys::all().filter(|(section, key)| key.name == name || section.path(key.name) == name) {
        if !text.is_empty() {
            text.push('\n');
        }
        in_full(&mut text, section, key, &defaults);
    }
    if text.is_empty() {
        let sections = SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty());
        let last = name.rsplit('.').next().unwrap_or(name);
        let near = meant::nearest_path(last).or_else(|| meant::nearest(name, sections).map(str::to_owned));
        return Err(UnknownKey { asked: asked.to_owned(), near });
    }
    Ok(text)
}

/// docs/run-spec.md.
pub fn document() -> String {
    let defaults = keys::defaults();
    let mut text = "# The run file\n\n\
        This page is for a lab that writes a `run.toml`. It has every key: its default, what it may be, and what it does. `name` and\n\
        `token_budget` must be there; a run that sets nothing else trains a small model of bytes. What must be there in a section must be\n\
        there if the section is. In the terminal, `nightjar-coordinator keys` tells the same. This page is made from the program's own table.\n"
        .to_owned();
    for section in SECTIONS {
        let heading =
            if section.name.is_empty() { "Above all sections".to_owned() } else { format!("`[{}]`", section.name) };
        let _ = write!(
            text,
            "\n## {heading}\n\n{}\n\n| key | default | allowed | what it does |\n|---|---|---|---|\n",
            section.help
        );
        for key in section.keys {
            let path = section.path(key.name);
            let default = match defaults.get(&path) {
                Some(value) if value.as_str() == Some("") => "empty".to_owned(),
                Some(value) => format!("`{value}`"),
                None if key.is_needed => "must be there".to_owned(),
                None => key.unset.to_owned(),
            };
            let does: Vec<String> = sentences(section, key);
            let _ = writeln!(text, "| `{}` | {default} | {} | {} |", key.name, allowed(key), does.join(" "));
        }
    }
    let may_change: Vec<String> = keys::all()
        .filter(|(_, key)| key.may_change)
        .map(|(section, key)| format!("`{}`", section.path(key.name)))
        .collect();
    let _ = write!(
        text,
        "\n## What may change in a run that has begun\n\n\
         Change the file, and send the coordinator SIGHUP or start it again. It says what has changed, and devices learn it at\n\
         their next hello. These keys may change:\n\
         {}. All others decide what the weights are, and stay.\n",
        may_change.join(", ")
    );
    text
}

/// What a section is called before its explanation.
fn heading(section: &Section) -> String {
    if section.name.is_empty() { String::new() } else { format!("[{}]  ", section.name) }
}

/// A key as a file has it that sets nothing.
fn written(section: &Section, key: &Key, defaults: &BTreeMap<String, Value>) -> String {
    match defaults.get(&section.path(key.name)) {
        Some(value) => format!("{} = {value}", key.name),
        None if key.is_needed => format!("{} = …", key.name),
        None => key.name.to_owned(),
    }
}

/// What it may be, with its unit.
fn allowed(key: &Key) -> String {
    let words = key.kind.allowed();
    // The unit follows the numbers, not what is said of them.
    match words.split_once("; ") {
        _ if key.unit.is_empty() => words,
        Some((numbers, said)) => format!("{numbers} {}; {said}", key.unit),
        None if words.contains(',') => format!("{words}; in {}", key.unit),
        None => format!("{words} {}", key.unit),
    }
}

/// All that is to be said of a key besides its default and what it may be.
fn sentences(section: &Section, key: &Key) -> Vec<String> {
    let mut said = vec![key.help.to_owned()];
    if let Kind::Word(choices) = key.kind {
        said.push(choices.iter().map(|(word, means)| format!("`{word}`: {means}.")).collect::<Vec<_>>().join(" "));
    }
    said.extend(only(section, key));
    said
}

/// Beside which choice it means something.
fn only(section: &Section, key: &Key) -> Option<String> {
    let only = key.only?;
    Some(format!("Only with {} = {}.", section.path(only.key), keys::either(only.words.iter().copied())))
}

/// Everything about a key but its default, in one paragraph.
pub(super) fn paragraph(section: &Section, key: &Key) -> String {
    let mut said = sentences(section, key);
    if !matches!(key.kind, Kind::Word(_)) {
        said.push(format!("Allowed: {}.", allowed(key)));
    }
    said.extend(key.may_change.then(|| "It may be changed in a run that has begun.".to_owned()));
    said.join(" ")
}

/// Everything about a key.
fn in_full(text: &mut String, section: &Section, key: &Key, defaults: &BTreeMap<String, Value>) {
    let default = match defaults.get(&section.path(key.name)) {
        Some(value) => format!(" = {value}"),
        None if key.is_needed && section.name.is_empty() => " = …, which must be there".to_owned(),
        None if key.is_needed => " = …, which must be there if its section is".to_owned(),
        None => format!(", not set: {}", key.unset),
    };
    let _ = writeln!(text, "{}{default}", section.path(key.name));
    wrapped(text, key.help, 0, 4);
    if let Kind::Word(choices) = key.kind {
        for (word, means) in choices {
            wrapped(text, &format!("\"{word}\": {means}"), 0, 6);
        }
    } else {
        wrapped(text, &format!("Allowed: {}.", allowed(key)), 0, 4);
    }
    if let Some(only) = only(section, key) {
        wrapped(text, &only, 0, 4);
    }
    let changes = if key.may_change { "May be changed" } else { "Cannot be changed" };
    wrapped(text, &format!("{changes} in a run that has begun."), 0, 4);
}

/// Adds words in lines that begin at `indent`; on the first, `at` columns are taken.
pub(super) fn wrapped(text: &mut String, words: &str, at: usize, indent: usize) {
    let mut column = at;
    let mut is_first = true;
    for word in words.split(' ') {
        let length = word.chars().count();
        if !is_first && column + 1 + length > WIDTH {
            text.push('\n');
            column = 0;
            is_first = true;
        }
        let gap = if is_first { indent.saturating_sub(column) } else { 1 };
        text.extend(std::iter::repeat_n(' ', gap));
        text.push_str(word);
        column += gap + length;
        is_first = false;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_one_page_of_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/run-spec.md");
        if std::env::var_os("NIGHTJAR_WRITE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == document(),
            "docs/run-spec.md is not what the table says; run this test with NIGHTJAR_WRITE_DOCS=1"
        );
    }

    #[test]
    fn every_key_is_in_the_overview_and_is_explained() {
        let overview = overview();
        assert!(overview.lines().all(|line| line.chars().count() <= WIDTH), "{overview}");
        for (section, key) in keys::all() {
            let path = section.path(key.name);
            assert!(overview.contains(&format!("\n  {}", key.name)), "{path}");
            let mut told = String::new();
            in_full(&mut told, section, key, &keys::defaults());
            assert!(told.starts_with(&path) && told.contains("in a run that has begun."), "{told}");
            assert!(told.lines().all(|line| line.chars().count() <= WIDTH), "{told}");
            assert!(explained(&path).unwrap().contains(&told), "{path}");
            assert!(explained(key.name).unwrap().contains(&told), "{path}");
            assert!(explained(&format!("[{}]", section.name)).unwrap().contains(&told), "{path}");
        }
    }

    #[test]
    fn a_key_is_told_in_full() {
        assert_eq!(
            explained("interval").unwrap(),
            "merge.interval = 4\n    The momentum moves at every so many versions.\n    Allowed: 1 to 10000 versions.\n    \
             Only with merge.rule = \"delayed_nesterov\".\n    Cannot be changed in a run that has begun.\n"
        );
        assert!(explained("lease.wall_s").unwrap().contains("Allowed: 0.1 to 1000000 seconds."));
        assert!(explained("lease.steps").unwrap().contains("1 to 100000 steps; 0 for as many as fill the wall time."));
        assert!(explained("quorum").unwrap().starts_with("merge.quorum, not set: 1 with rounds"));
        // The same name in two sections.
        assert!(explained("learning_rate").unwrap().contains("\n\nmerge.learning_rate = 1.0\n"));
    }

    #[test]
    fn a_slip_is_led_to_what_there_is() {
        let told = |asked: &str| explained(asked).unwrap_err().to_string();
        assert_eq!(told("wall"), "there is no key and no section wall; did you mean lease.wall_s?");
        assert_eq!(told("leases"), "there is no key and no section leases; did you mean lease?");
        assert_eq!(told("lease.pacin"), "there is no key and no section lease.pacin; did you mean lease.pacing?");
        assert_eq!(told("entirely_else"), "there is no key and no section entirely_else");
    }
}
