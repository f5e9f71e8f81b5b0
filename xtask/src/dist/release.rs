//! What is released: its version, its time, and for which machine.

use super::Options;
use crate::{children::Children, root};
use anyhow::{Context, Result, ensure};
use std::process::Command;

#[derive(Clone)]
pub struct Release {
    /// As cargo writes versions.
    pub version: String,
    /// Seconds since 1970 that every file and archive bears: so that the same sources give the same bytes.
    pub unix_s: u64,
    pub maintainer: String,
    /// How debs are packed: xz, but for those that nobody is handed.
    pub deb_compression: &'static str,
}

/// The workspace's version.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
/// Sets the time of everything that is made (reproducible-builds.org).
const TIME_VARIABLE: &str = "SOURCE_DATE_EPOCH";

impl Release {
    pub fn new(options: &Options, children: &Children) -> Result<Release> {
        let version = options.version.clone().unwrap_or_else(|| OWN.to_owned());
        ensure!(
            is_of(&version, OWN),
            "the programs say that they are {OWN}: a package's version is that, or that with -WORD behind it, as in \
             {OWN}-rc.1; `version` in Cargo.toml is the place to change it"
        );
        let unix_s = match std::env::var(TIME_VARIABLE) {
            Ok(said) => said.parse().with_context(|| format!("{TIME_VARIABLE} is no number of seconds: {said}"))?,
            // The last change's.
            Err(_) => {
                let mut log = Command::new("git");
                log.args(["log", "-1", "--format=%ct"]).current_dir(root()?);
                let said = children.output("git", &mut log);
                let parsed = said.ok().and_then(|said| said.trim().parse().ok());
                parsed.with_context(|| {
                    format!("no git tells the time of the last change: set {TIME_VARIABLE}, in seconds")
                })?
            }
        };
        Ok(Release { version, unix_s, maintainer: options.maintainer.clone(), deb_compression: "xz" })
    }

    /// The day, as in 2026-11-30.
    pub fn day(&self) -> String {
        let (year, month, day) = civil(self.unix_s / 86_400);
        format!("{year}-{month:02}-{day:02}")
    }

    /// To the second, in UTC (RFC 3339).
    pub fn moment(&self) -> String {
        let of_day = self.unix_s % 86_400;
        format!("{}T{:02}:{:02}:{:02}Z", self.day(), of_day / 3600, of_day / 60 % 60, of_day % 60)
    }

    /// As mail writes it (RFC 5322).
    pub fn moment_in_mail(&self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let days = self.unix_s / 86_400;
        let (year, month, day) = civil(days);
        let (of_week, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
        format!("{of_week}, {day:02} {month} {year} {} +0000", &self.moment()[11..19])
    }
}

/// Whether a version is the workspace's, or comes before it.
fn is_of(version: &str, own: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    match version.strip_prefix(own) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('-').is_some_and(|word| !word.is_empty() && word.chars().all(is_plain)),
        None => false,
    }
}

/// The date so many days after 1970-01-01 (H. Hinnant, chrono-compatible low-level date algorithms).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
impl Release {
    /// One for tests.
    pub fn of(version: &str) -> Release {
        Release {
            version: version.into(),
            unix_s: 0,
            maintainer: "Ada <ada@lab.example>".into(),
            deb_compression: "xz",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let release = |unix_s| Release { unix_s, ..Release::of("1.0.0") };
        assert_eq!(release(0).moment(), "1970-01-01T00:00:00Z");
        assert_eq!(release(951_782_399).moment(), "2000-02-28T23:59:59Z");
        assert_eq!(release(951_782_400).day(), "2000-02-29");
        assert_eq!(release(1_796_083_200).day(), "2026-12-01");
        assert_eq!(release(1_796_083_261).moment_in_mail(), "Tue, 01 Dec 2026 00:01:01 +0000");
    }

    #[test]
    fn a_version_is_that_of_the_programs() {
        assert!(is_of("0.1.0", "0.1.0") && is_of("0.1.0-rc.1", "0.1.0"));
        for wrong in ["0.2.0", "0.1.01", "0.1.0-", "0.1.0-a b", "0.1.0-$(x)", "", "0.1.0~rc1"] {
            assert!(!is_of(wrong, "0.1.0"), "{wrong}");
        }
    }
}
