//! Hours of the week, as the clock on the wall shows them.

use jiff::civil::{Date, DateTime, Time, Weekday};
use std::fmt;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;
const DAY_MINUTES: u16 = 24 * 60;
/// Most hours in a schedule.
const HOURS_MAX: usize = 64;

/// Hours of the days that they begin on. Those that end before they begin go on over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hours {
    /// Bit 0 is Monday.
    days: u8,
    /// The minute of the day from which they run.
    start: u16,
    /// The minute of the day up to which they run; 1440 is midnight.
    end: u16,
}

/// The hours of the week in which something may happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Week {
    /// None: always.
    hours: Vec<Hours>,
}

impl Week {
    /// All hours of all days.
    pub fn always() -> Self {
        Week { hours: vec![] }
    }

    /// Whether these are all hours of all days, without a word.
    pub fn is_always(&self) -> bool {
        self.hours.is_empty()
    }

    /// Reads `always`, or hours such as `22:00-07:00` or `mon-fri 19:00-07:00, sat,sun 00:00-24:00`. Days hold for all
    /// hours that follow them; hours before any day are every day's.
    pub fn parse(text: &str) -> Option<Self> {
        let text = plain(text);
        if text == "always" {
            return Some(Week::always());
        }
        let mut hours = vec![];
        let (mut days, mut days_are_complete) = (EVERY_DAY, true);
        for word in text.split([',', ' ', '\t']).filter(|w| !w.is_empty()) {
            if word.starts_with(|c: char| c.is_ascii_digit()) {
                hours.push(Hours::parse(days, word)?);
                days_are_complete = true;
            } else if days_are_complete {
                (days, days_are_complete) = (days_in(word)?, false);
            } else {
                days |= days_in(word)?;
            }
        }
        (days_are_complete && !hours.is_empty() && hours.len() <= HOURS_MAX).then_some(Week { hours })
    }

    /// Whether the time on the wall is within the hours. So on the day when the clock goes back, an hour shown twice
    /// counts twice; and an hour that is never shown, when it goes forward, never comes.
    pub fn contains(&self, at: DateTime) -> bool {
        let minute = at.hour() as u16 * 60 + at.minute() as u16;
        let (today, yesterday) = (bit(at.date().weekday()), bit(at.date().weekday().previous()));
        let within = |h: &Hours| {
            if h.start < h.end {
                h.days & today != 0 && (h.start..h.end).contains(&minute)
            } else {
                h.days & today != 0 && minute >= h.start || h.days & yesterday != 0 && minute < h.end
            }
        };
        self.is_always() || self.hours.iter().any(within)
    }

    /// The times at which hours begin on a day.
    pub fn starts_on(&self, day: Date) -> impl Iterator<Item = DateTime> {
        let today = bit(day.weekday());
        let starts = self.hours.iter().filter(move |h| h.days & today != 0);
        starts
            .filter_map(move |h| Time::new((h.start / 60) as i8, (h.start % 60) as i8, 0, 0).ok())
            .map(move |t| day.to_datetime(t))
    }

    /// The times of a day at which hours end, whichever day they began on.
    pub fn ends_on(&self, day: Date) -> impl Iterator<Item = DateTime> {
        let (today, yesterday) = (bit(day.weekday()), bit(day.weekday().previous()));
        // Those that end at midnight end with the day before.
        let ends_on = move |h: &Hours| if h.end == DAY_MINUTES || h.start >= h.end { yesterday } else { today };
        let ends = self.hours.iter().filter(move |h| h.days & ends_on(h) != 0).map(|h| h.end % DAY_MINUTES);
        ends.filter_map(move |end| Time::new((end / 60) as i8, (end % 60) as i8, 0, 0).ok())
            .map(move |t| day.to_datetime(t))
    }
}

impl Hours {
    fn parse(days: u8, text: &str) -> Option<Hours> {
        let (start, end) = text.split_once('-')?;
        let (start, end) = (minute(start)?, minute(end)?);
        (start != end && start < DAY_MINUTES).then_some(Hours { days, start, end })
    }
}

/// As [`Week::parse`] reads it.
impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.is_always() {
            return f.write_str("always");
        }
        let mut before = EVERY_DAY;
        for (i, h) in self.hours.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            if h.days != before {
                write!(f, "{} ", Days(h.days))?;
            }
            before = h.days;
            write!(f, "{:02}:{:02}-{:02}:{:02}", h.start / 60, h.start % 60, h.end / 60, h.end % 60)?;
        }
        Ok(())
    }
}

struct Days(u8);

/// As few words as say it: runs of days as `mon-fri`.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let has = |day: usize| day < 7 && self.0 & 1 << day != 0;
        let mut day = 0;
        let mut separator = "";
        while day < 7 {
            if !has(day) {
                day += 1;
                continue;
            }
            let first = day;
            while has(day + 1) {
                day += 1;
            }
            match day - first {
                0 => write!(f, "{separator}{}", DAYS[first])?,
                1 => write!(f, "{separator}{},{}", DAYS[first], DAYS[day])?,
                _ => write!(f, "{separator}{}-{}", DAYS[first], DAYS[day])?,
            }
            (separator, day) = (",", day + 1);
        }
        Ok(())
    }
}

