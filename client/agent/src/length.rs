//! How long a pause, or "run now", lasts, in the owner's words: `45m`, `2 hours`, `until 7pm`, `tomorrow 8`. The
//! command line and the page read them here, so that both take the same.

use crate::pause::PAUSE_MAX;
use jiff::{
    ToSpan, Zoned,
    civil::{Date, Time, Weekday},
};
use std::time::Duration;

/// When a morning begins for whoever names no hour.
const MORNING: Time = Time::constant(7, 0, 0, 0);
/// Longer than any words that mean a time.
const CHARACTERS_MAX: usize = 64;
/// What is taken, for messages.
const EXAMPLES: &str =
    "write it like 45m, 2h, 1h30m or 1d, or like `until 18:00`, `until 7pm` or `until tomorrow 8:00`";

/// How long the owner's word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// So long, from now on.
    pub lasts: Duration,
    /// Whether they named its end, and not how long it is.
    pub is_until: bool,
}

/// Words that name no time to come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// They mean nothing here.
    #[error("`{0}` is no length of time; {EXAMPLES}")]
    NotUnderstood(String),
    /// A number alone.
    #[error("`{number}` of what? Write {number}m for minutes{}", other_than_minutes(.number, *.is_hour))]
    Bare {
        /// It.
        number: String,
        /// Whether it may be an hour of the day.
        is_hour: bool,
    },
    /// Nothing stands behind `until`.
    #[error("until when? {EXAMPLES}")]
    UntilWhat,
    /// What stands behind `until` is no time.
    #[error("`{0}` is no time of day; {EXAMPLES}")]
    NoTime(String),
    /// It is over.
    #[error("`{0}` is past already; {EXAMPLES}")]
    Past(String),
    /// Nobody means it.
    #[error("at most a year; without a length it lasts until `nightjar resume`")]
    TooLong,
}

/// What else a number alone may mean.
fn other_than_minutes(number: &str, is_hour: bool) -> String {
    let hours = format!("{number}h for hours");
    if is_hour { format!(", {hours}, or `until {number}:00` for a time of day") } else { format!(", or {hours}") }
}

/// Reads a length; `None`: until the owner resumes.
pub fn parse(text: &str, now: &Zoned) -> Result<Option<Length>, LengthError> {
    let said = text.trim().chars().take(CHARACTERS_MAX).collect::<String>();
    let lower = said.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let (words, is_until) = match words[..] {
        ["until" | "till" | "til", ref rest @ ..] => (rest, true),
        ["for", ref rest @ ..] => (rest, false),
        ref rest => (rest, false),
    };
    let length = match words {
        [] if !is_until && said.is_empty() => return Ok(None),
        ["i", "resume"] | ["resume" | "resumed"] | ["i", "say", "so"] if is_until => return Ok(None),
        [] if is_until => return Err(LengthError::UntilWhat),
        _ if is_until => None,
        [number] if number.bytes().all(|b| b.is_ascii_digit()) => {
            let is_hour = number.parse::<u8>().is_ok_and(|hour| hour <= 24);
            return Err(LengthError::Bare { number: (*number).into(), is_hour });
        }
        words => duration(&words.concat()),
    };
    let (names_end, is_until) = (is_until, length.is_none());
    let lasts = match length {
        Some(length) => length,
        // `pause 19:30` can only mean a time of day.
        None => match moment(words, now) {
            Some(then) if then <= *now => return Err(LengthError::Past(said)),
            Some(then) => Duration::try_from(now.duration_until(&then)).map_err(|_| LengthError::Past(said))?,
            None if names_end => return Err(LengthError::NoTime(words.join(" "))),
            None => return Err(LengthError::NotUnderstood(said)),
        },
    };
    if lasts > PAUSE_MAX { Err(LengthError::TooLong) } else { Ok(Some(Length { lasts, is_until })) }
}

