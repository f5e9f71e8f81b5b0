//! What is no TOML at all, and what was probably meant.

use super::{Fault, RunFileError, meant, place};

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
        RunFileError {
            place: Some(place(&before, before.len())),
            why: "it is not UTF-8 text; save it as UTF-8".to_owned(),
        }
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
    Fault { at, why: format!("it is no TOML: {}", hint(line).unwrap_or_else(|| fallback(line))) }
}

fn fallback(line: &str) -> String {
    let line: String = line.chars().take(60).collect();
    format!(
        "`{line}` cannot be read; a line is a section like [lease], or a key and its value like wall_s = 60 or name = \
        \"my run\""
    )
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
        let is_plain = value.parse::<f64>().is_ok()
            || value.starts_with(['"', '\'', '[', '{', '…'])
            || ["true", "false"].contains(&value);
        let hint = if is_plain { value.to_owned() } else { format!("\"{value}\"") };
        return Some(format!("`{line}` is written {} = {hint}", key.trim()));
    };
    let (key, value) = (key.trim(), value.trim());
    let value = value.split('#').next().unwrap_or_default().trim();
    if let Some(number) = number_of(value).filter(|_| is_key(key)) {
        return Some(format!("{key} is {value}; write {number}"));
    }
    if is_key(key) && value.is_empty() {
        return Some(format!("{key} has no value; write {key} = …"));
    }
    if is_key(key) && value.starts_with(|c: char| c.is_alphabetic()) && !value.contains(['"', '\'', '[', '{']) {
        return Some(match value {
            "True" | "False" | "TRUE" | "FALSE" => format!("{key} is {value}; write {}", value.to_lowercase()),
            value if meant::is_flag(key) => {
                match ["yes", "on", "y", "t", "true", "enabled"].contains(&&*value.to_lowercase()) {
                    true => format!("{key} is {value}; write true"),
                    false if ["no", "off", "n", "f", "false", "disabled"].contains(&&*value.to_lowercase()) => {
                        format!("{key} is {value}; write false")
                    }
                    false => format!("{key} is {value}; write true or false"),
                }
            }
            "None" | "null" | "nil" => format!("{key} is {value}; leave the line out"),
            _ => format!("{key} is {value}; a text needs quotes: \"{value}\""),
        });
    }
    None
}

/// How a number is to be written that a person wrote in another way: with separators, a decimal comma, a unit, a share.
fn number_of(value: &str) -> Option<String> {
    let is_digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if !value.starts_with(|c: char| c.is_ascii_digit() || ".,+-".contains(c)) || value.contains(['"', '[', '{']) {
        return None;
    }
    let parts: Vec<&str> = value.split([',', '.', '\'', ' ']).collect();
    if let [first, others @ ..] = &parts[..]
        && !others.is_empty()
        && parts.iter().all(|part| is_digits(part))
    {
        let are_thousands = first.len() <= 3 && !first.starts_with('0') && others.iter().all(|part| part.len() == 3);
        return match others {
            _ if are_thousands => Some(format!("{} or {}", parts.concat(), parts.join("_"))),
            [rest] if value.contains([',', '.']) => Some(format!("{}.{rest}", plain(first))),
            _ => None,
        };
    }
    let end = value.find(|c: char| !(c.is_ascii_digit() || ".,+-_".contains(c))).unwrap_or(value.len());
    let (digits, unit) = (value[..end].replace(',', ".").replace('_', ""), value[end..].trim());
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
    let digits = match digits.trim_start_matches('+') {
        text if text.starts_with('.') => format!("0{text}"),
        text if text.starts_with("-.") => format!("-0{}", &text[1..]),
        text if text.ends_with('.') => format!("{text}0"),
        text => text.to_owned(),
    };
    match unit.to_lowercase().as_str() {
        "" => Some(digits),
        "%" => Some(format!("{}", number / 100.0)),
        "k" | "thousand" => Some(format!("{digits}e3")),
        "m" | "mio" | "million" | "millions" => Some(format!("{digits}e6")),
        "b" | "g" | "bn" | "billion" | "billions" => Some(format!("{digits}e9")),
        "t" | "trillion" => Some(format!("{digits}e12")),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(format!("{digits}, a number without a unit")),
        "min" | "mins" | "minute" | "minutes" => Some(format!("{}, in seconds and without a unit", number * 60.0)),
        "h" | "hour" | "hours" => Some(format!("{}, in seconds and without a unit", number * 3600.0)),
        "d" | "day" | "days" => Some(format!("{}, in seconds and without a unit", number * 86_400.0)),
        unit if unit.chars().all(char::is_alphabetic) && unit != "e" => {
            Some(format!("{digits}, a number without a unit"))
        }
        _ => None,
    }
}

/// Without zeros that TOML does not take.
fn plain(digits: &str) -> &str {
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() { "0" } else { trimmed }
}
