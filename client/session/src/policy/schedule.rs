//! When the owner's hours begin next, or end. Hours are what the clock on the wall shows, so a day with a change of
//! that clock needs care: the answer is the first instant that is truly within the hours.

use crate::preferences::Week;
use jiff::{
    ToSpan, Zoned,
    civil::{Date, DateTime},
};

/// Hours that fall into the hour which a clock jumps over come a week later, at most this many times.
const DAYS_AHEAD: i32 = 29;

/// The first instant after `now` within the hours; `None` if none comes in four weeks. Meant for a `now` outside of
/// them.
pub(super) fn next_start(week: &Week, now: &Zoned) -> Option<Zoned> {
    next(now, |day| week.starts_on(day).collect(), |at| week.contains(at))
}

/// The first instant after `now` outside of the hours; `None` if none comes in four weeks. Meant for a `now` within
/// them.
pub fn next_end(week: &Week, now: &Zoned) -> Option<Zoned> {
    next(now, |day| week.ends_on(day).collect(), |at| !week.contains(at))
}

/// The first instant after `now` that is wanted, of a day's times and the changes of the clock.
fn next(now: &Zoned, times_of: impl Fn(Date) -> Vec<DateTime>, is_wanted: impl Fn(DateTime) -> bool) -> Option<Zoned> {
    let zone = now.time_zone();
    let is_wanted = |at: &Zoned| at > now && is_wanted(at.datetime());
    let at = |civil: DateTime| {
        // Shown twice, a time is two instants; jumped over, it is none, and both of these are beside the jump.
        let ambiguous = zone.to_ambiguous_zoned(civil);
        [ambiguous.clone().earlier(), ambiguous.later()].into_iter().flatten()
    };
    let days = (0..DAYS_AHEAD).filter_map(|days| now.date().checked_add(days.days()).ok());
    let by_hours = days.flat_map(times_of).flat_map(at);
    let last = now.checked_add((24 * DAYS_AHEAD).hours()).ok()?;
    // A change of the clock can lead into the hours.
    let changes =
        zone.following(now.timestamp()).map(|t| t.timestamp().to_zoned(zone.clone())).take_while(|at| *at < last);
    by_hours.chain(changes).filter(is_wanted).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(hours: &str, now: &str) -> String {
        let now: Zoned = now.parse().unwrap();
        next_start(&Week::parse(hours).unwrap(), &now).map_or("never".into(), |at| at.to_string())
    }

    #[test]
    fn the_hours_end() {
        let end = |hours: &str, now: &str| {
            let now: Zoned = now.parse().unwrap();
            next_end(&Week::parse(hours).unwrap(), &now).map_or("never".into(), |at| at.to_string())
        };
        assert_eq!(end("22:00-07:30", "2026-06-10T23:00[Europe/Berlin]"), "2026-06-11T07:30:00+02:00[Europe/Berlin]");
        assert_eq!(
            end("mon-fri 00:00-24:00", "2026-06-10T12:00[Europe/Berlin]"),
            "2026-06-13T00:00:00+02:00[Europe/Berlin]"
        );
        assert_eq!(end("09:00-12:00, 11:00-13:00", "2026-06-10T10:00[UTC]"), "2026-06-10T13:00:00+00:00[UTC]");
        assert_eq!(end("00:00-24:00", "2026-06-10T12:00[UTC]"), "never");
        // The clock jumps from 02:00 over the end of the hours.
        assert_eq!(end("01:00-02:30", "2026-03-29T01:59[Europe/Berlin]"), "2026-03-29T03:00:00+02:00[Europe/Berlin]");
    }

    #[test]
    fn the_next_hours() {
        assert_eq!(next("22:00-07:00", "2026-06-10T07:00[Europe/Berlin]"), "2026-06-10T22:00:00+02:00[Europe/Berlin]");
        assert_eq!(next("09:00-17:00", "2026-06-10T17:00[Europe/Berlin]"), "2026-06-11T09:00:00+02:00[Europe/Berlin]");
        assert_eq!(
            next("mon 09:00-17:00", "2026-06-10T17:00[Europe/Berlin]"),
            "2026-06-15T09:00:00+02:00[Europe/Berlin]"
        );
    }

    /// 29 March 2026: at 02:00 the clock in Berlin jumps to 03:00. Hours from 02:30 begin with the jump; hours that lie
    /// in it come a week later.
    #[test]
    fn a_start_that_the_clock_jumps_over() {
        assert_eq!(next("02:30-04:00", "2026-03-29T01:59[Europe/Berlin]"), "2026-03-29T03:00:00+02:00[Europe/Berlin]");
        assert_eq!(next("02:10-02:50", "2026-03-29T01:59[Europe/Berlin]"), "2026-03-30T02:10:00+02:00[Europe/Berlin]");
        assert_eq!(
            next("sun 02:10-02:50", "2026-03-29T01:59[Europe/Berlin]"),
            "2026-04-05T02:10:00+02:00[Europe/Berlin]"
        );
    }

    /// 25 October 2026: 02:00 to 03:00 is shown twice, and counts twice.
    #[test]
    fn an_hour_that_comes_twice() {
        assert_eq!(next("02:00-02:10", "2026-10-25T01:30[Europe/Berlin]"), "2026-10-25T02:00:00+02:00[Europe/Berlin]");
        assert_eq!(
            next("02:00-02:10", "2026-10-25T02:20+02:00[Europe/Berlin]"),
            "2026-10-25T02:00:00+01:00[Europe/Berlin]"
        );
        assert_eq!(
            next("01:30-02:10", "2026-10-25T02:20+02:00[Europe/Berlin]"),
            "2026-10-25T02:00:00+01:00[Europe/Berlin]"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Minute by minute, nothing before it is within the hours.
        #[test]
        fn it_is_the_first(
            unix_min in 29_000_000i64..31_000_000,
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]),
            hours in prop::collection::vec((0usize..7, 0u16..1440, 0u16..=1440), 1..4),
        ) {
            let days = ["mon", "tue-wed", "thu", "fri-sun", "sat", "mon-sun", "sun"];
            let hours = hours.into_iter().filter(|h| h.1 != h.2);
            let hours = hours.map(|(d, s, e)| format!("{} {:02}:{:02}-{:02}:{:02}", days[d], s / 60, s % 60, e / 60, e % 60));
            let Some(week) = Week::parse(&hours.collect::<Vec<_>>().join(", ")) else { return Ok(()) };
            let now = jiff::Timestamp::from_second(unix_min * 60).unwrap().in_tz(zone).unwrap();
            if week.contains(now.datetime()) {
                return Ok(());
            }
            let next = next_start(&week, &now).unwrap();
            prop_assert!(next > now && week.contains(next.datetime()));
            let mut at = now;
            while at < next {
                prop_assert!(!week.contains(at.datetime()), "{at} is before {next}");
                at = at.checked_add(1.minute()).unwrap();
            }
        }
    }
}