/// `90s`, `2h`, `1h30`, `1.5 hours`, `half an hour`; `None` for anything else, and for no time at all.
fn duration(text: &str) -> Option<Duration> {
    let text = text.replace("halfanhour", "30m").replace(',', ".");
    let text = match text.strip_prefix("an").or_else(|| text.strip_prefix('a')) {
        Some(unit) if unit.starts_with(char::is_alphabetic) => format!("1{unit}"),
        _ => text,
    };
    let (mut seconds, mut rest, mut last) = (0.0, text.as_str(), None);
    while !rest.is_empty() {
        let (number, behind) =
            rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()));
        let (unit, behind) = behind.split_at(behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len()));
        let unit = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 7.0 * 86_400.0,
            // `1h30`.
            "" if last == Some(3600.0) && behind.is_empty() => 60.0,
            _ => return None,
        };
        // Each unit once, from the longest to the shortest.
        if number.is_empty() || last.is_some_and(|last| unit >= last) {
            return None;
        }
        seconds += number.parse::<f64>().ok()? * unit;
        (last, rest) = (Some(unit), behind);
    }
    // What is beyond a Duration's seconds is beyond a year, too.
    if seconds >= 1.0 { Some(Duration::from_secs(seconds.min(1e15) as u64)) } else { None }
}

/// The next moment that the words name.
fn moment(words: &[&str], now: &Zoned) -> Option<Zoned> {
    let words: Vec<&str> =
        words.iter().copied().filter(|word| !matches!(*word, "at" | "on" | "the" | "next" | "o'clock")).collect();
    // The day may stand before the time or behind it.
    let day = |word: &str| day(word, now.date());
    let (date, hours) = match &words[..] {
        [first, rest @ ..] if day(first).is_some() => (day(first), rest),
        [rest @ .., last] if day(last).is_some() => (day(last), rest),
        rest => (None, rest),
    };
    let time = match hours {
        [] => date.map(|_| MORNING),
        hours => time_of_day(&hours.concat()),
    }?;
    let at = |date: Date| date.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
    // `24:00` and `midnight` are the end of a day.
    let is_end = matches!(hours, ["24:00" | "24" | "24.00" | "midnight"]);
    match date {
        Some(date) if is_end => at(date.checked_add(1.day()).ok()?),
        Some(date) => at(date),
        None => at(now.date()).filter(|then| then > now).or_else(|| at(now.date().checked_add(1.day()).ok()?)),
    }
}

/// `tomorrow`, a weekday (the next one), or a date like 2026-12-01.
fn day(word: &str, today: Date) -> Option<Date> {
    let weekday = match word {
        "today" => return Some(today),
        "tomorrow" => return today.checked_add(1.day()).ok(),
        "mon" | "monday" => Weekday::Monday,
        "tue" | "tues" | "tuesday" => Weekday::Tuesday,
        "wed" | "wednesday" => Weekday::Wednesday,
        "thu" | "thurs" | "thursday" => Weekday::Thursday,
        "fri" | "friday" => Weekday::Friday,
        "sat" | "saturday" => Weekday::Saturday,
        "sun" | "sunday" => Weekday::Sunday,
        _ if word.len() == 10 => return word.parse().ok(),
        _ => return None,
    };
    today.nth_weekday(1, weekday).ok()
}

/// `7`, `7:30`, `19.30`, `19h`, `7h30`, `7pm`, `7:30 p.m.`, `noon`; without a word for the half of the day, of a clock
/// of 24 hours.
fn time_of_day(text: &str) -> Option<Time> {
    let text = match text {
        "noon" | "midday" => return Some(Time::constant(12, 0, 0, 0)),
        "midnight" => return Some(Time::midnight()),
        "morning" => return Some(MORNING),
        text => text.replace("a.m.", "am").replace("p.m.", "pm"),
    };
    let half = text.strip_suffix("am").map(|clock| (clock, 0)).or_else(|| Some((text.strip_suffix("pm")?, 12)));
    let (clock, shift) = half.map_or((text.as_str(), None), |(clock, shift)| (clock, Some(shift)));
    let (hour, minute) = clock.split_once([':', '.', 'h']).unwrap_or((clock, "00"));
    let minute = if minute.is_empty() && clock.ends_with('h') { "00" } else { minute };
    let is_number =
        |text: &str, digits: &[usize]| digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hour, &[1, 2]) || !is_number(minute, &[2]) {
        return None;
    }
    let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
    let hour = match shift {
        Some(shift) if (1..=12).contains(&hour) => hour % 12 + shift,
        Some(_) => return None,
        None if hour == 24 && minute == 0 => 0,
        None => hour,
    };
    Time::new(hour, minute, 0, 0).ok()
}

