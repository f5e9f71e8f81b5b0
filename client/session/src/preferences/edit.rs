//! Changing a preferences file without disturbing what else its owner wrote in it: every other byte stays.

use super::{Kind, Preference, Preferences, PreferencesError, layers, layers::Entry};
use std::ops::Range;
use toml_edit::{Array, Value};

/// One change of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edit {
    /// This key has this value.
    Put { key: String, value: String },
    /// This key has another name.
    Rename { key: String, to: String },
    /// This key has no value: its line becomes a comment.
    Drop { key: String },
}

impl Edit {
    /// Does it to entries that were read.
    pub fn apply_to(&self, entries: &mut Vec<Entry>) {
        match self {
            Edit::Put { key, value } => match entries.iter_mut().find(|e| e.key == *key) {
                Some(entry) => entry.value = value.clone(),
                None => entries.push(Entry { key: key.clone(), value: value.clone(), line: 1 }),
            },
            Edit::Rename { key, to } => entries.iter_mut().filter(|e| e.key == *key).for_each(|e| e.key = to.clone()),
            Edit::Drop { key } => entries.retain(|e| e.key != *key),
        }
    }
}

/// Does it to the text of a file.
pub(super) fn apply(file: &str, text: &str, edit: &Edit) -> Result<String, PreferencesError> {
    Ok(match edit {
        Edit::Put { key, value } => {
            let line = format!("{key} = {}", literal(key, value));
            if let Some(span) = spans(file, text, key)?.map(|s| s.value) {
                replace(text, span, &literal(key, value))
            } else if let Some(span) = commented_out(text, key) {
                replace(text, span, &line)
            } else {
                let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                format!("{text}{gap}{line}\n")
            }
        }
        Edit::Rename { key, to } => match spans(file, text, key)? {
            Some(spans) => replace(text, spans.key, to),
            None => text.into(),
        },
        Edit::Drop { key } => match spans(file, text, key)? {
            Some(spans) => {
                let lines = whole_lines(text, spans.key.start..spans.value.end);
                let hidden: Vec<_> = text[lines.clone()].lines().map(|line| format!("# {line}")).collect();
                let end = if text[lines.clone()].ends_with('\n') { "\n" } else { "" };
                replace(text, lines, &format!("{}{end}", hidden.join("\n")))
            }
            None => text.into(),
        },
    })
}

/// The text without the line of a key.
pub(super) fn without_line(file: &str, text: &str, key: &str) -> Result<String, PreferencesError> {
    Ok(match spans(file, text, key)? {
        Some(spans) => replace(text, whole_lines(text, spans.key.start..spans.value.end), ""),
        None => text.into(),
    })
}

/// A value as the file writes it.
pub(super) fn literal(key: &str, value: &str) -> String {
    let quoted = || Value::from(value).to_string();
    let Some(preference) = Preference::find(key) else { return quoted() };
    match preference.kind {
        Kind::Switch => value.into(),
        Kind::Number { .. } if value.parse::<f64>().is_ok() => value.into(),
        Kind::Choices(_) | Kind::Programs => {
            let items: Array = value.split(',').map(str::trim).filter(|i| !i.is_empty()).collect();
            Value::from(items).to_string()
        }
        Kind::Number { .. } | Kind::Choice(_) | Kind::Hours | Kind::Name | Kind::Text => quoted(),
    }
}

/// A value as the table shows it, whatever the way it was written: `yes` for a switch is `true`.
pub(super) fn canonical(preference: &Preference, value: &str) -> Result<String, PreferencesError> {
    let mut scratch = Preferences::default();
    scratch.set("nothing was changed", preference.key, value)?;
    Ok((preference.get)(&scratch))
}

struct Spans {
    key: Range<usize>,
    value: Range<usize>,
}

fn spans(file: &str, text: &str, key: &str) -> Result<Option<Spans>, PreferencesError> {
    let document = layers::parse(file, text)?;
    let spans =
        document.get_key_value(key).and_then(|(key, item)| Some(Spans { key: key.span()?, value: item.span()? }));
    Ok(spans)
}

fn replace(text: &str, span: Range<usize>, with: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(span, with);
    text
}

/// The lines that a span touches, with their ends.
fn whole_lines(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text[..span.start].rfind('\n').map_or(0, |i| i + 1);
    let end = text[span.end..].find('\n').map_or(text.len(), |i| span.end + i + 1);
    start..end
}

/// The line that shows how the key would be set, as the first file has one for each; without its end.
fn commented_out(text: &str, key: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let shown = line.trim_end_matches(['\n', '\r']);
        let is_it = || shown.strip_prefix('#')?.trim_start().strip_prefix(key)?.trim_start().strip_prefix('=');
        if is_it().is_some() {
            return Some(start..start + shown.len());
        }
        start += line.len();
    }
    None
}
