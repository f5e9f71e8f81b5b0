//! Numbers and times in words.

use jiff::{RoundMode, Unit, Zoned, ZonedRound};
use std::time::Duration;

/// "9 minutes".
pub(super) fn duration(duration: Duration) -> String {
    let (count, unit) = match duration.as_secs() {
        s @ 0..=119 => (s, "second"),
        s @ 120..=7199 => (s / 60, "minute"),
        s @ 7200..=172_799 => (s / 3600, "hour"),
        s => (s / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Bytes in the unit that suits: "100 MiB", "1.5 GiB".
pub(super) fn bytes(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        0..GIB => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(GIB) => format!("{} GiB", bytes >> 30),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

/// A moment as one says it now: "at 18:00", "tomorrow at 07:00", "on Monday at 22:00", "on 1 December", "on 1 December
/// 2027". To the minute, rounded up, so that it is not past when it is read.
pub fn moment(at: &Zoned, now: &Zoned) -> String {
    let at = &at.round(ZonedRound::new().smallest(Unit::Minute).mode(RoundMode::Ceil)).unwrap_or_else(|_| at.clone());
    let days = at.date().since((Unit::Day, now.date())).map_or(i32::MAX, |span| span.get_days());
    let time = at.strftime("%H:%M");
    match days {
        0 => format!("at {time}"),
        1 => format!("tomorrow at {time}"),
        2..=6 => format!("on {} at {time}", at.strftime("%A")),
        _ => {
            let year = if at.year() == now.year() { String::new() } else { format!(" {}", at.year()) };
            let date = format!("on {} {}{year}", at.day(), at.strftime("%B"));
            if at.time() == jiff::civil::Time::midnight() { date } else { format!("{date} at {time}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_say_it() {
        let now: Zoned = "2026-06-10T12:00[Europe/Berlin]".parse().unwrap();
        let said = |at: &str| moment(&format!("{at}[Europe/Berlin]").parse().unwrap(), &now);
        assert_eq!(said("2026-06-10T18:00"), "at 18:00");
        assert_eq!(said("2026-06-11T00:00"), "tomorrow at 00:00");
        assert_eq!(said("2026-06-15T22:00"), "on Monday at 22:00");
        assert_eq!(said("2026-07-01T00:00"), "on 1 July");
        assert_eq!(said("2026-08-10T18:05"), "on 10 August at 18:05");
        assert_eq!(said("2027-06-10T18:05"), "on 10 June 2027 at 18:05", "it is not today");
        assert_eq!(said("2026-06-10T17:59:01"), "at 18:00", "at 17:59 it is not over");
        assert_eq!(
            (bytes(100 << 20), bytes(5 << 30), bytes(3 << 29)),
            ("100 MiB".into(), "5 GiB".into(), "1.5 GiB".into())
        );
        assert_eq!(duration(Duration::from_secs(1)), "1 second");
        assert_eq!(duration(Duration::from_secs(599)), "9 minutes");
    }
}