/// A length as one says it, to the minute; seconds where it is shorter.
pub fn show(length: Duration) -> String {
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

    /// A Saturday. In the night that follows, Berlin's clocks go from 2:00 to 3:00, so that the night is an hour
    /// shorter.
    fn now() -> Zoned {
        "2026-03-28T20:00:00[Europe/Berlin]".parse().unwrap()
    }

    fn minutes(text: &str) -> u64 {
        match parse(text, &now()) {
            Ok(Some(length)) => length.lasts.as_secs() / 60,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn lengths_as_people_write_them() {
        for (text, told) in [
            ("2h", 120),
            ("2H", 120),
            (" 2 h ", 120),
            ("for 2 hours", 120),
            ("1h30m", 90),
            ("1H30M", 90),
            ("1h 30", 90),
            ("1.5h", 90),
            ("1,5 h", 90),
            ("90 min", 90),
            ("90Min", 90),
            ("3600s", 60),
            ("an hour", 60),
            ("a day", 1440),
            ("half an hour", 30),
            ("1d", 1440),
            ("2 weeks", 20160),
        ] {
            assert_eq!(minutes(text), told, "{text}");
        }
        assert_eq!(parse("", &now()), Ok(None));
        assert_eq!(parse("until I resume", &now()), Ok(None));
        assert_eq!(
            (show(Duration::from_secs(90061)), show(Duration::from_secs(59))),
            ("1 d 1 h 2 min".into(), "59 s".into())
        );
    }

    #[test]
    fn times_of_day_are_the_next_ones() {
        for (text, told) in [
            ("until 23:00", 180),
            ("until 20:00", 23 * 60),
            ("until 7", 600),
            ("until 7:00", 600),
            ("until 7h", 600),
            ("until 23h", 180),
            ("until 07h30", 630),
            ("till 07.00", 600),
            ("until 7am", 600),
            ("UNTIL 7 AM", 600),
            ("7pm", 22 * 60),
            ("7 PM", 22 * 60),
            ("until 7:30 p.m.", 22 * 60 + 30),
            ("11pm", 180),
            ("12am", 240),
            ("until 12pm", 15 * 60),
            ("noon", 15 * 60),
            ("until midnight", 240),
            ("until 24:00", 240),
            ("22:30", 150),
            ("until 22.30", 150),
            ("until morning", 600),
            ("tomorrow 8", 660),
            ("until tomorrow at 8:00", 660),
            ("8am tomorrow", 660),
            ("until tomorrow", 600),
            ("until today 21:00", 60),
            ("until sunday", 600),
            ("mon 8:00", 35 * 60),
            ("until saturday 20:00", 167 * 60),
            ("until 2026-03-29 8:00", 660),
            ("until today midnight", 240),
        ] {
            assert_eq!(minutes(text), told, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_is() {
        let told = |text: &str| parse(text, &now()).unwrap_err().to_string();
        for bad in ["soon", "2x", "0s", "-1h", "h", "1h1h", "30m2h", "1h2x", "1..5h", "2h later", "at", "für immer"] {
            assert!(told(bad).contains("is no length of time; write it like 45m, 2h"), "{bad}: {}", told(bad));
        }
        assert!(told("until").starts_with("until when? write it like"), "{}", told("until"));
        assert!(told("90").contains("90m for minutes, or 90h") && !told("90").contains("90:00"), "{}", told("90"));
        assert!(told("99999999999").contains("of what?"));
        let is_until = |text| parse(text, &now()).unwrap().unwrap().is_until;
        assert!(is_until("until 7") && is_until("7pm") && !is_until("2h"));
        for bad in [
            "until 25:00",
            "until 7:60",
            "until 13pm",
            "until 0am",
            "until dusk",
            "until 25h",
            "until 7:5",
            "until 2026-02-30",
        ] {
            assert!(
                told(bad).contains("is no time of day; write it like") && told(bad).contains("until 7pm"),
                "{bad}: {}",
                told(bad)
            );
        }
        assert!(
            told("7").contains("write 7m for minutes") || told("7").contains("Write 7m for minutes"),
            "{}",
            told("7")
        );
        assert!(told("until today 19:00").contains("past already"));
        for long in ["367d", "99999999999999999999d", "until 2028-01-01"] {
            assert_eq!(parse(long, &now()), Err(LengthError::TooLong), "{long}");
        }
        assert!(told(&"9".repeat(1000)).len() < 400);
    }
}
