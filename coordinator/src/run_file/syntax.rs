//! What is no TOML at all, and what was probably meant.

use super::{Fault, RunFileError, place};

/// The text of a file: UTF-8, with or without a byte order mark.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, RunFileError> {
    let without_place = |why: &str| RunFileError { place: None, why: why.to_owned() };
    let looks_like_utf16 = bytes.starts_with(&[0xFF, 0xFE])
        || bytes.starts_with(&[0xFE, 0xFF])
        || bytes.first_chunk::<2>().is_some_and(|pair| (pair[0] == 0) != (pair[1] == 0));
    if looks_like_utf16 {
        return Err(without_place("it is UTF-16 text, not UTF-8; save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        RunFileError { place: Some(place(&before, before.len())), why: "it is not UTF-8 text; save it as UTF-8".to_owned() }
    })
}

/// One sentence about a file that is no TOML.
pub(super) fn explain(text: &str, error: &toml::de::Error) -> Fault {
    let at = error.span();
    let start = at.as_ref().map_or(0, |span| span.start.min(text.len()));
    let from = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[from..].lines().next().unwrap_or_default().trim();
    if text.trim_start().starts_with('{') {
        let why = "it is JSON, not TOML; write a line for each key: name = \"my run\", then token_budget = 2000000";
        return Fault { at, why: why.to_owned() };
    }
    let said = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
    if said.contains("duplicate key") {
        let key = at.clone().and_then(|span| text.get(span)).unwrap_or_default().trim();
        return Fault { at, why: format!("{key} is there twice; keep one of the two (duplicate key)") };
    }
    Fault { at, why: format!("it is no TOML: {}", hint(line).unwrap_or_else(|| fallback(line, &said))) }
}

fn fallback(line: &str, said: &str) -> String {
    let line: String = line.chars().take(60).collect();
    format!("`{line}` cannot be read ({said})")
}

/// What the line should have been.
fn hint(line: &str) -> Option<String> {
    if let Some(quote) = line.chars().find(|c| "“”„‟‘’«»".contains(*c)) {
        return Some(format!("{quote} is a typographic quotation mark; write \""));
    }
    let is_key = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let Some((key, value)) = line.split_once('=') else {
        let (key, value) = line.split_once(':').filter(|(key, _)| is_key(key.trim()))?;
        let value = if value.trim().is_empty() { "…" } else { value.trim() };
        let is_plain =
            value.parse::<f64>().is_ok() || value.starts_with(['"', '\'', '[', '{', '…']) || ["true", "false"].contains(&value);
        let hint = if is_plain { value.to_owned() } else { format!("\"{value}\"") };
        return Some(format!("`{line}` is written {} = {hint}", key.trim()));
    };
    let (key, value) = (key.trim(), value.trim());
    let value = value.split('#').next().unwrap_or_default().trim();
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let parts: Vec<&str> = value.split([',', '.', '\'', ' ']).collect();
    if is_key(key) && parts.len() > 1 && parts.iter().all(|part| is_number(part)) {
        return Some(format!("{key} is {value}; write {} or {}", parts.concat(), parts.join("_")));
    }
    if is_key(key) && value.is_empty() {
        return Some(format!("{key} has no value; write {key} = …"));
    }
    if is_key(key) && value.starts_with(|c: char| c.is_alphabetic()) && !value.contains(['"', '\'', '[', '{']) {
        return Some(match value {
            "True" | "False" | "TRUE" | "FALSE" => format!("{key} is {value}; write {}", value.to_lowercase()),
            "None" | "null" | "nil" => format!("{key} is {value}; leave the line out"),
            _ => format!("{key} is {value}; a text needs quotes: \"{value}\""),
        });
    }
    None
}
