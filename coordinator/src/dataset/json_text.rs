//! The text of one JSON record: found under a column, which may be a path, and mended where scraped data often is
//! broken.

use super::{
    notes::{Note, Notes},
    text_file::invalid_in,
};
use serde_json::Value;

/// Columns that a message names at most.
const COLUMNS_NAMED_MAX: usize = 20;
/// How deep a message looks for columns.
const COLUMN_DEPTH_MAX: usize = 4;

/// What a record has under a column.
pub enum Field {
    /// Text.
    Text(String),
    /// Null, there or on the way.
    Null,
    /// Nothing, or something else; in words.
    Missing(String),
}

/// Looks up the column of a record; an error where it is no JSON.
pub fn text_of_record(record: &[u8], column: &str, notes: &mut Notes) -> Result<Field, String> {
    let no_json = |e| format!("no JSON ({e}): correct or remove it");
    let value: Value = match serde_json::from_slice(record) {
        Ok(value) => value,
        Err(error) => {
            let text = String::from_utf8_lossy(record);
            let (mended, lone) = without_lone_surrogates(text.as_bytes());
            if lone == 0 && matches!(text, std::borrow::Cow::Borrowed(_)) {
                return Err(no_json(error));
            }
            let value = serde_json::from_slice(&mended).map_err(no_json)?;
            notes.count(Note::LoneSurrogate, lone);
            notes.count(Note::InvalidUtf8, invalid_in(record));
            value
        }
    };
    Ok(match value {
        Value::String(text) => Field::Text(text),
        Value::Null => Field::Null,
        value => match under(&value, column) {
            Some(Value::String(text)) => Field::Text(text.clone()),
            Some(Value::Null) => Field::Null,
            found => {
                let mut columns = vec![];
                name_columns(&value, "", 0, &mut columns);
                let what = if found.is_some() { "what is there is no text" } else { "no text" };
                let advice = match columns.is_empty() {
                    true => "it has none under any other name".to_owned(),
                    false => format!("pass --column with one of: {}", columns.join(", ")),
                };
                Field::Missing(format!("{what} under `{column}`: {advice}"))
            }
        },
    })
}

/// What stands under a column: its own name first, else its dots as steps into objects. A null ends the way.
fn under<'a>(value: &'a Value, column: &str) -> Option<&'a Value> {
    if value.is_null() {
        return Some(value);
    }
    let object = value.as_object()?;
    object.get(column).or_else(|| {
        let steps = column.match_indices('.');
        steps.filter_map(|(at, _)| under(object.get(&column[..at])?, &column[at + 1..])).next()
    })
}

fn name_columns(value: &Value, before: &str, depth: usize, columns: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        if columns.len() == COLUMNS_NAMED_MAX {
            return;
        }
        match value {
            Value::String(_) => columns.push(format!("{before}{key}")),
            Value::Object(_) if depth + 1 < COLUMN_DEPTH_MAX => {
                name_columns(value, &format!("{before}{key}."), depth + 1, columns);
            }
            _ => {}
        }
    }
}

/// JSON in which escapes of half a character stand for U+FFFD, and how many did.
fn without_lone_surrogates(json: &[u8]) -> (Vec<u8>, u64) {
    let escape_at = |at: usize| -> Option<u16> {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut mended, mut lone, mut at) = (Vec::with_capacity(json.len()), 0, 0);
    while at < json.len() {
        let length = match (json[at], escape_at(at)) {
            (b'\\', Some(0xD800..0xDC00)) if matches!(escape_at(at + 6), Some(0xDC00..0xE000)) => 12,
            (b'\\', Some(0xD800..0xE000)) => {
                mended.extend_from_slice(b"\\ufffd");
                lone += 1;
                at += 6;
                continue;
            }
            (b'\\', Some(_)) => 6,
            (b'\\', None) => 2,
            _ => 1,
        };
        let end = (at + length).min(json.len());
        mended.extend_from_slice(&json[at..end]);
        at = end;
    }
    (mended, lone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &str, column: &str) -> String {
        match text_of_record(record.as_bytes(), column, &mut Notes::default()).unwrap() {
            Field::Text(text) => text,
            Field::Null => "NULL".into(),
            Field::Missing(reason) => reason,
        }
    }

    #[test]
    fn a_column_may_be_a_path() {
        let record =
            r#"{"doc": {"text": "a", "n": 1, "more": {"body": "b"}}, "x.y": "c", "x": {"z.w": "d"}, "gone": null}"#;
        for (column, wanted) in [
            ("doc.text", "a"),
            ("doc.more.body", "b"),
            ("x.y", "c"),
            ("x.z.w", "d"),
            ("gone", "NULL"),
            ("gone.text", "NULL"),
        ] {
            assert_eq!(text(record, column), wanted, "{column}");
        }
        let wanted = "no text under `text`: pass --column with one of: doc.more.body, doc.text, x.z.w, x.y";
        assert_eq!(text(record, "text"), wanted);
        assert!(text(record, "doc.n").starts_with("what is there is no text under `doc.n`"));
        assert!(text("[1]", "text").ends_with("it has none under any other name"));
    }

    #[test]
    fn lone_halves_are_replaced_and_whole_characters_kept() {
        let mut notes = Notes::default();
        let record = r#"{"text": "a\ud83d b\ud83d\ude00 c\ude00 \\ud83d \ud83d\ud83d\ude00 \ud83d"}"#;
        let Ok(Field::Text(text)) = text_of_record(record.as_bytes(), "text", &mut notes) else { panic!("no text") };
        assert_eq!(text, "a\u{FFFD} b😀 c\u{FFFD} \\ud83d \u{FFFD}😀 \u{FFFD}");
        assert_eq!((notes.of(Note::LoneSurrogate), notes.of(Note::InvalidUtf8)), (4, 0));
        let Ok(Field::Text(text)) = text_of_record(b"{\"text\": \"caf\xe9\"}", "text", &mut notes) else {
            panic!("no text")
        };
        assert_eq!((text.as_str(), notes.of(Note::InvalidUtf8)), ("caf\u{FFFD}", 1));
        assert!(text_of_record(b"{\"text\": \"caf\\ud83d", "text", &mut notes).is_err());
        assert_eq!(notes.of(Note::LoneSurrogate), 4);
    }
}
