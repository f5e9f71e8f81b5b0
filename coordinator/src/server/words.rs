//! Numbers as people read them.

use nightjar_shared::time::Wall;

/// A number with three digits and the unit of its size: `11.8 k`.
pub fn si(number: f64) -> String {
    scaled(number, &["", " k", " M", " G", " T"])
}

/// The same of bytes.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &[" B", " kB", " MB", " GB", " TB"])
}

fn scaled(number: f64, units: &[&str]) -> String {
    let mut scaled = number;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // What would be shown as 1000 is one of the next unit.
    while scaled.abs() >= 999.5 {
        let Some(larger) = units.next() else { break };
        (scaled, unit) = (scaled / 1e3, larger);
    }
    let digits = match scaled.abs() {
        size if size >= 99.95 || number.fract() == 0.0 && scaled == number => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

/// A time: `4 h 12 min`.
pub fn span(seconds: f64) -> String {
    let whole = seconds.clamp(0.0, 1e12) as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// A share: `93 %`.
pub fn share(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// How long ago something was.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        0..5 => "just now".into(),
        seconds => format!("{} ago", span(seconds as f64)),
    }
}

/// A moment in UTC, to the minute: `2026-05-04 13:07 UTC`.
pub fn stamp(wall: Wall) -> String {
    let minutes = wall.unix_ms / 60_000;
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    // Days to a date, by years that begin in March (Hinnant, "chrono-compatible low-level date algorithms").
    let days = minutes / 1440 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// So many of something: `1 device`, `3 devices`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_unit() {
        let said = [0.0, 7.0, 999.0, 999.6, 1234.0, 11_840.0, 2.68e6, 3e13, 0.5].map(si);
        assert_eq!(said, ["0", "7", "999", "1.00 k", "1.23 k", "11.8 k", "2.68 M", "30.0 T", "0.50"]);
        assert_eq!([0, 999, 46_100_000].map(bytes), ["0 B", "999 B", "46.1 MB"]);
        assert_eq!(
            [3.25, 61.0, 600.0, 15_120.0, 900_000.0].map(span),
            ["3.2 s", "61 s", "10 min", "4 h 12 min", "10 days"]
        );
        assert_eq!((share(0.934), ago(0, 3000), ago(0, 90_000)), ("93 %".into(), "just now".into(), "90 s ago".into()));
        assert_eq!((count(1, "device"), count(0, "device")), ("1 device".into(), "0 devices".into()));
    }

    #[test]
    fn moments_are_dates() {
        let at = |unix_s: u64| stamp(Wall { unix_ms: unix_s * 1000 });
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(at(1_796_044_740), "2026-11-30 13:19 UTC");
        assert_eq!(at(4_102_444_800), "2100-01-01 00:00 UTC");
    }
}