/// In small letters, with plain hyphens and nothing beside them: `22:00 – 07:00` is `22:00-07:00`.
fn plain(text: &str) -> String {
    let hyphens = ['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2212}'];
    let text = text.trim().to_lowercase().replace(hyphens, "-").replace("a.m.", "am").replace("p.m.", "pm");
    let words: Vec<&str> = text.split('-').map(str::trim).collect();
    words.join("-").replace(" am", "am").replace(" pm", "pm")
}

/// A day, or a run of days that may go over Sunday.
fn days_in(text: &str) -> Option<u8> {
    let Some((first, last)) = text.split_once('-') else { return day(text).map(|d| 1 << d) };
    let (first, last) = (day(first)?, day(last)?);
    Some((0..=(last + 7 - first) % 7).fold(0, |days, i| days | 1 << ((first + i) % 7)))
}

/// `mon`, or `monday`.
fn day(text: &str) -> Option<usize> {
    const FULL: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let text = text.to_lowercase();
    FULL.iter().position(|full| text.len() >= 3 && full.starts_with(&text))
}

fn minute(text: &str) -> Option<u16> {
    let half = text.strip_suffix("am").map(|clock| (clock, 0)).or_else(|| Some((text.strip_suffix("pm")?, 12)));
    let (hour, minute) = match half {
        Some((clock, _)) => clock.split_once([':', '.']).unwrap_or((clock, "00")),
        None => text.split_once([':', '.', 'h'])?,
    };
    let number =
        |t: &str| (matches!(t.len(), 1..=2) && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u16>().ok())?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    let hour = match half {
        Some((_, shift)) if (1..=12).contains(&hour) => hour % 12 + shift,
        Some(_) => return None,
        None => hour,
    };
    let total = hour * 60 + minute;
    (minute < 60 && total <= DAY_MINUTES).then_some(total)
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(hours: &str, at: &str) -> bool {
        Week::parse(hours).unwrap().contains(at.parse().unwrap())
    }

    /// 8 June 2026 is a Monday.
    #[test]
    fn days_and_hours_as_people_write_them() {
        let working = "mon-fri 19:00-07:00, sat,sun 00:00-24:00";
        assert!(contains(working, "2026-06-08T19:00"));
        assert!(contains(working, "2026-06-09T06:59:59"));
        assert!(!contains(working, "2026-06-09T07:00"));
        assert!(!contains(working, "2026-06-08T06:00"), "Sunday's hours end at midnight");
        assert!(contains(working, "2026-06-13T06:30") && contains(working, "2026-06-14T23:59"));
        assert!(contains("22:00-07:00", "2026-06-10T23:59") && contains("22:00-07:00", "2026-06-10T00:00"));
        assert!(contains("Friday-mon 1:00-2:00 5:00-6:00", "2026-06-08T05:30"));
        assert!(!contains("Friday-mon 1:00-2:00 5:00-6:00", "2026-06-09T05:30"));
        assert!(contains("always", "2026-06-08T12:00"));
        for night in ["22:00–07:00", "22:00 - 07:00", "22.00-07.00", "10pm-7am", "10 PM — 7 a.m.", "22h00-7h00"] {
            assert_eq!(Week::parse(night), Week::parse("22:00-07:00"), "{night}");
        }
        assert_eq!(Week::parse("Mon – Fri 7pm-7am"), Week::parse("mon-fri 19:00-07:00"));
        assert_eq!(Week::parse("12am-12pm"), Week::parse("00:00-12:00"));
    }

    #[test]
    fn what_is_no_schedule() {
        let bad = "; mon; 22:00; 13pm-14pm; 0am-1am; 22:00--23:00; 22:00-22:00; 25:00-01:00; 24:00-01:00; 10:60-11:00; \
            mo 10:00-11:00; -10:00; 10:00-11:00 mon; never; 1e1:00-2:00";
        for text in bad.split(';') {
            assert_eq!(Week::parse(text.trim()), None, "{text}");
        }
        assert_eq!(Week::parse(&"01:00-02:00,".repeat(65)), None);
    }

    #[test]
    fn it_is_shown_in_few_words() {
        let shown = |text| Week::parse(text).unwrap().to_string();
        assert_eq!(
            shown("monday,TUE,wed 7:00-8:00 20:00-1:00 sat-sun 0:00-24:00"),
            "mon-wed 07:00-08:00, 20:00-01:00, sat,sun 00:00-24:00"
        );
        assert_eq!(shown("mon-sun 22:00-07:00"), "22:00-07:00");
        assert_eq!(shown("mon 01:00-02:00, mon-sun 22:00-07:00"), "mon 01:00-02:00, mon-sun 22:00-07:00");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(hours in prop::collection::vec((1u8..=EVERY_DAY, 0u16..1440, 0u16..=1440), 0..8)) {
            let hours: Vec<_> = hours.into_iter().filter(|h| h.1 != h.2).map(|(days, start, end)| Hours { days, start, end }).collect();
            let week = Week { hours };
            prop_assert_eq!(Week::parse(&week.to_string()), Some(week));
        }

        #[test]
        fn no_text_is_too_strange(text in "[a-z0-9:, -]{0,40}") {
            if let Some(week) = Week::parse(&text) {
                prop_assert_eq!(Week::parse(&week.to_string()), Some(week));
            }
        }
    }
}
