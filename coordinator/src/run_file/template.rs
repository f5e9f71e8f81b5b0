//! A run file as a person wants to find it: every key in its place, explained by the table, and those at their default
//! commented out.

use super::explain;
use nightjar_shared::run_spec::{
    RunSpec, SECTIONS,
    keys::{self, Section},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write};

const FIRST: &str = "The run file. A line that begins with # says nothing to the program: take the # away and change the value \
                     to set a key. `nightjar-coordinator serve --check` looks whether all of it can be used.";

/// The run file of a spec. Read again, it gives the same spec.
pub fn commented(spec: &RunSpec) -> String {
    let (values, defaults) = (keys::values(spec), keys::values(&RunSpec::new("", 0)));
    let mut text = comment(FIRST);
    for section in SECTIONS {
        text.push('\n');
        add(&mut text, section, &values, &defaults);
    }
    text
}

/// Words as lines of a comment.
pub fn comment(words: &str) -> String {
    let mut lines = String::new();
    explain::wrapped(&mut lines, words, 0, 0);
    lines.lines().fold(String::new(), |text, line| text + "# " + line + "\n")
}

fn add(text: &mut String, section: &Section, values: &BTreeMap<String, Value>, defaults: &BTreeMap<String, Value>) {
    let is_set = |name: &str| {
        let path = section.path(name);
        values.get(&path).is_some_and(|value| defaults.get(&path) != Some(value))
    };
    // A section whose keys must be there is there whole or not at all. The model is what a lab looks for first.
    let is_there =
        section.name == "model" || section.needed().next().is_none() || section.keys.iter().any(|key| is_set(key.name));
    *text += &comment(section.help);
    if !section.name.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}[{}]", if is_there { "" } else { "# " }, section.name);
    }
    for key in section.keys {
        text.push('\n');
        *text += &comment(&explain::paragraph(section, key));
        let path = section.path(key.name);
        let _ = match (values.get(&path), defaults.get(&path)) {
            (Some(value), _) if is_there && (is_set(key.name) || key.is_needed) => {
                writeln!(text, "{} = {}", key.name, written(value))
            }
            (_, Some(default)) => writeln!(text, "# {} = {}", key.name, written(default)),
            _ if !key.unset.is_empty() => writeln!(text, "# {} =    # not set: {}", key.name, key.unset),
            _ => writeln!(text, "# {} =", key.name),
        };
    }
}

/// A value as TOML has it.
fn written(value: &Value) -> String {
    match value {
        Value::String(word) => toml::Value::String(word.clone()).to_string(),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_file::parse;
    use nightjar_shared::run_spec::{MergeRule, OperatorSpec, Pacing, StalenessSpec};

    fn again(spec: &RunSpec) -> RunSpec {
        let text = commented(spec);
        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}")).spec
    }

    #[test]
    fn read_again_it_is_the_same_run() {
        let mut spec = RunSpec::new("a \"quoted\" run", 3_000_000_000);
        assert_eq!(again(&spec), spec);
        spec.description = "two\nlines".into();
        spec.operator = Some(OperatorSpec { name: "Ann".into(), contact: "ann@lab".into() });
        (spec.model.hidden_size, spec.model.vocab_size, spec.seed) = (64, 4096, 7);
        (spec.lease.pacing, spec.lease.wall_s, spec.lease.wall_s_end) = (Pacing::Free, 600.0, Some(900.0));
        spec.merge.rule = MergeRule::Nesterov { momentum: 0.8 };
        spec.merge.staleness = StalenessSpec::Hinge { grace: 2.0, slope: 0.25 };
        (spec.inner.epsilon, spec.keep.versions) = (1e-9, Some(7));
        assert_eq!(again(&spec), spec);
    }

    #[test]
    fn every_key_is_there_and_explained_and_defaults_say_nothing() {
        let text = commented(&RunSpec::new("x", 10));
        for (section, key) in keys::all() {
            let line = |prefix: &str| text.contains(&format!("\n{prefix}{} =", key.name));
            assert!(line("# ") || line(""), "{}", section.path(key.name));
            let first: String = key.help.chars().take(30).collect();
            assert!(text.contains(&format!("# {first}")), "{}: {first}", section.path(key.name));
        }
        let said: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && line.contains('=')).collect();
        assert!(said.contains(&"name = \"x\"") && said.contains(&"token_budget = 10"), "{said:?}");
        // The model is there whole: it is what a lab looks for first.
        assert_eq!(said.len(), 2 + 10, "{said:?}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }
}
