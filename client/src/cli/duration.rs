//! Times as people write them: `90s`, `30m`, `2h`, `1d`, `1h30m`, or `until 18:00`.

use nightjar_agent::jiff::{ToSpan, Zoned, civil::Time};
use std::time::Duration;

/// Reads words of a command line: nothing, a duration, or `until` and a time of day.
pub(super) fn from_words(words: &[String], now: &Zoned) -> Result<Option<Duration>, String> {
    match words {
        [] => Ok(None),
        [length] => parse(length).map(Some),
        [until, time] if until == "until" => until_time(time, now).map(Some),
        _ => Err(format!("`{}` is no length; write it like 45m, 2h, 1h30m or 1d, or like `until 18:00`", words.join(" "))),
    }
}

/// Reads a duration; the error says what is allowed.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it like 45m, 2h, 1h30m or 1d, or like `until 18:00`");
    let mut seconds = 0u64;
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        seconds = count.checked_mul(unit).and_then(|s| seconds.checked_add(s)).ok_or_else(wrong)?;
        number.clear();
    }
    if seconds == 0 || !number.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

/// Time until the clock next shows this.
fn until_time(text: &str, now: &Zoned) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time of day; write it like 18:00");
    let time = Time::strptime("%H:%M", text).map_err(|_| wrong())?;
    let today = now.with().time(time).build().map_err(|_| wrong())?;
    let next = if today > *now { today } else { today.checked_add(1.day()).map_err(|_| wrong())? };
    Duration::try_from(now.duration_until(&next)).map_err(|_| wrong())
}

/// A duration in the same words, to the minute; seconds where it is shorter.
pub(super) fn show(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds < 60 {
        return format!("{seconds} s");
    }
    let minutes = seconds.div_ceil(60);
    let parts = [(minutes / 1440, "d"), (minutes / 60 % 24, "h"), (minutes % 60, "min")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "2", "h", "2x", "0s", "-1h", "99999999999999999999d", "9999999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(Duration::from_secs(90061)), "1 d 1 h 2 min");
        assert_eq!(show(Duration::from_secs(59)), "59 s");
    }

    /// In the night of 28 to 29 March 2026 Berlin's clocks go from 2:00 to 3:00, so that the night is an hour shorter.
    #[test]
    fn until_a_time_of_day_today_or_tomorrow() {
        let now: Zoned = "2026-03-28T20:00:00[Europe/Berlin]".parse().unwrap();
        let until = |time: &str| from_words(&["until".into(), time.into()], &now);
        let hours = |hours: u64| Ok(Some(Duration::from_secs(hours * 3600)));
        assert_eq!(until("23:00"), hours(3));
        assert_eq!(until("20:00"), hours(23));
        assert_eq!(until("7:00"), hours(10));
        assert_eq!(from_words(&[], &now), Ok(None));
        for bad in ["25:00", "noon", "7"] {
            assert!(until(bad).unwrap_err().contains("18:00"), "{bad}");
        }
        assert!(from_words(&["to".into(), "7:00".into()], &now).is_err());
    }
}
