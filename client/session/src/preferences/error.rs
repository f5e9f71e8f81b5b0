//! What can be wrong with preferences, in one line each that says where and what to do.

use super::{PREFERENCES, Preference, Source, VERSION};
use nightjar_shared::wire::limits;
use std::io;

/// Preferences that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PreferencesError {
    /// The disk refused.
    #[error("cannot read {file} ({source}); check its permissions")]
    Read {
        /// The file.
        file: String,
        /// The disk's words.
        source: io::Error,
    },
    /// The disk refused.
    #[error("cannot write {file} ({source}); check free space and permissions")]
    Write {
        /// The file.
        file: String,
        /// The disk's words.
        source: io::Error,
    },
    /// Its owner does not want it changed.
    #[error("{file} is read-only, so it stays as it is; make it writable, or change it where it is written")]
    ReadOnly {
        /// The file.
        file: String,
    },
    /// Longer than any such file is.
    #[error(
        "{file} is longer than {bytes_max} bytes, so it is not Nightjar's; remove it, and `nightjar prefs edit` writes \
        a new one"
    )]
    TooLong {
        /// The file.
        file: String,
        /// The limit.
        bytes_max: u64,
    },
    /// Not even a text.
    #[error("{place}: byte {byte} of the file is no UTF-8; write the line anew, or save the file as UTF-8")]
    NotText {
        /// File and line.
        place: String,
        /// The first byte that is none, counted from 1.
        byte: usize,
    },
    /// Not TOML.
    #[error("{place}: this is not TOML: {why}; each line is `key = value`")]
    NotToml {
        /// File and line.
        place: String,
        /// The parser's words.
        why: String,
    },
    /// Written by a later version of the program.
    #[error(
        "{place}: the format has version {version}, and this program knows up to {VERSION}; upgrade it, or set \
        `version = {VERSION}`"
    )]
    Version {
        /// File and line.
        place: String,
        /// What stands there.
        version: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no preference `{key}`; {hint}")]
    UnknownKey {
        /// File and line, the environment or the command line.
        place: String,
        /// The key.
        key: String,
        /// What might be meant.
        hint: String,
    },
    /// A value that is not allowed.
    #[error("{place}: `{key}` is `{value}`; allowed is {allowed}")]
    BadValue {
        /// File and line, the environment or the command line.
        place: String,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

impl PreferencesError {
    /// Whether a flag is to blame, and not a file or the environment.
    pub fn is_of_the_command_line(&self) -> bool {
        use PreferencesError::{BadValue, UnknownKey};
        matches!(self, UnknownKey { place, .. } | BadValue { place, .. } if *place == Source::CommandLine.to_string())
    }

    /// There is no such key; `place` says where it stands. The nearest one is named.
    pub fn unknown_key(place: &str, key: &str) -> Self {
        let nearest =
            PREFERENCES.iter().map(|p| (distance(p.key, key), p.key)).min().filter(|(distance, _)| *distance <= 3);
        let part = || PREFERENCES.iter().find(|p| key.len() >= 4 && p.key.contains(key)).map(|p| p.key);
        let hint = match nearest.map(|(_, key)| key).or_else(part) {
            Some(meant) => format!("`{meant}` may be meant"),
            None => "`nightjar prefs get` lists them".into(),
        };
        PreferencesError::UnknownKey { place: place.into(), key: limits::tame(key), hint }
    }

    pub(super) fn bad_value(place: &str, preference: &Preference, value: &str) -> Self {
        let (value, allowed) = (limits::tame(value), preference.allowed);
        PreferencesError::BadValue { place: place.into(), key: preference.key, value, allowed }
    }
}

/// How many letters must be put in, taken out or changed to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let told = |key: &str| PreferencesError::unknown_key("here", key).to_string();
        assert_eq!(told("idle_minuts"), "here: there is no preference `idle_minuts`; `idle_minutes` may be meant");
        assert!(told("threads").contains("`away_threads` may be meant"));
        assert!(told("colour").contains("`nightjar prefs get` lists them"));
    }
}
