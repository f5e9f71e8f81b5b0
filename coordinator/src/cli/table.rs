//! Lists for people: one row a line, columns in line.

use super::say;
use serde_json::Value;

/// Prints rows under their heads.
pub fn print(heads: &[&str], rows: &[Vec<String>]) {
    lines(heads, rows).iter().for_each(|line| say(line));
}

fn lines(heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let all = || std::iter::once(&heads).chain(rows);
    let width = |at: usize| all().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

/// A cell of an answer: its text or number, or `-` where there is none.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Number(number) if number.is_f64() => format!("{:.0}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// A moment of an answer, in UTC, to the minute.
pub fn moment(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), utc)
}

/// Milliseconds since 1970 as a date and a time in UTC.
pub fn utc(unix_ms: u64) -> String {
    let (days, minutes) = (unix_ms / 86_400_000, unix_ms / 60_000 % 1440);
    // Days are counted in eras of 400 years that begin on the first of March (H. Hinnant, chrono-compatible algorithms).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{date:02} {:02}:{:02}", 400 * era + year + carry, minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_in_line_and_nothing_trails() {
        let rows = [vec!["night owl".to_owned(), "7".to_owned()], vec!["ü".to_owned(), String::new()]];
        assert_eq!(lines(&["name", "tokens"], &rows), ["name       tokens", "night owl  7", "ü"]);
    }

    #[test]
    fn moments_are_told_as_a_calendar_has_them() {
        let known = [
            (0, "1970-01-01 00:00"),
            (951_782_399_999, "2000-02-28 23:59"),
            (951_782_400_000, "2000-02-29 00:00"),
            (1_796_083_200_000, "2026-12-01 00:00"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ];
        for (unix_ms, told) in known {
            assert_eq!(utc(unix_ms), told);
        }
        assert_eq!((moment(&Value::Null), cell(&Value::from(12.6))), ("-".to_owned(), "13".to_owned()));
    }
}
